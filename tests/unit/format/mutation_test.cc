// SPDX-License-Identifier: Apache-2.0
//
// Random damage to a committed image. With the crc as it was, changed metadata
// is never taken. With the crc made right again, as a malicious device would,
// it may be taken, but then it is a tree that keeps all the rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

constexpr uint64_t kPages = 400;
constexpr int kRounds = 8000;

class Mutation : public testing::Test {
 protected:
  Mutation() : image_(kPages), random_(20260101) {
    const uint64_t data = image_.Allocate(300);
    Inode large = File(9, "large", {}, 3);
    for (uint64_t i = 0; i < 280; i++)
      large.runs.push_back({.file_page = 2 * i, .page = data + i});
    large.size = uint64_t{560} * KMEMFS_PAGE_SIZE;
    image_.Commit({RootDirectory(), File(2, "a", {{0, 5, data}}),
                   Directory(3, "d"), Symlink(5, "link", data + 299), large,
                   File(10, "b", {{0, 2, data}, {7, 1, data + 290}}, 3),
                   Directory(600, "e", 3), File(4000, "c", {}, 600)});
    good_ = Recover(image_.media());
    metadata_ = good_.meta;
    metadata_.push_back(2);  // the ruling slot
  }

  uint64_t Below(uint64_t n) { return random_() % n; }

  // Changes some of the metadata; returns the pages that may have changed.
  std::vector<uint64_t> Damage() {
    const uint64_t page = metadata_[Below(metadata_.size())];
    auto* bytes = image_.As<uint8_t>(page);
    switch (Below(7)) {
      case 0:
        bytes[Below(KMEMFS_PAGE_SIZE)] ^= static_cast<uint8_t>(1 + Below(255));
        break;
      case 1:  // where the fields are
        bytes[Below(128)] ^= static_cast<uint8_t>(1U << Below(8));
        break;
      case 2: {
        const uint64_t from = Below(KMEMFS_PAGE_SIZE);
        std::memset(bytes + from, 0, KMEMFS_PAGE_SIZE - from);
        break;
      }
      case 3:
        std::memset(bytes + 8 * Below(512), 0, 8);
        break;
      case 4: {
        const uint64_t other = metadata_[Below(metadata_.size())];
        std::swap_ranges(bytes, bytes + KMEMFS_PAGE_SIZE,
                         image_.As<uint8_t>(other));
        return {page, other};
      }
      case 5: {  // a word from elsewhere: page numbers, counts, names
        const uint64_t other = metadata_[Below(metadata_.size())];
        std::memcpy(bytes + 8 * Below(512),
                    image_.As<uint8_t>(other) + 8 * Below(72), 8);
        break;
      }
      default: {  // a small number
        const uint64_t value = Below(2 * kPages);
        std::memcpy(bytes + 8 * Below(512), &value, 8);
      }
    }
    return {page};
  }

  void Restore(const Image& from, const std::vector<uint64_t>& pages) {
    for (const uint64_t page : pages)
      std::memcpy(image_.Page(page), from.Page(page), KMEMFS_PAGE_SIZE);
  }

  Image image_;
  std::mt19937_64 random_;
  Recovery good_;
  std::vector<uint64_t> metadata_;
};

TEST_F(Mutation, OfMetadataIsNeverTaken) {
  const Image original(image_);
  for (int round = 0; round < kRounds; round++) {
    const std::vector<uint64_t> pages = Damage();
    const bool changed =
        std::any_of(pages.begin(), pages.end(), [&](uint64_t page) {
          return std::memcmp(image_.Page(page), original.Page(page),
                             KMEMFS_PAGE_SIZE) != 0;
        });
    const Recovery recovery = Recover(image_.media());
    if (!changed) {
      ASSERT_EQ(recovery.inodes, good_.inodes);
    } else if (recovery.ok()) {
      // Only a damaged slot may be passed over, for the other one.
      ASSERT_EQ(recovery.slot, 0U) << "round " << round;
      ASSERT_TRUE(recovery.inodes.empty());
    }
    Restore(original, pages);
  }
}

TEST_F(Mutation, WithRightCrcsIsTakenOnlyIfTheRulesHold) {
  const Image original(image_);
  int taken = 0;
  int refused = 0;
  for (int round = 0; round < kRounds; round++) {
    std::vector<uint64_t> pages;
    for (uint64_t n = 1 + Below(3); n > 0; n--)
      for (const uint64_t page : Damage()) pages.push_back(page);
    for (const uint64_t page : pages) image_.Seal(page);
    const Recovery recovery = Recover(image_.media());
    if (recovery.ok()) {
      taken++;
      ASSERT_EQ(BrokenRule(recovery, image_.media()), "") << "round " << round;
    } else {
      refused++;
      ASSERT_FALSE(recovery.why.empty());
    }
    Restore(original, pages);
  }
  // Else the test would not test both.
  EXPECT_GT(taken, kRounds / 100);
  EXPECT_GT(refused, kRounds / 2);
}

TEST_F(Mutation, OfDataDoesNotMatterHere) {
  std::memset(image_.Page(3), 0xff, size_t{300} * KMEMFS_PAGE_SIZE);
  const Recovery recovery = Recover(image_.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes, good_.inodes);
}

TEST_F(Mutation, ThatTruncatesTheDeviceIsRefused) {
  for (uint64_t pages = KMEM_PERSIST_HEAD_PAGES; pages < kPages; pages++) {
    image_.mutable_media().nr_pages = pages;
    image_.mutable_media().end = pages;
    const Recovery recovery = Recover(image_.media());
    const uint64_t last =
        *std::max_element(good_.meta.begin(), good_.meta.end());
    ASSERT_EQ(recovery.ok(), pages > last) << pages;
  }
}

}  // namespace
}  // namespace daxsnap::format
