// SPDX-License-Identifier: Apache-2.0
//
// A kmemfs device in memory: its bytes, a media to read them and a sink to
// write them with the kernel's own writers.
#ifndef DAXSNAP_TESTS_UNIT_FORMAT_IMAGE_H_
#define DAXSNAP_TESTS_UNIT_FORMAT_IMAGE_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "format.h"

namespace daxsnap::format {

// count pages of a file from file_page on, at device page `page`.
struct Extent {
  uint64_t file_page = 0;
  uint64_t count = 1;
  uint64_t page = 0;

  bool operator==(const Extent&) const = default;
};

// A file tree of version 2 that has been written before.
struct Rope {
  uint64_t top = 0;
  uint32_t height = 0;
  uint64_t nr_runs = 0;
  uint64_t nr_pages = 0;

  bool operator==(const Rope&) const = default;
};

// Where such a tree is.
struct RopeTree {
  uint64_t top = 0;
  uint32_t height = 0;
};

// Writes a tree of these runs and holes (page 0), each page as full as is said
// but for the last of its level. nullopt if the sink has no page.
std::optional<RopeTree> WriteRopeTree(kmemfs_sink* sink,
                                      const std::vector<kmemfs_run_info>& runs,
                                      size_t segment_fill, size_t node_fill);

struct Inode {
  uint64_t ino = 0;
  uint64_t parent = KMEMFS_ROOT_INO;
  uint32_t mode = S_IFREG | 0600;
  std::string name = {};
  uint64_t size = 0;
  std::vector<Extent> runs = {};
  // The rest is version 2.
  uint32_t rdev = 0;
  std::string xattrs = {};  // as on media
  uint64_t target = 0;      // this is a further name of that inode
  Rope rope = {};           // if it has a top: in place of `runs`

  bool operator==(const Inode&) const = default;
};

Inode RootDirectory();
Inode Directory(uint64_t ino, std::string name,
                uint64_t parent = KMEMFS_ROOT_INO);
// A file that ends with its last run.
Inode File(uint64_t ino, std::string name, std::vector<Extent> runs,
           uint64_t parent = KMEMFS_ROOT_INO);
Inode Symlink(uint64_t ino, std::string name, uint64_t page);
// A further name.
Inode Link(uint64_t ino, std::string name, uint64_t target,
           uint64_t parent = KMEMFS_ROOT_INO);
Inode Special(uint64_t ino, std::string name, uint32_t mode, uint32_t rdev = 0);
// An extended attribute as on media.
std::string Xattr(kmemfs_xattr_prefix prefix, const std::string& name,
                  const std::string& value);

// Not thread safe. Any page outside the device is a programming error here, but
// NULL when it is asked for through media().
class Image {
 public:
  // Zero but for a header and the two root slots of an empty pool.
  explicit Image(uint64_t nr_pages, uint32_t version = 1);

  Image(const Image& other);
  Image& operator=(const Image&) = delete;

  uint32_t version() const { return version_; }
  uint64_t nr_pages() const { return media_.nr_pages; }
  void* Page(uint64_t page);
  const void* Page(uint64_t page) const;
  template <typename T>
  T* As(uint64_t page) {
    return static_cast<T*>(Page(page));
  }
  const kmem_persist_header* header() const;
  kmemfs_root* slot(unsigned int slot) { return As<kmemfs_root>(1 + slot); }

  const kmemfs_media& media() const { return media_; }
  kmemfs_media& mutable_media() { return media_; }
  // Pages handed out by media() since the image was made.
  uint64_t reads() const { return reads_; }

  // A sink of this image: takes fresh pages one after the other, and writes
  // what it was asked for to events().
  kmemfs_sink Sink(uint64_t generation);
  const std::vector<std::string>& events() const { return events_; }
  // Which request for a page Sink() refuses, from 0; -1: none.
  void set_refused_page(int64_t nr) { refused_page_ = nr; }

  // How many entries the pages of ropes get: few make trees high.
  void set_rope_fill(size_t segment, size_t node);
  // Writes a rope of these runs, holes between them; the sink's generation
  // is 2.
  Rope WriteRope(const std::vector<Extent>& runs);

  // A node over pages that have been written; returns its page.
  uint64_t WriteNode(uint32_t level,
                     const std::vector<kmemfs_child_info>& children);

  // `height` levels of nodes over a rope of these runs, as full as they can be
  // but for the top, which has five entries: all of the same child.
  Rope WriteSharedRope(const std::vector<Extent>& runs, uint32_t height);

  // What the next commits have of checksums, by device page.
  std::map<uint64_t, uint32_t>& sums() { return sums_; }

  // Takes count fresh pages in a row; returns the first.
  uint64_t Allocate(uint64_t count = 1);

  // Writes the inodes (in the order of their numbers) and publishes them in the
  // slot of the generation: odd in 0, even in 1. Returns the new root.
  kmemfs_root_info Commit(const std::vector<Inode>& inodes,
                          uint64_t generation = 2);

  // Makes the crc of a changed metadata page or root slot right again.
  void Seal(uint64_t page);

 private:
  static const void* ReadPage(const kmemfs_media* media, __u64 page);
  static void* AllocatePage(kmemfs_sink* sink, __u64* page);
  static void Flush(kmemfs_sink* sink, kmem_persist_step step, const void* addr,
                    size_t len);
  static void Fence(kmemfs_sink* sink, kmem_persist_step step);

  void FillRecord(kmemfs_sink* sink, const Inode& inode,
                  kmemfs_inode_record* record);
  Rope WriteTree(kmemfs_sink* sink, const Inode& inode);
  Rope WriteExtents(kmemfs_sink* sink, const Inode& inode);
  Rope WriteRope(kmemfs_sink* sink, const std::vector<Extent>& runs);
  void FillXattrs(kmemfs_sink* sink, const Inode& inode,
                  kmemfs_inode_record* record);
  void WriteSums(kmemfs_sink* sink, kmemfs_root_info* root);

  std::vector<std::byte> storage_;  // with room to align the pages
  std::byte* bytes_;
  kmemfs_media media_;
  uint32_t version_;
  size_t segment_fill_ = KMEMFS_SRUNS_PER_PAGE;
  size_t node_fill_ = KMEMFS_CHILDREN_PER_PAGE;
  uint64_t rope_pages_ = 0;  // written by WriteRope() for the next commit
  std::map<uint64_t, uint32_t> sums_;
  uint64_t next_page_ = KMEM_PERSIST_HEAD_PAGES;
  int64_t refused_page_ = -1;
  mutable uint64_t reads_ = 0;
  std::vector<std::string> events_;
};

}  // namespace daxsnap::format

#endif  // DAXSNAP_TESTS_UNIT_FORMAT_IMAGE_H_
