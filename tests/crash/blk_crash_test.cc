// SPDX-License-Identifier: Apache-2.0
//
// A crash leaves each block of a block device old or new, and new once its
// write is done; and the model that says so sees each way to get it wrong.
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>

#include "tests/crash/blk_history.h"
#include "tests/crash/mutant.h"

namespace daxsnap::crash {
namespace {

constexpr uint64_t kHistories = 6;
// A fault must show within so many histories.
constexpr uint64_t kPatience = 4;

class BlkCrash : public testing::TestWithParam<uint64_t> {};

TEST_P(BlkCrash, LeavesEachBlockOldOrNew) {
  const BlkHistoryResult result = RunBlkHistory(GetParam(), BlkFault::kNone);
  EXPECT_EQ(result.violation, "");
  // Else nothing was tested.
  EXPECT_GT(result.writes, 60U);
  EXPECT_GT(result.clears, 10U);
  EXPECT_GT(result.coverage.states, 5000U);
  EXPECT_GT(result.coverage.exhaustive, 50U);
  EXPECT_GT(result.coverage.old_state, 1000U);
  EXPECT_GT(result.coverage.new_state, 100U);
  std::cout << result.writes << " writes, " << result.clears << " discards, "
            << result.coverage.points << " crash points ("
            << result.coverage.exhaustive << " exhaustive), "
            << result.coverage.states << " states\n";
}

INSTANTIATE_TEST_SUITE_P(Seed, BlkCrash,
                         testing::Range(uint64_t{1}, kHistories + 1));

using Mutant = MutantOf<BlkFault>;

class BlkModel : public testing::TestWithParam<Mutant> {};

TEST_P(BlkModel, SeesThatTheProtocolIsBroken) {
  ExpectSeen(RunBlkHistory, GetParam().mistake, kPatience);
}

INSTANTIATE_TEST_SUITE_P(
    Without, BlkModel,
    testing::Values(
        Mutant{"FlushOfData", BlkFault::kNoDataFlush},
        Mutant{"FlushOfWholePages", BlkFault::kOnlyFirstLineFlush},
        Mutant{"FlushOfTheEntry", BlkFault::kNoEntryFlush},
        Mutant{"FenceBeforeTheEntry", BlkFault::kNoFenceBeforeEntry},
        Mutant{"FenceAfterTheEntry", BlkFault::kNoFenceAfterEntry},
        Mutant{"FlushOfADiscard", BlkFault::kNoClearFlush},
        Mutant{"FenceOfADiscard", BlkFault::kNoClearFence},
        Mutant{"ANewPage", BlkFault::kOverwriteInPlace},
        Mutant{"WaitBeforeReuseAfterAWrite", BlkFault::kReuseBeforeStore},
        Mutant{"WaitBeforeReuseAfterADiscard", BlkFault::kReuseBeforeClear}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace daxsnap::crash
