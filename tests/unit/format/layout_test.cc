// SPDX-License-Identifier: Apache-2.0
//
// The bytes on media are a promise: a change here breaks every existing pool.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "format.h"
#include "tests/unit/format/image.h"

namespace daxsnap::format {
namespace {

static_assert(sizeof(kmem_persist_header) == 4096);
static_assert(offsetof(kmem_persist_header, magic) == 0);
static_assert(offsetof(kmem_persist_header, version) == 8);
static_assert(offsetof(kmem_persist_header, type) == 12);
static_assert(offsetof(kmem_persist_header, incompat) == 16);
static_assert(offsetof(kmem_persist_header, compat) == 24);
static_assert(offsetof(kmem_persist_header, uuid_len) == 32);
static_assert(offsetof(kmem_persist_header, reserved0) == 36);
static_assert(offsetof(kmem_persist_header, uuid) == 40);
static_assert(offsetof(kmem_persist_header, label) == 56);
static_assert(offsetof(kmem_persist_header, range_size) == 120);
static_assert(offsetof(kmem_persist_header, crc) == 4092);

static_assert(sizeof(kmemfs_page_head) == 64);
static_assert(offsetof(kmemfs_page_head, kind) == 0);
static_assert(offsetof(kmemfs_page_head, crc) == 4);
static_assert(offsetof(kmemfs_page_head, uuid) == 8);
static_assert(offsetof(kmemfs_page_head, generation) == 24);
static_assert(offsetof(kmemfs_page_head, owner) == 32);
static_assert(offsetof(kmemfs_page_head, nr) == 40);
static_assert(offsetof(kmemfs_page_head, level) == 44);
static_assert(offsetof(kmemfs_page_head, first) == 48);
static_assert(offsetof(kmemfs_page_head, reserved) == 56);

static_assert(sizeof(kmemfs_root) == 4096);
static_assert(offsetof(kmemfs_root, itable) == 64);
static_assert(offsetof(kmemfs_root, itable_height) == 72);
static_assert(offsetof(kmemfs_root, reserved0) == 76);
static_assert(offsetof(kmemfs_root, nr_inode_pages) == 80);
static_assert(offsetof(kmemfs_root, nr_inodes) == 88);
static_assert(offsetof(kmemfs_root, nr_meta_pages) == 96);
static_assert(offsetof(kmemfs_root, nr_file_pages) == 104);
static_assert(offsetof(kmemfs_root, incompat) == 112);
static_assert(offsetof(kmemfs_root, compat) == 120);
static_assert(offsetof(kmemfs_root, commit_time) == 128);
static_assert(offsetof(kmemfs_root, sums) == 136);
static_assert(offsetof(kmemfs_root, sums_height) == 144);
static_assert(offsetof(kmemfs_root, reserved1) == 148);
static_assert(offsetof(kmemfs_root, nr_sums_pages) == 152);
static_assert(offsetof(kmemfs_root, nr_links) == 160);
static_assert(offsetof(kmemfs_root, sums_generation) == 168);
static_assert(offsetof(kmemfs_root, reserved) == 176);

static_assert(sizeof(kmemfs_index) == 4096);
static_assert(offsetof(kmemfs_index, page) == 64);
static_assert(KMEMFS_INDEX_ENTRIES == 504);

static_assert(sizeof(kmemfs_run) == 16);
static_assert(offsetof(kmemfs_run, file_page) == 0);
static_assert(offsetof(kmemfs_run, count) == 4);
static_assert(offsetof(kmemfs_run, page) == 8);
static_assert(sizeof(kmemfs_extents) == 4096);
static_assert(offsetof(kmemfs_extents, run) == 64);
static_assert(KMEMFS_RUNS_PER_PAGE == 252);

static_assert(sizeof(kmemfs_inode_record) == 576);
static_assert(offsetof(kmemfs_inode_record, ino) == 0);
static_assert(offsetof(kmemfs_inode_record, parent) == 8);
static_assert(offsetof(kmemfs_inode_record, size) == 16);
static_assert(offsetof(kmemfs_inode_record, atime) == 24);
static_assert(offsetof(kmemfs_inode_record, mtime) == 32);
static_assert(offsetof(kmemfs_inode_record, ctime) == 40);
static_assert(offsetof(kmemfs_inode_record, btime) == 48);
static_assert(offsetof(kmemfs_inode_record, extents) == 56);
static_assert(offsetof(kmemfs_inode_record, nr_runs) == 64);
static_assert(offsetof(kmemfs_inode_record, nr_pages) == 72);
static_assert(offsetof(kmemfs_inode_record, mode) == 80);
static_assert(offsetof(kmemfs_inode_record, uid) == 84);
static_assert(offsetof(kmemfs_inode_record, gid) == 88);
static_assert(offsetof(kmemfs_inode_record, extents_height) == 92);
static_assert(offsetof(kmemfs_inode_record, generation) == 96);
static_assert(offsetof(kmemfs_inode_record, flags) == 100);
static_assert(offsetof(kmemfs_inode_record, rdev) == 104);
static_assert(offsetof(kmemfs_inode_record, xattr_len) == 108);
static_assert(offsetof(kmemfs_inode_record, reserved0) == 110);
static_assert(offsetof(kmemfs_inode_record, xattr_page) == 112);
static_assert(offsetof(kmemfs_inode_record, target) == 120);
static_assert(offsetof(kmemfs_inode_record, xattr) == 128);
static_assert(offsetof(kmemfs_inode_record, reserved) == 312);
static_assert(offsetof(kmemfs_inode_record, name_len) == 319);
static_assert(offsetof(kmemfs_inode_record, name) == 320);
static_assert(sizeof(kmemfs_inodes) == 4096);
static_assert(offsetof(kmemfs_inodes, record) == 64);
static_assert(KMEMFS_INODES_PER_PAGE == 7);

static_assert(sizeof(kmemfs_srun) == 8);
static_assert(offsetof(kmemfs_srun, count) == 4);
static_assert(sizeof(kmemfs_segment) == 4096);
static_assert(offsetof(kmemfs_segment, run) == 64);
static_assert(KMEMFS_SRUNS_PER_PAGE == 504);

static_assert(sizeof(kmemfs_child) == 16);
static_assert(offsetof(kmemfs_child, reserved) == 4);
static_assert(offsetof(kmemfs_child, length) == 8);
static_assert(sizeof(kmemfs_node) == 4096);
static_assert(offsetof(kmemfs_node, child) == 64);
static_assert(KMEMFS_CHILDREN_PER_PAGE == 252);

static_assert(sizeof(kmemfs_xattr) == 4);
static_assert(offsetof(kmemfs_xattr, name_len) == 1);
static_assert(offsetof(kmemfs_xattr, value_len) == 2);
static_assert(offsetof(kmemfs_xattr, bytes) == 4);
static_assert(sizeof(kmemfs_xattrs) == 4096);
static_assert(offsetof(kmemfs_xattrs, bytes) == 64);
static_assert(KMEMFS_XATTR_IN_RECORD == 184);
static_assert(KMEMFS_XATTR_MAX == 4032);

static_assert(sizeof(kmemfs_sums) == 4096);
static_assert(offsetof(kmemfs_sums, sum) == 64);
static_assert(KMEMFS_SUMS_PER_PAGE == 1008);

using Bytes = std::vector<uint8_t>;

Bytes BytesOf(const void* page, size_t from, size_t len) {
  const auto* bytes = static_cast<const uint8_t*>(page) + from;
  return Bytes(bytes, bytes + len);
}

// One bit at a time, as the definition of a crc says.
uint32_t SlowCrc32c(const Bytes& bytes) {
  uint32_t crc = ~0U;
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++)
      crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78U : 0);
  }
  return ~crc;
}

Bytes LittleEndian32(uint32_t value) {
  return {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 24)};
}

TEST(Layout, SlowCrcIsCrc32c) {
  const std::string check = "123456789";
  EXPECT_EQ(SlowCrc32c(Bytes(check.begin(), check.end())), 0xe3069283U);
}

TEST(Layout, PageCrcTakesItsOwnFieldAsZero) {
  Bytes page(4096);
  for (size_t i = 0; i < page.size(); i++)
    page[i] = static_cast<uint8_t>(i * 7 + i / 256);
  for (const size_t at : {size_t{0}, size_t{4}, size_t{5}, size_t{4092}}) {
    Bytes zeroed = page;
    std::fill_n(zeroed.begin() + static_cast<ptrdiff_t>(at), 4, 0);
    EXPECT_EQ(kmem_persist_page_crc(page.data(), at), SlowCrc32c(zeroed)) << at;
  }
}

TEST(Layout, HeaderBytes) {
  const uint8_t uuid[16] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7,
                            0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
  kmem_persist_header header;
  kmem_persist_header_init(&header, KMEM_PERSIST_FS, uuid, "pool", 0x123456000);

  EXPECT_EQ(BytesOf(&header, 0, 64),
            (Bytes{'D',  'A',  'X',  'S',  'N',  'A',  'P',  0x1a,  // magic
                   1,    0,    0,    0,    3,    0,    0,    0,     // v1, FS
                   0,    0,    0,    0,    0,    0,    0,    0,     // incompat
                   0,    0,    0,    0,    0,    0,    0,    0,     // compat
                   16,   0,    0,    0,    0,    0,    0,    0,     // uuid_len
                   0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7,  // uuid
                   0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,  //
                   'p',  'o',  'o',  'l',  0,    0,    0,    0}));  // label
  EXPECT_EQ(BytesOf(&header, 64, 56), Bytes(56));
  EXPECT_EQ(BytesOf(&header, 120, 8),
            (Bytes{0x00, 0x60, 0x45, 0x23, 0x01, 0, 0, 0}));
  EXPECT_EQ(BytesOf(&header, 128, 4096 - 132), Bytes(4096 - 132));
  EXPECT_EQ(BytesOf(&header, 4092, 4),
            LittleEndian32(SlowCrc32c(BytesOf(&header, 0, 4092))));
}

TEST(Layout, RootBytes) {
  Image image(8);
  kmemfs_sink sink = image.Sink(0x0102);
  kmemfs_root_info info = {};
  info.version = 1;
  info.generation = 0x0102;
  info.itable = 5;
  info.itable_height = 2;
  info.nr_inode_pages = 0x300;
  info.nr_inodes = 0x0400;
  info.nr_meta_pages = 0x0500;
  info.nr_file_pages = 0x060000;
  info.commit_time = -2;
  kmemfs_publish(&sink, image.slot(1), &info);

  const void* root = image.Page(2);
  EXPECT_EQ(BytesOf(root, 0, 4), (Bytes{'R', 'O', 'O', 'T'}));
  EXPECT_EQ(BytesOf(root, 8, 16), BytesOf(image.media().uuid, 0, 16));
  EXPECT_EQ(BytesOf(root, 24, 40),
            (Bytes{2, 1, 0, 0, 0, 0, 0, 0,     // generation
                   0, 0, 0, 0, 0, 0, 0, 0,     // owner
                   0, 0, 0, 0, 0, 0, 0, 0,     // nr, level
                   0, 0, 0, 0, 0, 0, 0, 0,     // first
                   0, 0, 0, 0, 0, 0, 0, 0}));  // reserved
  EXPECT_EQ(BytesOf(root, 64, 72),
            (Bytes{5,    0,    0,    0,    0,    0,    0,    0,  // itable
                   2,    0,    0,    0,    0,    0,    0,    0,  // height
                   0,    3,    0,    0,    0,    0,    0,    0,  // leaves
                   0,    4,    0,    0,    0,    0,    0,    0,  // inodes
                   0,    5,    0,    0,    0,    0,    0,    0,  // metadata
                   0,    0,    6,    0,    0,    0,    0,    0,  // data
                   0,    0,    0,    0,    0,    0,    0,    0,  // incompat
                   0,    0,    0,    0,    0,    0,    0,    0,  // compat
                   0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
  Bytes whole = BytesOf(root, 0, 4096);
  std::fill_n(whole.begin() + 4, 4, 0);
  EXPECT_EQ(BytesOf(root, 4, 4), LittleEndian32(SlowCrc32c(whole)));
}

TEST(Layout, ExtentsAndIndexBytes) {
  Image image(1024);
  kmemfs_sink sink = image.Sink(7);
  kmemfs_tree tree;
  __u64 top = 0;
  __u32 height = 0;
  kmemfs_tree_init(&tree, &sink, 0x0908);
  // Every other page, so that nothing merges: 252 in the first leaf, 1 more.
  for (uint64_t i = 0; i < 253; i++)
    ASSERT_EQ(kmemfs_tree_add_run(&tree, 2 * i + 1, 1, 500 + 2 * i), 0);
  ASSERT_EQ(kmemfs_tree_finish(&tree, &top, &height), 0);
  ASSERT_EQ(height, 1U);

  const void* index = image.Page(top);
  EXPECT_EQ(BytesOf(index, 0, 4), (Bytes{'I', 'N', 'D', 'X'}));
  EXPECT_EQ(BytesOf(index, 24, 40),
            (Bytes{7, 0, 0, 0, 0, 0, 0, 0,     // generation
                   8, 9, 0, 0, 0, 0, 0, 0,     // owner
                   2, 0, 0, 0, 1, 0, 0, 0,     // nr, level
                   0, 0, 0, 0, 0, 0, 0, 0,     // first
                   0, 0, 0, 0, 0, 0, 0, 0}));  // reserved
  EXPECT_EQ(BytesOf(index, 64, 24), (Bytes{3, 0, 0, 0, 0, 0, 0, 0,  //
                                           4, 0, 0, 0, 0, 0, 0, 0,  //
                                           0, 0, 0, 0, 0, 0, 0, 0}));

  const void* leaf = image.Page(4);
  EXPECT_EQ(BytesOf(leaf, 0, 4), (Bytes{'E', 'X', 'T', 'S'}));
  EXPECT_EQ(BytesOf(leaf, 32, 24),
            (Bytes{8,    9,    0, 0, 0, 0, 0, 0,     // owner
                   1,    0,    0, 0, 0, 0, 0, 0,     // nr, level
                   0xf9, 0x01, 0, 0, 0, 0, 0, 0}));  // first
  EXPECT_EQ(BytesOf(leaf, 64, 32), (Bytes{0xf9, 0x01, 0, 0, 1, 0, 0, 0,  //
                                          0xec, 0x03, 0, 0, 0, 0, 0, 0,  //
                                          0,    0,    0, 0, 0, 0, 0, 0,  //
                                          0,    0,    0, 0, 0, 0, 0, 0}));
}

TEST(Layout, InodesBytes) {
  Image image(16);
  kmemfs_sink sink = image.Sink(3);
  auto* leaf = image.As<kmemfs_inodes>(5);
  std::memset(leaf, 0xa5, sizeof(*leaf));
  kmemfs_inodes_init(leaf, &sink, 2);
  leaf->record[6].name_len = 3;
  kmemfs_inodes_finish(leaf, &sink);

  EXPECT_EQ(BytesOf(leaf, 0, 4), (Bytes{'I', 'N', 'O', 'D'}));
  EXPECT_EQ(BytesOf(leaf, 24, 40),
            (Bytes{3,  0, 0, 0, 0, 0, 0, 0,     // generation
                   0,  0, 0, 0, 0, 0, 0, 0,     // owner
                   7,  0, 0, 0, 0, 0, 0, 0,     // nr, level
                   14, 0, 0, 0, 0, 0, 0, 0,     // first
                   0,  0, 0, 0, 0, 0, 0, 0}));  // reserved
  EXPECT_EQ(BytesOf(leaf, 64, 6 * 576 + 319), Bytes(6 * 576 + 319));
  EXPECT_EQ(BytesOf(leaf, 64 + 6 * 576 + 319, 1), Bytes{3});
}

}  // namespace
}  // namespace daxsnap::format
