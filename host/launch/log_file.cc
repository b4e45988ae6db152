// SPDX-License-Identifier: Apache-2.0
#include "host/launch/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/files.h"

namespace daxsnap::launch {
namespace {

absl::Status LogError(int error, const std::string& path,
                      absl::string_view step) {
  return absl::ErrnoToStatus(
      error, absl::StrCat("log file ", path, ": cannot ", step));
}

}  // namespace

absl::StatusOr<UniqueFd> OpenLog(const std::string& path) {
  const std::filesystem::path dir = std::filesystem::path(path).parent_path();
  if (!dir.is_absolute()) {
    return absl::InvalidArgumentError(
        absl::StrCat("log file ", path, ": the path must be absolute"));
  }
  const UniqueFd dir_fd = MakeDirectories(dir, 0700);
  if (!dir_fd.valid()) return LogError(errno, path, "make its directory");

  const std::string name = std::filesystem::path(path).filename();
  // O_NONBLOCK: a FIFO somebody put there must not hang us.
  UniqueFd fd(openat(dir_fd.get(), name.c_str(),
                     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW |
                         O_NOCTTY | O_NONBLOCK,
                     0600));
  if (!fd.valid()) return LogError(errno, path, "open");
  struct stat st;
  if (fstat(fd.get(), &st) != 0) return LogError(errno, path, "stat");
  if (!S_ISREG(st.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("log file ", path,
                     " is not a regular file; name one that is, or "
                     "one that does not exist yet"));
  }
  if (fcntl(fd.get(), F_SETFL, O_APPEND) != 0)
    return LogError(errno, path, "set up");
  if (fsync(fd.get()) != 0 || fsync(dir_fd.get()) != 0) {
    return LogError(errno, path, "sync");
  }
  return fd;
}

}  // namespace daxsnap::launch
