// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/blk_history.h"

#include <algorithm>

namespace daxsnap::crash {
namespace {

constexpr int kLives = 3;
constexpr int kOperations = 60;  // a life
constexpr uint64_t kSectors = KMEM_BLK_BLOCK_SIZE / kBlkSector;

// Each block has to be as it was when the last operation on it was done, or, if
// one goes on, as that one leaves it.
class BlkExplorer : public CrashStates {
 public:
  BlkExplorer(uint64_t seed, const ModelBlk& model)
      : CrashStates(seed), model_(model) {}

  using CrashStates::Explore;
  using CrashStates::RandomCrash;

 private:
  // The map is never zeroed, and what the system writes is never waited for.
  bool ZeroesFirst() const override { return false; }

  std::string Check(const Bytes& image) override {
    const BlkRecovery found = RecoverBlk(image);
    if (!found.why.empty()) return "not recovered: " + found.why;
    for (uint64_t block = 0; block < found.blocks.size(); block++) {
      const Block& is = found.blocks[block];
      const auto pending = model_.pending().find(block);
      const bool goes_on = pending != model_.pending().end();
      if (goes_on && is == pending->second) {
        coverage_.new_state++;
      } else if (is != model_.durable()[block]) {
        return "block " + std::to_string(block) +
               (goes_on ? " is neither old nor new" : " is not what it was");
      } else if (goes_on) {
        coverage_.old_state++;
      }
    }
    return "";
  }

  const ModelBlk& model_;
};

class History {
 public:
  History(uint64_t seed, BlkFault fault)
      : random_(seed),
        device_(kBlkPages),
        model_(&device_, seed ^ 0xb10c, fault),
        explorer_(seed ^ 0x5eed, model_) {}

  BlkHistoryResult Run() {
    model_.Format();
    device_.set_observer([this] { explorer_.Explore(device_); });
    for (int life = 0; life < kLives && violation().empty(); life++) {
      for (int i = 0; i < kOperations && violation().empty(); i++) {
        Operate();
        explorer_.Explore(device_);
      }
      if (!violation().empty()) break;
      device_.Restart(explorer_.RandomCrash(device_));
      model_.Attach();
    }
    result_.violation = violation();
    result_.coverage = explorer_.coverage();
    return result_;
  }

 private:
  const std::string& violation() const { return explorer_.violation(); }
  uint64_t Below(uint64_t n) { return random_() % n; }

  void Operate() {
    const uint64_t block = Below(kBlkBlocks);
    const uint64_t first = Below(kSectors);
    switch (Below(8)) {
      case 0: {
        const uint64_t group_end = std::min(kBlkBlocks, block / 8 * 8 + 8);
        model_.Clear(block, 1 + Below(group_end - block));
        result_.clears++;
        return;
      }
      case 1:
      case 2:
        return model_.Scribble();
      case 3:
      case 4:
        return Write(block, first, 1 + Below(kSectors - first));
      default:
        return Write(block, 0, kSectors);
    }
  }

  void Write(uint64_t block, uint64_t first, uint64_t count) {
    if (model_.Write(block, first, count)) {
      result_.writes++;
    } else {
      result_.full++;
    }
  }

  std::mt19937_64 random_;
  Device device_;
  ModelBlk model_;
  BlkExplorer explorer_;
  BlkHistoryResult result_;
};

}  // namespace

BlkHistoryResult RunBlkHistory(uint64_t seed, BlkFault fault) {
  return History(seed, fault).Run();
}

}  // namespace daxsnap::crash
