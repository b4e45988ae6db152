// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/local_pool.h"

#include <fcntl.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "host/pool/info.h"
#include "host/pool/origin.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {

absl::StatusOr<std::optional<v1::Pool>> ReadLocalPool() {
  absl::StatusOr<std::vector<pool::Mount>> mounts = pool::ListMounts();
  if (!mounts.ok()) return mounts.status();
  if (mounts->empty()) return std::nullopt;
  const pool::Mount* chosen = &mounts->front();
  for (const pool::Mount& mount : *mounts) {
    if (mount.mount_point == pool::kDefaultMountPoint) chosen = &mount;
  }
  UniqueFd fd(
      open(chosen->mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  kmemfs_info info;
  if (!fd.valid() || !pool::ReadInfo(fd.get(), &info)) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot read the state of the pool on ",
                            chosen->mount_point));
  }
  v1::Pool pool = pool::ToProto(info);
  pool.set_path(chosen->mount_point);
  pool.set_device(chosen->device);
  const absl::StatusOr<pool::Origin> origin = pool::FindOrigin(chosen->device);
  if (origin.ok()) {
    pool.set_persistence(origin->persistent
                             ? v1::POOL_PERSISTENCE_PROMISED
                             : v1::POOL_PERSISTENCE_NOT_PROMISED);
  }
  return pool;
}

}  // namespace daxsnap::snapctl
