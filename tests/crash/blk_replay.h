// SPDX-License-Identifier: Apache-2.0
//
// States of a block device on which blk_writer was at work.
#ifndef DAXSNAP_TESTS_CRASH_BLK_REPLAY_H_
#define DAXSNAP_TESTS_CRASH_BLK_REPLAY_H_

#include <linux/kmem_blk_format.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/crash/replay.h"
#include "tests/vm/blk/blk_sequence.h"

namespace daxsnap::crash {

// In each state the map is whole, and each block is as the last operation left
// it that was said to be done, or as the next one will.
class BlkReplay : public Replay {
 public:
  BlkReplay(uint64_t seed, size_t keep);

 private:
  using Block = std::vector<std::byte>;

  bool OnMark(const std::string& word, uint64_t number) override;
  uint32_t type() const override { return KMEM_PERSIST_BLK; }
  std::string Allowed() const override;
  std::vector<bool> InUse() const override;
  bool ZeroesFirst() const override { return false; }
  std::string CheckState() override;

  std::string ReadLayout(kmem_blk_layout* layout) const;
  std::vector<__le64> ReadMap(const kmem_blk_layout& layout) const;
  void Begin(uint64_t number);

  uint64_t seed_ = 0;
  std::optional<blktest::Sequence> sequence_;
  uint64_t done_ = 0;
  std::vector<Block> blocks_;
  std::map<uint64_t, Block> pending_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_BLK_REPLAY_H_
