// SPDX-License-Identifier: Apache-2.0
#include "snapd/stat_paths.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "snapd/bounded_child.h"
#include "snapd/errors.h"
#include "snapd/files.h"

namespace daxsnap {
namespace {

struct Answer {
  // 0, or the errno.
  int error;
  struct statx info;
};

// Runs in the child: see BoundedChild::Work. An Answer for each path.
void Ask(const void* argument, int report) {
  bool written = true;
  for (auto* const* path = static_cast<const char* const*>(argument);
       written && *path != nullptr; ++path) {
    Answer answer = {};
    if (StatxFile(*path, &answer.info) != 0) answer.error = errno;
    written = write(report, &answer, sizeof(answer)) == sizeof(answer);
  }
}

}  // namespace

absl::StatusOr<std::vector<absl::StatusOr<struct statx>>> StatPaths(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& names, absl::Duration timeout) {
  std::vector<absl::StatusOr<struct statx>> results;
  if (paths.empty()) return results;
  results.reserve(paths.size());
  std::vector<const char*> pointers;
  pointers.reserve(paths.size() + 1);
  for (const std::string& path : paths) pointers.push_back(path.c_str());
  pointers.push_back(nullptr);
  const absl::Time deadline = absl::Now() + timeout;
  auto child = BoundedChild::Start(Ask, pointers.data());
  if (!child.ok()) return child.status();
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string& path = paths[i];
    Answer answer;
    absl::Status read = child->Read(&answer, sizeof(answer), deadline);
    if (absl::IsDeadlineExceeded(read)) {
      return NoAnswer(names.empty() ? path : names[i], timeout);
    }
    if (!read.ok()) return read;
    if (const int fault = FileFault("stat", path); fault != 0) {
      answer.error = fault;
    }
    if (answer.error == 0) {
      results.emplace_back(answer.info);
    } else {
      results.emplace_back(StatError(answer.error, path));
    }
  }
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
