// SPDX-License-Identifier: Apache-2.0
// Of the machine's kernel what headers of Debian 12 do not have yet. Source:
// include/uapi/linux/userfaultfd.h and fs.h of Linux 6.12.
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_NEWER_UAPI_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_NEWER_UAPI_H_

#include <sys/ioctl.h>

#include <cstdint>

namespace daxsnap::vmtest {

inline constexpr uint64_t kUffdFeatureWpUnpopulated = 1 << 13;
inline constexpr uint64_t kUffdFeatureWpAsync = 1 << 15;
inline constexpr uint64_t kUffdFeatureMove = 1 << 16;

struct UffdioMove {
  uint64_t dst, src, len, mode;
  int64_t move;
};
inline constexpr unsigned long kUffdioMove = _IOWR(0xaa, 0x05, UffdioMove);

struct PmScanArg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages,
      category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct PageRegion {
  uint64_t start, end, categories;
};
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
inline constexpr uint64_t kPageIsWritten = 1 << 1;
inline constexpr uint64_t kPmScanWpMatching = 1 << 0;
inline constexpr uint64_t kPmScanCheckWpAsync = 1 << 1;

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_NEWER_UAPI_H_
