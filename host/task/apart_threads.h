// SPDX-License-Identifier: Apache-2.0
//
// Threads that do not share with their process what CRIU takes for shared: it
// looks at the leader alone, and a restored thread has what the leader has.
#ifndef DAXSNAP_HOST_TASK_APART_THREADS_H_
#define DAXSNAP_HOST_TASK_APART_THREADS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "host/task/proc.h"

namespace daxsnap {

struct ApartThread {
  pid_t pid = 0;
  pid_t thread = 0;
  // The kind of a namespace as below /proc/PID/ns, "fd" for descriptors, or
  // "cwd" for working and root directory.
  std::string part;
};

// Each thread and part once. Threads that are gone or ending have none; what
// cannot be read is an error. A kernel without kcmp(2), which CRIU needs, does
// not tell of "fd", "cwd" and "mnt".
absl::StatusOr<std::vector<ApartThread>> FindApartThreads(
    const ProcFs& proc, const std::vector<TaskInfo>& tree);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_APART_THREADS_H_
