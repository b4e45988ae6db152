// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_LOCAL_POOL_H_
#define DAXSNAP_CLIENT_SNAPCTL_LOCAL_POOL_H_

#include <optional>

#include "absl/status/statusor.h"
#include "daxsnap/v1/pool.pb.h"

namespace daxsnap::snapctl {

// The mounted pool, asked from the kernel: works without snapd. The one at the
// default mount point if there are several; nullopt if there is none.
// snapshot_count is not filled in.
absl::StatusOr<std::optional<v1::Pool>> ReadLocalPool();

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_LOCAL_POOL_H_
