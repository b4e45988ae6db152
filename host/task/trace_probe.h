// SPDX-License-Identifier: Apache-2.0
//
// Asks the kernel whether a user could ptrace(2) tasks. What /proc shows of a
// task does not tell: whether it is dumpable is shown nowhere, and Yama and
// other security modules have rules of their own.
#ifndef DAXSNAP_HOST_TASK_TRACE_PROBE_H_
#define DAXSNAP_HOST_TASK_TRACE_PROBE_H_

#include <sys/types.h>

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/task/proc.h"

namespace daxsnap {

// The first of `threads` (thread IDs) that a process with this user and group,
// no other groups and no capabilities could not attach to; nullopt if it could
// attach to all. Threads that are gone, or have no memory any more as they are
// ending, count as those it could attach to.
//
// A short-lived child of snapd opens their /proc/TID/mem, which is the kernel's
// own PTRACE_MODE_ATTACH check with the credentials that the child has then. It
// is killed if it has no answer within `timeout` (UNAVAILABLE), as a task in
// execve(2) may keep it waiting. Needs CAP_SETUID and CAP_SETGID.
absl::StatusOr<std::optional<pid_t>> FindUntraceable(
    uid_t uid, gid_t gid, const std::vector<pid_t>& threads, const ProcFs& proc,
    absl::Duration timeout = absl::Seconds(10));

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_TRACE_PROBE_H_
