// SPDX-License-Identifier: Apache-2.0
//
// What can be wrong on one page, each with the reason given. The crc is made
// right again after each change, so it is never the crc that refuses.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "tests/unit/format/change.h"
#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

constexpr uint64_t kPages = 700;

// One page of each kind, and the records 1: root, 2: file with 253 runs and so
// an index page, 3: directory, 4: symlink, 5: empty file.
struct Sample {
  Sample() : image(kPages) {
    const uint64_t data = image.Allocate(300);
    Inode large = File(2, "large", {});
    for (uint64_t i = 0; i < 253; i++)
      large.runs.push_back({.file_page = 2 * i, .page = data + i});
    large.size = 505 * KMEMFS_PAGE_SIZE;
    image.Commit({RootDirectory(), large, Directory(3, "dir"),
                  Symlink(4, "link", data + 299), File(5, "empty", {}),
                  File(7, "far", {})});
    const kmemfs_root_info root = Recover(image.media()).root;
    table = root.itable;
    inodes = le64toh(image.As<kmemfs_index>(table)->page[0]);
    index = le64toh(record(2)->extents);
    leaf = le64toh(image.As<kmemfs_index>(index)->page[0]);
    last_leaf = le64toh(image.As<kmemfs_index>(index)->page[1]);
  }

  kmemfs_inode_record* record(uint64_t ino) {
    return &image.As<kmemfs_inodes>(inodes)->record[ino];
  }
  kmemfs_page_head* head(uint64_t page) {
    return image.As<kmemfs_page_head>(page);
  }
  kmemfs_run* run(uint64_t i) {
    return &image.As<kmemfs_extents>(leaf)->run[i];
  }
  kmemfs_run* last_run() {
    return &image.As<kmemfs_extents>(last_leaf)->run[0];
  }
  kmemfs_index* index_of(uint64_t page) { return image.As<kmemfs_index>(page); }
  void Name(uint64_t ino, const std::string& name) {
    std::memset(record(ino)->name, 0, sizeof(record(ino)->name));
    std::memcpy(record(ino)->name, name.data(), name.size());
    record(ino)->name_len = static_cast<__u8>(name.size());
  }
  void SealAll() {
    for (const uint64_t page : {table, index, leaf, last_leaf, inodes})
      image.Seal(page);
  }

  Image image;
  uint64_t table;   // index page of the inode table
  uint64_t inodes;  // its first leaf
  uint64_t index;   // of the extents of inode 2
  uint64_t leaf;
  uint64_t last_leaf;
};

void SwapEntries(kmemfs_index* index) {
  const __le64 first = index->page[0];
  index->page[0] = index->page[1];
  index->page[1] = first;
}

void SwapFilePages(kmemfs_run* a, kmemfs_run* b) {
  const __le32 first = a->file_page;
  a->file_page = b->file_page;
  b->file_page = first;
}

using Change = SampleChange<Sample>;

class Page : public testing::TestWithParam<Change> {};

TEST_P(Page, IsRefused) { ExpectRefused(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    Head, Page,
    testing::Values(
        Change{"InodesUuid", [](auto* s) { s->head(s->inodes)->uuid[0] ^= 1; },
               "wrong uuid"},
        Change{"IndexUuid", [](auto* s) { s->head(s->index)->uuid[15] ^= 1; },
               "wrong uuid"},
        Change{"ExtentsUuid", [](auto* s) { s->head(s->leaf)->uuid[7] ^= 1; },
               "wrong uuid"},
        Change{"Kind",
               [](auto* s) {
                 s->head(s->leaf)->kind = htole32(KMEMFS_KIND_INODES);
               },
               "kind 0x444f4e49, expected 0x53545845"},
        Change{"GenerationZero",
               [](auto* s) { s->head(s->leaf)->generation = 0; },
               "generation 0"},
        Change{"GenerationAboveTheRoots",
               [](auto* s) { s->head(s->inodes)->generation = htole64(3); },
               "generation 3, the root's is 2"},
        Change{"OwnerOfTheTable",
               [](auto* s) { s->head(s->table)->owner = htole64(1); },
               "owner 1, expected 0"},
        Change{"OwnerOfExtents",
               [](auto* s) { s->head(s->leaf)->owner = htole64(5); },
               "owner 5, expected 2"},
        Change{"LevelOfALeaf",
               [](auto* s) { s->head(s->leaf)->level = htole32(1); },
               "level 1, expected 0"},
        Change{"LevelOfAnIndex",
               [](auto* s) { s->head(s->index)->level = htole32(2); },
               "level 2, expected 1"},
        Change{"NoEntries", [](auto* s) { s->head(s->leaf)->nr = 0; },
               "0 entries"},
        Change{"TooManyRuns",
               [](auto* s) { s->head(s->leaf)->nr = htole32(253); },
               "253 entries"},
        Change{"FarTooManyRuns",
               [](auto* s) { s->head(s->leaf)->nr = htole32(~0U); },
               "4294967295 entries"},
        Change{"TooManyIndexEntries",
               [](auto* s) { s->head(s->index)->nr = htole32(505); },
               "505 entries"},
        Change{"TooFewInodes",
               [](auto* s) { s->head(s->inodes)->nr = htole32(6); },
               "6 entries, expected 7"},
        Change{"TooFewTableEntries",
               [](auto* s) {
                 s->head(s->table)->nr = htole32(504);
                 s->index_of(s->table)->page[504 - 1] = 0;
               },
               "504 entries, expected 2"},
        Change{"FirstInode",
               [](auto* s) { s->head(s->inodes)->first = htole64(7); },
               "first 7, expected 0"},
        Change{"FirstRun",
               [](auto* s) { s->head(s->last_leaf)->first = htole64(1); },
               "first 1, expected 504"},
        Change{"FirstOfIndex",
               [](auto* s) { s->head(s->index)->first = htole64(1); },
               "first 1, expected 0"},
        Change{"Reserved", [](auto* s) { s->head(s->leaf)->reserved[0] = 1; },
               "reserved bytes"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Index, Page,
    testing::Values(
        Change{"HeaderPage",
               [](auto* s) { s->index_of(s->index)->page[0] = 0; },
               "page 0: out of bounds"},
        Change{"RootSlot",
               [](auto* s) { s->index_of(s->index)->page[0] = htole64(1); },
               "page 1: out of bounds"},
        Change{
            "BeyondDevice",
            [](auto* s) { s->index_of(s->index)->page[0] = htole64(kPages); },
            "page 700: out of bounds"},
        Change{"FarBeyondDevice",
               [](auto* s) { s->index_of(s->index)->page[1] = ~0ULL; },
               "out of bounds"},
        Change{
            "Itself",
            [](auto* s) { s->index_of(s->index)->page[0] = htole64(s->index); },
            "kind 0x58444e49, expected 0x53545845"},
        Change{
            "SameLeafTwice",
            [](auto* s) { s->index_of(s->index)->page[1] = htole64(s->leaf); },
            "out of order"},
        Change{"LeavesSwapped",
               [](auto* s) { SwapEntries(s->index_of(s->index)); },
               "out of order"},
        Change{"LeafOfTheTableTwice",
               [](auto* s) {
                 s->index_of(s->table)->page[1] =
                     s->index_of(s->table)->page[0];
               },
               "first 0, expected 7"},
        Change{"DataPage",
               [](auto* s) { s->index_of(s->index)->page[0] = htole64(3); },
               "page 3: wrong crc"},
        Change{"UnusedEntry",
               [](auto* s) { s->index_of(s->index)->page[2] = htole64(5); },
               "unused entries"},
        Change{"LastUnusedEntry",
               [](auto* s) { s->index_of(s->index)->page[503] = htole64(5); },
               "unused entries"},
        Change{"ALevelTooMany",
               [](auto* s) { s->record(2)->extents_height = htole32(2); },
               "level 1, expected 2"},
        Change{"ALevelTooFew",
               [](auto* s) { s->record(2)->extents_height = 0; },
               "kind 0x58444e49, expected 0x53545845"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Runs, Page,
    testing::Values(
        Change{"Empty", [](auto* s) { s->run(3)->count = 0; }, "empty run"},
        Change{"Overlap", [](auto* s) { s->run(3)->count = htole32(3); },
               "overlap"},
        Change{"OutOfOrder",
               [](auto* s) { SwapFilePages(s->run(3), s->run(4)); },
               "out of order"},
        Change{"OutOfOrderFromLeafToLeaf",
               [](auto* s) {
                 s->last_run()->file_page = htole32(502);
                 s->head(s->last_leaf)->first = htole64(502);
               },
               "out of order"},
        Change{"PageZero", [](auto* s) { s->run(0)->page = 0; },
               "out of bounds"},
        Change{"RootSlot", [](auto* s) { s->run(0)->page = htole64(2); },
               "out of bounds"},
        Change{"BeyondDevice",
               [](auto* s) { s->run(0)->page = htole64(kPages); },
               "out of bounds"},
        Change{"AcrossTheEnd",
               [](auto* s) {
                 s->last_run()->page = htole64(kPages - 1);
                 s->last_run()->count = htole32(2);
                 s->record(2)->size = htole64(506 * KMEMFS_PAGE_SIZE);
               },
               "out of bounds"},
        Change{"FarBeyondDevice", [](auto* s) { s->run(0)->page = ~0ULL; },
               "out of bounds"},
        Change{"BeyondTheSize",
               [](auto* s) {
                 s->record(2)->size = htole64(504 * KMEMFS_PAGE_SIZE);
               },
               "beyond the file's size"},
        Change{"FarBeyondTheSize",
               [](auto* s) { s->last_run()->count = htole32(~0U); },
               "beyond the file's size"},
        Change{"UnusedEntry",
               [](auto* s) {
                 s->image.template As<kmemfs_extents>(s->last_leaf)
                     ->run[251]
                     .page = 1;
               },
               "unused entries"},
        Change{"MoreThanTheInodeSays",
               [](auto* s) { s->record(2)->nr_runs = htole64(252); },
               "wrong counts"},
        Change{"FewerThanTheInodeSays",
               [](auto* s) { s->record(2)->nr_runs = htole64(254); },
               "wrong counts"},
        Change{"MorePagesThanTheInodeSays",
               [](auto* s) { s->record(2)->nr_pages = htole64(252); },
               "wrong counts"},
        Change{"OfAMetadataPage",
               [](auto* s) { s->last_run()->page = htole64(s->leaf); },
               "has metadata"},
        Change{"OfAMetadataPageSeenLater",
               [](auto* s) { s->run(0)->page = htole64(s->last_leaf); },
               "both data and metadata"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Inode, Page,
    testing::Values(
        Change{"InAnothersPlace",
               [](auto* s) { s->record(5)->ino = htole64(6); },
               "inode 6 in the place of 5"},
        Change{"FreeButNotZero", [](auto* s) { s->record(6)->name[255] = 1; },
               "free inode not zero"},
        Change{"NumberZeroUsed", [](auto* s) { s->record(0)->mode = 1; },
               "free inode not zero"},
        Change{"Flags", [](auto* s) { s->record(5)->flags = htole32(1); },
               "reserved bytes"},
        Change{"Reserved", [](auto* s) { s->record(5)->reserved[6] = 1; },
               "reserved bytes"},
        Change{"ExtentsTooHigh",
               [](auto* s) { s->record(2)->extents_height = htole32(5); },
               "height 5"},
        Change{"HeightWithoutExtents",
               [](auto* s) { s->record(5)->extents_height = htole32(1); },
               "counts without extents"},
        Change{"RunsWithoutExtents",
               [](auto* s) { s->record(5)->nr_runs = htole64(1); },
               "counts without extents"},
        Change{"PagesWithoutExtents",
               [](auto* s) { s->record(5)->nr_pages = htole64(1); },
               "counts without extents"},
        Change{"ModeZero", [](auto* s) { s->record(5)->mode = 0; }, "bad mode"},
        Change{"ModeOfADevice",
               [](auto* s) { s->record(5)->mode = htole32(S_IFBLK | 0600); },
               "bad mode 060600"},
        Change{"ModeOfASocket",
               [](auto* s) { s->record(5)->mode = htole32(S_IFSOCK); },
               "bad mode"},
        Change{"ModeWithUnknownBits",
               [](auto* s) { s->record(5)->mode = htole32(S_IFREG | 1 << 16); },
               "bad mode"},
        Change{"SizeBeyondTheLargest",
               [](auto* s) { s->record(5)->size = htole64((1ULL << 44) + 1); },
               "size 17592186044417"},
        Change{"SizeNegative", [](auto* s) { s->record(5)->size = ~0ULL; },
               "size 18446744073709551615"},
        Change{"DirectoryWithSize",
               [](auto* s) { s->record(3)->size = htole64(1); },
               "directory with data"},
        Change{"DirectoryWithPages",
               [](auto* s) {
                 s->record(2)->mode = htole32(S_IFDIR);
                 s->record(2)->size = 0;
               },
               "directory with data"},
        Change{"SymlinkEmpty", [](auto* s) { s->record(4)->size = 0; },
               "symlink of 0 bytes"},
        Change{"SymlinkTooLong",
               [](auto* s) { s->record(4)->size = htole64(4096); },
               "symlink of 4096 bytes"},
        Change{"SymlinkWithoutPages",
               [](auto* s) {
                 s->record(5)->mode = htole32(S_IFLNK | 0777);
                 s->record(5)->size = htole64(9);
               },
               "0 pages"},
        Change{"SymlinkWithMorePages",
               [](auto* s) { s->record(4)->nr_pages = htole64(2); },
               "2 pages"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Name, Page,
    testing::Values(
        Change{"Empty", [](auto* s) { s->Name(5, ""); }, "bad name"},
        Change{"Dot", [](auto* s) { s->Name(5, "."); }, "bad name"},
        Change{"DotDot", [](auto* s) { s->Name(5, ".."); }, "bad name"},
        Change{"Slash", [](auto* s) { s->Name(5, "a/b"); }, "bad name"},
        Change{"OnlySlash", [](auto* s) { s->Name(5, "/"); }, "bad name"},
        Change{"Nul", [](auto* s) { s->Name(5, std::string("a\0b", 3)); },
               "bad name"},
        Change{"EndsWithNul",
               [](auto* s) { s->Name(5, std::string("ab\0", 3)); }, "bad name"},
        Change{"Padding", [](auto* s) { s->record(5)->name[255] = 'x'; },
               "bad name"},
        Change{"OfTheRoot", [](auto* s) { s->Name(1, "root"); }, "has a name"},
        Change{"PaddingOfTheRoot", [](auto* s) { s->record(1)->name[0] = 'x'; },
               "has a name"}),
    kNameOfChange);

TEST(Page, IsTakenWithEveryOtherName) {
  for (const std::string& name :
       {std::string("..."), std::string(".a"), std::string("..a"),
        std::string("\n"), std::string("\xff\xfe"), std::string(255, 'x')}) {
    Sample sample;
    sample.Name(5, name);
    sample.SealAll();
    const Recovery recovery = Recover(sample.image.media());
    ASSERT_THAT(recovery, Taken());
    EXPECT_EQ(recovery.inodes.at(5).name, name);
  }
}

TEST(Page, OfEachKindIsRefusedWithAnyBitFlipped) {
  Sample sample;
  for (const uint64_t page : {sample.table, sample.inodes, sample.index,
                              sample.leaf, sample.last_leaf}) {
    auto* bytes = sample.image.As<uint8_t>(page);
    for (size_t byte = 0; byte < KMEMFS_PAGE_SIZE; byte += 3) {
      const auto flip = static_cast<uint8_t>(1U << (byte % 8));
      bytes[byte] ^= flip;
      ASSERT_THAT(Recover(sample.image.media()), Refused(EUCLEAN, "wrong crc"))
          << "page " << page << " byte " << byte;
      bytes[byte] ^= flip;
    }
  }
  ASSERT_THAT(Recover(sample.image.media()), Taken());
}

TEST(Page, ThatCannotBeReadIsRefused) {
  Sample sample;
  static uint64_t bad;
  static const void* (*read)(const kmemfs_media*, __u64);
  bad = sample.leaf;
  read = sample.image.media().page;
  sample.image.mutable_media().page = [](const kmemfs_media* m, __u64 page) {
    return page == bad ? nullptr : read(m, page);
  };
  EXPECT_THAT(Recover(sample.image.media()),
              Refused(EUCLEAN, "cannot be read"));
}

TEST(Page, OutsideThePoolsRangeIsRefused) {
  // Pages that are not online memory: struct pages kept on the device itself.
  Sample sample;
  sample.image.mutable_media().first = 4;
  EXPECT_THAT(Recover(sample.image.media()), Refused(EUCLEAN, "out of bounds"));
}

TEST(WalkRuns, ChecksTheRecordItIsGiven) {
  Sample sample;
  const Recovery recovery = Recover(sample.image.media());
  const kmemfs_visitor nothing = {};
  kmem_persist_why why = {};
  kmemfs_inode_record record = *sample.record(2);
  const auto walk = [&] {
    return kmemfs_walk_runs(&sample.image.media(), &recovery.root, &record,
                            &nothing, nullptr, &why);
  };
  EXPECT_EQ(walk(), 0);
  record.extents_height = htole32(1000);
  EXPECT_EQ(walk(), -EUCLEAN);
  record = *sample.record(6);
  EXPECT_EQ(walk(), -EUCLEAN);
  EXPECT_STREQ(why.text, "inode 0");
}

}  // namespace
}  // namespace daxsnap::format
