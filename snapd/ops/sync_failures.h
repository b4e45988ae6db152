// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
#define DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "host/task/file_sync.h"
#include "host/task/proc.h"

namespace daxsnap {

// File systems that may have lost what was written to them. The kernel tells of
// that once, and of nobody's files: it takes the pages that it could not write
// for clean, and the next sync succeeds, whoever asks for it. As nobody but who
// wrote them can write them again, all tasks with files there are suspect that
// ran at the time, and those that came from the ones that were to be saved. Who
// was started later has found out what the files have. Thread-safe.
class SyncFailures {
 public:
  // Remembers `lost`, of SyncFileSystems() for `tree`.
  void Add(const std::vector<TaskInfo>& tree,
           const std::vector<LostWrites>& lost);

  // SYNC_FAILED if what `tree`, which uses `targets`, has written may be lost.
  absl::Status Check(const ProcFs& proc, const std::vector<TaskInfo>& tree,
                     const std::vector<SyncTarget>& targets) const;

 private:
  // By PID and start time.
  using Tasks = std::set<std::pair<pid_t, uint64_t>>;
  struct Failure {
    LostWrites lost;
    // As TaskId::start_ticks; the last one counts, as who ran before the first
    // ran before that, too.
    uint64_t at_ticks = 0;
    Tasks tasks;
  };

  mutable std::mutex mutex_;
  // By device; guarded by mutex_.
  std::map<dev_t, Failure> failures_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
