// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_RECORDED_OPERATION_H_
#define DAXSNAP_SNAPD_OPS_RECORDED_OPERATION_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "host/task/file_sync.h"
#include "host/task/proc.h"
#include "snapd/engine/engine.h"
#include "snapd/ops/access.h"
#include "snapd/ops/claims.h"
#include "snapd/ops/findings.h"
#include "snapd/ops/kept_results.h"
#include "snapd/ops/sync_failures.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"

namespace daxsnap {

// Told when an operation enters a phase. Does not block.
using ProgressSink = std::function<void(v1::ProgressPhase)>;

// Told some times a second how many pages of how many have been dumped or
// restored, as far as that is known. Does not block.
using PagesSink = std::function<void(v1::ProgressPhase, uint64_t pages_done,
                                     uint64_t pages_total)>;

// How operations deal with this machine besides what pool and engine do; tests
// put something else in its place.
struct HostActions {
  std::function<SyncOutcome(const std::vector<SyncTarget>&, absl::Duration,
                            const Cancellation&, int record)>
      sync = SyncFileSystems;
  std::function<absl::StatusOr<std::vector<v1::Finding>>(
      const ProcFs&, const std::vector<TaskInfo>&, const std::vector<UsedFile>&,
      const FindingsInput&)>
      find = FindLosses;
  // Where syncs are written down, see SyncFailures.
  std::string sync_directory = "";
};

// The inside of snapd, as operations use it. All of it outlives them.
struct OperationParts {
  const ProcFs* proc;
  const HostActions* host;
  Engine* engine;
  Pool* pool;
  Catalog* catalog;
  Claims* claims;
  SyncFailures* sync_failures;
  KeptResults* kept_results;
};

// What the calls that change the world have in common: nobody else works on
// their name and tasks meanwhile, and what they are about to do is written
// down, so that the snapd that comes after one that was killed finishes or
// undoes it (see recovery.h). Used once, by one thread.
class RecordedOperation {
 protected:
  RecordedOperation(const OperationParts& parts, const Caller& caller,
                    const ProgressSink& progress, Cancellation* cancellation)
      : parts_(parts),
        caller_(caller),
        progress_(progress),
        cancellation_(cancellation) {}
  RecordedOperation(const RecordedOperation&) = delete;
  RecordedOperation& operator=(const RecordedOperation&) = delete;
  ~RecordedOperation() = default;

  // NAME_INVALID; ABORTED, BUSY if another call works on the name.
  absl::Status ClaimName(const std::string& name);
  // After that: likewise with tasks.
  absl::Status ClaimPids(const std::vector<pid_t>& pids);

  // The record: identity, name, root task and boot. WriteRecord() or
  // Catalog::Begin() writes it down.
  absl::Status BeginRecord(internal::OperationKind kind, const TaskId& root);
  absl::Status WriteRecord() const {
    return parts_.catalog->records().Write(record_);
  }
  // To be written down before the engine's worker is told what to do.
  void SetWorker(const TaskId& worker);
  // A record that cannot be removed is left to the next start, with a warning.
  void RemoveRecord() const;

  // Tells the log who did what, "took" for example, to the snapshot.
  void Audit(absl::string_view operation, absl::string_view did,
             pid_t pid) const;

  const OperationParts parts_;
  const Caller caller_;
  const ProgressSink& progress_;
  Cancellation* const cancellation_;
  std::string name_;
  internal::Operation record_;

 private:
  std::optional<Claims::Claim> claim_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_RECORDED_OPERATION_H_
