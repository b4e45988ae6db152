// SPDX-License-Identifier: Apache-2.0
//
// What the writers write is what the readers read.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

using testing::ElementsAre;

// count runs of one page that do not merge.
std::vector<Extent> SingleRuns(uint64_t count, uint64_t page) {
  std::vector<Extent> runs;
  for (uint64_t i = 0; i < count; i++)
    runs.push_back({.file_page = 2 * i, .count = 1, .page = page});
  return runs;
}

class ExtentTree : public testing::TestWithParam<uint64_t> {};

TEST_P(ExtentTree, GivesBackItsRuns) {
  const uint64_t nr_runs = GetParam();
  Image image(nr_runs / KMEMFS_RUNS_PER_PAGE + 64);
  const uint64_t data = image.Allocate();
  const Inode file = File(2, "f", SingleRuns(nr_runs, data));
  const kmemfs_root_info root = image.Commit({RootDirectory(), file});

  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.at(2), file);
  EXPECT_EQ(recovery.root.nr_file_pages, nr_runs);
  EXPECT_EQ(recovery.meta.size(), root.nr_meta_pages);
  EXPECT_EQ(BrokenRule(recovery, image.media()), "");
}

INSTANTIATE_TEST_SUITE_P(AroundFullPages, ExtentTree,
                         testing::Values(0, 1, 2, 251, 252, 253, 504, 505,
                                         252 * 504 - 1, 252 * 504,
                                         252 * 504 + 1, 2 * 252 * 504 + 253));

class InodeTable : public testing::TestWithParam<uint64_t> {};

TEST_P(InodeTable, GivesBackTheLastOfManyInodes) {
  const uint64_t last = GetParam();
  Image image(last / 7 / 504 + 64);
  const std::vector<Inode> inodes = {RootDirectory(), File(last, "f", {})};
  const kmemfs_root_info root = image.Commit(inodes);
  EXPECT_EQ(root.nr_inode_pages, last / 7 + 1);

  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.size(), 2U);
  EXPECT_EQ(recovery.inodes.at(last), inodes[1]);
  EXPECT_EQ(BrokenRule(recovery, image.media()), "");
}

INSTANTIATE_TEST_SUITE_P(AroundFullPages, InodeTable,
                         testing::Values(2, 6, 7, 13, 14, 504 * 7 - 1, 504 * 7,
                                         504 * 504 * 7 - 1, 504 * 504 * 7,
                                         504 * 504 * 7 + 504 * 7));

TEST(InodeTable, GivesBackAllOfManyInodes) {
  Image image(2000);
  std::vector<Inode> inodes = {RootDirectory()};
  for (uint64_t ino = 2; ino < 9000; ino++) {
    if (ino % 11 == 0) continue;
    inodes.push_back(ino % 5 ? File(ino, std::to_string(ino), {})
                             : Directory(ino, std::to_string(ino)));
  }
  image.Commit(inodes);
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  ASSERT_EQ(recovery.inodes.size(), inodes.size());
  for (const Inode& inode : inodes)
    ASSERT_EQ(recovery.inodes.at(inode.ino), inode);
}

TEST(InodeTable, MayLackWholeIndexPages) {
  // Two levels; the first index page holds the root directory, the second one
  // is absent, the third one holds the file.
  constexpr uint64_t kIndexPages = 2;
  const uint64_t ino = kIndexPages * 504 * 7;
  Image image(64);
  const kmemfs_root_info root =
      image.Commit({RootDirectory(), File(ino, "f", {})});
  ASSERT_EQ(root.itable_height, 2U);
  EXPECT_EQ(image.As<kmemfs_index>(root.itable)->page[1], 0U);
  // Two leaves, and the way to them.
  EXPECT_EQ(root.nr_meta_pages, 5U);
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.at(ino).name, "f");
}

// An inode with a very large number, which a device may have that others made,
// must not cost the next commit an index of all the numbers below.
TEST(InodeTable, IsSmallWhateverTheNumbersAre) {
  constexpr uint64_t kLast = (uint64_t{1} << 31) - 1;
  Image image(64);
  const std::vector<Inode> inodes = {RootDirectory(), File(kLast, "f", {})};
  const kmemfs_root_info root = image.Commit(inodes);
  EXPECT_EQ(root.itable_height, 4U);
  EXPECT_EQ(root.nr_meta_pages, 2U + 1 + 3 * 2);
  EXPECT_LE(root.nr_meta_pages,
            2 + kmemfs_table_index_pages(2, root.nr_inode_pages));
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.at(kLast), inodes[1]);
  EXPECT_EQ(BrokenRule(recovery, image.media()), "");
}

// Leaf by leaf, and in one step.
TEST(InodeTable, SkippedLeavesAreAbsentOnes) {
  for (const uint64_t skipped :
       {1U, 2U, 502U, 503U, 504U, 505U, 1007U, 1008U, 504U * 504, 600000U}) {
    std::vector<std::vector<unsigned char>> written;
    for (const bool at_once : {false, true}) {
      Image image(64);
      kmemfs_sink sink = image.Sink(2);
      kmemfs_tree tree;
      __u64 top = 0;
      __u32 height = 0;
      kmemfs_tree_init(&tree, &sink, 0);
      ASSERT_EQ(kmemfs_tree_add_leaf(&tree, 7), 0);
      if (at_once) {
        ASSERT_EQ(kmemfs_tree_skip_leaves(&tree, skipped), 0);
      } else {
        for (uint64_t i = 0; i < skipped; i++)
          ASSERT_EQ(kmemfs_tree_add_leaf(&tree, 0), 0);
      }
      ASSERT_EQ(kmemfs_tree_add_leaf(&tree, 8), 0);
      EXPECT_EQ(tree.leaves, skipped + 2);
      ASSERT_EQ(kmemfs_tree_finish(&tree, &top, &height), 0);
      EXPECT_LE(sink.nr_meta_pages, kmemfs_table_index_pages(2, skipped + 2));
      std::vector<unsigned char> pages;
      for (uint64_t page = 3; page < 3 + sink.nr_meta_pages; page++) {
        const auto* bytes = image.As<unsigned char>(page);
        pages.insert(pages.end(), bytes, bytes + KMEMFS_PAGE_SIZE);
      }
      pages.push_back(static_cast<unsigned char>(top));
      pages.push_back(static_cast<unsigned char>(height));
      written.push_back(std::move(pages));
    }
    EXPECT_EQ(written[0] == written[1], true) << skipped;
  }
}

// What the kernel puts aside for a commit is what it takes.
TEST_P(ExtentTree, TakesAsManyPagesAsIsSaidBefore) {
  const uint64_t nr_runs = GetParam();
  Image image(nr_runs / KMEMFS_RUNS_PER_PAGE + 64);
  const uint64_t data = image.Allocate();
  const kmemfs_root_info root =
      image.Commit({RootDirectory(), File(2, "f", SingleRuns(nr_runs, data))});
  EXPECT_EQ(root.nr_meta_pages, 1 + kmemfs_extents_pages(nr_runs));
}

TEST_P(InodeTable, TakesNoMorePagesThanIsSaidBefore) {
  const uint64_t last = GetParam();
  Image image(last / 7 / 504 + 64);
  const kmemfs_root_info root =
      image.Commit({RootDirectory(), File(last, "f", {})});
  const uint64_t leaves = last < 7 ? 1 : 2;
  EXPECT_LE(root.nr_meta_pages,
            leaves + kmemfs_table_index_pages(leaves, root.nr_inode_pages));
}

TEST(Tree, KeepsEveryFieldOfAnInode) {
  Image image(64);
  image.Commit({RootDirectory(), File(2, "f", {})});
  auto* record = &image.As<kmemfs_inodes>(3)->record[2];
  record->atime = htole64(static_cast<uint64_t>(-1));
  record->mtime = htole64(1);
  record->ctime = htole64(2);
  record->btime = htole64(3);
  record->uid = htole32(~0U);
  record->gid = htole32(5);
  record->generation = htole32(6);
  image.Seal(3);
  static kmemfs_inode_record seen;
  kmemfs_visitor visitor = {};
  visitor.inode = [](void*, const kmemfs_inode_record* r) {
    std::memcpy(&seen, r, sizeof(seen));
    return 0;
  };
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  ASSERT_EQ(
      kmemfs_walk(&image.media(), &recovery.root, &visitor, nullptr, nullptr),
      0);
  EXPECT_EQ(std::memcmp(&seen, record, sizeof(seen)), 0);
}

TEST(Tree, MergesRunsThatContinueOnFileAndDevice) {
  Image image(64);
  const uint64_t data = image.Allocate(20);
  image.Commit({RootDirectory(), File(2, "f",
                                      {{0, 1, data},
                                       {1, 2, data + 1},
                                       {3, 1, data + 5},
                                       {5, 1, data + 6},
                                       {6, 1, data + 7}})});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_THAT(recovery.inodes.at(2).runs,
              ElementsAre(Extent{0, 3, data}, Extent{3, 1, data + 5},
                          Extent{5, 2, data + 6}));
}

TEST(Tree, TakesTheLastPageOfTheLargestFile) {
  Image image(64);
  const uint64_t data = image.Allocate(2);
  const Inode file = File(2, "f", {{KMEMFS_MAX_FILE_PAGES - 2, 2, data}});
  image.Commit({RootDirectory(), file});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.at(2), file);
}

TEST(Tree, RefusesRunsThatDoNotFit) {
  Image image(64);
  kmemfs_sink sink = image.Sink(2);
  kmemfs_tree tree;
  kmemfs_tree_init(&tree, &sink, 2);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 0, 0, 5), -EINVAL);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, KMEMFS_MAX_FILE_PAGES, 1, 5), -EFBIG);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, KMEMFS_MAX_FILE_PAGES - 1, 2, 5),
            -EFBIG);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 0, KMEMFS_MAX_PAGES + 1, 5), -EFBIG);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, ~0ULL, ~0ULL, 5), -EFBIG);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 10, 2, 5), 0);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 11, 1, 9), -EINVAL);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 9, 1, 9), -EINVAL);
  EXPECT_EQ(kmemfs_tree_add_run(&tree, 12, 1, 9), 0);
}

TEST(Tree, RefusesARunOutOfOrderThoughALeafWasJustSealed) {
  Image image(64);
  kmemfs_sink sink = image.Sink(2);
  kmemfs_tree tree;
  kmemfs_tree_init(&tree, &sink, 2);
  for (uint64_t i = 0; i < uint64_t{2} * KMEMFS_RUNS_PER_PAGE; i++) {
    ASSERT_EQ(kmemfs_tree_add_run(&tree, 2 * i, 1, 5), 0);
    ASSERT_EQ(kmemfs_tree_add_run(&tree, 2 * i, 1, 5), -EINVAL);
  }
}

TEST(Tree, WithoutLeavesHasNoTop) {
  Image image(8);
  kmemfs_sink sink = image.Sink(2);
  kmemfs_tree tree;
  __u64 top = 7;
  __u32 height = 7;
  kmemfs_tree_init(&tree, &sink, 2);
  ASSERT_EQ(kmemfs_tree_finish(&tree, &top, &height), 0);
  EXPECT_EQ(top, 0U);
  EXPECT_EQ(height, 0U);
  EXPECT_EQ(sink.nr_meta_pages, 0U);
}

// Whichever page it does not get: 505 leaves and 3 index pages.
TEST(Tree, SaysSoWhenThereIsNoSpace) {
  constexpr uint64_t kRuns = 252 * 504 + 1;
  constexpr int64_t kNeeded = 505 + 3;
  for (int64_t refused = 0; refused <= kNeeded;
       refused += refused < 6 || refused > 500 ? 1 : 45) {
    Image image(1024);
    image.set_refused_page(refused);
    kmemfs_sink sink = image.Sink(2);
    kmemfs_tree tree;
    __u64 top = 0;
    __u32 height = 0;
    int error = 0;
    kmemfs_tree_init(&tree, &sink, 2);
    for (uint64_t i = 0; i < kRuns && !error; i++)
      error = kmemfs_tree_add_run(&tree, 2 * i, 1, 5);
    if (!error) error = kmemfs_tree_finish(&tree, &top, &height);
    EXPECT_EQ(error, refused < kNeeded ? -ENOSPC : 0) << refused;
    EXPECT_EQ(sink.nr_meta_pages, static_cast<uint64_t>(refused));
  }
}

TEST(Tree, FlushesEachPageOnceAndTheRootBetweenFences) {
  Image image(1024);
  const uint64_t data = image.Allocate();
  image.Commit({RootDirectory(), File(2, "f", SingleRuns(253, data))});
  // Pages: 3 data, 4 inodes, 5 and 6 extents, 7 their index.
  EXPECT_THAT(image.events(),
              ElementsAre("flush 5", "flush 6", "flush 7", "flush 4", "fence",
                          "flush 2", "fence"));
}

TEST(Walk, EndsWithWhatACallbackReturns) {
  Image image(64);
  const uint64_t data = image.Allocate();
  image.Commit({RootDirectory(), File(2, "f", {{0, 1, data}})});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  const auto walk = [&](const kmemfs_visitor& visitor) {
    return kmemfs_walk(&image.media(), &recovery.root, &visitor, nullptr,
                       nullptr);
  };
  kmemfs_visitor visitor = {};
  EXPECT_EQ(walk(visitor), 0);
  visitor.run = [](void*, __u64, __u64, __u64, __u64) { return 13; };
  EXPECT_EQ(walk(visitor), 13);
  visitor.inode = [](void*, const kmemfs_inode_record*) { return -12; };
  EXPECT_EQ(walk(visitor), -12);
  visitor.meta = [](void*, __u64, kmemfs_page_kind, __u32) { return 11; };
  EXPECT_EQ(walk(visitor), 11);
}

TEST(Walk, RefusesARootThatNoSlotCanSay) {
  Image image(64);
  const kmemfs_root_info good =
      image.Commit({RootDirectory(), File(2, "f", {})});
  const kmemfs_visitor nothing = {};
  kmemfs_root_info root = good;
  root.itable_height = 1000;
  EXPECT_EQ(kmemfs_walk(&image.media(), &root, &nothing, nullptr, nullptr),
            -EUCLEAN);
  root = good;
  root.nr_inode_pages = 0;
  EXPECT_EQ(kmemfs_walk(&image.media(), &root, &nothing, nullptr, nullptr),
            -EUCLEAN);
  image.mutable_media().end = 1000;
  EXPECT_EQ(kmemfs_walk(&image.media(), &good, &nothing, nullptr, nullptr),
            -EUCLEAN);
}

TEST(Walk, OfOneInodeGivesItsRunsOnly) {
  Image image(64);
  const uint64_t data = image.Allocate(4);
  image.Commit({RootDirectory(), File(2, "a", {{0, 2, data}}),
                File(3, "b", {{0, 1, data}, {4, 1, data + 3}})});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  const auto* record = &image.As<kmemfs_inodes>(7)->record[3];
  ASSERT_EQ(le64toh(record->ino), 3U);
  struct Seen {
    std::vector<Extent> runs;
    int meta = 0;
    int inodes = 0;
  } seen;
  kmemfs_visitor visitor = {};
  visitor.meta = [](void* ctx, __u64, kmemfs_page_kind kind, __u32 level) {
    EXPECT_EQ(kind, KMEMFS_KIND_EXTENTS);
    EXPECT_EQ(level, 0U);
    static_cast<Seen*>(ctx)->meta++;
    return 0;
  };
  visitor.inode = [](void* ctx, const kmemfs_inode_record*) {
    static_cast<Seen*>(ctx)->inodes++;
    return 0;
  };
  visitor.run = [](void* ctx, __u64 ino, __u64 at, __u64 count, __u64 page) {
    EXPECT_EQ(ino, 3U);
    static_cast<Seen*>(ctx)->runs.push_back({at, count, page});
    return 0;
  };
  ASSERT_EQ(kmemfs_walk_runs(&image.media(), &recovery.root, record, &visitor,
                             &seen, nullptr),
            0);
  EXPECT_EQ(seen.runs, recovery.inodes.at(3).runs);
  EXPECT_EQ(seen.meta, 1);
  EXPECT_EQ(seen.inodes, 0);
}

}  // namespace
}  // namespace daxsnap::format
