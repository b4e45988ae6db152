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

// What the callbacks are given.
struct Reading {
  const kmemfs_media* media;
  Recovery* result;
  std::set<uint64_t> seen;   // pages of file trees that may be shared
  std::vector<bool> summed;  // device pages of which checksums count
  bool old_segment = false;  // the runs that come are of one
};

int OnMeta(void* ctx, __u64 page, kmemfs_page_kind kind, __u32) {
  auto* reading = static_cast<Reading*>(ctx);
  if ((kind == KMEMFS_KIND_SEGMENT || kind == KMEMFS_KIND_NODE) &&
      !reading->seen.insert(page).second)
    return KMEMFS_SEEN;
  reading->result->meta.push_back(page);
  return 0;
}

std::string XattrsOf(const kmemfs_media* media,
                     const kmemfs_inode_record* record) {
  if (!record->xattr_page)
    return std::string(reinterpret_cast<const char*>(record->xattr),
                       le16toh(record->xattr_len));
  const auto* page = static_cast<const kmemfs_xattrs*>(
      media->page(media, le64toh(record->xattr_page)));
  return std::string(reinterpret_cast<const char*>(page->bytes),
                     le32toh(page->head.nr));
}

Inode ToInode(const kmemfs_inode_record* record) {
  return {.ino = le64toh(record->ino),
          .parent = le64toh(record->parent),
          .mode = le32toh(record->mode),
          .name = std::string(reinterpret_cast<const char*>(record->name),
                              record->name_len),
          .size = le64toh(record->size),
          .rdev = le32toh(record->rdev),
          .target = le64toh(record->target)};
}

int OnInode(void* ctx, const kmemfs_inode_record* record) {
  auto* reading = static_cast<Reading*>(ctx);
  Inode inode = ToInode(record);
  inode.xattrs = XattrsOf(reading->media, record);
  reading->result->inodes[inode.ino] = std::move(inode);
  return 0;
}

int OnLink(void* ctx, const kmemfs_inode_record* record) {
  Inode inode = ToInode(record);
  static_cast<Reading*>(ctx)->result->links[inode.ino] = std::move(inode);
  return 0;
}

int OnSegment(void* ctx, __u64, __u64 page, __u32, __u64, __u64, __u32) {
  auto* reading = static_cast<Reading*>(ctx);
  const kmemfs_root_info& root = reading->result->root;
  const auto* head = static_cast<const kmemfs_page_head*>(
      reading->media->page(reading->media, page));
  reading->old_segment = root.sums_generation == 0 ||
                         le64toh(head->generation) <= root.sums_generation;
  return 0;
}

int OnRun(void* ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page) {
  auto* reading = static_cast<Reading*>(ctx);
  reading->result->inodes[ino].runs.push_back(
      {.file_page = file_page, .count = count, .page = page});
  for (uint64_t i = 0; i < count && reading->old_segment; i++)
    reading->summed[page + i] = true;
  return 0;
}

int OnSums(void* ctx, __u64 leaf, __u64, const kmemfs_sums* sums) {
  auto* reading = static_cast<Reading*>(ctx);
  const uint64_t first = leaf * KMEMFS_SUMS_PER_PAGE;
  for (uint64_t i = 0; i < KMEMFS_SUMS_PER_PAGE; i++)
    if (sums->sum[i] && reading->summed[first + i])
      reading->result->sums[first + i] = le32toh(sums->sum[i]);
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
  if (!S_ISDIR(inode.mode) && !S_ISLNK(inode.mode) && !S_ISREG(inode.mode)) {
    if (recovery.root.version == 1) return who + "bad type";
    if (!S_ISCHR(inode.mode) && !S_ISBLK(inode.mode) && !S_ISFIFO(inode.mode) &&
        !S_ISSOCK(inode.mode))
      return who + "bad type";
    if (inode.size || owned) return who + "special, with data";
  }
  if (inode.rdev && !S_ISCHR(inode.mode) && !S_ISBLK(inode.mode))
    return who + "device number";
  if (inode.xattrs.size() > KMEMFS_XATTR_MAX) return who + "attributes";
  uint64_t at = inode.ino;
  for (size_t steps = 0; at != KMEMFS_ROOT_INO; steps++) {
    if (steps > recovery.inodes.size()) return who + "cycle";
    at = recovery.inodes.at(at).parent;
    if (!recovery.inodes.contains(at)) return who + "no parent";
    if (!S_ISDIR(recovery.inodes.at(at).mode)) return who + "parent no dir";
  }
  return "";
}

std::string BrokenLink(const Recovery& recovery, const Inode& link) {
  const std::string who = "name " + std::to_string(link.ino) + ": ";
  if (recovery.root.version == 1) return who + "not in version 1";
  if (recovery.inodes.contains(link.ino)) return who + "number used twice";
  const auto target = recovery.inodes.find(link.target);
  if (target == recovery.inodes.end()) return who + "no target";
  if (S_ISDIR(target->second.mode)) return who + "of a directory";
  const auto parent = recovery.inodes.find(link.parent);
  if (parent == recovery.inodes.end() || !S_ISDIR(parent->second.mode))
    return who + "parent no dir";
  if (link.size || link.mode || link.rdev || link.name.empty())
    return who + "not only a name";
  return "";
}

// What verify finds out, but for what it returns.
struct Verified {
  explicit Verified(const kmemfs_media& media, uint32_t max_owners = 0)
      : meta(media.nr_pages / kWordBits + 1),
        data(media.nr_pages / kWordBits + 1),
        owners(max_owners ? media.nr_pages : 0),
        check({.meta = meta.data(),
               .data = data.data(),
               .owners = max_owners ? owners.data() : nullptr,
               .max_owners = max_owners,
               .alloc = Allocate,
               .free = std::free,
               .lose_sums = false,
               .sums_lost = false}) {}

  Words meta;
  Words data;
  std::vector<__u32> owners;
  kmemfs_check check;
};

Recovery Verify(const kmemfs_media& media, Verified* verified) {
  Recovery result;
  kmem_persist_why why = {};

  result.error = kmemfs_root_pick(&media, &result.slot, &result.root, &why);
  if (result.ok())
    result.error = kmemfs_verify(&media, &result.root, &verified->check, &why);
  result.sums_lost = verified->check.sums_lost;
  result.why = why.text;
  return result;
}

}  // namespace

Recovery RecoverWithoutSums(const kmemfs_media& media) {
  Verified verified(media);
  verified.check.lose_sums = true;
  return Verify(media, &verified);
}

Recovery Recover(const kmemfs_media& media, uint32_t max_owners) {
  Verified verified(media, max_owners);
  Recovery result = Verify(media, &verified);
  kmem_persist_why why = {};

  if (!result.ok()) return result;
  kmemfs_visitor visitor = {};
  visitor.meta = OnMeta;
  visitor.inode = OnInode;
  visitor.link = OnLink;
  visitor.run = OnRun;
  visitor.segment = OnSegment;
  visitor.sums = OnSums;
  Reading reading = {.media = &media,
                     .result = &result,
                     .seen = {},
                     .summed = std::vector<bool>(media.nr_pages)};
  if (kmemfs_walk(&media, &result.root, &visitor, &reading, &why) != 0) {
    std::cerr << "verified, but cannot be walked: " << why.text << "\n";
    std::abort();
  }
  result.meta_bits = ToBits(verified.meta, media.nr_pages);
  result.data_bits = ToBits(verified.data, media.nr_pages);
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
  for (const auto& [number, link] : recovery.links) {
    if (std::string broken = BrokenLink(recovery, link); !broken.empty())
      return broken;
    if (!names.emplace(link.parent, link.name).second) return "name twice";
  }
  if (recovery.links.size() != recovery.root.nr_links) return "nr_links";
  for (const auto& [page, sum] : recovery.sums)
    if (page >= media.nr_pages) return "checksum of what is no page";
  if (owned != recovery.root.nr_file_pages) return "nr_file_pages";
  for (uint64_t page = 0; page < media.nr_pages; page++) {
    if (recovery.data_bits[page] != data.contains(page)) return "data bitmap";
    if (recovery.meta_bits[page] != meta.contains(page)) return "meta bitmap";
  }
  return "";
}

}  // namespace daxsnap::format
