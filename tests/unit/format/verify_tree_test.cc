// SPDX-License-Identifier: Apache-2.0
//
// What is wrong only when pages are looked at together.
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

Recovery RecoverTree(std::vector<Inode> inodes) {
  Image image(64);
  inodes.insert(inodes.begin(), RootDirectory());
  image.Commit(inodes);
  return Recover(image.media());
}

TEST(Owners, OfAPageAreCountedIfAskedFor) {
  Image image(64);
  const uint64_t data = image.Allocate(4);
  image.Commit({RootDirectory(), File(2, "a", {{0, 4, data}}),
                File(3, "b", {{0, 1, data + 1}, {1, 2, data + 1}})});
  EXPECT_THAT(Recover(image.media()), Taken());
  EXPECT_THAT(Recover(image.media(), 3), Taken());
  EXPECT_THAT(Recover(image.media(), 2),
              Refused(EOVERFLOW, "page " + std::to_string(data + 1) +
                                     ": more than 2 owners"));
}

TEST(Directories, MayBeInAnyOrderOfNumbers) {
  const Recovery recovery =
      RecoverTree({Directory(2, "leaf", 9), File(3, "f", {}, 2),
                   Directory(9, "middle", 20), Directory(20, "top")});
  EXPECT_THAT(recovery, Taken());
}

TEST(Directories, MayBeAsDeepAsThereAreInodes) {
  std::vector<Inode> inodes = {RootDirectory(), Directory(2, "d")};
  for (uint64_t ino = 3; ino < 20000; ino++)
    inodes.push_back(Directory(ino, "d", ino - 1));
  Image image(4000);
  image.Commit(inodes);
  EXPECT_THAT(Recover(image.media()), Taken());
}

TEST(Directories, MustExist) {
  EXPECT_THAT(RecoverTree({File(2, "f", {}, 5)}),
              Refused(EUCLEAN, "parent 5 is no directory"));
}

TEST(Directories, MustExistAllTheWayUp) {
  EXPECT_THAT(RecoverTree({File(2, "f", {}, 3), Directory(3, "d", 99)}),
              Refused(EUCLEAN, "no way to the root directory"));
}

TEST(Directories, MustExistThoughTheNumberIsHuge) {
  EXPECT_THAT(RecoverTree({File(2, "f", {}, ~0ULL)}),
              Refused(EUCLEAN, "is no directory"));
}

TEST(Directories, CannotBeNumberZero) {
  EXPECT_THAT(RecoverTree({File(2, "f", {}, 0)}),
              Refused(EUCLEAN, "inode 2: parent 0"));
}

TEST(Directories, CannotBeFiles) {
  EXPECT_THAT(RecoverTree({File(2, "f", {}), File(3, "g", {}, 2)}),
              Refused(EUCLEAN, "parent 2 is no directory"));
}

TEST(Directories, CannotBeTheirOwnParents) {
  EXPECT_THAT(RecoverTree({Directory(2, "d", 2)}),
              Refused(EUCLEAN, "inode 2: parent 2"));
}

TEST(Directories, CannotBeInACycle) {
  EXPECT_THAT(RecoverTree({Directory(2, "d", 4), Directory(3, "e", 2),
                           Directory(4, "f", 3), File(5, "g", {}, 3)}),
              Refused(EUCLEAN, "its own ancestor"));
}

TEST(Directories, CannotBeInACycleThatIsReachedLate) {
  EXPECT_THAT(
      RecoverTree({Directory(2, "a"), Directory(3, "b", 2), File(4, "c", {}, 5),
                   Directory(5, "d", 6), Directory(6, "e", 5)}),
      Refused(EUCLEAN, "its own ancestor"));
}

TEST(Directories, HaveTheRootDirectoryAtTheirTop) {
  Image image(64);
  image.Commit({Directory(2, "d", 2)});
  EXPECT_THAT(Recover(image.media()), Refused(EUCLEAN, "parent 2"));

  Image empty(64);
  empty.Commit({Directory(2, "d", 3), Directory(3, "e", 2)});
  EXPECT_THAT(Recover(empty.media()), Refused(EUCLEAN, "no root directory"));
}

TEST(Directories, ExistAtAllIfThereIsATable) {
  Image image(64);
  image.Commit({RootDirectory()});
  auto* leaf = image.As<kmemfs_inodes>(3);
  std::memset(&leaf->record[1], 0, sizeof(leaf->record[1]));
  image.Seal(3);
  image.slot(1)->nr_inodes = 0;
  image.Seal(2);
  EXPECT_THAT(Recover(image.media()), Refused(EUCLEAN, "no root directory"));
}

TEST(Directories, RootMustBeADirectory) {
  Inode root = RootDirectory();
  root.mode = S_IFREG | 0700;
  Image image(64);
  image.Commit({root});
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "root directory: bad mode"));
}

TEST(Directories, RootMustBeItsOwnParent) {
  Inode root = RootDirectory();
  root.parent = 2;
  Image image(64);
  image.Commit({root, Directory(2, "d")});
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "root directory: parent 2"));
}

TEST(Names, AreUniqueInADirectory) {
  EXPECT_THAT(RecoverTree({File(2, "same", {}), File(3, "other", {}),
                           Directory(4, "same")}),
              Refused(EUCLEAN, "the same name"));
}

TEST(Names, MayBeTheSameInTwoDirectories) {
  EXPECT_THAT(RecoverTree({File(2, "same", {}), Directory(3, "dir"),
                           File(4, "same", {}, 3)}),
              Taken());
}

TEST(Names, DifferThoughOneStartsWithTheOther) {
  EXPECT_THAT(RecoverTree({File(2, "a", {}), File(3, "aa", {}),
                           File(4, "aaa", {}), File(5, "A", {})}),
              Taken());
}

TEST(Names, AreComparedToTheLastByte) {
  const std::string name(254, 'x');
  EXPECT_THAT(RecoverTree({File(2, name + "a", {}), File(3, name + "b", {})}),
              Taken());
  EXPECT_THAT(RecoverTree({File(2, name + "a", {}), File(3, name + "a", {})}),
              Refused(EUCLEAN, "the same name"));
}

TEST(Pages, MayBeSharedByFiles) {
  Image image(64);
  const uint64_t data = image.Allocate(8);
  image.Commit({RootDirectory(), File(2, "a", {{0, 8, data}}),
                File(3, "b", {{0, 8, data}}),
                File(4, "c", {{0, 2, data + 3}, {9, 1, data + 3}})});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.root.nr_file_pages, 19U);
  EXPECT_EQ(BrokenRule(recovery, image.media()), "");
}

TEST(Pages, OfOneInodeCannotBeTheExtentsOfAnother) {
  Image image(64);
  const uint64_t data = image.Allocate(2);
  image.Commit({RootDirectory(), File(2, "a", {{0, 1, data}}),
                File(3, "b", {{0, 1, data + 1}})});
  auto* records = image.As<kmemfs_inodes>(5)->record;
  ASSERT_EQ(le64toh(records[3].ino), 3U);
  records[3].extents = records[2].extents;
  image.Seal(5);
  EXPECT_THAT(Recover(image.media()), Refused(EUCLEAN, "owner 2, expected 3"));
}

TEST(Pages, OfTheTableCannotBeData) {
  Image image(64);
  const uint64_t data = image.Allocate();
  image.Commit({RootDirectory(), File(2, "a", {{0, 1, data}})});
  image.As<kmemfs_extents>(5)->run[0].page = htole64(4);
  image.Seal(5);
  EXPECT_THAT(Recover(image.media()), Refused(EUCLEAN, "has metadata"));
}

TEST(Counts, OfFilePagesBoundTheTime) {
  // Every run is most of the device; the root says less, so few are looked at.
  Image image(4096);
  const uint64_t data = image.Allocate(4000);
  Inode file = File(2, "f", {});
  for (uint64_t i = 0; i < 10000; i++)
    file.runs.push_back({.file_page = 5000 * i, .count = 4000, .page = data});
  file.size = 5000 * 10000ULL * KMEMFS_PAGE_SIZE;
  image.Commit({RootDirectory(), file});
  image.slot(1)->nr_file_pages = htole64(4000);
  image.Seal(2);
  EXPECT_THAT(Recover(image.media()),
              Refused(EUCLEAN, "more than 4000 file pages"));
}

TEST(Verify, SaysWhenThereIsNoMemory) {
  Image image(64);
  const kmemfs_root_info root =
      image.Commit({RootDirectory(), File(2, "f", {})});
  std::vector<unsigned long> meta(64), data(64);
  kmemfs_check check = {
      .meta = meta.data(),
      .data = data.data(),
      .owners = nullptr,
      .max_owners = 0,
      .alloc = [](size_t, size_t) { return static_cast<void*>(nullptr); },
      .free = [](void*) { FAIL() << "nothing to free"; },
      .lose_sums = false,
      .sums_lost = false};
  kmem_persist_why why = {};
  EXPECT_EQ(kmemfs_verify(&image.media(), &root, &check, &why), -ENOMEM);
  EXPECT_STREQ(why.text, "no memory to verify 2 inodes");
}

TEST(Verify, NeedsNoReason) {
  Image image(64);
  kmemfs_root_info root = image.Commit({RootDirectory()});
  root.nr_inodes = 5;
  std::vector<unsigned long> meta(64), data(64);
  kmemfs_check check = {.meta = meta.data(),
                        .data = data.data(),
                        .owners = nullptr,
                        .max_owners = 0,
                        .alloc = std::calloc,
                        .free = std::free,
                        .lose_sums = false,
                        .sums_lost = false};
  EXPECT_EQ(kmemfs_verify(&image.media(), &root, &check, nullptr), -EUCLEAN);
}

TEST(Recovery, TwiceGivesTheSameAndWritesNothing) {
  Image image(64);
  const uint64_t data = image.Allocate(3);
  image.Commit({RootDirectory(), File(2, "a", {{0, 3, data}}),
                Directory(3, "d"), File(4, "b", {{1, 1, data}}, 3)});
  const Image before(image);
  const Recovery first = Recover(image.media());
  const Recovery second = Recover(image.media());
  ASSERT_THAT(first, Taken());
  EXPECT_EQ(first.slot, second.slot);
  EXPECT_EQ(first.inodes, second.inodes);
  EXPECT_EQ(first.meta, second.meta);
  EXPECT_EQ(first.data_bits, second.data_bits);
  EXPECT_EQ(std::memcmp(image.Page(0), before.Page(0),
                        image.nr_pages() * KMEMFS_PAGE_SIZE),
            0);
}

}  // namespace
}  // namespace daxsnap::format
