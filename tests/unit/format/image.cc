// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/format/image.h"

#include <endian.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <utility>

namespace daxsnap::format {
namespace {

constexpr uint8_t kUuid[16] = {0xd5, 1, 2,  3,  4,  5,  6,  7,
                               8,    9, 10, 11, 12, 13, 14, 15};
constexpr int64_t kCommitTime = 1'700'000'000'000'000'000;

void Require(bool condition, const char* what) {
  if (!condition) {
    std::cerr << "test image: " << what << "\n";
    std::abort();
  }
}

std::byte* AlignToPage(std::vector<std::byte>& storage) {
  const auto address = reinterpret_cast<uintptr_t>(storage.data());
  const uintptr_t rest = address % KMEMFS_PAGE_SIZE;
  return storage.data() + (rest ? KMEMFS_PAGE_SIZE - rest : 0);
}

}  // namespace

Inode RootDirectory() {
  return {.ino = KMEMFS_ROOT_INO, .mode = S_IFDIR | 0700};
}

Inode Directory(uint64_t ino, std::string name, uint64_t parent) {
  return {.ino = ino,
          .parent = parent,
          .mode = S_IFDIR | 0755,
          .name = std::move(name)};
}

Inode File(uint64_t ino, std::string name, std::vector<Extent> runs,
           uint64_t parent) {
  uint64_t pages = 0;
  if (!runs.empty()) pages = runs.back().file_page + runs.back().count;
  return {.ino = ino,
          .parent = parent,
          .name = std::move(name),
          .size = pages * KMEMFS_PAGE_SIZE,
          .runs = std::move(runs)};
}

Inode Symlink(uint64_t ino, std::string name, uint64_t page) {
  return {.ino = ino,
          .mode = S_IFLNK | 0777,
          .name = std::move(name),
          .size = 11,
          .runs = {{.page = page}}};
}

Inode Link(uint64_t ino, std::string name, uint64_t target, uint64_t parent) {
  return {.ino = ino,
          .parent = parent,
          .mode = 0,
          .name = std::move(name),
          .target = target};
}

Inode Special(uint64_t ino, std::string name, uint32_t mode, uint32_t rdev) {
  return {.ino = ino, .mode = mode, .name = std::move(name), .rdev = rdev};
}

std::string Xattr(kmemfs_xattr_prefix prefix, const std::string& name,
                  const std::string& value) {
  std::string bytes = {static_cast<char>(prefix),
                       static_cast<char>(name.size()),
                       static_cast<char>(value.size() & 0xff),
                       static_cast<char>(value.size() >> 8)};
  return bytes + name + value;
}

Image::Image(uint64_t nr_pages, uint32_t version)
    : storage_((nr_pages + 1) * KMEMFS_PAGE_SIZE),
      bytes_(AlignToPage(storage_)),
      version_(version) {
  media_ = {.page = &Image::ReadPage,
            .ctx = this,
            .nr_pages = nr_pages,
            .first = KMEM_PERSIST_HEAD_PAGES,
            .end = nr_pages,
            .uuid = {}};
  std::memcpy(media_.uuid, kUuid, sizeof(kUuid));
  kmem_persist_header_init(As<kmem_persist_header>(0), KMEM_PERSIST_FS, kUuid,
                           "test", nr_pages * KMEMFS_PAGE_SIZE);
  kmemfs_mkfs(slot(0), kUuid, version, kCommitTime);
}

Image::Image(const Image& other)
    : storage_(other.storage_.size()),
      bytes_(AlignToPage(storage_)),
      media_(other.media_),
      version_(other.version_),
      next_page_(other.next_page_) {
  std::memcpy(bytes_, other.bytes_, nr_pages() * KMEMFS_PAGE_SIZE);
  media_.ctx = this;
}

void* Image::Page(uint64_t page) {
  Require(page < nr_pages(), "page outside the device");
  return bytes_ + page * KMEMFS_PAGE_SIZE;
}

const void* Image::Page(uint64_t page) const {
  Require(page < nr_pages(), "page outside the device");
  return bytes_ + page * KMEMFS_PAGE_SIZE;
}

const kmem_persist_header* Image::header() const {
  return static_cast<const kmem_persist_header*>(Page(0));
}

const void* Image::ReadPage(const kmemfs_media* media, __u64 page) {
  const auto* image = static_cast<const Image*>(media->ctx);
  image->reads_++;
  return page < image->nr_pages() ? image->Page(page) : nullptr;
}

kmemfs_sink Image::Sink(uint64_t generation) {
  kmemfs_sink sink = {.alloc = &Image::AllocatePage,
                      .flush = &Image::Flush,
                      .fence = &Image::Fence,
                      .ctx = this,
                      .uuid = {},
                      .generation = generation,
                      .nr_meta_pages = 0};
  std::memcpy(sink.uuid, media_.uuid, sizeof(sink.uuid));
  return sink;
}

void* Image::AllocatePage(kmemfs_sink* sink, __u64* page) {
  auto* image = static_cast<Image*>(sink->ctx);
  if (image->refused_page_-- == 0 || image->next_page_ >= image->nr_pages())
    return nullptr;
  *page = image->next_page_++;
  // What a page held before must not matter.
  std::memset(image->Page(*page), 0xa5, KMEMFS_PAGE_SIZE);
  return image->Page(*page);
}

void Image::Flush(kmemfs_sink* sink, kmem_persist_step, const void* addr,
                  size_t len) {
  auto* image = static_cast<Image*>(sink->ctx);
  const auto page =
      (static_cast<const std::byte*>(addr) - image->bytes_) / KMEMFS_PAGE_SIZE;
  const bool retired = static_cast<const kmemfs_page_head*>(addr)->kind ==
                       htole32(KMEMFS_KIND_RETIRED);
  Require(retired || len == KMEMFS_PAGE_SIZE, "flush of less than a page");
  image->events_.push_back((retired ? "retire " : "flush ") +
                           std::to_string(page));
}

void Image::Fence(kmemfs_sink* sink, kmem_persist_step) {
  static_cast<Image*>(sink->ctx)->events_.push_back("fence");
}

uint64_t Image::Allocate(uint64_t count) {
  Require(next_page_ + count <= nr_pages(), "device too small");
  const uint64_t page = next_page_;
  next_page_ += count;
  return page;
}

Rope Image::WriteExtents(kmemfs_sink* sink, const Inode& inode) {
  kmemfs_tree tree;
  uint64_t pages = 0;
  __u64 top = 0;
  __u32 height = 0;

  kmemfs_tree_init(&tree, sink, inode.ino);
  for (const Extent& run : inode.runs) {
    Require(!kmemfs_tree_add_run(&tree, run.file_page, run.count, run.page),
            "run not taken");
    pages += run.count;
  }
  Require(!kmemfs_tree_finish(&tree, &top, &height), "extents not written");
  Require(tree.nr_pages == pages, "pages lost");
  return {.top = top,
          .height = height,
          .nr_runs = tree.nr_runs,
          .nr_pages = tree.nr_pages};
}

void Image::set_rope_fill(size_t segment, size_t node) {
  Require(segment > 1 && segment <= KMEMFS_SRUNS_PER_PAGE && node > 1 &&
              node <= KMEMFS_CHILDREN_PER_PAGE,
          "fill of ropes");
  segment_fill_ = segment;
  node_fill_ = node;
}

std::optional<RopeTree> WriteRopeTree(kmemfs_sink* sink,
                                      const std::vector<kmemfs_run_info>& runs,
                                      size_t segment_fill, size_t node_fill) {
  RopeTree tree;
  std::vector<kmemfs_child_info> level;
  for (size_t from = 0; from < runs.size(); from += segment_fill) {
    const size_t nr = std::min(segment_fill, runs.size() - from);
    __u64 page = 0;
    uint64_t length = 0;
    for (size_t i = from; i < from + nr; i++) length += runs[i].count;
    if (kmemfs_write_segment(sink, &runs[from], static_cast<__u32>(nr), &page))
      return std::nullopt;
    level.push_back({static_cast<__u32>(page), length});
  }
  while (level.size() > 1) {
    std::vector<kmemfs_child_info> above;
    tree.height++;
    for (size_t from = 0; from < level.size(); from += node_fill) {
      const size_t nr = std::min(node_fill, level.size() - from);
      __u64 page = 0;
      uint64_t length = 0;
      for (size_t i = from; i < from + nr; i++) length += level[i].length;
      if (kmemfs_write_node(sink, tree.height, &level[from],
                            static_cast<__u32>(nr), &page))
        return std::nullopt;
      above.push_back({static_cast<__u32>(page), length});
    }
    level = std::move(above);
  }
  if (!level.empty()) tree.top = level[0].page;
  return tree;
}

Rope Image::WriteRope(kmemfs_sink* sink, const std::vector<Extent>& runs) {
  Rope rope;
  std::vector<kmemfs_run_info> entries;
  uint64_t at = 0;
  for (const Extent& run : runs) {
    Require(run.file_page >= at, "runs out of order");
    if (run.file_page > at)
      entries.push_back({0, static_cast<__u32>(run.file_page - at)});
    entries.push_back(
        {static_cast<__u32>(run.page), static_cast<__u32>(run.count)});
    rope.nr_runs++;
    rope.nr_pages += run.count;
    at = run.file_page + run.count;
  }
  auto tree = WriteRopeTree(sink, entries, segment_fill_, node_fill_);
  Require(tree.has_value(), "rope not written");
  rope.top = tree->top;
  rope.height = tree->height;
  return rope;
}

Rope Image::WriteRope(const std::vector<Extent>& runs) {
  kmemfs_sink sink = Sink(2);
  const Rope rope = WriteRope(&sink, runs);
  rope_pages_ += sink.nr_meta_pages;
  return rope;
}

Rope Image::WriteSharedRope(const std::vector<Extent>& runs, uint32_t height) {
  Rope rope = WriteRope(runs);
  for (rope.height = 1; rope.height <= height; rope.height++) {
    const std::vector<kmemfs_child_info> children(
        rope.height < height ? KMEMFS_CHILDREN_PER_PAGE : 5,
        {static_cast<__u32>(rope.top), rope.nr_pages});
    rope.top = WriteNode(rope.height, children);
    rope.nr_pages *= children.size();
  }
  rope.height = height;
  rope.nr_runs = rope.nr_pages;
  return rope;
}

uint64_t Image::WriteNode(uint32_t level,
                          const std::vector<kmemfs_child_info>& children) {
  kmemfs_sink sink = Sink(2);
  __u64 page = 0;
  Require(!kmemfs_write_node(&sink, level, children.data(),
                             static_cast<__u32>(children.size()), &page),
          "node not written");
  rope_pages_++;
  return page;
}

Rope Image::WriteTree(kmemfs_sink* sink, const Inode& inode) {
  if (inode.rope.top) return inode.rope;
  return version_ == 2 ? WriteRope(sink, inode.runs)
                       : WriteExtents(sink, inode);
}

void Image::FillXattrs(kmemfs_sink* sink, const Inode& inode,
                       kmemfs_inode_record* record) {
  const std::string& bytes = inode.xattrs;
  if (bytes.size() <= sizeof(record->xattr)) {
    record->xattr_len = htole16(static_cast<uint16_t>(bytes.size()));
    std::memcpy(record->xattr, bytes.data(), bytes.size());
    return;
  }
  __u64 page = 0;
  Require(!kmemfs_write_xattrs(sink, inode.ino, bytes.data(),
                               static_cast<__u32>(bytes.size()), &page),
          "attributes not written");
  record->xattr_page = htole64(page);
}

void Image::FillRecord(kmemfs_sink* sink, const Inode& inode,
                       kmemfs_inode_record* record) {
  record->ino = htole64(inode.ino);
  record->parent = htole64(inode.parent);
  record->name_len = static_cast<__u8>(inode.name.size());
  std::memcpy(record->name, inode.name.data(), inode.name.size());
  if (inode.target) {
    record->flags = htole32(KMEMFS_RECORD_LINK);
    record->target = htole64(inode.target);
    return;
  }
  const Rope tree = WriteTree(sink, inode);
  record->size = htole64(inode.size);
  record->extents = htole64(tree.top);
  record->nr_runs = htole64(tree.nr_runs);
  record->nr_pages = htole64(tree.nr_pages);
  record->extents_height = htole32(tree.height);
  record->mode = htole32(inode.mode);
  record->rdev = htole32(inode.rdev);
  FillXattrs(sink, inode, record);
}

void Image::WriteSums(kmemfs_sink* sink, kmemfs_root_info* root) {
  if (sums_.empty()) return;
  kmemfs_tree table;
  kmemfs_tree_init(&table, sink, KMEMFS_OWNER_SUMS);
  for (auto at = sums_.begin(); at != sums_.end();) {
    const uint64_t leaf = at->first / KMEMFS_SUMS_PER_PAGE;
    Require(!kmemfs_tree_skip_leaves(&table, leaf - table.leaves),
            "leaves not skipped");
    std::vector<__u32> values(KMEMFS_SUMS_PER_PAGE);
    for (; at != sums_.end() && at->first / KMEMFS_SUMS_PER_PAGE == leaf; ++at)
      values[at->first % KMEMFS_SUMS_PER_PAGE] = at->second;
    __u64 page = 0;
    Require(!kmemfs_write_sums(sink, leaf, values.data(), &page),
            "checksums not written");
    Require(!kmemfs_tree_add_leaf(&table, page), "leaf not taken");
  }
  __u64 top = 0;
  __u32 height = 0;
  Require(!kmemfs_tree_finish(&table, &top, &height), "table not written");
  root->sums = top;
  root->sums_height = height;
  root->nr_sums_pages = table.leaves;
}

kmemfs_root_info Image::Commit(const std::vector<Inode>& inodes,
                               uint64_t generation) {
  kmemfs_sink sink = Sink(generation);
  kmemfs_root_info root = {};
  kmemfs_tree table;
  uint64_t inode_pages = 0;

  kmemfs_tree_init(&table, &sink, 0);
  for (size_t i = 0; i < inodes.size();) {
    const uint64_t leaf = inodes[i].ino / KMEMFS_INODES_PER_PAGE;
    Require(!kmemfs_tree_skip_leaves(&table, leaf - table.leaves),
            "leaves not skipped");
    const uint64_t page = Allocate();
    auto* records = As<kmemfs_inodes>(page);
    kmemfs_inodes_init(records, &sink, leaf);
    for (; i < inodes.size() && inodes[i].ino / KMEMFS_INODES_PER_PAGE == leaf;
         i++) {
      FillRecord(&sink, inodes[i],
                 &records->record[inodes[i].ino % KMEMFS_INODES_PER_PAGE]);
      root.nr_links += inodes[i].target != 0;
      root.nr_file_pages += inodes[i].rope.nr_pages;
      for (const Extent& run : inodes[i].runs) root.nr_file_pages += run.count;
    }
    kmemfs_inodes_finish(records, &sink);
    inode_pages++;
    Require(!kmemfs_tree_add_leaf(&table, page), "leaf not taken");
  }
  __u64 top = 0;
  __u32 height = 0;
  Require(!kmemfs_tree_finish(&table, &top, &height), "table not written");
  WriteSums(&sink, &root);
  root.version = version_;
  root.generation = generation;
  root.itable = top;
  root.itable_height = height;
  root.nr_inode_pages = table.leaves;
  root.nr_inodes = inodes.size() - root.nr_links;
  root.nr_meta_pages =
      sink.nr_meta_pages + inode_pages + std::exchange(rope_pages_, 0);
  root.commit_time = kCommitTime;
  kmemfs_publish(&sink, slot((generation + 1) % 2), &root);
  return root;
}

void Image::Seal(uint64_t page) {
  auto* head = As<kmemfs_page_head>(page);
  head->crc =
      htole32(kmem_persist_page_crc(head, offsetof(kmemfs_page_head, crc)));
}

}  // namespace daxsnap::format
