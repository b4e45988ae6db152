// SPDX-License-Identifier: Apache-2.0
//
// A random life of a filesystem, with crashes.
#ifndef DAXSNAP_TESTS_CRASH_HISTORY_H_
#define DAXSNAP_TESTS_CRASH_HISTORY_H_

#include <cstdint>
#include <string>

#include "tests/crash/explorer.h"
#include "tests/crash/model_fs.h"

namespace daxsnap::crash {

struct HistoryResult {
  std::string violation;  // empty if there was none
  Coverage coverage;
  uint64_t commits = 0;
  uint64_t full = 0;  // commits that found no space
  uint64_t lives = 0;
};

// Some lives of one device: random operations and commits, every crash point
// of which is explored, then a random crash to go on from. Deterministic.
HistoryResult RunHistory(uint64_t seed, const Mistake& mistake,
                         uint32_t version);

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_HISTORY_H_
