// SPDX-License-Identifier: Apache-2.0
#include "tests/golden/device_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/unit/format/recovery.h"

namespace daxsnap::golden {
namespace {

constexpr size_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

[[noreturn]] void Die(const std::string& what) {
  std::cerr << what << ": " << std::strerror(errno) << "\n";
  std::exit(1);
}

// FNV-1a, 64 bits.
class Hash {
 public:
  void Add(const void* bytes, size_t size) {
    const auto* at = static_cast<const unsigned char*>(bytes);
    for (size_t i = 0; i < size; i++) value_ = (value_ ^ at[i]) * kPrime;
  }
  void AddZeroes(uint64_t size) {
    while (size-- > 0) value_ *= kPrime;
  }
  uint64_t value() const { return value_; }

 private:
  static constexpr uint64_t kPrime = 0x100000001b3;
  uint64_t value_ = 0xcbf29ce484222325;
};

struct File {
  uint64_t parent = 0;
  std::string name;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  int64_t mtime = 0;
  uint64_t pages = 0;
  uint64_t hashed = 0;  // bytes
  Hash hash;
  uint32_t rdev = 0;
  size_t attribute_bytes = 0;
  Hash attributes;
};

// Of checksums: of data pages in files, each as often as files have it.
struct Sums {
  uint64_t right = 0;
  uint64_t wrong = 0;
  uint64_t missing = 0;
};

struct Listing {
  const kmemfs_media* media;
  std::map<uint64_t, File> files;
  std::map<uint64_t, std::pair<File, uint64_t>> links;  // and their inodes
  uint64_t last = 0;                                    // inode visited
  std::vector<uint64_t> data;                           // pages of files
  std::map<uint64_t, uint32_t> sums;                    // by page
};

int OnInode(void* ctx, const kmemfs_inode_record* record) {
  File& file = static_cast<Listing*>(ctx)->files[le64toh(record->ino)];
  file.parent = le64toh(record->parent);
  file.name.assign(reinterpret_cast<const char*>(record->name),
                   record->name_len);
  file.mode = le32toh(record->mode);
  file.uid = le32toh(record->uid);
  file.gid = le32toh(record->gid);
  file.size = le64toh(record->size);
  file.mtime = static_cast<int64_t>(le64toh(record->mtime));
  file.pages = le64toh(record->nr_pages);
  file.rdev = le32toh(record->rdev);
  file.attribute_bytes = le16toh(record->xattr_len);
  file.attributes.Add(record->xattr, file.attribute_bytes);
  static_cast<Listing*>(ctx)->last = le64toh(record->ino);
  return 0;
}

int OnLink(void* ctx, const kmemfs_inode_record* record) {
  auto& [file, target] =
      static_cast<Listing*>(ctx)->links[le64toh(record->ino)];
  target = le64toh(record->target);
  file.parent = le64toh(record->parent);
  file.name.assign(reinterpret_cast<const char*>(record->name),
                   record->name_len);
  return 0;
}

// A page of attributes comes right after its inode.
int OnMeta(void* ctx, __u64 page, kmemfs_page_kind kind, __u32) {
  auto* listing = static_cast<Listing*>(ctx);
  if (kind != KMEMFS_KIND_XATTRS) return 0;
  const auto* attributes = static_cast<const kmemfs_xattrs*>(
      listing->media->page(listing->media, page));
  File& file = listing->files[listing->last];
  file.attribute_bytes = le32toh(attributes->head.nr);
  file.attributes.Add(attributes->bytes, file.attribute_bytes);
  return 0;
}

int OnSums(void* ctx, __u64 leaf, __u64, const kmemfs_sums* sums) {
  for (uint64_t i = 0; i < KMEMFS_SUMS_PER_PAGE; i++)
    static_cast<Listing*>(ctx)->sums[leaf * KMEMFS_SUMS_PER_PAGE + i] =
        le32toh(sums->sum[i]);
  return 0;
}

int OnRun(void* ctx, __u64 ino, __u64 file_page, __u64 count, __u64 page) {
  auto* listing = static_cast<Listing*>(ctx);
  File& file = listing->files[ino];
  file.hash.AddZeroes(file_page * kPage - file.hashed);
  file.hashed = file_page * kPage;
  for (; count > 0; count--, page++) {
    listing->data.push_back(page);
    const size_t size = std::min<uint64_t>(kPage, file.size - file.hashed);
    file.hash.Add(listing->media->page(listing->media, page), size);
    file.hashed += size;
  }
  return 0;
}

std::string PathOf(const std::map<uint64_t, File>& files, uint64_t ino) {
  std::string path;
  for (; ino != KMEMFS_ROOT_INO; ino = files.at(ino).parent)
    path.insert(0, "/" + files.at(ino).name);
  return path;
}

// Further names, and how many pages have which checksums.
std::string ListVersion2(const Listing& listing) {
  std::map<std::string, std::string> links;
  for (const auto& [slot, link] : listing.links) {
    const auto& [name, target] = link;
    const std::string directory = PathOf(listing.files, name.parent);
    links[directory + "/" + name.name] = PathOf(listing.files, target);
  }
  std::ostringstream text;
  for (const auto& [path, target] : links)
    text << path << "\tlink\t" << target << '\n';
  Sums sums;
  for (const uint64_t page : listing.data) {
    const auto found = listing.sums.find(page);
    if (found == listing.sums.end() || found->second == 0)
      ++sums.missing;
    else if (kmemfs_page_sum(listing.media->page(listing.media, page)) ==
             found->second)
      ++sums.right;
    else
      ++sums.wrong;
  }
  text << "checksums\tright\t" << sums.right << "\twrong\t" << sums.wrong
       << "\tmissing\t" << sums.missing << '\n';
  return text.str();
}

}  // namespace

DeviceFile::DeviceFile(const std::string& path, uint64_t offset, bool writable)
    : offset_(offset) {
  fd_ = open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  struct stat info;
  if (fd_ < 0 || fstat(fd_, &info) != 0) Die(path);
  mapped_ = static_cast<uint64_t>(info.st_size);
  errno = EINVAL;
  if (offset % kPage != 0 || offset + KMEM_PERSIST_HEAD_PAGES * kPage > mapped_)
    Die(path);
  void* bytes = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                     writable ? MAP_SHARED : MAP_PRIVATE, fd_, 0);
  if (bytes == MAP_FAILED) Die(path);
  bytes_ = static_cast<std::byte*>(bytes);
  nr_pages_ = (mapped_ - offset) / kPage;
}

DeviceFile::~DeviceFile() {
  munmap(bytes_, mapped_);
  close(fd_);
}

void* DeviceFile::Page(uint64_t page) {
  return bytes_ + offset_ + page * kPage;
}

const kmem_persist_header* DeviceFile::header() const {
  return reinterpret_cast<const kmem_persist_header*>(bytes_ + offset_);
}

kmemfs_media DeviceFile::Media() const {
  kmemfs_media media = {
      .page = [](const kmemfs_media* m, __u64 page) -> const void* {
        const auto* bytes = static_cast<const std::byte*>(m->ctx);
        return page < m->nr_pages ? bytes + page * kPage : nullptr;
      },
      .ctx = bytes_ + offset_,
      .nr_pages = nr_pages_,
      .first = KMEM_PERSIST_HEAD_PAGES,
      .end = nr_pages_,
      .uuid = {}};
  std::memcpy(media.uuid, header()->uuid, sizeof(media.uuid));
  return media;
}

Verdict DeviceFile::VerifyBlocks(kmem_blk_layout* layout,
                                 std::vector<unsigned long>* used) const {
  Verdict verdict;
  kmem_persist_why why = {};
  const std::byte* device = bytes_ + offset_;
  verdict.error = kmem_blk_layout_read(device, nr_pages_, layout, &why);
  if (verdict.error == 0) {
    __u64 nr_used = 0;
    used->assign(nr_pages_ / kWordBits + 1, 0);
    verdict.error = kmem_blk_map_verify(
        layout,
        reinterpret_cast<const __le64*>(device + KMEM_BLK_MAP_PAGE * kPage),
        used->data(), &nr_used, &why);
  }
  verdict.why = why.text;
  return verdict;
}

Verdict DeviceFile::Verify() const {
  Verdict verdict;
  kmem_persist_why why = {};
  verdict.error = kmem_persist_header_verify(header(), nr_pages_ * kPage, &why);
  if (verdict.error != 0) {
    verdict.why = why.text;
    return verdict;
  }
  if (le32toh(header()->type) == KMEM_PERSIST_BLK) {
    kmem_blk_layout layout;
    std::vector<unsigned long> used;
    return VerifyBlocks(&layout, &used);
  }
  const format::Recovery recovery = format::Recover(Media());
  verdict.error = recovery.error;
  verdict.why = recovery.why;
  return verdict;
}

std::string DeviceFile::List() const {
  return le32toh(header()->type) == KMEM_PERSIST_BLK ? ListBlocks()
                                                     : ListFiles();
}

std::string DeviceFile::ListFiles() const {
  const kmemfs_media media = Media();
  Listing listing = {};
  listing.media = &media;
  kmemfs_visitor visitor = {};
  visitor.inode = OnInode;
  visitor.run = OnRun;
  visitor.link = OnLink;
  visitor.meta = OnMeta;
  visitor.sums = OnSums;
  kmemfs_root_info root;
  unsigned int slot;
  if (kmemfs_root_pick(&media, &slot, &root, nullptr) != 0 ||
      kmemfs_walk(&media, &root, &visitor, &listing, nullptr) != 0)
    std::abort();  // it has been verified
  std::map<std::string, const File*> sorted;
  for (auto& [ino, file] : listing.files) {
    file.hash.AddZeroes(file.size - file.hashed);
    if (ino != KMEMFS_ROOT_INO) sorted[PathOf(listing.files, ino)] = &file;
  }
  std::ostringstream text;
  for (const auto& [path, file] : sorted) {
    text << path << '\t' << std::oct << file->mode << std::dec << '\t'
         << file->uid << '\t' << file->gid << '\t' << file->size << '\t'
         << file->mtime << '\t' << file->pages << '\t' << std::hex
         << file->hash.value() << std::dec;
    if (root.version > 1) {
      text << '\t' << file->rdev << '\t' << file->attribute_bytes << '\t'
           << std::hex << file->attributes.value() << std::dec;
    }
    text << '\n';
  }
  if (root.version > 1) text << ListVersion2(listing);
  return text.str();
}

std::string DeviceFile::ListBlocks() const {
  kmem_blk_layout layout;
  std::vector<unsigned long> used;
  if (VerifyBlocks(&layout, &used).error != 0) std::abort();
  const std::byte* device = bytes_ + offset_;
  const auto* map =
      reinterpret_cast<const __le64*>(device + KMEM_BLK_MAP_PAGE * kPage);
  Hash hash;
  uint64_t stored = 0;
  for (uint64_t block = 0; block < layout.nr_blocks; block++) {
    const __s64 page = kmem_blk_entry_page(&layout, block, map[block]);
    stored += page > 0;
    if (page > 0)
      hash.Add(device + static_cast<uint64_t>(page) * kPage, kPage);
    else
      hash.AddZeroes(kPage);
  }
  std::ostringstream text;
  text << "blocks\t" << layout.nr_blocks << "\tstored\t" << stored << '\t'
       << std::hex << hash.value() << '\n';
  return text.str();
}

std::vector<bool> DeviceFile::Kept() const {
  std::vector<bool> kept(nr_pages_);
  if (le32toh(header()->type) == KMEM_PERSIST_BLK) {
    kmem_blk_layout layout;
    std::vector<unsigned long> used;
    if (VerifyBlocks(&layout, &used).error != 0) std::abort();
    for (uint64_t page = 0; page < nr_pages_; page++)
      kept[page] = page < layout.first ||
                   ((used[page / kWordBits] >> (page % kWordBits)) & 1) != 0;
    return kept;
  }
  const format::Recovery recovery = format::Recover(Media());
  for (uint64_t page = 0; page < nr_pages_; page++)
    kept[page] = page < KMEM_PERSIST_HEAD_PAGES || recovery.meta_bits[page] ||
                 recovery.data_bits[page];
  return kept;
}

void DeviceFile::Scrub() {
  const std::vector<bool> kept = Kept();
  for (uint64_t page = 0; page < nr_pages_; page++) {
    uint64_t end = page;
    while (end < nr_pages_ && !kept[end]) end++;
    if (end == page) continue;
    if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(offset_ + page * kPage),
                  static_cast<off_t>((end - page) * kPage)) != 0)
      Die("punching a hole");
    page = end;
  }
}

}  // namespace daxsnap::golden
