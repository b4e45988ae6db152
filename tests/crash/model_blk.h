// SPDX-License-Identifier: Apache-2.0
//
// A block device of type BLK over a Device. The map is read and changed by the
// kernel's own code; what the driver does around it is done here, and can be
// done wrong. Free pages belong to a system that writes whatever it likes into
// them.
#ifndef DAXSNAP_TESTS_CRASH_MODEL_BLK_H_
#define DAXSNAP_TESTS_CRASH_MODEL_BLK_H_

#include <linux/kmem_blk_format.h>

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/crash/device.h"

namespace daxsnap::crash {

inline constexpr uint64_t kBlkBlocks = 12;  // two cache lines of the map
inline constexpr uint64_t kBlkPages = 22;
inline constexpr uint64_t kBlkSector = 512;

// One way each to get the protocol wrong.
enum class BlkFault {
  kNone,
  kNoDataFlush,
  kOnlyFirstLineFlush,  // of the data
  kNoEntryFlush,
  kNoFenceBeforeEntry,
  kNoFenceAfterEntry,
  kNoClearFlush,
  kNoClearFence,
  kOverwriteInPlace,
  kReuseBeforeStore,  // the old page is free before the entry is switched
  kReuseBeforeClear,
};

using Block = std::vector<std::byte>;  // of 4096 bytes

// Operations return whether there was a page for them.
class ModelBlk {
 public:
  ModelBlk(Device* device, uint64_t seed, BlkFault fault);
  ModelBlk(const ModelBlk&) = delete;
  ModelBlk& operator=(const ModelBlk&) = delete;

  // An empty device, durable.
  void Format();
  // After a restart: what the device holds is what it should hold.
  void Attach();

  // Sectors [first, first + count) of a block get new random contents.
  bool Write(uint64_t block, uint64_t first, uint64_t count);
  void Clear(uint64_t block, uint64_t count);
  // The system uses free memory.
  void Scribble();

  // What must be there after a crash: of each block the old contents, or the
  // new ones if it is in pending().
  const std::vector<Block>& durable() const { return durable_; }
  const std::map<uint64_t, Block>& pending() const { return pending_; }

 private:
  bool Without(kmem_persist_step step) const;
  void Flush(kmem_persist_step step, const void* address, size_t length);
  void Fence(kmem_persist_step step);
  void ScribbleOn(uint64_t page);
  uint64_t PageOfBlock(uint64_t block) const;
  void Done();

  Device* device_;
  std::mt19937_64 random_;
  BlkFault fault_;
  kmem_blk_media media_ = {};
  std::set<uint64_t> free_;
  std::vector<Block> durable_;
  std::map<uint64_t, Block> pending_;
};

// The blocks that a recovery finds in `image`, or why it is refused.
struct BlkRecovery {
  std::string why;
  std::vector<Block> blocks;
  std::set<uint64_t> pages;  // that hold them
};
BlkRecovery RecoverBlk(const Bytes& image);

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_MODEL_BLK_H_
