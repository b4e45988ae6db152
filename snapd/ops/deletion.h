// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_DELETION_H_
#define DAXSNAP_SNAPD_OPS_DELETION_H_

#include <string>

#include "absl/status/status.h"
#include "snapd/ops/recorded_operation.h"

namespace daxsnap {

// One DeleteSnapshot. Used once, by one thread. Its record is the directory in
// staging, without a file beside it: a full pool has no room for one.
class Deletion : private RecordedOperation {
 public:
  Deletion(const OperationParts& parts, const Caller& caller,
           const ProgressSink& progress)
      : RecordedOperation(parts, caller, progress, nullptr) {}

  absl::Status Run(const std::string& name);
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_DELETION_H_
