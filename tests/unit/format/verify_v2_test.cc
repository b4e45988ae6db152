// SPDX-License-Identifier: Apache-2.0
//
// What can be wrong in a tree of version 2, each with the reason given. Crcs
// are made right again after each change, so it is never the crc that refuses.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "tests/unit/format/change.h"
#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

constexpr uint64_t kPages = 1100;

// Records 1: root; 2: file with a node over two segments, of 3 and 4 pages; 3:
// directory; 4: further name of 2; 5: device; 6: file with a page of
// attributes. The other leaf has 7: directory with attributes in the record; 8:
// fifo.
struct Sample {
  Sample() : image(kPages, 2) {
    data = image.Allocate(8);
    image.set_rope_fill(2, 252);
    segment = image.WriteRope({{1, 2, data}}).top;
    last_segment = image.WriteRope({{0, 3, data + 3}, {3, 1, data + 7}}).top;
    node = image.WriteNode(1, {{static_cast<__u32>(segment), 3},
                               {static_cast<__u32>(last_segment), 4}});
    Inode file = File(2, "file", {});
    file.rope = {.top = node, .height = 1, .nr_runs = 3, .nr_pages = 6};
    file.size = uint64_t{7} * KMEMFS_PAGE_SIZE;
    Inode attributes = File(6, "attributes", {});
    attributes.xattrs = Xattr(KMEMFS_XATTR_USER, "a", std::string(200, 'v')) +
                        Xattr(KMEMFS_XATTR_USER, "b", "w");
    Inode few = Directory(7, "few");
    few.xattrs = Xattr(KMEMFS_XATTR_USER, "a", "v");
    image.sums() = {{data, 5}, {1050, 6}};
    Inode far = File(9, "far", {{0, 1, 1050}});
    root = image.Commit(
        {RootDirectory(), file, Directory(3, "dir"), Link(4, "name", 2, 3),
         Special(5, "device", S_IFBLK | 0600, 0x800), attributes, few,
         Special(8, "fifo", S_IFIFO | 0600), far});
    inodes = le64toh(image.As<kmemfs_index>(root.itable)->page[0]);
    second = le64toh(image.As<kmemfs_index>(root.itable)->page[1]);
    sums = le64toh(image.As<kmemfs_index>(root.sums)->page[0]);
    xattrs = le64toh(record(6)->xattr_page);
  }

  kmemfs_inode_record* record(uint64_t ino) {
    return &image.As<kmemfs_inodes>(ino < 7 ? inodes : second)
                ->record[ino % KMEMFS_INODES_PER_PAGE];
  }
  kmemfs_page_head* head(uint64_t page) {
    return image.As<kmemfs_page_head>(page);
  }
  kmemfs_srun* run(uint64_t i) {
    return &image.As<kmemfs_segment>(segment)->run[i];
  }
  kmemfs_child* child(uint64_t i) {
    return &image.As<kmemfs_node>(node)->child[i];
  }
  kmemfs_xattrs* attributes() { return image.As<kmemfs_xattrs>(xattrs); }
  kmemfs_sums* sums_leaf() { return image.As<kmemfs_sums>(sums); }
  kmemfs_root* slot() { return image.slot(1); }

  void SealAll() {
    for (const __u64 page : std::initializer_list<__u64>{
             2, root.itable, inodes, second, node, segment, last_segment,
             xattrs, root.sums, sums})
      image.Seal(page);
  }

  Image image;
  kmemfs_root_info root;
  uint64_t data, node, segment, last_segment, inodes, second, xattrs, sums;
};

using Change = SampleChange<Sample>;

class Page2 : public testing::TestWithParam<Change> {};

TEST_P(Page2, IsRefused) { ExpectRefused(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    Head, Page2,
    testing::Values(
        Change{"SegmentUuid",
               [](auto* s) { s->head(s->segment)->uuid[0] ^= 1; },
               "wrong uuid"},
        Change{"SegmentOfAnotherPage",
               [](auto* s) { s->head(s->segment)->owner = htole64(2); },
               "owner 2, expected "},
        Change{"SegmentLevel",
               [](auto* s) { s->head(s->segment)->level = htole32(1); },
               "level 1, expected 0"},
        Change{"SegmentGeneration",
               [](auto* s) { s->head(s->segment)->generation = htole64(3); },
               "generation 3, the root's is 2"},
        Change{"SegmentReserved",
               [](auto* s) { s->head(s->segment)->reserved[7] = 1; },
               "reserved bytes"},
        Change{"NoRuns", [](auto* s) { s->head(s->segment)->nr = 0; },
               "0 entries"},
        Change{"TooManyRuns",
               [](auto* s) { s->head(s->segment)->nr = htole32(505); },
               "505 entries"},
        Change{"NodeOfAnotherPage",
               [](auto* s) { s->head(s->node)->owner = 0; },
               "owner 0, expected "},
        Change{"NodeLevel",
               [](auto* s) { s->head(s->node)->level = htole32(2); },
               "level 2, expected 1"},
        Change{"NoChildren", [](auto* s) { s->head(s->node)->nr = 0; },
               "0 entries"},
        Change{"TooManyChildren",
               [](auto* s) { s->head(s->node)->nr = htole32(253); },
               "253 entries"},
        Change{"XattrsOfAnother",
               [](auto* s) { s->head(s->xattrs)->owner = htole64(2); },
               "owner 2, expected 6"},
        Change{"XattrsLevel",
               [](auto* s) { s->head(s->xattrs)->level = htole32(1); },
               "level 1, expected 0"},
        Change{"XattrsFirst",
               [](auto* s) { s->head(s->xattrs)->first = htole64(1); },
               "first 1, expected 0"},
        Change{"XattrsTooLong",
               [](auto* s) { s->head(s->xattrs)->nr = htole32(4033); },
               "4033 entries"},
        Change{"SumsOwner",
               [](auto* s) { s->head(s->sums)->owner = htole64(2); },
               "owner 2, expected 0"},
        Change{"SumsIndexOwner",
               [](auto* s) { s->head(s->root.sums)->owner = 0; },
               "owner 0, expected 2"},
        Change{"SumsFirst",
               [](auto* s) { s->head(s->sums)->first = htole64(1008); },
               "first 1008, expected 0"},
        Change{"TooFewSums",
               [](auto* s) { s->head(s->sums)->nr = htole32(1007); },
               "1007 entries, expected 1008"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Segment, Page2,
    testing::Values(
        Change{"EmptyRun", [](auto* s) { s->run(1)->count = 0; }, "empty run"},
        Change{"EmptyHole", [](auto* s) { s->run(0)->count = 0; }, "empty run"},
        Change{"RunAtASlot", [](auto* s) { s->run(1)->page = htole32(2); },
               "out of bounds"},
        Change{"RunBeyondTheDevice",
               [](auto* s) { s->run(1)->page = htole32(kPages); },
               "out of bounds"},
        Change{"RunAcrossTheEnd",
               [](auto* s) { s->run(1)->page = htole32(kPages - 1); },
               "out of bounds"},
        Change{"RunFarBeyond", [](auto* s) { s->run(1)->page = htole32(~0U); },
               "out of bounds"},
        Change{"OnlyHoles", [](auto* s) { s->run(1)->page = 0; },
               "nothing but holes"},
        Change{"Longer", [](auto* s) { s->run(0)->count = htole32(2); },
               "first 3, expected 4"},
        Change{"LongerThanTheNodeSays",
               [](auto* s) {
                 s->run(0)->count = htole32(2);
                 s->head(s->segment)->first = htole64(4);
               },
               "4 pages long, expected 3"},
        Change{"Padding", [](auto* s) { s->run(503)->count = htole32(1); },
               "unused entries"},
        Change{"OfMetadata",
               [](auto* s) {
                 s->run(1)->page = htole32(static_cast<__u32>(s->node));
               },
               "has metadata"},
        Change{"ThatIsData",
               [](auto* s) {
                 s->run(1)->page = htole32(static_cast<__u32>(s->last_segment));
                 s->run(1)->count = htole32(1);
                 s->run(0)->count = htole32(2);
               },
               "both data and metadata"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Node, Page2,
    testing::Values(
        Change{"ChildAtASlot", [](auto* s) { s->child(0)->page = htole32(1); },
               "page 1: out of bounds"},
        Change{"ChildBeyondTheDevice",
               [](auto* s) { s->child(0)->page = htole32(kPages); },
               "out of bounds"},
        Change{"ChildIsItself",
               [](auto* s) {
                 s->child(0)->page = htole32(static_cast<__u32>(s->node));
               },
               "kind 0x45444f4e, expected 0x4d474553"},
        Change{"ChildIsOfAnotherKind",
               [](auto* s) {
                 s->child(0)->page = htole32(static_cast<__u32>(s->xattrs));
               },
               "kind 0x54544158"},
        Change{"ChildReserved",
               [](auto* s) { s->child(0)->reserved = htole32(1); },
               "reserved bytes"},
        Change{"NoLength", [](auto* s) { s->child(0)->length = 0; },
               "entry of length 0"},
        Change{"LengthBeyondAnyFile",
               [](auto* s) {
                 s->child(0)->length = htole64(KMEMFS_MAX_FILE_PAGES + 1);
               },
               "entry of length"},
        Change{"LengthsOverflow",
               [](auto* s) { s->child(0)->length = htole64(~0ULL - 2); },
               "entry of length"},
        Change{"Longer", [](auto* s) { s->child(0)->length = htole64(4); },
               "first 7, expected 8"},
        Change{"LengthsSwapped",
               [](auto* s) {
                 s->child(0)->length = htole64(4);
                 s->child(1)->length = htole64(3);
               },
               "3 pages long, expected 4"},
        Change{"OnlyHoles",
               [](auto* s) { s->child(0)->page = s->child(1)->page = 0; },
               "nothing but holes"},
        Change{"AHoleMore", [](auto* s) { s->child(0)->page = 0; },
               "wrong counts"},
        Change{"Padding", [](auto* s) { s->child(251)->length = htole64(1); },
               "unused entries"},
        Change{"BeyondTheFile",
               [](auto* s) {
                 s->record(2)->size = htole64(uint64_t{6} * KMEMFS_PAGE_SIZE);
               },
               "beyond the file's size"},
        Change{"HeightTooHigh",
               [](auto* s) { s->record(2)->extents_height = htole32(5); },
               "height 5"},
        Change{"HeightTooLow",
               [](auto* s) { s->record(2)->extents_height = 0; },
               "expected 0x4d474553"},
        Change{"Runs", [](auto* s) { s->record(2)->nr_runs = htole64(2); },
               "has 3 runs, 6 pages"},
        Change{"Pages", [](auto* s) { s->record(2)->nr_pages = htole64(7); },
               "has 3 runs, 6 pages"},
        Change{"MetadataCountedOncePerUse",
               [](auto* s) {
                 s->child(1)->page = s->child(0)->page;
                 s->child(1)->length = s->child(0)->length;
                 s->head(s->node)->first = htole64(6);
                 s->record(2)->nr_runs = htole64(2);
                 s->record(2)->nr_pages = htole64(4);
                 s->slot()->nr_file_pages = htole64(5);
               },
               "metadata pages, found"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Attributes, Page2,
    testing::Values(
        Change{"OutOfOrder", [](auto* s) { s->attributes()->bytes[4] = 'c'; },
               "bad extended attributes"},
        Change{"UnknownPrefix", [](auto* s) { s->attributes()->bytes[0] = 9; },
               "bad extended attributes"},
        Change{"BeyondTheEnd",
               [](auto* s) { s->attributes()->bytes[3] = 0xff; },
               "bad extended attributes"},
        Change{"CutOff",
               [](auto* s) {
                 s->head(s->xattrs)->nr =
                     htole32(le32toh(s->head(s->xattrs)->nr) - 1);
               },
               "bad extended attributes"},
        Change{"Padding", [](auto* s) { s->attributes()->bytes[4031] = 1; },
               "unused bytes"},
        Change{"PageOutOfBounds",
               [](auto* s) { s->record(6)->xattr_page = htole64(1); },
               "page 1: out of bounds"},
        Change{"PageOfTwo",
               [](auto* s) { s->record(2)->xattr_page = htole64(s->xattrs); },
               "owner 6, expected 2"},
        Change{"InRecordAndPage",
               [](auto* s) { s->record(6)->xattr_len = htole16(6); },
               "6 bytes of extended attributes"},
        Change{"InRecordTooLong",
               [](auto* s) { s->record(7)->xattr_len = htole16(185); },
               "185 bytes of extended attributes"},
        Change{"InRecordCutOff",
               [](auto* s) { s->record(7)->xattr_len = htole16(5); },
               "bad extended attributes"},
        Change{"InRecordPadding", [](auto* s) { s->record(7)->xattr[183] = 1; },
               "reserved bytes"},
        Change{"InRecordBesideAPage",
               [](auto* s) { s->record(6)->xattr[0] = 1; }, "reserved bytes"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Record, Page2,
    testing::Values(
        Change{"Reserved0", [](auto* s) { s->record(2)->reserved0 = 1; },
               "reserved bytes"},
        Change{"Reserved", [](auto* s) { s->record(2)->reserved[6] = 1; },
               "reserved bytes"},
        Change{"TargetOfNoName",
               [](auto* s) { s->record(2)->target = htole64(6); },
               "reserved bytes"},
        Change{"DeviceNumberOfAFile",
               [](auto* s) { s->record(2)->rdev = htole32(1); },
               "device number without"},
        Change{"DeviceNumberOfAFifo",
               [](auto* s) { s->record(8)->rdev = htole32(1); },
               "device number without"},
        Change{"DeviceWithASize",
               [](auto* s) { s->record(5)->size = htole64(1); },
               "special file with data"},
        Change{"FifoWithData",
               [](auto* s) {
                 s->record(8)->extents = htole64(s->segment);
                 s->record(8)->nr_runs = htole64(1);
               },
               "special file with data"},
        Change{"NoType", [](auto* s) { s->record(5)->mode = htole32(0600); },
               "bad mode"},
        Change{"UnknownType",
               [](auto* s) { s->record(5)->mode = htole32(0150600); },
               "bad mode"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    FurtherName, Page2,
    testing::Values(
        Change{"UnknownFlag", [](auto* s) { s->record(2)->flags = htole32(2); },
               "unknown flags 0x2"},
        Change{"OneMoreFlag", [](auto* s) { s->record(4)->flags = htole32(3); },
               "unknown flags 0x3"},
        Change{"OfNothing", [](auto* s) { s->record(4)->target = 0; },
               "a name of 0"},
        Change{"OfItself", [](auto* s) { s->record(4)->target = htole64(4); },
               "a name of 4"},
        Change{"OfAnInodeThatIsNotThere",
               [](auto* s) { s->record(4)->target = htole64(100); },
               "a name of 100, which can have none"},
        Change{"OfADirectory",
               [](auto* s) { s->record(4)->target = htole64(3); },
               "a name of 3, which can have none"},
        Change{"OfTheRoot", [](auto* s) { s->record(4)->target = htole64(1); },
               "a name of 1, which can have none"},
        Change{"OfAName",
               [](auto* s) {
                 *s->record(6) = *s->record(4);
                 s->record(6)->ino = htole64(6);
                 s->record(6)->target = htole64(4);
                 s->record(6)->name[0] = 'x';
                 s->slot()->nr_links = htole64(2);
                 s->slot()->nr_inodes = htole64(7);
                 s->slot()->nr_meta_pages = htole64(s->root.nr_meta_pages - 1);
               },
               "a name of 4, which can have none"},
        Change{"ThatIsTheRoot",
               [](auto* s) {
                 s->record(1)->flags = htole32(KMEMFS_RECORD_LINK);
                 s->record(1)->target = htole64(2);
               },
               "inode 1: a name of 2"},
        Change{"WithAMode", [](auto* s) { s->record(4)->mode = htole32(0600); },
               "more than that"},
        Change{"WithASize", [](auto* s) { s->record(4)->size = htole64(1); },
               "more than that"},
        Change{"WithPages",
               [](auto* s) { s->record(4)->extents = htole64(s->segment); },
               "more than that"},
        Change{"WithADevice", [](auto* s) { s->record(4)->rdev = htole32(1); },
               "more than that"},
        Change{"WithAttributes",
               [](auto* s) { s->record(4)->xattr_page = htole64(s->xattrs); },
               "more than that"},
        Change{"WithAttributesInIt",
               [](auto* s) { s->record(4)->xattr[0] = 1; }, "more than that"},
        Change{"WithReserved", [](auto* s) { s->record(4)->reserved[0] = 1; },
               "more than that"},
        Change{"WithoutAName", [](auto* s) { s->record(4)->name_len = 0; },
               "bad name"},
        Change{"WithABadName", [](auto* s) { s->record(4)->name[1] = '/'; },
               "bad name"},
        Change{"InItself", [](auto* s) { s->record(4)->parent = htole64(4); },
               "inode 4: parent 4"},
        Change{"InNothing", [](auto* s) { s->record(4)->parent = 0; },
               "inode 4: parent 0"},
        Change{"InAFile", [](auto* s) { s->record(4)->parent = htole64(6); },
               "parent 6 is no directory"},
        Change{"InWhichIsADirectory",
               [](auto* s) { s->record(6)->parent = htole64(4); },
               "parent 4 is no directory"},
        Change{"TwiceInADirectory",
               [](auto* s) {
                 s->record(4)->parent = htole64(1);
                 std::memcpy(s->record(4)->name, "file", 4);
               },
               "inodes 2 and 4 have the same name"},
        Change{"TooFew", [](auto* s) { s->slot()->nr_links = 0; },
               "says 0 further names, found 1"},
        Change{"TooMany", [](auto* s) { s->slot()->nr_links = htole64(~0ULL); },
               "further names, found 1"}),
    kNameOfChange);

INSTANTIATE_TEST_SUITE_P(
    Checksums, Page2,
    testing::Values(
        Change{"BeyondTheDevice",
               [](auto* s) {
                 auto* index = s->image.template As<kmemfs_index>(s->root.sums);
                 const uint64_t last = le64toh(index->page[1]);
                 s->image.template As<kmemfs_sums>(last)->sum[1007] =
                     htole32(1);
                 s->image.Seal(last);
               },
               "checksum of page 2015 of "},
        Change{"WithoutATable", [](auto* s) { s->slot()->sums = 0; },
               "counts without a table of checksums"},
        Change{"HeightWithoutATable",
               [](auto* s) {
                 s->slot()->sums = 0;
                 s->slot()->nr_sums_pages = 0;
               },
               "counts without a table of checksums"},
        Change{"Height", [](auto* s) { s->slot()->sums_height = 0; },
               "checksums of height 0 for 2 pages"},
        Change{"NoLeaves", [](auto* s) { s->slot()->nr_sums_pages = 0; },
               "checksums of height 1 for 0 pages"},
        Change{"MoreLeavesThanTheDeviceHas",
               [](auto* s) { s->slot()->nr_sums_pages = htole64(3); },
               "checksums of height 1 for 3 pages"},
        Change{"OfThisGeneration",
               [](auto* s) { s->slot()->sums_generation = htole64(2); },
               "checksums of generation 2, its own is 2"},
        Change{"OfALaterGeneration",
               [](auto* s) { s->slot()->sums_generation = htole64(~0ULL); },
               "checksums of generation 18446744073709551615, its own is 2"},
        Change{"GenerationWithoutATable",
               [](auto* s) {
                 s->slot()->sums = 0;
                 s->slot()->sums_height = 0;
                 s->slot()->nr_sums_pages = 0;
                 s->slot()->sums_generation = htole64(1);
               },
               "counts without a table of checksums"},
        Change{"OneLeafTwice",
               [](auto* s) {
                 auto* index = s->image.template As<kmemfs_index>(s->root.sums);
                 index->page[1] = index->page[0];
               },
               "first 0, expected 1008"},
        Change{"TableOfInodes",
               [](auto* s) { s->slot()->sums = htole64(s->root.itable); },
               "owner 0, expected 2"},
        Change{"RootReserved1",
               [](auto* s) { s->slot()->reserved1 = htole32(1); }, "reserved"},
        Change{"RootReserved", [](auto* s) { s->slot()->reserved[0] = 1; },
               "reserved"}),
    kNameOfChange);

// They would fit: nothing but their own number tells which is which.
TEST(Segments, OfOneLengthAreNotTakenForEachOther) {
  Image image(64, 2);
  const uint64_t data = image.Allocate(2);
  image.Commit({RootDirectory(), File(2, "a", {{0, 1, data}}),
                File(3, "b", {{0, 1, data + 1}})});
  auto* records = image.As<kmemfs_inodes>(5)->record;
  const uint64_t a = le64toh(records[2].extents);
  const uint64_t b = le64toh(records[3].extents);
  std::swap_ranges(image.As<uint8_t>(a), image.As<uint8_t>(a + 1),
                   image.As<uint8_t>(b));
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "owner " + std::to_string(b) + ", expected " +
                                   std::to_string(a)));
}

TEST(SharedTrees, AreNotWalkedWithoutEnd) {
  Image image(64, 2);
  const Rope rope = image.WriteSharedRope({{0, 1, image.Allocate()}}, 4);
  const uint64_t length = rope.nr_pages;
  ASSERT_GT(length, KMEMFS_MAX_VISITS);
  Inode file = File(2, "file", {});
  file.rope = rope;
  file.size = length * KMEMFS_PAGE_SIZE;
  image.Commit({RootDirectory(), file});
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "inode 2: too many pages of shared trees"));
}

TEST(Checksums, NeedATree) {
  Image image(64, 2);
  image.slot(0)->sums = htole64(5);
  image.slot(0)->nr_sums_pages = htole64(1);
  image.Seal(1);
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "counts without an inode table"));
}

TEST(Checksums, OfAllDataMayBeThere) {
  Sample sample;
  for (uint64_t i = 0; i < 8; i++)
    sample.sums_leaf()->sum[sample.data + i] = htole32(9);
  for (const uint64_t gap : {2, 6})
    sample.sums_leaf()->sum[sample.data + gap] = 0;
  sample.SealAll();
  EXPECT_THAT(Recover(sample.image.media()), Taken());
}

TEST(Checksums, OfAnEarlierGenerationCountForItsSegments) {
  Image image(kPages, 2);
  const uint64_t data = image.Allocate(3);
  const Rope old = image.WriteRope({{0, 2, data}});  // generation 2
  Inode kept = File(2, "kept", {});
  kept.rope = old;
  kept.size = uint64_t{2} * KMEMFS_PAGE_SIZE;
  image.sums() = {{data, 5}, {data + 2, 6}};
  image.Commit({RootDirectory(), kept, File(3, "new", {{0, 1, data + 2}})}, 4);
  EXPECT_EQ(Recover(image.media()).sums, image.sums());
  image.slot(1)->sums_generation = htole64(2);
  image.Seal(2);
  EXPECT_EQ(Recover(image.media()).sums,
            (std::map<uint64_t, uint32_t>{{data, 5}}));
  image.slot(1)->sums_generation = htole64(1);
  image.Seal(2);
  EXPECT_THAT(Recover(image.media()).sums, testing::IsEmpty());
}

struct Table {
  const char* name;
  std::function<void(Sample*)> change;
};

void PrintTo(const Table& table, std::ostream* out) { *out << table.name; }

class TableOfChecksums : public testing::TestWithParam<Table> {};

// As an attach does it.
TEST_P(TableOfChecksums, ThatDoesNotHoldIsAllThatIsLost) {
  Sample sample;
  EXPECT_FALSE(RecoverWithoutSums(sample.image.media()).sums_lost);
  GetParam().change(&sample);
  const Recovery strict = Recover(sample.image.media());
  EXPECT_EQ(strict.error, -EUCLEAN);
  EXPECT_FALSE(strict.sums_lost);
  const Recovery lost = RecoverWithoutSums(sample.image.media());
  EXPECT_EQ(lost.error, 0) << lost.why;
  EXPECT_TRUE(lost.sums_lost);
  EXPECT_EQ(lost.why, strict.why);
  // All else still has to hold.
  sample.slot()->nr_inodes = htole64(99);
  sample.image.Seal(2);
  const Recovery refused = RecoverWithoutSums(sample.image.media());
  EXPECT_THAT(refused, Refused(EUCLEAN, "root: says 99 inodes"));
}

INSTANTIATE_TEST_SUITE_P(
    Damaged, TableOfChecksums,
    testing::Values(
        Table{"Leaf", [](auto* s) { s->sums_leaf()->sum[3] ^= 1; }},
        Table{"Top", [](auto* s) { s->head(s->root.sums)->uuid[0] ^= 1; }},
        Table{"BeyondTheDevice",
              [](auto* s) {
                s->slot()->sums = htole64(kPages);
                s->image.Seal(2);
              }},
        Table{"IsTheHeader",
              [](auto* s) {
                s->slot()->sums = htole64(1);
                s->image.Seal(2);
              }},
        Table{"IsData",
              [](auto* s) {
                auto* index = s->image.template As<kmemfs_index>(s->root.sums);
                std::memcpy(s->image.Page(s->data), s->sums_leaf(),
                            KMEMFS_PAGE_SIZE);
                index->page[0] = htole64(s->data);
                s->image.Seal(s->root.sums);
              }},
        Table{"IsASegment",
              [](auto* s) {
                auto* index = s->image.template As<kmemfs_index>(s->root.sums);
                index->page[0] = htole64(s->segment);
                s->image.Seal(s->root.sums);
              }},
        Table{"IsTheInodeTable",
              [](auto* s) {
                s->slot()->sums = htole64(s->root.itable);
                s->image.Seal(2);
              }},
        Table{"OneLeafTwice",
              [](auto* s) {
                auto* index = s->image.template As<kmemfs_index>(s->root.sums);
                index->page[1] = index->page[0];
                s->image.Seal(s->root.sums);
              }}),
    kNameOfChange);

TEST(Checksums, OfWhatIsNoDataAreLeftOver) {
  Sample sample;
  for (const uint64_t page : {uint64_t{0}, sample.node, uint64_t{900},
                              sample.data + 2 /* a gap in the runs */})
    sample.sums_leaf()->sum[page] = htole32(9);
  sample.SealAll();
  EXPECT_THAT(Recover(sample.image.media()), Taken());
}

TEST(Names, MayBeAsManyAsTheLimit) {
  constexpr uint64_t kNames = KMEMFS_LINK_MAX;
  std::vector<Inode> inodes = {RootDirectory(), File(2, "f", {})};
  for (uint64_t i = 1; i < kNames; i++)
    inodes.push_back(Link(2 + i, "f" + std::to_string(i), 2));
  Image image(kNames / KMEMFS_INODES_PER_PAGE + 100, 2);
  image.Commit(inodes, 2);
  EXPECT_THAT(Recover(image.media()), Taken());
  inodes.push_back(Link(2 + kNames, "one more", 2));
  Image other(kNames / KMEMFS_INODES_PER_PAGE + 100, 2);
  other.Commit(inodes, 2);
  EXPECT_THAT(Recover(other.media()),
              Refused(EUCLEAN, "inode 2: more than 65000 names"));
}

// What version 2 has added is refused in a tree of version 1, and its extent
// trees in one of version 2.
TEST(Versions, DoNotMix) {
  const auto refused = [](const std::function<void(kmemfs_inode_record*)>& f) {
    Image image(64);
    image.Commit({RootDirectory(), File(2, "f", {})});
    f(&image.As<kmemfs_inodes>(3)->record[2]);
    image.Seal(3);
    return Recover(image.media());
  };
  EXPECT_THAT(refused([](auto*) {}), Taken());
  EXPECT_THAT(refused([](auto* r) { r->flags = htole32(KMEMFS_RECORD_LINK); }),
              Refused(EUCLEAN, "reserved bytes"));
  EXPECT_THAT(refused([](auto* r) { r->rdev = htole32(1); }),
              Refused(EUCLEAN, "reserved bytes"));
  EXPECT_THAT(refused([](auto* r) { r->xattr_len = htole16(1); }),
              Refused(EUCLEAN, "reserved bytes"));
  EXPECT_THAT(refused([](auto* r) { r->xattr_page = htole64(9); }),
              Refused(EUCLEAN, "reserved bytes"));
  EXPECT_THAT(refused([](auto* r) { r->target = htole64(9); }),
              Refused(EUCLEAN, "reserved bytes"));
  EXPECT_THAT(refused([](auto* r) { r->xattr[183] = 1; }),
              Refused(EUCLEAN, "reserved bytes"));
  for (const uint32_t type : {S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK})
    EXPECT_THAT(refused([&](auto* r) { r->mode = htole32(type | 0600); }),
                Refused(EUCLEAN, "bad mode"));

  Image image(64);
  const uint64_t data = image.Allocate();
  image.Commit({RootDirectory(), File(2, "f", {{0, 1, data}})});
  image.slot(1)->incompat = htole64(KMEMFS_INCOMPAT_V2);
  image.Seal(2);
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "kind 0x53545845, expected 0x4d474553"));

  Image later(64, 2);
  const uint64_t page = later.Allocate();
  later.Commit({RootDirectory(), File(2, "f", {{0, 1, page}})});
  later.slot(1)->incompat = 0;
  later.Seal(2);
  EXPECT_THAT(Recover(later.media()),
              Refused(EUCLEAN, "kind 0x4d474553, expected 0x53545845"));
  later.slot(1)->nr_links = htole64(1);
  later.Seal(2);
  EXPECT_THAT(Recover(later.media()),
              Refused(EUCLEAN, "root: reserved bytes not zero"));
}

}  // namespace
}  // namespace daxsnap::format
