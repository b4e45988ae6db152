// SPDX-License-Identifier: Apache-2.0
//
// The rules of the API for names and labels (proto/daxsnap/v1/snapshot.proto).
#ifndef DAXSNAP_SNAPD_STORE_NAMES_H_
#define DAXSNAP_SNAPD_STORE_NAMES_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace daxsnap {

// OK if `name` is 1 to 128 bytes of [A-Za-z0-9._-] that start with a letter or
// a digit; otherwise INVALID_ARGUMENT, NAME_INVALID. A valid name is a safe
// file name: no path separators, no "." or "..", no hidden file, no NUL.
absl::Status ValidateSnapshotName(absl::string_view name);

// OK if there are at most 64 labels and each key and value keeps the rule of
// the API; otherwise INVALID_ARGUMENT, LABEL_INVALID.
absl::Status ValidateLabels(const std::map<std::string, std::string>& labels);

// A valid name made of the task's comm, its PID and a time in UTC to the
// millisecond: "redis-server-1000017-20250314T150926.535Z".
std::string GenerateSnapshotName(absl::string_view comm, int pid,
                                 absl::Time time);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_NAMES_H_
