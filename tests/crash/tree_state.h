// SPDX-License-Identifier: Apache-2.0
//
// What a user of the filesystem sees: the names and the contents.
#ifndef DAXSNAP_TESTS_CRASH_TREE_STATE_H_
#define DAXSNAP_TESTS_CRASH_TREE_STATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "tests/unit/format/recovery.h"

namespace daxsnap::crash {

// A data page's contents are made from a number, so that a page that is partly
// old and partly new is seen.
using Tag = uint64_t;

void FillPage(void* page, Tag tag);
// nullopt if the page is not all of one tag.
std::optional<Tag> ReadPage(const void* page);

struct FileState {
  uint64_t parent = 0;
  uint32_t mode = 0;
  std::string name;
  uint64_t size = 0;
  std::map<uint64_t, Tag> pages;  // by page of the file; others are holes
  std::string xattrs = {};        // as on media

  bool operator==(const FileState&) const = default;
};

using TreeState = std::map<uint64_t, FileState>;  // by inode number

// What was recovered, its contents read through `media`. An error text instead
// of the state if a data page is torn or its checksum is not its own.
struct ReadTree {
  TreeState state;
  std::string torn;
};
ReadTree ReadState(const format::Recovery& recovery, const kmemfs_media& media);

// Empty if equal, else the first difference, in words.
std::string Difference(const TreeState& expected, const TreeState& found);

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_TREE_STATE_H_
