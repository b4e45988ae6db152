// SPDX-License-Identifier: Apache-2.0
//
// A crash at any moment leaves the last committed state, whole; and the model
// that says so sees each way to get it wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <tuple>

#include "tests/crash/device.h"
#include "tests/crash/history.h"
#include "tests/crash/mutant.h"

namespace daxsnap::crash {
namespace {

constexpr uint64_t kHistories = 9;
// A fault must show within so many histories.
constexpr uint64_t kPatience = 12;

TEST(Device, KeepsWhatWasFlushedAndFenced) {
  Device device(1);
  auto* words = static_cast<uint64_t*>(device.Page(0));
  words[0] = 1;
  EXPECT_EQ(device.DirtyLines().size(), 1U);
  device.Flush(words, 8);
  EXPECT_EQ(device.DirtyLines().size(), 1U) << "no fence yet";
  device.Fence();
  EXPECT_TRUE(device.DirtyLines().empty());
  EXPECT_EQ(device.media()[0], std::byte{1});
}

TEST(Device, KeepsNothingThatWasOnlyFenced) {
  Device device(1);
  auto* words = static_cast<uint64_t*>(device.Page(0));
  words[0] = 1;
  device.Fence();
  EXPECT_EQ(device.DirtyLines().size(), 1U);
  EXPECT_EQ(device.media()[0], std::byte{0});
}

TEST(Device, KeepsWhatTheLineHeldAtTheFlush) {
  Device device(1);
  auto* words = static_cast<uint64_t*>(device.Page(0));
  words[0] = 1;
  device.Flush(words, 8);
  words[0] = 2;
  device.Fence();
  EXPECT_EQ(device.media()[0], std::byte{1});
  ASSERT_EQ(device.DirtyLines().size(), 1U);
  EXPECT_EQ(device.DirtyLines()[0].cache[0], 2U);
}

TEST(Device, MayKeepWhatWasFlushedAndThenTakenBack) {
  Device device(1);
  auto* words = static_cast<uint64_t*>(device.Page(0));
  words[0] = 1;
  device.Flush(words, 8);
  words[0] = 0;
  ASSERT_EQ(device.DirtyLines().size(), 1U);
  EXPECT_EQ(device.DirtyLines()[0].flushed[0], 1U);
}

TEST(Device, FlushesWholeLinesOnly) {
  Device device(1);
  auto* words = static_cast<uint64_t*>(device.Page(0));
  words[7] = 1;
  words[8] = 1;
  words[16] = 1;
  device.Flush(&words[7], 9);
  device.Fence();
  ASSERT_EQ(device.DirtyLines().size(), 1U);
  EXPECT_EQ(device.DirtyLines()[0].index, 2U);
}

// Version of the format, and seed.
class Crash : public testing::TestWithParam<std::tuple<uint32_t, uint64_t>> {};

TEST_P(Crash, LeavesTheOldOrTheNewState) {
  const auto [version, seed] = GetParam();
  const HistoryResult result = RunHistory(seed, {}, version);
  EXPECT_EQ(result.violation, "");
  EXPECT_EQ(result.lives, 3U);
  // Else nothing was tested.
  EXPECT_GT(result.commits, 8U);
  EXPECT_GT(result.coverage.states, 3000U);
  EXPECT_GT(result.coverage.exhaustive, 20U);
  EXPECT_GT(result.coverage.old_state, 100U);
  EXPECT_GT(result.coverage.new_state, 20U);
  EXPECT_GT(result.coverage.torn_slot, 100U);
  EXPECT_GT(result.coverage.refused, 1000U);
  EXPECT_GT(result.coverage.fell_back, 10U);
  if (seed % 3 == 0) {
    EXPECT_GT(result.full, 0U) << "a small device";
  }
  RecordProperty("states", static_cast<int>(result.coverage.states));
  std::cout << result.commits << " commits (" << result.full
            << " without space), " << result.coverage.points
            << " crash points (" << result.coverage.exhaustive
            << " exhaustive), " << result.coverage.states << " states\n";
}

INSTANTIATE_TEST_SUITE_P(Seed, Crash,
                         testing::Combine(testing::Values(1U, 2U),
                                          testing::Range(uint64_t{1},
                                                         kHistories + 1)),
                         [](const auto& info) {
                           return "V" +
                                  std::to_string(std::get<0>(info.param)) +
                                  "_" + std::to_string(std::get<1>(info.param));
                         });

TEST(Crash, IsTheSameForTheSameSeed) {
  const HistoryResult first = RunHistory(7, {}, 2);
  const HistoryResult second = RunHistory(7, {}, 2);
  EXPECT_EQ(first.coverage.states, second.coverage.states);
  EXPECT_EQ(first.coverage.torn_slot, second.coverage.torn_slot);
  EXPECT_EQ(first.commits, second.commits);
}

using Mutant = MutantOf<Mistake>;

class Model : public testing::TestWithParam<Mutant> {};

TEST_P(Model, SeesThatTheProtocolIsBroken) {
  ExpectSeen(
      [](uint64_t seed, const Mistake& mistake) {
        return RunHistory(seed, mistake, 1);
      },
      GetParam().mistake, kPatience);
}

// What only version 2 has, and some of what it does in another way.
class Model2 : public testing::TestWithParam<Mutant> {};

TEST_P(Model2, SeesThatTheProtocolIsBroken) {
  ExpectSeen(
      [](uint64_t seed, const Mistake& mistake) {
        return RunHistory(seed, mistake, 2);
      },
      GetParam().mistake, kPatience);
}

INSTANTIATE_TEST_SUITE_P(
    Without, Model2,
    testing::Values(
        Mutant{"FlushOfSegments", {.fault = Fault::kNoSegmentFlush}},
        Mutant{"FlushOfNodes", {.fault = Fault::kNoNodeFlush}},
        Mutant{"FlushOfAttributes", {.fault = Fault::kNoXattrsFlush}},
        Mutant{"FlushOfChecksums", {.fault = Fault::kNoSumsFlush}},
        Mutant{"EndOfChecksums", {.fault = Fault::kStaleSums}},
        Mutant{"FlushOfData", {.fault = Fault::kNoDataFlush}},
        Mutant{"CopyOnWrite", {.fault = Fault::kOverwriteInPlace}},
        Mutant{"FlushAfterTheLastStore",
               {.fault = Fault::kFlushBeforeLastStore}},
        Mutant{"WaitBeforeReuseOfMetadata",
               {.fault = Fault::kReuseMetadataBeforeCommit}},
        Mutant{"RootLast", {.fault = Fault::kRootBeforeInodes}}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Without, Model,
    testing::Values(
        Mutant{"FlushOfData", {.fault = Fault::kNoDataFlush}},
        Mutant{"FlushOfExtents", {.fault = Fault::kNoExtentsFlush}},
        Mutant{"FlushOfInodes", {.fault = Fault::kNoInodesFlush}},
        Mutant{"FlushOfIndex", {.fault = Fault::kNoIndexFlush}},
        Mutant{"FlushOfRoot", {.fault = Fault::kNoRootFlush}},
        Mutant{"FlushOfWholePages", {.fault = Fault::kOnlyFirstLineFlush}},
        Mutant{"FlushAfterTheLastStore",
               {.fault = Fault::kFlushBeforeLastStore}},
        Mutant{"FenceBeforeRoot", {.fault = Fault::kNoFenceBeforeRoot}},
        Mutant{"FenceAfterRoot", {.fault = Fault::kNoFenceAfterRoot}},
        Mutant{"CopyOnWrite", {.fault = Fault::kOverwriteInPlace}},
        Mutant{"WaitBeforeReuseOfData",
               {.fault = Fault::kReuseDataBeforeCommit}},
        Mutant{"WaitBeforeReuseOfMetadata",
               {.fault = Fault::kReuseMetadataBeforeCommit}},
        Mutant{"TheOtherSlot", {.fault = Fault::kWriteRulingSlot}},
        Mutant{"AHigherGeneration", {.fault = Fault::kSameGeneration}},
        Mutant{"RootLast", {.fault = Fault::kRootBeforeInodes}},
        Mutant{"EndOfTheOlderRoot", {.fault = Fault::kNoRetire}},
        Mutant{"FlushOfTheOlderRootsEnd", {.fault = Fault::kNoRetireFlush}},
        Mutant{"FenceAfterTheOlderRootsEnd",
               {.fault = Fault::kNoFenceAfterRetire}},
        Mutant{"RootBeforeTheOlderOnesEnd",
               {.fault = Fault::kRetireBeforeRoot}},
        Mutant{"EndOfTheOlderRootAtMount", {.fault = Fault::kNoRetireAtMount}}),
    [](const auto& info) { return info.param.name; });

// Any single flush of a commit, the root's, a data page's or another's.
INSTANTIATE_TEST_SUITE_P(
    WithoutOne, Model,
    testing::Values(Mutant{"Flush0", {.fault = Fault::kNoNthFlush, .nth = 0}},
                    Mutant{"Flush1", {.fault = Fault::kNoNthFlush, .nth = 1}},
                    Mutant{"Flush2", {.fault = Fault::kNoNthFlush, .nth = 2}},
                    Mutant{"Flush3", {.fault = Fault::kNoNthFlush, .nth = 3}},
                    Mutant{"Flush4", {.fault = Fault::kNoNthFlush, .nth = 4}},
                    Mutant{"Flush5", {.fault = Fault::kNoNthFlush, .nth = 5}},
                    Mutant{"Flush6", {.fault = Fault::kNoNthFlush, .nth = 6}},
                    Mutant{"Flush7", {.fault = Fault::kNoNthFlush, .nth = 7}},
                    Mutant{"Flush8", {.fault = Fault::kNoNthFlush, .nth = 8}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace daxsnap::crash
