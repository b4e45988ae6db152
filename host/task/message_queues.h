// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_MESSAGE_QUEUES_H_
#define DAXSNAP_HOST_TASK_MESSAGE_QUEUES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/task/stat_paths.h"

namespace daxsnap {

// Whether each of the paths leads to a POSIX message queue; a child asks, as
// the file system of another may not answer. NOT_FOUND for what is not there.
// NoAnswer() if it takes longer than `timeout` altogether; it calls a path what
// `names` does.
absl::StatusOr<std::vector<absl::StatusOr<bool>>> AreMessageQueues(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& names,
    absl::Duration timeout = kAnswerTimeout);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_MESSAGE_QUEUES_H_
