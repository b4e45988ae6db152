// SPDX-License-Identifier: Apache-2.0
//
// The calls of the API, without gRPC: each blocks until it is done. What they
// promise stands in proto/daxsnap/v1; how a checkpoint keeps its promises in
// snapd/README.md.
#ifndef DAXSNAP_SNAPD_OPS_OPERATIONS_H_
#define DAXSNAP_SNAPD_OPS_OPERATIONS_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "daxsnap/v1/pool.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "host/task/proc.h"
#include "snapd/engine/engine.h"
#include "snapd/ops/access.h"
#include "snapd/ops/checksum_maker.h"
#include "snapd/ops/claims.h"
#include "snapd/ops/criu_version.h"
#include "snapd/ops/kept_results.h"
#include "snapd/ops/pool_holder.h"
#include "snapd/ops/recorded_operation.h"
#include "snapd/ops/sync_failures.h"
#include "snapd/ops/verify.h"

namespace daxsnap {

// Thread-safe.
class Operations {
 public:
  // `pools` and `engine` outlive this. For `results` see KeptResults.
  Operations(PoolHolder* pools, Engine* engine, ProcFs proc,
             HostActions host = {}, const std::string& results = "")
      : pools_(pools),
        engine_(engine),
        proc_(std::move(proc)),
        host_(std::move(host)),
        sync_failures_(host_.sync_directory, proc_),
        kept_results_(results),
        criu_version_(engine) {}

  absl::StatusOr<v1::CreateSnapshotResult> Create(
      const Caller& caller, const v1::CreateSnapshotRequest& request,
      const ProgressSink& progress, Cancellation* cancellation,
      const PagesSink& pages = nullptr);

  absl::StatusOr<v1::RestoreSnapshotResult> Restore(
      const Caller& caller, const v1::RestoreSnapshotRequest& request,
      const ProgressSink& progress, Cancellation* cancellation,
      const VerifyEvents& verify_events = {});

  absl::Status Verify(const Caller& caller,
                      const v1::VerifySnapshotRequest& request,
                      const VerifyEvents& events,
                      const Cancellation& cancellation);

  absl::StatusOr<v1::GetSnapshotResponse> Get(
      const Caller& caller, const v1::GetSnapshotRequest& request);

  absl::StatusOr<v1::ListSnapshotsResponse> List(
      const Caller& caller, const v1::ListSnapshotsRequest& request);

  absl::StatusOr<v1::DeleteSnapshotResponse> Delete(
      const Caller& caller, const v1::DeleteSnapshotRequest& request);

  absl::StatusOr<v1::GetPoolResponse> GetPool(
      const v1::GetPoolRequest& request);

  // Since this object was made.
  uint64_t UptimeMicroseconds() const {
    return static_cast<uint64_t>(
        absl::ToInt64Microseconds(absl::Now() - start_));
  }

  // Version of CRIU, asked once. Empty if it cannot be run, or does not answer
  // in time.
  std::string GetCriuVersion() { return criu_version_.Get(); }

 private:
  OperationParts PartsOn(OpenPool* open);

  PoolHolder* const pools_;
  Engine* const engine_;
  const ProcFs proc_;
  const HostActions host_;
  const absl::Time start_ = absl::Now();
  Claims claims_;
  SyncFailures sync_failures_;
  KeptResults kept_results_;
  CriuVersion criu_version_;
  ChecksumMaker checksums_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_OPERATIONS_H_
