// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/format/recovery.h"

#include <endian.h>

#include <climits>
#include <cstdlib>
#include <iostream>
#include <set>
#include <utility>

namespace daxsnap::format {
namespace {

constexpr size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

using Words = std::vector<unsigned long>;

int OnMeta(void* ctx, __u64 page, kmemfs_page_kind, __u32) {
  static_cast<Recovery*>(ctx)->meta.push_back(page);
  return 0;
}

int OnInode(void* ctx, const kmemfs_inode_record* record) {
  Inode inode = {
      .ino = le64toh(record->ino),
      .parent = le64toh(record->parent),
      .mode = le32toh(record->mode),
      .name = std::string(reinterpret_cast<const char*>(record->name),
                          record->name_len),
      .size = le64toh(record->size)};
  static_cast<Recovery*>(ctx)->inodes[inode.ino] = std::move(inode);
  return 0;
}

int OnRun(void* ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page) {
  static_cast<Recovery*>(ctx)->inodes[ino].runs.push_back(
      {.file_page = file_page, .count = count, .page = page});
  return 0;
}

void* Allocate(size_t nr, size_t size) { return std::calloc(nr, size); }

std::vector<bool> ToBits(const Words& words, uint64_t nr_pages) {
  std::vector<bool> bits(nr_pages);
  for (uint64_t i = 0; i < nr_pages; i++)
    bits[i] = (words[i / kWordBits] >> (i % kWordBits)) & 1;
  return bits;
}

std::string BrokenInode(const Recovery& recovery, const Inode& inode) {
  const std::string who = "inode " + std::to_string(inode.ino) + ": ";
  const uint64_t pages = (inode.size + KMEMFS_PAGE_SIZE - 1) / KMEMFS_PAGE_SIZE;
  uint64_t next = 0;
  uint64_t owned = 0;
  for (const Extent& run : inode.runs) {
    if (run.file_page < next) return who + "runs out of order";
    next = run.file_page + run.count;
    owned += run.count;
  }
  if (next > pages) return who + "pages beyond the end";
  if (S_ISDIR(inode.mode) && (inode.size || owned)) return who + "has data";
  if (S_ISLNK(inode.mode) && (owned != 1 || !inode.size || inode.size > 4095))
    return who + "not a symlink";
  if (!S_ISDIR(inode.mode) && !S_ISLNK(inode.mode) && !S_ISREG(inode.mode))
    return who + "bad type";
  uint64_t at = inode.ino;
  for (size_t steps = 0; at != KMEMFS_ROOT_INO; steps++) {
    if (steps > recovery.inodes.size()) return who + "cycle";
    at = recovery.inodes.at(at).parent;
    if (!recovery.inodes.contains(at)) return who + "no parent";
    if (!S_ISDIR(recovery.inodes.at(at).mode)) return who + "parent no dir";
  }
  return "";
}

}  // namespace

Recovery Recover(const kmemfs_media& media, uint32_t max_owners) {
  Recovery result;
  kmem_persist_why why = {};

  result.error = kmemfs_root_pick(&media, &result.slot, &result.root, &why);
  if (!result.ok()) {
    result.why = why.text;
    return result;
  }
  Words meta(media.nr_pages / kWordBits + 1);
  Words data(media.nr_pages / kWordBits + 1);
  std::vector<__u32> owners(max_owners ? media.nr_pages : 0);
  kmemfs_check check = {.meta = meta.data(),
                        .data = data.data(),
                        .owners = max_owners ? owners.data() : nullptr,
                        .max_owners = max_owners,
                        .alloc = Allocate,
                        .free = std::free};
  result.error = kmemfs_verify(&media, &result.root, &check, &why);
  if (!result.ok()) {
    result.why = why.text;
    return result;
  }
  kmemfs_visitor visitor = {};
  visitor.meta = OnMeta;
  visitor.inode = OnInode;
  visitor.run = OnRun;
  if (kmemfs_walk(&media, &result.root, &visitor, &result, &why) != 0) {
    std::cerr << "verified, but cannot be walked: " << why.text << "\n";
    std::abort();
  }
  result.meta_bits = ToBits(meta, media.nr_pages);
  result.data_bits = ToBits(data, media.nr_pages);
  return result;
}

std::string BrokenRule(const Recovery& recovery, const kmemfs_media& media) {
  std::set<uint64_t> meta;
  for (const uint64_t page : recovery.meta) {
    if (page < media.first || page >= media.end)
      return "metadata out of bounds";
    if (!meta.insert(page).second) return "metadata page used twice";
    if (!recovery.meta_bits[page]) return "metadata page not in the bitmap";
  }
  if (meta.size() != recovery.root.nr_meta_pages) return "nr_meta_pages";
  if (recovery.inodes.size() != recovery.root.nr_inodes) return "nr_inodes";
  if (recovery.root.itable && !recovery.inodes.contains(KMEMFS_ROOT_INO))
    return "no root directory";

  uint64_t owned = 0;
  std::set<uint64_t> data;
  std::set<std::pair<uint64_t, std::string>> names;
  for (const auto& [ino, inode] : recovery.inodes) {
    if (std::string broken = BrokenInode(recovery, inode); !broken.empty())
      return broken;
    if (!names.emplace(inode.parent, inode.name).second) return "name twice";
    for (const Extent& run : inode.runs) {
      owned += run.count;
      for (uint64_t page = run.page; page < run.page + run.count; page++) {
        if (page < media.first || page >= media.end)
          return "data out of bounds";
        if (meta.contains(page)) return "page is both data and metadata";
        data.insert(page);
      }
    }
  }
  if (owned != recovery.root.nr_file_pages) return "nr_file_pages";
  for (uint64_t page = 0; page < media.nr_pages; page++) {
    if (recovery.data_bits[page] != data.contains(page)) return "data bitmap";
    if (recovery.meta_bits[page] != meta.contains(page)) return "meta bitmap";
  }
  return "";
}

}  // namespace daxsnap::format
