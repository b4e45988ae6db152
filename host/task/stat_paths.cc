// SPDX-License-Identifier: Apache-2.0
#include "host/task/stat_paths.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "host/task/ask_paths.h"

namespace daxsnap {
namespace {

struct Answer {
  // 0, or the errno.
  int error;
  struct statx info;
};

void Ask(const char* path, Answer* answer) {
  if (StatxFile(path, &answer->info) != 0) answer->error = errno;
}

void AskServer(const char* path, Answer* answer) {
  if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC | AT_NO_AUTOMOUNT,
            STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
            &answer->info) != 0) {
    answer->error = errno;
  }
}

}  // namespace

absl::StatusOr<std::vector<absl::StatusOr<struct statx>>> StatPaths(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& names, absl::Duration timeout,
    StatSource source) {
  std::vector<absl::StatusOr<struct statx>> results;
  results.reserve(paths.size());
  const auto late = [&](size_t i) {
    return NoAnswer(names.empty() ? paths[i] : names[i], timeout);
  };
  const auto take = [&](size_t i, const Answer& answer) {
    const int fault = FileFault("stat", paths[i]);
    const int error = fault != 0 ? fault : answer.error;
    if (error == 0) {
      results.emplace_back(answer.info);
    } else {
      results.emplace_back(StatError(error, paths[i]));
    }
    return absl::OkStatus();
  };
  absl::Status status =
      source == StatSource::kKernel
          ? AskPaths<Answer, Ask>(paths, timeout, late, take)
          : AskPaths<Answer, AskServer>(paths, timeout, late, take);
  if (!status.ok()) return status;
  return results;
}

absl::Status NoAnswer(const std::string& path, absl::Duration timeout) {
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kOverloaded,
       .message =
           absl::StrCat("the file system of ", path, " did not answer within ",
                        absl::FormatDuration(timeout)),
       .hint = "check the device or server of that file system; one whose "
               "server is among the tasks cannot answer while they stand still",
       .metadata = {{"path", path}}});
}

}  // namespace daxsnap
