// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
#define DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "host/task/proc.h"

namespace daxsnap {

// Tasks whose files may have lost what was written to them. The kernel tells of
// that once: it takes the pages that it could not write for clean, and the next
// sync succeeds. As nobody but the tasks can write them again, this forgets a
// failure only with its tasks. Thread-safe.
class SyncFailures {
 public:
  // Remembers `failure`, of SyncFileSystems(), if data may be lost. Forgets
  // tasks that are gone.
  void Add(const ProcFs& proc, const std::vector<TaskInfo>& tree,
           const absl::Status& failure);

  // SYNC_FAILED if there was such a failure while one of the tasks ran.
  absl::Status Check(const std::vector<TaskInfo>& tree) const;

 private:
  struct Failure {
    std::string mount_point;
    std::string error;
  };

  mutable std::mutex mutex_;
  // By PID and start time; guarded by mutex_.
  std::map<std::pair<pid_t, uint64_t>, Failure> failures_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
