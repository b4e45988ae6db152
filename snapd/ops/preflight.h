// SPDX-License-Identifier: Apache-2.0
//
// What can be told before a task is touched: whether it is of a kind that has a
// snapshot, and whether something leads out of its tree that no snapshot can
// hold. CRIU would find most of it too, but later and in its own words.
#ifndef DAXSNAP_SNAPD_OPS_PREFLIGHT_H_
#define DAXSNAP_SNAPD_OPS_PREFLIGHT_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "host/task/proc.h"

namespace daxsnap {

// The status for a PID that no task has.
absl::Status TaskMissing(pid_t pid);

// OK if the task can have a snapshot; TASK_UNSUPPORTED for kernel threads,
// zombies, mere threads and PID 1.
absl::Status CheckTaskKind(const TaskInfo& task);

// EXTERNAL_SESSION unless the root task leads its session.
absl::Status CheckSession(const TaskInfo& root);

// TASK_UNSUPPORTED if `self`, snapd, is one of the tasks.
absl::Status CheckWithoutSelf(const std::vector<TaskInfo>& tree, pid_t self);

// TASK_UNSUPPORTED if a thread has a scheduling policy that CRIU does not bring
// back: SCHED_DEADLINE, SCHED_EXT.
absl::Status CheckPolicies(const ProcFs& proc,
                           const std::vector<TaskInfo>& tree);

// IO_URING; TASK_UNSUPPORTED for a POSIX message queue; EXTERNAL_TERMINAL if a
// pipe's other end is in a task outside the tree. Another error if the
// descriptors of a task cannot be read.
absl::Status CheckDescriptors(const ProcFs& proc,
                              const std::vector<TaskInfo>& tree);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_PREFLIGHT_H_
