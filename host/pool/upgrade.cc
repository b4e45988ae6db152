// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/kmemfs.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "host/pool/info.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {
namespace {

absl::StatusOr<std::uint32_t> FormatVersion(int fd, const Mount& mount) {
  kmemfs_info info;
  if (!ReadInfo(fd, &info)) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot read the state of the pool "
                                            "on ",
                                            mount.mount_point));
  }
  return info.version;
}

absl::Status UpgradeError(int error, const Mount& mount) {
  switch (error) {
    case ENOTTY:
      return absl::UnimplementedError(
          "this kernel knows no newer format than the pool has; boot a newer "
          "one first");
    case ENOSPC:
      return absl::ResourceExhaustedError(absl::StrCat(
          "no room for a second set of metadata of the pool on ",
          mount.mount_point,
          ", which is as it was; remove snapshots or end processes whose "
          "memory is on its node, then try again"));
    case EROFS:
      return absl::FailedPreconditionError(absl::StrCat(
          "the pool on ", mount.mount_point, " is mounted read-only"));
    default:
      return absl::ErrnoToStatus(
          error,
          absl::StrCat("cannot upgrade the pool on ", mount.mount_point));
  }
}

}  // namespace

absl::StatusOr<Upgraded> Upgrade(absl::string_view name) {
  absl::StatusOr<Device> device = FindPool(name);
  if (!device.ok()) return device.status();
  absl::StatusOr<Mount> mount = FindMount(*device);
  if (!mount.ok()) return mount.status();
  UniqueFd fd(
      open(mount->mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot open ", mount->mount_point));
  }
  const absl::StatusOr<std::uint32_t> from = FormatVersion(fd.get(), *mount);
  if (!from.ok()) return from.status();
  if (ioctl(fd.get(), KMEMFS_IOC_UPGRADE, 0) != 0) {
    return UpgradeError(errno, *mount);
  }
  const absl::StatusOr<std::uint32_t> to = FormatVersion(fd.get(), *mount);
  if (!to.ok()) return to.status();
  return Upgraded{.mount = *mount, .from = *from, .to = *to};
}

}  // namespace daxsnap::pool
