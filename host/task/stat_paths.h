// SPDX-License-Identifier: Apache-2.0
//
// Asks file systems, and does not hang with them: the server of one (FUSE, a
// network) may not answer, or be among tasks that stand still.
#ifndef DAXSNAP_HOST_TASK_STAT_PATHS_H_
#define DAXSNAP_HOST_TASK_STAT_PATHS_H_

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace daxsnap {

// How long file systems get to answer while tasks may stand still.
inline constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);

// Who is asked for times and sizes.
enum class StatSource {
  // The kernel, for what it knows already.
  kKernel,
  // The server of the file system, if it has one: what the kernel knows may be
  // of before the last write.
  kServer
};

// What StatFile() of files.h returns, for each of the paths; a child asks.
// NoAnswer() if it takes longer than `timeout` altogether; it calls a path what
// `names` does, if there are any.
absl::StatusOr<std::vector<absl::StatusOr<struct statx>>> StatPaths(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& names = {},
    absl::Duration timeout = kAnswerTimeout,
    StatSource source = StatSource::kKernel);

// UNAVAILABLE, OVERLOADED: the file system that `path` leads to does not answer
// within `timeout`.
absl::Status NoAnswer(const std::string& path, absl::Duration timeout);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_STAT_PATHS_H_
