// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
#define DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "daxsnap/internal/syncs.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "host/task/file_sync.h"
#include "host/task/proc.h"

namespace daxsnap {

// File systems that may have lost what was written to them. The kernel tells of
// that once, and of nobody's files: it takes the pages that it could not write
// for clean, and the next sync succeeds, whoever asks for it. As nobody but who
// wrote them can write them again, all tasks with files there are suspect that
// ran at the time, and those that came from the ones that were to be saved. Who
// was started later has found out what the files have.
//
// A sync that nobody waits for any more may be the one that is told. So all are
// written down before they begin, in a directory that a later snapd of this
// boot reads, and their processes, which outlive it, say there how they end.
// Thread-safe.
class SyncFailures {
 public:
  // Reads what an earlier snapd has left in the directory, which is made when
  // it is needed. Without one all is forgotten with this object.
  SyncFailures(std::string directory, ProcFs proc);

  // A sync that has been written down. Ended() before it goes.
  class Sync {
   public:
    Sync(Sync&& other) noexcept
        : failures_(other.failures_), name_(std::exchange(other.name_, {})) {}
    Sync& operator=(Sync&&) = delete;
    ~Sync() { Ended({}); }

    // For SyncFileSystems().
    int record() const;
    // It has returned, and says that these are lost. What it has left behind is
    // remembered.
    void Ended(const std::vector<LostWrites>& lost);

   private:
    friend class SyncFailures;
    Sync(SyncFailures* failures, std::string name)
        : failures_(failures), name_(std::move(name)) {}

    SyncFailures* failures_;
    std::string name_;  // of its record; empty once it has ended
  };

  // Before SyncFileSystems() of `targets`, which `tree` uses.
  absl::StatusOr<Sync> Begin(const std::vector<TaskInfo>& tree,
                             const std::vector<SyncTarget>& targets);

  // A file system whose writes may be lost.
  struct Suspicion {
    std::string mount_point;
    // Empty: a sync of it has not ended, so that nobody knows.
    std::string error;
    // The first task that it concerns.
    pid_t pid = 0;
  };

  // What `tree`, which uses `targets`, has written and may be lost. `deadline`:
  // syncs of other calls, and those that were left behind, are waited for as
  // long, as one of them may be about to be told. InfinitePast: says only what
  // is known now. CANCELLED.
  absl::StatusOr<std::vector<Suspicion>> Check(
      const std::vector<TaskInfo>& tree, const std::vector<SyncTarget>& targets,
      absl::Time deadline, const Cancellation& cancellation);

 private:
  // By PID and start time.
  using Tasks = std::set<std::pair<pid_t, uint64_t>>;
  struct Failure {
    std::string mount_point;
    std::string error;
    // As TaskId::start_ticks; the last one counts, as who ran before the first
    // ran before that, too.
    uint64_t at_ticks = 0;
    Tasks tasks;
  };
  // A sync of which not all is known.
  struct Pending {
    std::vector<LostWrites> targets;
    Tasks tasks;
    // While a call waits for it: fires when it does so no more.
    std::shared_ptr<Cancellation> ended;
    UniqueFd record;
    // It was logged that its record cannot be read.
    bool told = false;
  };

  using Pendings = std::map<std::string, Pending>;

  // All but the first are called with mutex_ held.
  absl::StatusOr<std::string> MakeRecord(Pending* pending);
  void Load();
  void LoadPending(int directory, const std::string& name);
  void AddLost(const Tasks& tasks, const LostWrites& lost, uint64_t ticks);
  // Learns what has become of a sync that no call waits for, and forgets it if
  // that is all. The next one.
  Pendings::iterator Settle(Pendings::iterator at);
  void SettleAll();
  // False if it could not be written down.
  bool Save();
  // Those of the devices that a sync which no call waits for is not done with.
  std::set<dev_t> LeftBehind(const std::set<dev_t>& devices) const;
  void End(const std::string& name, const std::vector<LostWrites>& lost);
  std::vector<Suspicion> SuspicionsOf(const std::vector<TaskInfo>& tree,
                                      const std::vector<SyncTarget>& targets,
                                      const std::set<dev_t>& unknown) const;

  const std::string directory_;
  const ProcFs proc_;
  std::string boot_id_;
  uint64_t nameless_ = 0;
  std::mutex mutex_;
  // By device; guarded by mutex_, as is all that follows.
  std::map<dev_t, Failure> failures_;
  // By the name of its record.
  Pendings pending_;
};

// UNAVAILABLE, with SYNC_FAILED or SYNC_TIMEOUT.
absl::Status RefuseSuspicion(const SyncFailures::Suspicion& suspicion);

// What a snapshot says that was taken all the same.
v1::Finding FindingOf(const SyncFailures::Suspicion& suspicion);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_SYNC_FAILURES_H_
