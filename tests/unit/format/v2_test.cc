// SPDX-License-Identifier: Apache-2.0
//
// Version 2 of the format: its bytes, and what is written comes back.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"
#include "tests/unit/format/sample.h"

namespace daxsnap::format {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

using Bytes = std::vector<uint8_t>;

Bytes BytesOf(const void* page, size_t from, size_t len) {
  const auto* bytes = static_cast<const uint8_t*>(page) + from;
  return Bytes(bytes, bytes + len);
}

Bytes Text(const char* text) { return BytesOf(text, 0, std::strlen(text)); }

// generation 7, then owner, nr, level, first
Bytes HeadFields(uint8_t owner, uint8_t nr, uint8_t level, uint8_t first) {
  return {7,     0, 0, 0, 0,     0, 0, 0,  //
          owner, 0, 0, 0, 0,     0, 0, 0,  //
          nr,    0, 0, 0, level, 0, 0, 0,  //
          first, 0, 0, 0, 0,     0, 0, 0};
}

class Layout2 : public testing::Test {
 protected:
  Layout2() : image_(64, 2), sink_(image_.Sink(7)) {}

  void ExpectHead(const char* kind, const Bytes& fields) {
    const void* bytes = image_.Page(page_);
    EXPECT_EQ(BytesOf(bytes, 0, 4), Text(kind));
    EXPECT_EQ(BytesOf(bytes, 8, 16), BytesOf(image_.media().uuid, 0, 16));
    EXPECT_EQ(BytesOf(bytes, 24, 32), fields);
    EXPECT_EQ(BytesOf(bytes, 56, 8), Bytes(8));
    const Image sealed(image_);
    image_.Seal(page_);
    EXPECT_EQ(BytesOf(bytes, 4, 4), BytesOf(sealed.Page(page_), 4, 4));
    EXPECT_EQ(sink_.nr_meta_pages, 1U);
    EXPECT_THAT(image_.events(), ElementsAre("flush " + std::to_string(page_)));
  }

  Image image_;
  kmemfs_sink sink_;
  __u64 page_ = 0;
};

TEST_F(Layout2, SegmentBytes) {
  const kmemfs_run_info runs[] = {{0x0a0b, 2}, {0, 5}, {0x0c, 1}};
  ASSERT_EQ(kmemfs_write_segment(&sink_, runs, 3, &page_), 0);
  ExpectHead("SEGM", HeadFields(static_cast<uint8_t>(page_), 3, 0, 8));
  EXPECT_EQ(BytesOf(image_.Page(page_), 64, 32),
            (Bytes{0x0b, 0x0a, 0, 0, 2, 0, 0, 0,  //
                   0,    0,    0, 0, 5, 0, 0, 0,  //
                   0x0c, 0,    0, 0, 1, 0, 0, 0,  //
                   0,    0,    0, 0, 0, 0, 0, 0}));
}

TEST_F(Layout2, NodeBytes) {
  const kmemfs_child_info children[] = {{0x0a0b, 9}, {0, 3}};
  ASSERT_EQ(kmemfs_write_node(&sink_, 2, children, 2, &page_), 0);
  ExpectHead("NODE", HeadFields(static_cast<uint8_t>(page_), 2, 2, 12));
  EXPECT_EQ(BytesOf(image_.Page(page_), 64, 40),
            (Bytes{0x0b, 0x0a, 0, 0, 0, 0, 0, 0,  //
                   9,    0,    0, 0, 0, 0, 0, 0,  //
                   0,    0,    0, 0, 0, 0, 0, 0,  //
                   3,    0,    0, 0, 0, 0, 0, 0,  //
                   0,    0,    0, 0, 0, 0, 0, 0}));
}

TEST_F(Layout2, XattrsBytes) {
  const std::string bytes = Xattr(KMEMFS_XATTR_USER, "ab", "c");
  ASSERT_EQ(kmemfs_write_xattrs(&sink_, 9, bytes.data(),
                                static_cast<__u32>(bytes.size()), &page_),
            0);
  ExpectHead("XATT", HeadFields(9, 7, 0, 0));
  EXPECT_EQ(BytesOf(image_.Page(page_), 64, 9),
            (Bytes{1, 2, 1, 0, 'a', 'b', 'c', 0, 0}));
}

TEST_F(Layout2, SumsBytes) {
  std::vector<__u32> sums(KMEMFS_SUMS_PER_PAGE);
  sums[1] = 0x01020304;
  sums.back() = 5;
  ASSERT_EQ(kmemfs_write_sums(&sink_, 2, sums.data(), &page_), 0);
  Bytes fields = HeadFields(0, 0xf0, 0, 0xe0);  // 1008 and 2016
  fields[17] = 3;
  fields[25] = 7;
  ExpectHead("SUMS", fields);
  EXPECT_EQ(BytesOf(image_.Page(page_), 64, 12),
            (Bytes{0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0}));
  EXPECT_EQ(BytesOf(image_.Page(page_), 4092, 4), (Bytes{5, 0, 0, 0}));
}

TEST_F(Layout2, IndexBytes) {
  const __u64 entries[] = {3, 0, 5};
  ASSERT_EQ(
      kmemfs_write_index(&sink_, KMEMFS_OWNER_SUMS, 1, 6, entries, 3, &page_),
      0);
  ExpectHead("INDX", HeadFields(2, 3, 1, 6));
  EXPECT_EQ(BytesOf(image_.Page(page_), 64, 32),
            (Bytes{3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                   5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_F(Layout2, WritersSayWhenThereIsNoSpace) {
  const kmemfs_run_info run = {9, 1};
  const kmemfs_child_info child = {9, 1};
  const std::vector<__u32> sums(KMEMFS_SUMS_PER_PAGE);
  const __u64 entry = 9;
  const auto refuse = [&] {
    image_.set_refused_page(0);
    return &sink_;
  };
  EXPECT_EQ(kmemfs_write_segment(refuse(), &run, 1, &page_), -ENOSPC);
  EXPECT_EQ(kmemfs_write_node(refuse(), 1, &child, 1, &page_), -ENOSPC);
  EXPECT_EQ(kmemfs_write_xattrs(refuse(), 2, "", 0, &page_), -ENOSPC);
  EXPECT_EQ(kmemfs_write_sums(refuse(), 0, sums.data(), &page_), -ENOSPC);
  EXPECT_EQ(kmemfs_write_index(refuse(), 0, 1, 0, &entry, 1, &page_), -ENOSPC);
  EXPECT_EQ(sink_.nr_meta_pages, 0U);
  EXPECT_THAT(image_.events(), IsEmpty());
}

TEST_F(Layout2, RootBytes) {
  kmemfs_root_info info = {};
  info.version = 2;
  info.generation = 7;
  info.sums = 5;
  info.sums_height = 1;
  info.nr_sums_pages = 0x0203;
  info.nr_links = 4;
  info.sums_generation = 6;
  kmemfs_publish(&sink_, image_.slot(1), &info);
  EXPECT_EQ(BytesOf(image_.Page(2), 112, 8), (Bytes{1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(BytesOf(image_.Page(2), 136, 48),
            (Bytes{5, 0, 0, 0, 0, 0, 0, 0,  // sums
                   1, 0, 0, 0, 0, 0, 0, 0,  // height
                   3, 2, 0, 0, 0, 0, 0, 0,  // leaves
                   4, 0, 0, 0, 0, 0, 0, 0,  // links
                   6, 0, 0, 0, 0, 0, 0, 0,  // generation of the checksums
                   0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Sum, OfAPageIsItsCrc32cButNeverZero) {
  Bytes page(KMEMFS_PAGE_SIZE);
  EXPECT_EQ(kmemfs_page_sum(page.data()), 0x98f94189U);
  std::fill(page.begin(), page.end(), 0xff);
  EXPECT_EQ(kmemfs_page_sum(page.data()), 0x25c1fe13U);
  // Solved for a crc of 0: crc32c is linear in the last four bytes.
  Bytes zero(KMEMFS_PAGE_SIZE);
  const uint32_t base = kmem_persist_page_crc(zero.data(), 4092);
  uint32_t bit[32];
  for (int i = 0; i < 32; i++) {
    std::memset(&zero[4092], 0, 4);
    zero[4092 + i / 8] = static_cast<uint8_t>(1 << i % 8);
    bit[i] = kmemfs_page_sum(zero.data()) ^ base;
  }
  uint32_t need = base, word = 0, used[32], pivot[32];
  int rank = 0;
  for (int i = 0; i < 32; i++) {
    uint32_t value = bit[i], from = 1U << i;
    for (int k = 0; k < rank; k++) {
      if (value & pivot[k] & -pivot[k]) {
        value ^= pivot[k];
        from ^= used[k];
      }
    }
    if (!value) continue;
    pivot[rank] = value;
    used[rank++] = from;
  }
  ASSERT_EQ(rank, 32);
  for (int k = 0; k < rank; k++) {
    if (need & pivot[k] & -pivot[k]) {
      need ^= pivot[k];
      word ^= used[k];
    }
  }
  ASSERT_EQ(need, 0U);
  word = htole32(word);
  std::memcpy(&zero[4092], &word, 4);
  EXPECT_EQ(kmemfs_page_sum(zero.data()), 1U);
}

TEST(Table, HeightIsTheLowestThatHolds) {
  EXPECT_EQ(kmemfs_table_height(1), 0U);
  EXPECT_EQ(kmemfs_table_height(2), 1U);
  EXPECT_EQ(kmemfs_table_height(504), 1U);
  EXPECT_EQ(kmemfs_table_height(505), 2U);
  EXPECT_EQ(kmemfs_table_height(uint64_t{504} * 504), 2U);
  EXPECT_EQ(kmemfs_table_height(uint64_t{504} * 504 + 1), 3U);
  EXPECT_GT(kmemfs_table_height(~0ULL), uint32_t{KMEMFS_MAX_HEIGHT});
}

// Index pages written one at a time are those that the tree writer makes.
TEST(Table, PagesOneAtATimeAreTheSame) {
  Image one(64, 2), other(64, 2);
  kmemfs_sink sink = one.Sink(2);
  kmemfs_tree tree;
  __u64 top = 0, again = 0;
  __u32 height = 0;
  std::vector<__u64> entries(505);
  kmemfs_tree_init(&tree, &sink, 0);
  for (uint64_t i = 0; i < 505; i++) {
    entries[i] = i % 3 ? 0 : 1000 + i;
    ASSERT_EQ(kmemfs_tree_add_leaf(&tree, entries[i]), 0);
  }
  ASSERT_EQ(kmemfs_tree_finish(&tree, &top, &height), 0);
  EXPECT_EQ(height, kmemfs_table_height(505));

  sink = other.Sink(2);
  __u64 level1[2] = {};
  ASSERT_EQ(kmemfs_write_index(&sink, 0, 1, 0, entries.data(), 504, &level1[0]),
            0);
  // Leaf 504 is there: 504 % 3 is 0.
  ASSERT_EQ(kmemfs_write_index(&sink, 0, 1, 504, &entries[504], 1, &level1[1]),
            0);
  ASSERT_EQ(kmemfs_write_index(&sink, 0, 2, 0, level1, 2, &again), 0);
  const auto content = [](Image* image, uint64_t page) {
    return BytesOf(image->Page(page), 64, 4096 - 64);
  };
  EXPECT_EQ(content(&other, level1[0]),
            content(&one, le64toh(one.As<kmemfs_index>(top)->page[0])));
  EXPECT_EQ(content(&other, level1[1]),
            content(&one, le64toh(one.As<kmemfs_index>(top)->page[1])));
  EXPECT_EQ(one.As<kmemfs_index>(top)->head.nr,
            other.As<kmemfs_index>(again)->head.nr);
}

TEST(Version2, OfANewPoolIsEmpty) {
  Image image(8, 2);
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.root.version, 2U);
  EXPECT_EQ(recovery.root.itable, 0U);
  EXPECT_TRUE(recovery.inodes.empty());
}

TEST(Version2, IsWhatItsRootSays) {
  Image image(64);
  image.Commit({RootDirectory()});
  EXPECT_EQ(Recover(image.media()).root.version, 1U);
  image.slot(1)->incompat = htole64(KMEMFS_INCOMPAT_V2);
  image.Seal(2);
  EXPECT_EQ(Recover(image.media()).root.version, 2U);
  image.slot(1)->incompat = htole64(KMEMFS_INCOMPAT_V2 | 0x10);
  image.Seal(2);
  EXPECT_THAT(Recover(image.media()), Refused(EOPNOTSUPP, "features 0x10"));
}

TEST(Version2, GivesBackWhatWasWritten) {
  Image image(kSamplePages, 2);
  CommitSample(&image);
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(BrokenRule(recovery, image.media()), "");
  EXPECT_EQ(recovery.sums, image.sums());
  EXPECT_EQ(recovery.links.at(12), Link(12, "a2", 2, 3));
  EXPECT_EQ(recovery.links.at(13), Link(13, "a3", 2));
  EXPECT_EQ(recovery.inodes.at(14), Special(14, "whiteout", S_IFCHR));
  EXPECT_EQ(recovery.inodes.at(15), Special(15, "null", S_IFCHR | 0666, 0x103));
  EXPECT_EQ(recovery.inodes.at(18), Special(18, "socket", S_IFSOCK | 0755));
  EXPECT_EQ(recovery.inodes.at(19).xattrs.size(), 4 + 301 + 4 + 1 + 4 + 15);
  EXPECT_EQ(recovery.inodes.at(20).xattrs.size(), 4 + 12 + 4 + 28);
  const uint64_t data = recovery.inodes.at(2).runs[0].page;
  EXPECT_THAT(recovery.inodes.at(2).runs, ElementsAre(Extent{0, 5, data}));
  EXPECT_THAT(recovery.inodes.at(19).runs,
              ElementsAre(Extent{0, 2, data}, Extent{7, 1, 1050}));
  EXPECT_EQ(recovery.inodes.at(9).runs.size(), 30U);
  EXPECT_EQ(recovery.inodes.at(10).runs, recovery.inodes.at(9).runs);
  // The first segment has two pages and a hole after each.
  EXPECT_THAT(recovery.inodes.at(11).runs,
              ElementsAre(Extent{0, 1, data}, Extent{2, 1, data + 1},
                          Extent{11, 1, data}, Extent{13, 1, data + 1},
                          Extent{15, 1, data}, Extent{17, 1, data + 1}));
}

TEST(Rope, ComesBackWhateverItsHeight) {
  for (const uint64_t nr : {1, 3, 4, 5, 40, 200}) {
    for (const size_t fill : {2, 3, 7, 252}) {
      Image image(2000, 2);
      image.set_rope_fill(fill, fill);
      const uint64_t data = image.Allocate(nr);
      Inode file = File(2, "f", {});
      uint64_t at = 3;
      for (uint64_t i = 0; i < nr; i++) {
        file.runs.push_back({.file_page = at, .count = 1, .page = data + i});
        at += 1 + i % 3;
      }
      file.size = at * KMEMFS_PAGE_SIZE + 5;
      const Rope rope = image.WriteRope(file.runs);
      if (rope.height > KMEMFS_MAX_HEIGHT) continue;
      Inode with = file;
      with.runs.clear();
      with.rope = rope;
      image.Commit({RootDirectory(), with});
      const Recovery recovery = Recover(image.media());
      ASSERT_THAT(recovery, Taken()) << nr << " runs, " << fill << " entries";
      EXPECT_EQ(recovery.inodes.at(2).runs, file.runs);
      EXPECT_EQ(BrokenRule(recovery, image.media()), "");
    }
  }
}

TEST(Rope, TakesTheLastPageOfTheLargestFile) {
  Image image(64, 2);
  const uint64_t data = image.Allocate(2);
  const Inode file = File(2, "f", {{KMEMFS_MAX_FILE_PAGES - 2, 2, data}});
  image.Commit({RootDirectory(), file});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.at(2), file);
}

struct Visit {
  uint64_t ino, page;
  uint32_t level;
  uint64_t at, count;
  uint32_t nr;

  bool operator==(const Visit&) const = default;
};

TEST(Rope, IsReportedWithItsSegmentsAndNodes) {
  Image image(64, 2);
  const uint64_t data = image.Allocate(4);
  const Rope a = image.WriteRope({{0, 2, data}});
  const Rope b = image.WriteRope({{1, 1, data + 2}});
  const uint64_t node = image.WriteNode(1, {{static_cast<__u32>(a.top), 2},
                                            {0, 10},
                                            {static_cast<__u32>(b.top), 2}});
  Inode file = File(2, "f", {});
  file.rope = {.top = node, .height = 1, .nr_runs = 2, .nr_pages = 3};
  file.size = uint64_t{14} * KMEMFS_PAGE_SIZE;
  const kmemfs_root_info root = image.Commit({RootDirectory(), file});
  std::vector<Visit> visits;
  kmemfs_visitor visitor = {};
  visitor.segment = [](void* ctx, __u64 ino, __u64 page, __u32 level, __u64 at,
                       __u64 count, __u32 nr) {
    static_cast<std::vector<Visit>*>(ctx)->push_back(
        {ino, page, level, at, count, nr});
    return 0;
  };
  ASSERT_EQ(kmemfs_walk(&image.media(), &root, &visitor, &visits, nullptr), 0);
  EXPECT_EQ(visits, (std::vector<Visit>{{2, a.top, 0, 0, 2, 1},
                                        {2, b.top, 0, 12, 2, 2},
                                        {2, node, 1, 0, 14, 3}}));

  // And of one inode alone.
  visits.clear();
  const auto* record = &image.As<kmemfs_inodes>(root.itable)->record[2];
  ASSERT_EQ(kmemfs_walk_runs(&image.media(), &root, record, &visitor, &visits,
                             nullptr),
            0);
  EXPECT_EQ(visits.size(), 3U);
}

// What leads to a page is what the kernel counts as its references.
TEST(Rope, PagesAreReportedOncePerEntryThatLeadsToThem) {
  Image image(64, 2);
  const uint64_t data = image.Allocate(2);
  const auto segment = static_cast<__u32>(image.WriteRope({{0, 2, data}}).top);
  const auto node =
      static_cast<__u32>(image.WriteNode(1, {{segment, 2}, {segment, 2}}));
  const Rope rope = {
      .top = image.WriteNode(2, {{node, 4}, {node, 4}, {node, 4}}),
      .height = 2,
      .nr_runs = 6,
      .nr_pages = 12};
  Inode one = File(2, "one", {});
  one.rope = rope;
  one.size = uint64_t{12} * KMEMFS_PAGE_SIZE;
  Inode two = one;
  two.ino = 3;
  two.name = "two";
  const kmemfs_root_info root = image.Commit({RootDirectory(), one, two});
  EXPECT_EQ(root.nr_meta_pages, 4U);  // with the one of inodes
  EXPECT_THAT(Recover(image.media()), Taken());

  struct Seen {
    std::multiset<uint64_t> meta;
    int runs = 0;
  } seen;
  kmemfs_visitor visitor = {};
  visitor.meta = [](void* ctx, __u64 page, kmemfs_page_kind kind, __u32) {
    auto* so_far = static_cast<Seen*>(ctx);
    const bool first = !so_far->meta.contains(page);
    so_far->meta.insert(page);
    return kind == KMEMFS_KIND_INODES || first ? 0 : KMEMFS_SEEN;
  };
  visitor.run = [](void* ctx, __u64, __u64, __u64, __u64) {
    static_cast<Seen*>(ctx)->runs++;
    return 0;
  };
  ASSERT_EQ(kmemfs_walk(&image.media(), &root, &visitor, &seen, nullptr), 0);
  EXPECT_EQ(seen.meta.count(rope.top), 2U) << "two records";
  EXPECT_EQ(seen.meta.count(node), 3U) << "three entries of one node";
  EXPECT_EQ(seen.meta.count(segment), 2U) << "two entries of one node";
  EXPECT_EQ(seen.runs, 12);
}

TEST(Rope, SharedPagesAreReadButCheckedOnce) {
  // 20 files with one rope of 100 pages: were each page checked for each file,
  // this would still be fast, so count what is reported as metadata.
  Image image(400, 2);
  image.set_rope_fill(4, 4);
  const uint64_t data = image.Allocate(200);
  std::vector<Extent> runs;
  for (uint64_t i = 0; i < 200; i++) runs.push_back({2 * i, 1, data + i});
  const Rope rope = image.WriteRope(runs);
  std::vector<Inode> inodes = {RootDirectory()};
  for (uint64_t ino = 2; ino < 22; ino++) {
    inodes.push_back(File(ino, "f" + std::to_string(ino), {}));
    inodes.back().rope = rope;
    inodes.back().size = uint64_t{399} * KMEMFS_PAGE_SIZE;
  }
  image.Commit(inodes);
  const Recovery recovery = Recover(image.media(), 20);
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.root.nr_file_pages, 4000U);
  EXPECT_EQ(recovery.meta.size(), recovery.root.nr_meta_pages);
  EXPECT_THAT(Recover(image.media(), 19), Refused(EOVERFLOW, "19 owners"));
}

// Five pages that stand for four thousand million.
TEST(Rope, CannotBeReachedMoreOftenThanAnybodyCanWaitFor) {
  Image image(64, 2);
  const uint64_t data = image.Allocate();
  auto page = static_cast<__u32>(image.WriteRope({{0, 1, data}}).top);
  uint64_t length = 1;
  for (uint32_t level = 1; level <= KMEMFS_MAX_HEIGHT; level++) {
    page = static_cast<__u32>(image.WriteNode(
        level, std::vector<kmemfs_child_info>(252, {page, length})));
    length *= 252;
  }
  Inode file = File(2, "f", {});
  file.rope = {.top = page,
               .height = KMEMFS_MAX_HEIGHT,
               .nr_runs = length,
               .nr_pages = length};
  file.size = length * KMEMFS_PAGE_SIZE;
  image.Commit({RootDirectory(), file});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(Recover(image.media()), Refused(EUCLEAN, "too many pages"));
  std::cout << "after "
            << std::chrono::duration_cast<std::chrono::milliseconds>(
                   std::chrono::steady_clock::now() - start)
                   .count()
            << " ms\n";
}

std::string All(const std::string& bytes) {
  std::string text;
  __u32 at = 0;
  while (const kmemfs_xattr* x = kmemfs_xattr_next(
             bytes.data(), static_cast<__u32>(bytes.size()), &at))
    text += std::to_string(x->prefix) + ":" +
            std::string(reinterpret_cast<const char*>(x->bytes),
                        x->name_len + le16toh(x->value_len)) +
            ";";
  return text + (at == bytes.size() ? "." : "!");
}

bool Valid(const std::string& bytes) {
  return kmemfs_xattrs_valid(bytes.data(), static_cast<__u32>(bytes.size()));
}

TEST(Xattrs, AreReadOneAfterTheOther) {
  const std::string bytes =
      Xattr(KMEMFS_XATTR_USER, "a", "1") + Xattr(KMEMFS_XATTR_TRUSTED, "b", "");
  EXPECT_EQ(All(""), ".");
  EXPECT_EQ(All(bytes), "1:a1;2:b;.");
  for (size_t len = 1; len < bytes.size(); len++)
    EXPECT_EQ(All(bytes.substr(0, len)).back(), len == 6 ? '.' : '!') << len;
  EXPECT_EQ(All(std::string("\x01\xff\xff\xff", 4)), "!");
}

TEST(Xattrs, HoldIfInOrderAndOfAKnownKind) {
  const auto user = [](const std::string& name) {
    return Xattr(KMEMFS_XATTR_USER, name, "v");
  };
  EXPECT_TRUE(Valid(""));
  EXPECT_TRUE(Valid(user("b") + user("aa") + user("ab")));
  EXPECT_FALSE(Valid(user("aa") + user("b"))) << "shorter first";
  EXPECT_FALSE(Valid(user("b") + user("a")));
  EXPECT_FALSE(Valid(user("a") + user("a"))) << "twice";
  EXPECT_FALSE(Valid(Xattr(KMEMFS_XATTR_TRUSTED, "a", "") + user("a")));
  EXPECT_FALSE(Valid(user("")));
  EXPECT_FALSE(Valid(user(std::string("a\0b", 3))));
  EXPECT_FALSE(Valid(Xattr(static_cast<kmemfs_xattr_prefix>(0), "a", "")));
  EXPECT_FALSE(Valid(Xattr(static_cast<kmemfs_xattr_prefix>(6), "a", "")));
  EXPECT_TRUE(Valid(Xattr(KMEMFS_XATTR_ACL_ACCESS, "", "acl") +
                    Xattr(KMEMFS_XATTR_ACL_DEFAULT, "", "acl")));
  EXPECT_FALSE(Valid(Xattr(KMEMFS_XATTR_ACL_ACCESS, "x", "acl")));
  EXPECT_FALSE(Valid(Xattr(KMEMFS_XATTR_ACL_ACCESS, "", "acl") +
                     Xattr(KMEMFS_XATTR_ACL_ACCESS, "", "acl")));
  EXPECT_FALSE(Valid(user("a").substr(0, 5)));
}

}  // namespace
}  // namespace daxsnap::format
