// SPDX-License-Identifier: Apache-2.0
//
// Whether files of a kmemfs have what was stored there: the kernel compares
// their pages with checksums. Safe to call from any thread.
#ifndef DAXSNAP_HOST_POOL_CHECKSUMS_H_
#define DAXSNAP_HOST_POOL_CHECKSUMS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace daxsnap::pool {

// What the kernel has found in a range of a file, from its begin on.
struct RangeCheck {
  std::uint64_t done = 0;  // bytes that were looked at and are not damaged
  std::uint64_t pages_checked = 0;
  std::uint64_t pages_without_sum = 0;
  // Offset of the page behind `done`, if that is damaged.
  std::optional<std::uint64_t> first_bad = {};
  // Bytes from there on that are damaged in the same way, in whole pages.
  std::uint64_t bad_length = 4096;
};

// Of [offset, offset+length) of a regular file that is open for reading, both
// multiples of the page size. May stop before the end, when a signal came. On a
// kernel without checksums and on other file systems nothing has one; such
// content is not read. UNAVAILABLE if the kernel could not look.
absl::StatusOr<RangeCheck> CheckRange(int file, std::uint64_t offset,
                                      std::uint64_t length);

// Makes the checksums that a kmemfs lacks, and has them on the device, if
// `file` is any file or directory of it. Blocks for as long as it takes to read
// all that has none; ABORTED if a signal came. FAILED_PRECONDITION: the pool is
// of format version 1, or no kmemfs, or read-only; RESOURCE_EXHAUSTED: no room
// for them; PERMISSION_DENIED: not root.
absl::Status MakeChecksums(int file);

// [offset, offset+length) of a file, in bytes.
struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool operator==(const ByteRange& other) const {
    return offset == other.offset && length == other.length;
  }
};

// What was found in a file, in bytes of whole pages.
struct FileCheck {
  std::uint64_t bytes_verified = 0;
  std::uint64_t bytes_without_checksum = 0;
  std::uint64_t bytes_damaged = 0;
  std::vector<ByteRange> damaged;  // the first kMaxDamagedRanges, in order
};
inline constexpr std::size_t kMaxDamagedRanges = 100;

// CheckRange() of a file.
using RangeChecker = std::function<absl::StatusOr<RangeCheck>(
    std::uint64_t offset, std::uint64_t length)>;

// Goes through a file of `size` bytes, in steps that take a fraction of a
// second. `step` is told after each how many stored bytes have been looked at
// so far; false: enough, and the result is CANCELLED.
absl::StatusOr<FileCheck> CheckFile(
    const RangeChecker& check, std::uint64_t size,
    const std::function<bool(std::uint64_t)>& step);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_CHECKSUMS_H_
