// SPDX-License-Identifier: Apache-2.0
//
// Trees with one of everything that a version of the format has, for tests that
// damage them.
#ifndef DAXSNAP_TESTS_UNIT_FORMAT_SAMPLE_H_
#define DAXSNAP_TESTS_UNIT_FORMAT_SAMPLE_H_

#include <cstdint>

#include "tests/unit/format/image.h"

namespace daxsnap::format {

// Pages of an image for CommitSample(): enough for a table of checksums with an
// index page, or just enough.
inline constexpr uint64_t kSamplePages = 1060;
inline constexpr uint64_t kSmallSamplePages = 380;

// Generation 2, in slot 1. The inodes, where only version 2 has those from 11
// on but for the last two: 1 root; 2 small file; 3 directory; 5 symlink; 9 file
// with a tree of more than one level; 10 file that shares its data, in version
// 2 all of its tree; 11 file with pages of the tree of 9 at several places and
// a hole between them; 12 and 13 further names of 2; 14 whiteout; 15 to 18
// special; 19 attributes in a page of their own; 20 attributes in the record;
// 600 directory; 4000 empty file.
kmemfs_root_info CommitSample(Image* image);

}  // namespace daxsnap::format

#endif  // DAXSNAP_TESTS_UNIT_FORMAT_SAMPLE_H_
