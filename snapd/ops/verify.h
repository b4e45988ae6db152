// SPDX-License-Identifier: Apache-2.0
//
// Whether a snapshot has what was stored: its pages are compared with the
// checksums that the pool keeps of them.
#ifndef DAXSNAP_SNAPD_OPS_VERIFY_H_
#define DAXSNAP_SNAPD_OPS_VERIFY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "snapd/ops/access.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"

namespace daxsnap {

// Which files of a snapshot: all, or those that a restore reads.
enum class VerifyScope { kAll, kRestored };

struct VerifyEvents {
  // Told some times a second how many stored pages have been looked at, and by
  // a restore then how many it has read.
  std::function<void(v1::ProgressPhase, uint64_t done, uint64_t total)>
      progress = {};
  // Told of each file when it has been looked at, in bytewise order.
  std::function<void(v1::FileVerification)> file = {};
  // Told when all has been looked at, whatever was found.
  std::function<void(v1::VerifySnapshotResult)> result = {};
};

struct VerifyOutcome {
  v1::Verification totals;
  std::optional<v1::FileVerification> first_damaged;
};

// Looks at the files of the snapshot whose directory is open. Damage is no
// error here. SNAPSHOT_UNREADABLE; NO_SPACE and OVERLOADED; CANCELLED.
absl::StatusOr<VerifyOutcome> VerifyFiles(const Pool& pool,
                                          const std::string& name,
                                          int directory, VerifyScope scope,
                                          const VerifyEvents& events,
                                          const Cancellation& cancellation);

// DATA_LOSS, SNAPSHOT_DAMAGED if something was found damaged. `hint` says what
// to do.
absl::Status CheckVerified(const std::string& name,
                           const VerifyOutcome& outcome, std::string hint);

// VerifySnapshot of the API. Others may work on the same snapshot meanwhile.
absl::Status VerifySnapshot(const Pool& pool, const Catalog& catalog,
                            const Caller& caller,
                            const v1::VerifySnapshotRequest& request,
                            const VerifyEvents& events,
                            const Cancellation& cancellation);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_VERIFY_H_
