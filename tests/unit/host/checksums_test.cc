// SPDX-License-Identifier: Apache-2.0
#include "host/pool/checksums.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>
#include <string>

#include "base/unique_fd.h"

namespace daxsnap::pool {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kPage = 4096;

// A kernel that finds these pages damaged.
RangeChecker Damaged(std::set<std::uint64_t> pages) {
  return [pages](std::uint64_t offset,
                 std::uint64_t length) -> absl::StatusOr<RangeCheck> {
    RangeCheck range;
    const auto bad = pages.lower_bound(offset / kPage);
    if (bad != pages.end() && *bad * kPage < offset + length) {
      range.first_bad = *bad * kPage;
    }
    range.done = range.first_bad.value_or(offset + length) - offset;
    range.pages_checked = range.done / kPage;
    return range;
  };
}

bool GoOn(std::uint64_t) { return true; }

TEST(CheckFileTest, AdjacentDamageIsOneRangeAlsoAcrossSteps) {
  const std::uint64_t step = (std::uint64_t{16} << 20) / kPage;
  const auto file = CheckFile(Damaged({0, 2, step - 1, step, step + 1}),
                              (2 * step * kPage) - 100, GoOn);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->damaged,
              ElementsAre(ByteRange{0, kPage}, ByteRange{2 * kPage, kPage},
                          ByteRange{(step - 1) * kPage, 3 * kPage}));
  EXPECT_EQ(file->bytes_damaged, 5 * kPage);
  EXPECT_EQ(file->bytes_verified, (2 * step - 5) * kPage);
}

TEST(CheckFileTest, CountsAllDamageAndListsTheFirst) {
  std::set<std::uint64_t> pages;
  for (std::uint64_t page = 0; page < 300; page += 2) pages.insert(page);
  const auto file = CheckFile(Damaged(pages), 300 * kPage, GoOn);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->damaged.size(), kMaxDamagedRanges);
  EXPECT_EQ(file->bytes_damaged, 150 * kPage);
}

TEST(CheckFileTest, ALongDamageIsAskedForOnce) {
  constexpr std::uint64_t kLost = std::uint64_t{1} << 40;
  int calls = 0;
  const auto file = CheckFile(
      [&](std::uint64_t offset, std::uint64_t length) {
        ++calls;
        RangeCheck range;
        if (offset == 0) {
          range.first_bad = 0;
          range.bad_length = kLost;
        } else {
          range.done = length;
          range.pages_checked = length / kPage;
        }
        return absl::StatusOr<RangeCheck>(range);
      },
      kLost + kPage, GoOn);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(calls, 2);
  EXPECT_THAT(file->damaged, ElementsAre(ByteRange{0, kLost}));
  EXPECT_EQ(file->bytes_damaged, kLost);
  EXPECT_EQ(file->bytes_verified, kPage);
}

TEST(CheckFileTest, EmptyFileIsNotAskedFor) {
  const auto file = CheckFile(
      [](std::uint64_t, std::uint64_t) -> absl::StatusOr<RangeCheck> {
        return absl::InternalError("asked");
      },
      0, GoOn);
  EXPECT_TRUE(file.ok()) << file.status();
}

TEST(CheckFileTest, GoesOnWhereASignalStoppedIt) {
  int calls = 0;
  const auto file = CheckFile(
      [&](std::uint64_t offset, std::uint64_t length) {
        ++calls;
        EXPECT_EQ(offset, calls < 3 ? 0 : kPage);
        RangeCheck range;
        if (calls == 2) range.done = kPage;
        if (calls == 3) range.done = length;
        range.pages_checked = range.done / kPage;
        return absl::StatusOr<RangeCheck>(range);
      },
      4 * kPage, GoOn);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(file->bytes_verified, 4 * kPage);
}

TEST(CheckFileTest, StopsWhenNobodyWantsToKnow) {
  std::uint64_t told = 0;
  const auto file =
      CheckFile(Damaged({1}), std::uint64_t{1} << 30, [&](std::uint64_t bytes) {
        told = bytes;
        return false;
      });
  EXPECT_TRUE(absl::IsCancelled(file.status()));
  EXPECT_EQ(told, 2 * kPage);
}

TEST(CheckFileTest, ErrorsPassThrough) {
  const auto file = CheckFile(
      [](std::uint64_t, std::uint64_t) -> absl::StatusOr<RangeCheck> {
        return absl::UnavailableError("no");
      },
      1, GoOn);
  EXPECT_TRUE(absl::IsUnavailable(file.status()));
}

TEST(CheckRangeTest, OtherFileSystemsHaveNoChecksums) {
  const UniqueFd self(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto range = CheckRange(self.get(), 0, 3 * kPage);
  ASSERT_TRUE(range.ok()) << range.status();
  EXPECT_EQ(range->done, 3 * kPage);
  EXPECT_EQ(range->pages_without_sum, 3U);
  EXPECT_EQ(range->pages_checked, 0U);
  EXPECT_TRUE(absl::IsFailedPrecondition(MakeChecksums(self.get())));
}

TEST(CheckRangeTest, NoFileIsAnError) {
  EXPECT_TRUE(absl::IsUnavailable(CheckRange(-1, 0, kPage).status()));
  EXPECT_FALSE(MakeChecksums(-1).ok());
}

}  // namespace
}  // namespace daxsnap::pool
