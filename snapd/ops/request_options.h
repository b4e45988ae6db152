// SPDX-License-Identifier: Apache-2.0
//
// What a request asks for, whichever daxsnap made it: those before
// CheckpointOptions and RestoreOptions said the same in fields of the request.
#ifndef DAXSNAP_SNAPD_OPS_REQUEST_OPTIONS_H_
#define DAXSNAP_SNAPD_OPS_REQUEST_OPTIONS_H_

#include <string>

#include "absl/status/status.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap {

// An option that both say is that of `options`. A flag is set if either says
// so.
v1::CheckpointOptions OptionsOf(const v1::CreateSnapshotRequest& request);
v1::RestoreOptions OptionsOf(const v1::RestoreSnapshotRequest& request);

// OPTION_INVALID: that field of a request is not one that this snapd obeys.
absl::Status InvalidOption(const std::string& field, std::string message,
                           std::string hint);

// OPTION_INVALID if the request, or its options, has fields that this snapd
// does not know: a newer client must not take them for obeyed.
absl::Status CheckKnown(const v1::CreateSnapshotRequest& request);
absl::Status CheckKnown(const v1::RestoreSnapshotRequest& request);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_REQUEST_OPTIONS_H_
