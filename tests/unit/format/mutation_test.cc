// SPDX-License-Identifier: Apache-2.0
//
// Random damage to a committed image. With the crc as it was, changed metadata
// is never taken. With the crc made right again, as a malicious device would,
// it may be taken, but then it is a tree that keeps all the rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"
#include "tests/unit/format/sample.h"

namespace daxsnap::format {
namespace {

constexpr int kRounds = 8000;

class Mutation : public testing::TestWithParam<uint32_t> {
 protected:
  Mutation() : image_(kSamplePages, GetParam()), random_(20260101) {
    CommitSample(&image_);
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
        const uint64_t value = Below(2 * kSamplePages);
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

INSTANTIATE_TEST_SUITE_P(Version, Mutation, testing::Values(1U, 2U),
                         [](const auto& info) {
                           return std::to_string(info.param);
                         });

// Every 16th byte of each page, others in each page.
TEST_P(Mutation, OfAByteOfMetadataIsNeverTaken) {
  constexpr uint64_t kStep = 16;
  uint64_t at = 0;
  for (const uint64_t page : metadata_) {
    if (page == 2) continue;  // the other slot would rule
    for (at %= kStep; at < KMEMFS_PAGE_SIZE; at += kStep) {
      auto* byte = image_.As<uint8_t>(page) + at;
      const uint8_t was = *byte;
      *byte = static_cast<uint8_t>(was + 1 + Below(255));
      ASSERT_THAT(Recover(image_.media()),
                  Refused(EUCLEAN, "page " + std::to_string(page)))
          << "byte " << at;
      *byte = was;
    }
    at++;
  }
}

TEST_P(Mutation, OfMetadataIsNeverTaken) {
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

TEST_P(Mutation, WithRightCrcsIsTakenOnlyIfTheRulesHold) {
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

TEST_P(Mutation, OfDataDoesNotMatterHere) {
  std::memset(image_.Page(3), 0xff, size_t{291} * KMEMFS_PAGE_SIZE);
  const Recovery recovery = Recover(image_.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes, good_.inodes);
}

TEST_P(Mutation, ThatTruncatesTheDeviceIsRefused) {
  uint64_t last = *std::max_element(good_.meta.begin(), good_.meta.end());
  for (uint64_t page = 0; page < kSamplePages; page++)
    if (good_.data_bits[page]) last = std::max(last, page);
  for (uint64_t pages = KMEM_PERSIST_HEAD_PAGES; pages < kSamplePages;
       pages++) {
    image_.mutable_media().nr_pages = pages;
    image_.mutable_media().end = pages;
    const Recovery recovery = Recover(image_.media());
    ASSERT_EQ(recovery.ok(), pages > last) << pages;
  }
}

}  // namespace
}  // namespace daxsnap::format
