// SPDX-License-Identifier: Apache-2.0
//
// States of a kmemfs on which fs_generations was at work.
#ifndef DAXSNAP_TESTS_CRASH_FS_REPLAY_H_
#define DAXSNAP_TESTS_CRASH_FS_REPLAY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/crash/replay.h"
#include "tests/unit/format/recovery.h"
#include "tests/vm/generations.h"

namespace daxsnap::crash {

// Each state recovers as the generation that was last said to be committed, or
// as the one that is being written, whole. So it does, or not at all, after
// media has lost the root that rules. Recovering twice gives the same.
class FsReplay : public Replay {
 public:
  // At first, generation `committed` is there, or `begun`, if the power went
  // while it was written; `max_pages`: as fs_generations has it.
  FsReplay(uint64_t seed, size_t keep, uint64_t committed, uint64_t begun,
           size_t max_pages);

  // The newer root that the kernel finds is in no more than a cache, and not
  // durable before the log says so.
  void set_cached_root() { cached_root_ = true; }

 private:
  bool OnMark(const std::string& word, uint64_t number) override;
  uint32_t type() const override { return KMEM_PERSIST_FS; }
  std::string Allowed() const override;
  std::vector<bool> InUse() const override;
  bool IsMeta(const std::byte* page) const override;
  bool Special() override;
  void OnHead(uint64_t page, SparseMedia* media) const override;
  bool ZeroesFirst() const override { return true; }
  std::string CheckState() override;

  kmemfs_media Media(const SparseMedia* media) const;
  std::string CheckTree(const format::Recovery& recovery);
  std::string CheckDamaged(unsigned int ruling);
  std::string CheckAgain(const format::Recovery& first) const;
  void Begin(uint64_t generation);

  const size_t max_pages_;
  bool cached_root_ = false;
  uint64_t committed_, begun_;
  vmtest::Model committed_model_, begun_model_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_FS_REPLAY_H_
