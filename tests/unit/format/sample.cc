// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/format/sample.h"

#include <endian.h>

#include <string>
#include <utility>
#include <vector>

namespace daxsnap::format {
namespace {

// Every other page, so that nothing merges.
std::vector<Extent> Spread(uint64_t count, uint64_t data) {
  std::vector<Extent> runs;
  for (uint64_t i = 0; i < count; i++)
    runs.push_back({.file_page = 2 * i, .page = data + i});
  return runs;
}

Inode WithRope(uint64_t ino, std::string name, uint64_t parent,
               const Rope& rope, uint64_t pages) {
  Inode file = File(ino, std::move(name), {}, parent);
  file.size = pages * KMEMFS_PAGE_SIZE;
  file.rope = rope;
  return file;
}

std::vector<Inode> Common(uint64_t data) {
  return {RootDirectory(),
          File(2, "a", {{0, 5, data}}),
          Directory(3, "d"),
          Symlink(5, "link", data + 290),
          File(9, "large", Spread(280, data), 3),
          File(10, "b", {{0, 2, data}, {7, 1, data + 289}}, 3),
          Directory(600, "e", 3),
          File(4000, "c", {}, 600)};
}

kmemfs_segment* FirstSegment(Image* image, const Rope& rope, uint64_t* page) {
  *page = rope.top;
  for (uint32_t level = rope.height; level > 0; level--)
    *page = le32toh(image->As<kmemfs_node>(*page)->child[0].page);
  return image->As<kmemfs_segment>(*page);
}

std::vector<Inode> OfVersion2(Image* image, uint64_t data) {
  image->set_rope_fill(4, 3);
  const Rope large = image->WriteRope(Spread(30, data));
  uint64_t segment = 0;
  const uint64_t length =
      le64toh(FirstSegment(image, large, &segment)->head.first);
  const auto page = static_cast<__u32>(segment);
  const Rope mixed = {
      .top = image->WriteNode(
          1, {{page, length}, {0, 7}, {page, length}, {page, length}}),
      .height = 1,
      .nr_runs = 6,
      .nr_pages = 6};

  const uint64_t far = image->nr_pages() - 10;
  Inode attributes = File(19, "attributes", {{0, 2, data}, {7, 1, far}});
  attributes.xattrs = Xattr(KMEMFS_XATTR_USER, "a", std::string(300, 'v')) +
                      Xattr(KMEMFS_XATTR_USER, "b", "") +
                      Xattr(KMEMFS_XATTR_TRUSTED, "overlay.opaque", "y");
  Inode few = Directory(20, "few");
  few.xattrs = Xattr(KMEMFS_XATTR_SECURITY, "selinux", "label") +
               Xattr(KMEMFS_XATTR_ACL_DEFAULT, "", std::string(28, '\1'));
  image->sums() = {{data, 1}, {data + 4, 0xffffffff}, {far, 77}};
  return {RootDirectory(),
          File(2, "a", {{0, 5, data}}),
          Directory(3, "d"),
          Symlink(5, "link", data + 60),
          WithRope(9, "large", 3, large, 59),
          WithRope(10, "copy", 3, large, 59),
          WithRope(11, "mixed", 3, mixed, 3 * length + 7),
          Link(12, "a2", 2, 3),
          Link(13, "a3", 2),
          Special(14, "whiteout", S_IFCHR),
          Special(15, "null", S_IFCHR | 0666, 0x103),
          Special(16, "disk", S_IFBLK | 0600, 0x800),
          Special(17, "fifo", S_IFIFO | 0600),
          Special(18, "socket", S_IFSOCK | 0755),
          attributes,
          few,
          Directory(600, "e", 3),
          File(4000, "c", {}, 600)};
}

}  // namespace

kmemfs_root_info CommitSample(Image* image) {
  const uint64_t data = image->Allocate(291);
  return image->Commit(image->version() == 2 ? OfVersion2(image, data)
                                             : Common(data));
}

}  // namespace daxsnap::format
