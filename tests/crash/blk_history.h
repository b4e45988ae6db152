// SPDX-License-Identifier: Apache-2.0
//
// A random life of a block device, with crashes.
#ifndef DAXSNAP_TESTS_CRASH_BLK_HISTORY_H_
#define DAXSNAP_TESTS_CRASH_BLK_HISTORY_H_

#include <cstdint>
#include <string>

#include "tests/crash/crash_states.h"
#include "tests/crash/model_blk.h"

namespace daxsnap::crash {

struct BlkHistoryResult {
  std::string violation;  // empty if there was none
  Coverage coverage;
  uint64_t writes = 0;
  uint64_t full = 0;  // writes for which there was no page
  uint64_t clears = 0;
};

// Some lives of one device: random writes, discards and uses of free memory,
// each crash point of which is explored, then a random crash to go on from.
// Deterministic.
BlkHistoryResult RunBlkHistory(uint64_t seed, BlkFault fault);

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_BLK_HISTORY_H_
