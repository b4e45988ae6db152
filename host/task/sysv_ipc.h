// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_SYSV_IPC_H_
#define DAXSNAP_HOST_TASK_SYSV_IPC_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "host/task/proc.h"
#include "host/task/tree_files.h"

namespace daxsnap {

// How sure it is that tasks use an object.
enum class SysvTie {
  // One has it attached, or is its maker or last user.
  kUsed,
  // It is of a user of theirs, and of those who are known to have used it none
  // lives, or one does not: it may have been one of the tree.
  kMaybeTheirs,
  // There are more semaphores than are looked at.
  kUnknown
};

// An object of System V IPC that a tree uses or may use.
struct SysvObject {
  // "shm", "sem" or "msg", as in /proc/sysvipc.
  std::string kind;
  // "4711".
  std::string id;
  SysvTie tie = SysvTie::kUsed;
  // Of the task that uses it, or may.
  pid_t pid = 0;
};

// Those of snapd's own IPC namespace. The kernel keeps no list of who uses an
// object: only who has shared memory attached, and by PID who has made or last
// used what. A PID whose task is younger than that was another's, who has
// ended. What cannot be excluded is there: an object is left out if all who are
// known to have used it live outside the tree, or if no task is of its user.
absl::StatusOr<std::vector<SysvObject>> FindSysvObjects(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    const std::vector<UsedFile>& files);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_SYSV_IPC_H_
