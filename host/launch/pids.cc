// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "host/launch/launch.h"

namespace daxsnap::launch {
namespace {

constexpr char kPidMax[] = "/proc/sys/kernel/pid_max";
constexpr char kLastPid[] = "/proc/sys/kernel/ns_last_pid";
constexpr pid_t kKernelPidLimit = 4'194'304;  // PID_MAX_LIMIT on 64 bits

absl::StatusOr<pid_t> ReadPid(const char* path) {
  UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid())
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  char text[32];
  const ssize_t length = read(fd.get(), text, sizeof(text));
  if (length < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  pid_t value = 0;
  if (!absl::SimpleAtoi(absl::string_view(text, length), &value)) {
    return absl::InternalError(absl::StrCat(path, " holds no number"));
  }
  return value;
}

absl::Status WritePid(const char* path, pid_t value) {
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  if (!fd.valid())
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const std::string text = absl::StrCat(value);
  if (write(fd.get(), text.data(), text.size()) < 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot write ", value, " to ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EnsurePidMax(const PidRange& range) {
  if (range.first < 300 || range.last < range.first ||
      range.last >= kKernelPidLimit) {
    return absl::InvalidArgumentError(
        absl::StrCat("PID range ", range.first, "-", range.last,
                     " is not within 300-", kKernelPidLimit - 1));
  }
  absl::StatusOr<pid_t> max = ReadPid(kPidMax);
  if (!max.ok()) return max.status();
  if (*max > range.last) return absl::OkStatus();
  return WritePid(kPidMax, kKernelPidLimit);
}

absl::Status MovePidsTo(const PidRange& range, pid_t next) {
  if (next < range.first || next > range.last) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PID ", next, " is not within ", range.first, "-", range.last));
  }
  absl::StatusOr<pid_t> last = ReadPid(kLastPid);
  if (!last.ok()) return last.status();
  if (*last >= range.first && *last <= range.last) return absl::OkStatus();
  return WritePid(kLastPid, next - 1);
}

}  // namespace daxsnap::launch
