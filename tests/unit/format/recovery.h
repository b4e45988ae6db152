// SPDX-License-Identifier: Apache-2.0
//
// What an attach does, and what it finds.
#ifndef DAXSNAP_TESTS_UNIT_FORMAT_RECOVERY_H_
#define DAXSNAP_TESTS_UNIT_FORMAT_RECOVERY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "format.h"
#include "tests/unit/format/image.h"

namespace daxsnap::format {

struct Recovery {
  int error = 0;    // of pick or verify, 0 or negative errno
  std::string why;  // if error
  unsigned int slot = 0;
  kmemfs_root_info root = {};
  std::map<uint64_t, Inode> inodes;
  std::map<uint64_t, Inode> links;    // further names, by their own number
  std::map<uint64_t, uint32_t> sums;  // of data that count, by device page
  bool sums_lost = false;
  std::vector<uint64_t> meta;   // pages, in the order of the walk, each once
  std::vector<bool> meta_bits;  // as verify says, a bit per device page
  std::vector<bool> data_bits;

  bool ok() const { return error == 0; }
};

// Picks the root, verifies its tree and reads it. Only reads. With `max_owners`
// the owners of each page are counted.
Recovery Recover(const kmemfs_media& media, uint32_t max_owners = 0);

// The same for an attach that takes a tree of which only the table of checksums
// does not hold; only error, why, root and sums_lost are told.
Recovery RecoverWithoutSums(const kmemfs_media& media);

// The rules of a tree, checked anew from what was read, without the code under
// test. Empty if they hold, else the first that does not.
std::string BrokenRule(const Recovery& recovery, const kmemfs_media& media);

}  // namespace daxsnap::format

#endif  // DAXSNAP_TESTS_UNIT_FORMAT_RECOVERY_H_
