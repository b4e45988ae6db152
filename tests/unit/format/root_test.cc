// SPDX-License-Identifier: Apache-2.0
//
// Which of the two root slots rules.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <ostream>
#include <string>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

// Slot 0: generation 3 with one file, "b"; slot 1: generation 2 with "a".
class Root : public testing::Test {
 protected:
  Root() : image_(64) {
    image_.Commit({RootDirectory(), File(2, "a", {})}, 2);
    image_.Commit({RootDirectory(), File(2, "b", {})}, 3);
  }

  std::string RulingName() {
    const Recovery recovery = Recover(image_.media());
    return recovery.ok() ? recovery.inodes.at(2).name : recovery.why;
  }

  Image image_;
};

TEST_F(Root, OfANewPoolIsEmpty) {
  Image image(8);
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.slot, 0U);
  EXPECT_EQ(recovery.root.generation, 1U);
  EXPECT_EQ(recovery.root.itable, 0U);
  EXPECT_TRUE(recovery.inodes.empty());
  EXPECT_TRUE(recovery.meta.empty());
}

TEST_F(Root, OfTheHighestGenerationRules) {
  EXPECT_EQ(RulingName(), "b");
  image_.Commit({RootDirectory(), File(2, "c", {})}, 4);
  EXPECT_EQ(RulingName(), "c");
}

TEST_F(Root, OfTheHighestGenerationRulesThoughTheNumberIsHuge) {
  image_.slot(1)->head.generation =
      htole64(std::numeric_limits<uint64_t>::max());
  image_.Seal(2);
  EXPECT_EQ(RulingName(), "a");
}

TEST_F(Root, FallsBackToTheOtherSlotIfOneIsDamaged) {
  image_.slot(0)->commit_time ^= 1;
  EXPECT_EQ(RulingName(), "a");
}

TEST_F(Root, StaysIfTheOlderSlotIsDamaged) {
  image_.slot(1)->commit_time ^= 1;
  EXPECT_EQ(RulingName(), "b");
}

TEST_F(Root, OfAnotherPoolDoesNotCount) {
  image_.slot(0)->head.uuid[15] ^= 1;
  image_.Seal(1);
  EXPECT_EQ(RulingName(), "a");
}

TEST_F(Root, OfAnotherKindDoesNotCount) {
  image_.slot(0)->head.kind = htole32(KMEMFS_KIND_INODES);
  image_.Seal(1);
  EXPECT_EQ(RulingName(), "a");
}

TEST_F(Root, IsRefusedIfBothSlotsAreDamaged) {
  image_.slot(0)->commit_time ^= 1;
  image_.slot(1)->commit_time ^= 1;
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "no valid root slot"));
}

TEST_F(Root, IsRefusedIfBothSlotsAreZero) {
  std::memset(image_.Page(1), 0, size_t{2} * KMEMFS_PAGE_SIZE);
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "no valid root slot"));
}

TEST_F(Root, OfARetiredSlotNeverRules) {
  kmemfs_sink sink = image_.Sink(3);
  kmemfs_retire(&sink, image_.slot(1));
  EXPECT_EQ(RulingName(), "b");
  image_.slot(0)->commit_time ^= 1;
  EXPECT_THAT(Recover(image_.media()),
              Refused(EUCLEAN,
                      "no valid root slot: slot 0 is damaged, slot 1 is "
                      "retired"));
}

TEST_F(Root, IsRetiredByOneWord) {
  const kmemfs_root before = *image_.slot(1);
  kmemfs_sink sink = image_.Sink(3);
  kmemfs_retire(&sink, image_.slot(1));
  EXPECT_NE(std::memcmp(&before, image_.slot(1), 8), 0);
  EXPECT_EQ(std::memcmp(&before.head.uuid, &image_.slot(1)->head.uuid,
                        sizeof(before) - 8),
            0);
}

TEST_F(Root, ThatIsNotThereIsNotRetired) {
  std::memset(image_.slot(1), 0, KMEMFS_PAGE_SIZE);
  kmemfs_sink sink = image_.Sink(3);
  kmemfs_retire(&sink, image_.slot(1));
  EXPECT_EQ(image_.slot(1)->head.kind, 0U);
}

TEST_F(Root, SlotsAreNamedWithWhatIsWrong) {
  std::memset(image_.slot(1), 0, KMEMFS_PAGE_SIZE);
  image_.slot(0)->commit_time ^= 1;
  EXPECT_THAT(Recover(image_.media()),
              Refused(EUCLEAN, "slot 0 is damaged, slot 1 is empty"));
}

TEST_F(Root, IsRefusedIfBothSlotsHaveTheSameGeneration) {
  image_.slot(1)->head.generation = htole64(3);
  image_.Seal(2);
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "both root slots"));
}

TEST_F(Root, WithUnknownIncompatFeaturesIsNotReplacedByAnOlderOne) {
  image_.slot(0)->incompat = htole64(4);
  image_.Seal(1);
  EXPECT_THAT(Recover(image_.media()), Refused(EOPNOTSUPP, "features 0x4"));
}

TEST_F(Root, WithUnknownIncompatFeaturesDoesNotMatterIfOlder) {
  image_.slot(1)->incompat = htole64(4);
  image_.Seal(2);
  EXPECT_EQ(RulingName(), "b");
}

TEST_F(Root, IgnoresCompatFeatures) {
  image_.slot(0)->compat = htole64(4);
  image_.Seal(1);
  EXPECT_EQ(RulingName(), "b");
}

// It may be the newer one, whatever the other holds.
TEST_F(Root, IsRefusedIfASlotCannotBeRead) {
  static uint64_t bad;
  static const void* (*read)(const kmemfs_media*, __u64);
  read = image_.media().page;
  image_.mutable_media().page = [](const kmemfs_media* m, __u64 page) {
    return page == bad ? nullptr : read(m, page);
  };
  bad = 1;
  EXPECT_THAT(Recover(image_.media()),
              Refused(EUCLEAN, "page 1: root slot 0 cannot be read"));
  bad = 2;
  EXPECT_THAT(Recover(image_.media()),
              Refused(EUCLEAN, "page 2: root slot 1 cannot be read"));
}

TEST_F(Root, IsRefusedOnARangeThatIsNoPool) {
  image_.mutable_media().end = image_.nr_pages() + 1;
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "no pool"));
  image_.mutable_media().end = 2;
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "no pool"));
  image_.mutable_media().end = image_.nr_pages();
  image_.mutable_media().first = 2;
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "no pool"));
}

struct Change {
  const char* name;
  std::function<void(kmemfs_root*)> change;
  const char* reason;
};

void PrintTo(const Change& change, std::ostream* out) { *out << change.name; }

class RulingRoot : public Root, public testing::WithParamInterface<Change> {};

TEST_P(RulingRoot, ThatDoesNotHoldIsRefusedAndNotReplaced) {
  GetParam().change(image_.slot(0));
  image_.Seal(1);
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, GetParam().reason));
}

INSTANTIATE_TEST_SUITE_P(
    Format, RulingRoot,
    testing::Values(
        Change{"Owner", [](auto* r) { r->head.owner = htole64(1); },
               "bad head"},
        Change{"Nr", [](auto* r) { r->head.nr = htole32(1); }, "bad head"},
        Change{"Level", [](auto* r) { r->head.level = htole32(1); },
               "bad head"},
        Change{"First", [](auto* r) { r->head.first = htole64(1); },
               "bad head"},
        Change{"HeadReserved", [](auto* r) { r->head.reserved[7] = 1; },
               "reserved"},
        Change{"Reserved0", [](auto* r) { r->reserved0 = htole32(1); },
               "reserved"},
        Change{"FirstReserved", [](auto* r) { r->reserved[0] = 1; },
               "reserved"},
        Change{"LastReserved",
               [](auto* r) { r->reserved[sizeof(r->reserved) - 1] = 1; },
               "reserved"},
        Change{"CountsWithoutTable", [](auto* r) { r->itable = 0; },
               "without an inode table"},
        Change{"HeightTooHigh", [](auto* r) { r->itable_height = htole32(5); },
               "height 5"},
        Change{"HeightNotLowest",
               [](auto* r) { r->itable_height = htole32(1); }, "height 1"},
        Change{"NoLeaves", [](auto* r) { r->nr_inode_pages = 0; }, "height"},
        Change{"MoreLeavesThanHeightHolds",
               [](auto* r) { r->nr_inode_pages = htole64(2); }, "height"},
        Change{"LeavesBeyondAnyHeight",
               [](auto* r) { r->nr_inode_pages = htole64(~0ULL); }, "height"},
        Change{"MetadataBeyondDevice",
               [](auto* r) { r->nr_meta_pages = htole64(65); },
               "65 metadata pages on a device of 64"},
        Change{
            "TooManyFilePages",
            [](auto* r) { r->nr_file_pages = htole64(KMEMFS_MAX_OWNED + 1); },
            "too many"},
        Change{"TableAtSlot", [](auto* r) { r->itable = htole64(2); },
               "page 2: out of bounds"},
        Change{"TableBeyondDevice", [](auto* r) { r->itable = htole64(64); },
               "page 64: out of bounds"},
        Change{"TableFarBeyondDevice",
               [](auto* r) { r->itable = htole64(~0ULL); }, "out of bounds"},
        Change{"TooFewInodes", [](auto* r) { r->nr_inodes = htole64(1); },
               "says 1 inodes, found 2"},
        Change{"TooManyInodes", [](auto* r) { r->nr_inodes = htole64(~0ULL); },
               "inodes, found 2"},
        Change{"TooFewMetaPages", [](auto* r) { r->nr_meta_pages = 0; },
               "says 0 metadata pages, found 1"},
        Change{"TooManyMetaPages",
               [](auto* r) { r->nr_meta_pages = htole64(2); },
               "says 2 metadata pages, found 1"},
        Change{"TooManyFilePagesFound",
               [](auto* r) { r->nr_file_pages = htole64(1); },
               "says 1 file pages, found 0"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace daxsnap::format
