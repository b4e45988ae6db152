// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_images.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/files.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

class CriuImagesTest : public testing::Test {
 protected:
  CriuImagesTest() : images_(OpenDirectory(AT_FDCWD, temp_.path()).value()) {}

  TempDirectory temp_;
  UniqueFd images_;
};

TEST_F(CriuImagesTest, ReadsTasksAndMappedFiles) {
  WriteImages(images_.get(), 42, "/bin/sh");
  auto set = ReadImageSet(images_.get());
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ(set->tasks.size(), 1u);
  EXPECT_EQ(set->tasks[0].pid, 42);
  EXPECT_EQ(set->tasks[0].thread_ids, std::vector<pid_t>{42});
  ASSERT_EQ(set->files.size(), 1u);
  EXPECT_EQ(set->files[0].path, "/bin/sh");
  EXPECT_TRUE(set->files[0].mapped);
  EXPECT_GT(set->files[0].size, 0u);
}

TEST_F(CriuImagesTest, MissingImageIsDataLoss) {
  EXPECT_TRUE(absl::IsDataLoss(ReadImageSet(images_.get()).status()));
  EXPECT_TRUE(absl::IsDataLoss(ReadDumpTimes(images_.get()).status()));
}

TEST_F(CriuImagesTest, EveryTruncationIsDataLossOrShorter) {
  WriteImages(images_.get(), 42, "/bin/sh");
  const std::string whole = *ReadFileAt(images_.get(), "pstree.img", 1000);
  for (size_t length = 0; length < whole.size(); ++length) {
    ASSERT_TRUE(
        ReplaceFileAt(images_.get(), "pstree.img", whole.substr(0, length))
            .ok());
    EXPECT_TRUE(absl::IsDataLoss(ReadImageSet(images_.get()).status()))
        << length;
  }
}

TEST_F(CriuImagesTest, HugeEntrySizeIsDataLoss) {
  WriteImages(images_.get(), 42, "/bin/sh");
  std::string bytes = *ReadFileAt(images_.get(), "files.img", 100000);
  bytes[8] = bytes[9] = bytes[10] = bytes[11] = '\xff';
  ASSERT_TRUE(ReplaceFileAt(images_.get(), "files.img", bytes).ok());
  EXPECT_TRUE(absl::IsDataLoss(ReadImageSet(images_.get()).status()));
}

TEST_F(CriuImagesTest, ReadsStatistics) {
  WriteStats(images_.get(), 5, 1000, 77);
  auto times = ReadDumpTimes(images_.get());
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_EQ(times->freezing_us, 5u);
  EXPECT_EQ(times->frozen_us, 1000u);
  EXPECT_EQ(times->pages_us, 42u);
  EXPECT_EQ(times->pages_written, 77u);
}

TEST_F(CriuImagesTest, PageCountsAreThereOnlyWithThePlugin) {
  EXPECT_EQ(*ReadPageCounts(images_.get()), std::nullopt);
  WritePageCounts(images_.get(), 1, 2, 3, 4);
  auto counts = ReadPageCounts(images_.get());
  ASSERT_TRUE(counts.ok() && counts->has_value());
  EXPECT_EQ((*counts)->by_reference, 1u);
  EXPECT_EQ((*counts)->shared, 2u);
  EXPECT_EQ((*counts)->copied, 3u);
  EXPECT_EQ((*counts)->hole, 4u);
  ASSERT_TRUE(ReplaceFileAt(images_.get(), "daxsnap-stats.img", "\xff").ok());
  EXPECT_FALSE(ReadPageCounts(images_.get()).ok());
}

}  // namespace
}  // namespace daxsnap
