// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_RESTORE_H_
#define DAXSNAP_SNAPD_OPS_RESTORE_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "daxsnap/v1/pool.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "snapd/ops/recorded_operation.h"
#include "snapd/ops/verify.h"

namespace daxsnap {

// One RestoreSnapshot: checks, verification, the engine. Used once, by one
// thread.
//
// Until the engine says that all tasks are there, every failure, cancellation
// included, ends them before they have run. From then on they run whatever
// happens: what has run may have changed its files, and then the snapshot is
// not what it was.
class Restore : private RecordedOperation {
 public:
  Restore(const OperationParts& parts, const Caller& caller,
          const v1::RestoreSnapshotRequest& request,
          const ProgressSink& progress, Cancellation* cancellation,
          const VerifyEvents& verify_events);

  absl::StatusOr<v1::RestoreSnapshotResult> Run();

 private:
  absl::Status CheckRequest() const;
  // Reads the manifest of a snapshot that the caller may restore.
  absl::Status ReadSnapshot();
  // What an earlier call with the same request ID has returned, if the tasks it
  // started live.
  absl::StatusOr<std::optional<v1::RestoreSnapshotResult>> FindDone();
  // Reads results of restores whose root tasks live, and forgets the others.
  absl::Status ReadResults();
  // Adds those of the pool, and says what of it cannot be read.
  absl::Status ReadRecords();
  absl::Status CheckMachine() const;
  // Whether what is restored is what was stored, if anybody asks.
  absl::Status Verify();
  absl::StatusOr<v1::RestoreSnapshotResult> Start(int images);
  // Says how far the restore is, by what the pool has counted since.
  void TellPages(const v1::PoolCounters& then) const;
  // Writes the record down. A full pool is no reason against a restore: then it
  // goes on without.
  absl::Status Note();
  // Keeps the result for who asks again, or ends the record.
  void Finish(pid_t pid);

  const v1::RestoreSnapshotRequest request_;
  const v1::RestoreOptions options_;
  const VerifyEvents& verify_events_;
  const absl::Time start_;

  v1::Manifest manifest_;
  std::vector<internal::Operation> results_;
  // Why there may be more.
  absl::Status unread_;
  bool recorded_ = false;
  bool noted_ = false;  // the record is there, of this step or an earlier one
  v1::RestoreSnapshotResult result_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_RESTORE_H_
