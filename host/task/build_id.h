// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_BUILD_ID_H_
#define DAXSNAP_HOST_TASK_BUILD_ID_H_

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/task/stat_paths.h"

namespace daxsnap {

// The GNU build-id of a 64-bit ELF file in lower-case hex; empty if the file is
// not one or has none. `fd` is readable and seekable; its position is not used.
// The content is not trusted. An error only if it cannot be read.
absl::StatusOr<std::string> ReadBuildId(int fd);

// A regular file that tasks have mapped.
struct MappedFile {
  struct stat info = {};
  // As of ReadBuildId().
  std::string build_id;
};

// What is at each of the paths: NOT_FOUND if there is nothing,
// FAILED_PRECONDITION if it is no regular file. A child looks, so that nobody
// hangs with a file system whose server stands still; NoAnswer() of
// stat_paths.h if it takes longer than `timeout` altogether.
absl::StatusOr<std::vector<absl::StatusOr<MappedFile>>> LookAtMappedFiles(
    const std::vector<std::string>& paths,
    absl::Duration timeout = kAnswerTimeout);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_BUILD_ID_H_
