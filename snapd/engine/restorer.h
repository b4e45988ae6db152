// SPDX-License-Identifier: Apache-2.0
//
// Tells a task that CRIU has let run from one that it has not.
#ifndef DAXSNAP_SNAPD_ENGINE_RESTORER_H_
#define DAXSNAP_SNAPD_ENGINE_RESTORER_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "host/task/proc.h"
#include "snapd/engine/engine.h"

namespace daxsnap {

// Whether a task with such /proc/PID/syscall and /proc/PID/maps waits in CRIU's
// restorer, which is code in memory of no file that waits on a futex which all
// tasks of the tree share.
// source: restore_finish_stage() in criu/pie/restorer.c, prepare_task_entries()
// in criu/cr-restore.c
bool WaitsInRestorer(absl::string_view syscall, absl::string_view maps);

// What the tasks of a restore whose CRIU is gone do. All of them leave the
// restorer or none does. Takes up to a second if they are busy.
absl::StatusOr<TasksLeft> LookAtRestored(const ProcFs& proc,
                                         const std::vector<pid_t>& pids);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_RESTORER_H_
