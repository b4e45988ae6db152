// SPDX-License-Identifier: Apache-2.0
#include "host/task/message_queues.h"

#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>

#include "base/files.h"
#include "host/task/ask_paths.h"

namespace daxsnap {
namespace {

// source: MQUEUE_MAGIC of the kernel's include/uapi/linux/magic.h
constexpr auto kMqueueMagic = 0x19800202;

struct Answer {
  // 0, or the errno.
  int error;
  bool queue;
};

// A mount of queues has a directory as well.
void Ask(const char* path, Answer* answer) {
  struct statfs system;
  struct statx info;
  if (statfs(path, &system) != 0) {
    answer->error = errno;
  } else if (system.f_type == kMqueueMagic) {
    if (StatxFile(path, &info) != 0) answer->error = errno;
    answer->queue = S_ISREG(info.stx_mode);
  }
}

}  // namespace

absl::StatusOr<std::vector<absl::StatusOr<bool>>> AreMessageQueues(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& names, absl::Duration timeout) {
  std::vector<absl::StatusOr<bool>> results;
  results.reserve(paths.size());
  absl::Status status = AskPaths<Answer, Ask>(
      paths, timeout, [&](size_t i) { return NoAnswer(names[i], timeout); },
      [&](size_t i, const Answer& answer) {
        const int fault = FileFault("stat", paths[i]);
        const int error = fault != 0 ? fault : answer.error;
        if (error == 0) {
          results.emplace_back(answer.queue);
        } else {
          results.emplace_back(StatError(error, paths[i]));
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return results;
}

}  // namespace daxsnap
