// SPDX-License-Identifier: Apache-2.0
//
// A DAX device as it is in a file, read by the format code as an attach reads
// it. What is stored becomes text, which can be compared years later.
#ifndef DAXSNAP_TESTS_GOLDEN_DEVICE_FILE_H_
#define DAXSNAP_TESTS_GOLDEN_DEVICE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "format.h"
#include "linux/kmem_blk_format.h"

namespace daxsnap::golden {

// The verdict of a reader: 0, or a negative errno with the reason.
struct Verdict {
  int error = 0;
  std::string why;
};

// Not thread safe.
class DeviceFile {
 public:
  // The device begins at byte `offset` of the file and ends where it ends.
  // Changes reach the file if `writable`, and nobody else otherwise. A program
  // that cannot have the file cannot go on: it ends with a message.
  DeviceFile(const std::string& path, uint64_t offset, bool writable = false);
  ~DeviceFile();
  DeviceFile(const DeviceFile&) = delete;
  DeviceFile& operator=(const DeviceFile&) = delete;

  uint64_t nr_pages() const { return nr_pages_; }
  void* Page(uint64_t page);
  const kmem_persist_header* header() const;

  // Whether an attach takes it: the header first, then what its type stores.
  Verdict Verify() const;

  // What is stored. kmemfs: a line for each inode but the root, by path:
  // path, type and mode in octal, uid, gid, bytes, mtime in ns, pages, hash of
  // the content. BLK: capacity and stored blocks, and the hash of all blocks.
  // The device must have passed Verify().
  std::string List() const;

  // Zeroes all pages but those that an attach would keep.
  void Scrub();

 private:
  kmemfs_media Media() const;
  // A bit for each page that an attach keeps.
  std::vector<bool> Kept() const;
  Verdict VerifyBlocks(kmem_blk_layout* layout,
                       std::vector<unsigned long>* used) const;
  std::string ListFiles() const;
  std::string ListBlocks() const;

  int fd_ = -1;
  uint64_t offset_ = 0;
  uint64_t mapped_ = 0;
  uint64_t nr_pages_ = 0;
  std::byte* bytes_ = nullptr;
};

}  // namespace daxsnap::golden

#endif  // DAXSNAP_TESTS_GOLDEN_DEVICE_FILE_H_
