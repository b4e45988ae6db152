// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_CRIU_VERSION_H_
#define DAXSNAP_SNAPD_OPS_CRIU_VERSION_H_

#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "base/shared_work.h"
#include "snapd/engine/engine.h"

namespace daxsnap {

// The version of CRIU, asked for once. What hangs or cannot be run costs a call
// in a while some seconds, not each. Thread-safe.
class CriuVersion {
 public:
  // `engine` outlives this. For `patience` from when it was asked a call waits
  // for the answer to another one; a failure counts for `retry_after`.
  explicit CriuVersion(Engine* engine,
                       absl::Duration patience = absl::Seconds(2),
                       absl::Duration retry_after = absl::Seconds(30))
      : engine_(engine), patience_(patience), retry_after_(retry_after) {}

  // Empty if it cannot be had now.
  std::string Get();
  // Asks nobody. Empty until known.
  std::string Known() const;

 private:
  std::string Ask();
  bool FailedLately() const;

  Engine* const engine_;
  const absl::Duration patience_;
  const absl::Duration retry_after_;
  SharedWork<std::string> asking_;
  mutable std::mutex mutex_;
  // Both guarded by mutex_.
  std::string version_;
  // Since the machine was started: clocks of the wall step.
  absl::Duration failed_ = -absl::InfiniteDuration();
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_CRIU_VERSION_H_
