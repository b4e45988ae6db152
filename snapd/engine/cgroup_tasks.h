// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_ENGINE_CGROUP_TASKS_H_
#define DAXSNAP_SNAPD_ENGINE_CGROUP_TASKS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"

namespace daxsnap {

// The tasks in a cgroup, given relative to the cgroup2 mount. One that is not
// there has none.
class CgroupTasks {
 public:
  explicit CgroupTasks(const std::string& cgroup);

  // PIDs of the processes, in cgroups below it as well. An error if that cannot
  // be told.
  absl::StatusOr<std::vector<pid_t>> List() const;

  // Sends SIGKILL to all.
  void Kill() const;

  // Likewise but for one, and for those that are made meanwhile.
  void KillAllBut(pid_t spared) const;

  // Waits until all have ended: a large one takes a while to free its memory.
  // Whether they have.
  bool AwaitEnd(absl::Duration timeout) const;

 private:
  const std::string cgroup_;
  UniqueFd directory_;
  // Why it cannot be told whether the cgroup is there.
  absl::Status unknown_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CGROUP_TASKS_H_
