// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_cat.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {

absl::StatusOr<Mount> FindMount(const Device& device) {
  absl::StatusOr<std::vector<Mount>> mounts = ListMounts();
  if (!mounts.ok()) return mounts.status();
  for (const Mount& mount : *mounts) {
    if (mount.device == device.name) return mount;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "no pool of ", device.name, " is mounted; `snapctl pool attach ",
      device.name, "` does that, if it is one of type fs"));
}

}  // namespace daxsnap::pool
