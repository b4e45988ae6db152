// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/request_options.h"

namespace daxsnap {

// The one reader of the fields that are deprecated.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

v1::CheckpointOptions OptionsOf(const v1::CreateSnapshotRequest& request) {
  v1::CheckpointOptions options = request.options();
  if (request.leave_running()) options.set_leave_running(true);
  if (request.force()) options.set_force(true);
  if (options.sync_timeout_seconds() == 0) {
    options.set_sync_timeout_seconds(request.sync_timeout_seconds());
  }
  return options;
}

v1::RestoreOptions OptionsOf(const v1::RestoreSnapshotRequest& request) {
  v1::RestoreOptions options = request.options();
  if (options.files() == v1::FILES_POLICY_UNSPECIFIED) {
    options.set_files(request.files());
  }
  if (options.verify() == v1::VERIFY_POLICY_UNSPECIFIED) {
    options.set_verify(request.verify());
  }
  return options;
}

#pragma GCC diagnostic pop

}  // namespace daxsnap
