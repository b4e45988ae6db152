// SPDX-License-Identifier: Apache-2.0
#include "host/pool/checksums.h"

#include <linux/kmem_persist.h>
#include <linux/kmemfs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace daxsnap::pool {
namespace {

constexpr std::uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
// Of which the kernel compares some GiB a second.
constexpr std::uint64_t kStep = std::uint64_t{16} << 20;

void AddDamage(const ByteRange& range, FileCheck* file) {
  file->bytes_damaged += range.length;
  if (!file->damaged.empty()) {
    ByteRange& last = file->damaged.back();
    if (last.offset + last.length == range.offset) {
      last.length += range.length;
      return;
    }
  }
  if (file->damaged.size() < kMaxDamagedRanges) file->damaged.push_back(range);
}

}  // namespace

absl::StatusOr<RangeCheck> CheckRange(int file, std::uint64_t offset,
                                      std::uint64_t length) {
  kmemfs_verify_range range = {};
  range.offset = offset;
  range.len = length;
  const int error = ioctl(file, KMEMFS_IOC_VERIFY, &range) == 0 ? 0 : errno;
  RangeCheck result = {.done = range.done,
                       .pages_checked = range.pages_checked,
                       .pages_without_sum = range.pages_without_sum,
                       .first_bad = std::nullopt,
                       .bad_length = kPage};
  switch (error) {
    case 0:
    case EINTR:
      return result;
    case EIO:
      if (range.first_bad == ~std::uint64_t{0}) break;
      result.first_bad = range.first_bad;
      // Older kernels tell of one page at a time.
      if ((range.flags & KMEMFS_VERIFY_BAD_LEN) != 0) {
        result.bad_length = range.len;
      }
      return result;
    case ENOTTY:
      result.done = length;
      result.pages_without_sum = length / kPage;
      return result;
    default:
      break;
  }
  absl::Status status = absl::ErrnoToStatus(error, "cannot compare checksums");
  return absl::UnavailableError(status.message());
}

absl::Status MakeChecksums(int file) {
  if (ioctl(file, KMEMFS_IOC_SUM, 0) == 0) return absl::OkStatus();
  switch (errno) {
    case EINTR:
      return absl::AbortedError("the making of checksums was interrupted");
    case EOPNOTSUPP:
      return absl::FailedPreconditionError(
          "a pool of format version 1 has no checksums");
    case ENOTTY:
      return absl::FailedPreconditionError(
          "it is no kmemfs whose kernel knows checksums");
    case EROFS:
      return absl::FailedPreconditionError("the pool is read-only");
    case ENOSPC:
      return absl::ResourceExhaustedError(
          "the pool has no room for the checksums");
    case ENOMEM:
      return absl::ResourceExhaustedError("no memory for the checksums");
    default:
      return absl::ErrnoToStatus(errno, "cannot make checksums");
  }
}

absl::StatusOr<FileCheck> CheckFile(
    const RangeChecker& check, std::uint64_t size,
    const std::function<bool(std::uint64_t)>& step) {
  FileCheck file;
  std::uint64_t at = 0;
  const std::uint64_t end = (size + kPage - 1) / kPage * kPage;
  while (at < end) {
    const absl::StatusOr<RangeCheck> range =
        check(at, std::min(kStep, end - at));
    if (!range.ok()) return range.status();
    file.bytes_verified += range->pages_checked * kPage;
    file.bytes_without_checksum += range->pages_without_sum * kPage;
    at += range->done;
    if (range->first_bad.has_value()) {
      AddDamage({.offset = *range->first_bad, .length = range->bad_length},
                &file);
      at = *range->first_bad + range->bad_length;
    }
    if (!step(file.bytes_verified + file.bytes_without_checksum +
              file.bytes_damaged)) {
      return absl::CancelledError("the comparison was cancelled");
    }
  }
  return file;
}

}  // namespace daxsnap::pool
