// SPDX-License-Identifier: Apache-2.0
//
// What a snapshot says of how its pages were stored.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/manifest.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

class StatisticsTest : public testing::Test {
 protected:
  StatisticsTest()
      : directory_(OpenDirectory(AT_FDCWD, temp_.path()).value()),
        images_(EnsureDirectory(directory_.get(), "images").value()) {}

  // Of a pool that takes pages by reference.
  v1::Snapshot Statistics() {
    v1::Manifest manifest;
    manifest.mutable_snapshot()->set_mode(v1::SNAPSHOT_MODE_BY_REFERENCE);
    AddStatistics(directory_.get(), /*callback_us=*/0, &manifest);
    return manifest.snapshot();
  }

  TempDirectory temp_;
  UniqueFd directory_;
  UniqueFd images_;
};

TEST_F(StatisticsTest, SharedMemoryIsCounted) {
  WriteStats(directory_.get(), 5, 1000, 77, /*shared_memory_pages=*/16000);
  WritePageCounts(images_.get(), 70, 4, 2, 1);
  const v1::Snapshot snapshot = Statistics();
  EXPECT_EQ(snapshot.pages().by_reference(), 70u);
  EXPECT_EQ(snapshot.pages().shared(), 4u);
  EXPECT_EQ(snapshot.pages().copied(), 16002u);
  EXPECT_EQ(snapshot.pages().hole(), 1u);
  EXPECT_EQ(snapshot.mode(), v1::SNAPSHOT_MODE_BY_REFERENCE);
}

// The plugin is not offered the pages of hugetlbfs.
TEST_F(StatisticsTest, PagesThatThePluginDoesNotSeeAreCounted) {
  WriteStats(directory_.get(), 5, 1000, 77 + 512);
  WritePageCounts(images_.get(), 70, 4, 2, 1);
  EXPECT_EQ(Statistics().pages().copied(), 2u + 512u);
}

TEST_F(StatisticsTest, WithoutThePluginAllIsCopied) {
  WriteStats(directory_.get(), 5, 1000, 77, /*shared_memory_pages=*/3);
  const v1::Snapshot snapshot = Statistics();
  EXPECT_EQ(snapshot.pages().copied(), 80u);
  EXPECT_EQ(snapshot.mode(), v1::SNAPSHOT_MODE_COPIED);
}

TEST_F(StatisticsTest, ModeIsCopiedIfNoPageWasTaken) {
  WriteStats(directory_.get(), 5, 1000, 77);
  WritePageCounts(images_.get(), 0, 0, 76, 1);
  EXPECT_EQ(Statistics().mode(), v1::SNAPSHOT_MODE_COPIED);
}

TEST_F(StatisticsTest, OneSharedPageIsByReference) {
  WriteStats(directory_.get(), 5, 1000, 77);
  WritePageCounts(images_.get(), 0, 1, 76, 0);
  EXPECT_EQ(Statistics().mode(), v1::SNAPSHOT_MODE_BY_REFERENCE);
}

// CRIU's own counts may lack, for example of a CRIU that died at the kill.
TEST_F(StatisticsTest, CountsOfThePluginAloneAreKept) {
  WritePageCounts(images_.get(), 70, 4, 2, 1);
  EXPECT_EQ(Statistics().pages().copied(), 2u);
}

}  // namespace
}  // namespace daxsnap
