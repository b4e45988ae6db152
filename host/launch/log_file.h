// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_LAUNCH_LOG_FILE_H_
#define DAXSNAP_HOST_LAUNCH_LOG_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace daxsnap::launch {

// Opens `path` for appending, makes it (0600) and its directory (0700) if they
// are not there, and syncs both. Refuses anything but a regular file.
absl::StatusOr<UniqueFd> OpenLog(const std::string& path);

}  // namespace daxsnap::launch

#endif  // DAXSNAP_HOST_LAUNCH_LOG_FILE_H_
