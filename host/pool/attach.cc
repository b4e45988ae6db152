// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <mntent.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/files.h"
#include "host/pool/device.h"
#include "host/pool/info.h"
#include "host/pool/kernel_log.h"

namespace daxsnap::pool {
namespace {

constexpr char kFileSystem[] = "kmemfs";

absl::Status CheckKernelKnows() {
  if (KernelKeepsPools()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this kernel would make plain memory of the pool, and all that is stored "
      "would be lost; boot one built by kernel/build");
}

// Decides from the header whether the device may become memory.
absl::StatusOr<PoolType> CheckBeforeBinding(const Device& device) {
  absl::StatusOr<std::optional<Header>> header = ReadHeader(device);
  if (!header.ok()) return header.status();
  if (!header->has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        device.name, " holds no pool; make one with `snapctl pool create ",
        device.name, "`, which overwrites what is on it"));
  }
  return (*header)->type;
}

// The type of what is stored there.
absl::StatusOr<PoolType> BringUp(Device* device) {
  if (device->driver == Driver::kNone) {
    absl::Status status = BindTo(*device, Driver::kDeviceDax);
    if (!status.ok()) return status;
    device->driver = Driver::kDeviceDax;
  }
  absl::StatusOr<PoolType> type = CheckBeforeBinding(*device);
  if (!type.ok()) return type;
  absl::Status status = CheckKernelKnows();
  if (!status.ok()) return status;
  status = BindTo(*device, Driver::kKmem);
  if (!status.ok()) {
    BindTo(*device, Driver::kDeviceDax).IgnoreError();
    return status;
  }
  device->driver = Driver::kKmem;
  return type;
}

absl::Status MountError(int error, const std::string& device,
                        const std::string& mount_point,
                        const std::string& reason) {
  const std::string what =
      absl::StrCat("cannot mount ", device, " on ", mount_point);
  if (error == ENODEV) {
    return absl::FailedPreconditionError(absl::StrCat(
        what, ": this kernel has no kmemfs; boot one built by kernel/build"));
  }
  if (error == ENXIO || error == ENOENT) {
    return absl::FailedPreconditionError(absl::StrCat(
        what,
        ": the device is memory, but of a pool that is not of type fs, or "
        "of none; see the kernel log"));
  }
  if (!reason.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, ": the kernel says: ", reason));
  }
  return absl::ErrnoToStatus(error, what);
}

// As the kernel lists it: absolute, without symlinks and slashes at its end.
std::string AsListed(absl::string_view mount_point) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(
      std::filesystem::path(mount_point.begin(), mount_point.end()), error);
  if (!error) path = std::filesystem::weakly_canonical(path, error);
  if (error) return std::string(mount_point);
  if (!path.has_filename()) path = path.parent_path();
  return path;
}

// Takes "ro" out of options that commas part: it is not the file system's.
unsigned long TakeReadOnly(std::string* options) {
  std::vector<std::string> rest = absl::StrSplit(*options, ',');
  const auto end = std::remove(rest.begin(), rest.end(), "ro");
  const bool found = end != rest.end();
  rest.erase(end, rest.end());
  *options = absl::StrJoin(rest, ",");
  return found ? MS_RDONLY : 0;
}

// Why the pool on `mount_point` can only be read, if it is damage. `log` has
// what the kernel said of it, if it began before the device was attached.
std::string DamageOf(const std::string& mount_point, const std::string& device,
                     KernelLog* log) {
  const UniqueFd root(
      open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  kmemfs_info info;
  if (!root.valid() || !ReadInfo(root.get(), &info) ||
      (info.flags & KMEMFS_INFO_RESCUE) == 0)
    return "";
  const std::string said = log->LastLineAbout(device, "does not hold");
  return said.empty() ? "the kernel log says what of it does not hold" : said;
}

// Whether it is mounted read-only.
absl::StatusOr<bool> MountPool(const std::string& device,
                               const AttachOptions& options) {
  const std::filesystem::path path = options.mount_point;
  if (!MakeDirectories(path, 0700).valid()) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot make directory ", options.mount_point));
  }
  std::string mount_options = options.mount_options;
  unsigned long flags = MS_NOSUID | MS_NODEV | TakeReadOnly(&mount_options);
  KernelLog log;
  const auto try_it = [&] {
    return mount(device.c_str(), path.c_str(), kFileSystem, flags,
                 mount_options.c_str()) == 0;
  };
  bool mounted = try_it();
  // Not all of it can be read; what can must not be out of reach.
  if (!mounted && errno == EROFS && (flags & MS_RDONLY) == 0) {
    flags |= MS_RDONLY;
    mounted = try_it();
  }
  if (!mounted) {
    const int mount_error = errno;
    return MountError(mount_error, device, options.mount_point,
                      log.LastLineAbout(device));
  }
  return (flags & MS_RDONLY) != 0;
}

}  // namespace

// By what comes with the series: its file system, or the parameter that is
// there with any type.
bool KernelKeepsPools(const std::string& root) {
  std::ifstream file(root + "/proc/filesystems");
  for (std::string line; std::getline(file, line);) {
    if (absl::EndsWith(line, absl::StrCat("\t", kFileSystem))) return true;
  }
  std::error_code error;
  return std::filesystem::exists(root + "/sys/module/kmem_persist_bad", error);
}

absl::StatusOr<std::vector<Mount>> ListMounts() {
  struct Closer {
    void operator()(FILE* file) const { endmntent(file); }
  };
  const std::unique_ptr<FILE, Closer> file(
      setmntent("/proc/self/mounts", "re"));
  if (file == nullptr)
    return absl::ErrnoToStatus(errno, "cannot read /proc/self/mounts");
  std::vector<Mount> mounts;
  mntent entry;
  char buffer[8192];
  while (getmntent_r(file.get(), &entry, buffer, sizeof(buffer)) != nullptr) {
    if (absl::string_view(entry.mnt_type) != kFileSystem) continue;
    mounts.push_back({std::string(absl::StripPrefix(entry.mnt_fsname, "/dev/")),
                      entry.mnt_dir, hasmntopt(&entry, "ro") != nullptr});
  }
  return mounts;
}

absl::StatusOr<Attached> Attach(absl::string_view name,
                                const AttachOptions& given) {
  AttachOptions options = given;
  options.mount_point = AsListed(given.mount_point);
  absl::StatusOr<Device> device = FindPool(name);
  if (!device.ok()) return device.status();
  absl::StatusOr<UniqueFd> lock = LockDevice(*device);
  if (!lock.ok()) return lock.status();
  // Somebody may have changed it before we had the lock.
  device = FindDevice(std::string(device->name));
  if (!device.ok()) return device.status();

  KernelLog log;
  Attached attached;
  PoolType type = PoolType::kFs;
  if (device->driver == Driver::kKmem) {
    attached.was_attached = true;
  } else {
    absl::StatusOr<PoolType> found = BringUp(&*device);
    if (!found.ok()) return found.status();
    type = *found;
    // Its node may be another one now.
    device = FindDevice(std::string(device->name));
    if (!device.ok()) return device.status();
  }
  attached.device = *device;
  absl::StatusOr<std::optional<BlockDevice>> block = FindBlockDevice(*device);
  if (!block.ok()) return block.status();
  if (block->has_value()) {
    attached.block_device = (*block)->path;
    return attached;
  }
  if (type == PoolType::kBlk) {
    return absl::InternalError(
        absl::StrCat(device->name,
                     " is attached, but the kernel made no block device of it; "
                     "see the kernel log"));
  }
  if (type != PoolType::kFs) return attached;
  attached.was_attached = false;  // until it is found mounted

  absl::StatusOr<std::vector<Mount>> mounts = ListMounts();
  if (!mounts.ok()) return mounts.status();
  for (const Mount& mount : *mounts) {
    if (mount.device != device->name) continue;
    if (mount.mount_point != options.mount_point) {
      return absl::FailedPreconditionError(
          absl::StrCat(device->name, " is mounted on ", mount.mount_point,
                       " already; detach it first"));
    }
    attached.mount_point = mount.mount_point;
    attached.was_attached = true;
    attached.read_only = mount.read_only;
  }
  if (!attached.was_attached) {
    const absl::StatusOr<bool> read_only = MountPool(device->name, options);
    if (!read_only.ok()) return read_only.status();
    attached.mount_point = options.mount_point;
    attached.read_only = *read_only;
  }
  if (attached.read_only)
    attached.damage = DamageOf(attached.mount_point, device->name, &log);
  return attached;
}

absl::Status Detach(absl::string_view where) {
  const std::string mount_point = AsListed(where);
  absl::StatusOr<std::vector<Mount>> mounts = ListMounts();
  if (!mounts.ok()) return mounts.status();
  const Mount* found = nullptr;
  for (const Mount& mount : *mounts) {
    if (mount.mount_point == mount_point) found = &mount;
  }
  if (found == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("no pool is mounted on ", mount_point));
  }
  UniqueFd root(
      open(found->mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Before the unmount, whose failures nobody would hear of.
  if (!root.valid() || syncfs(root.get()) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot commit the pool on ", mount_point));
  }
  root.reset();
  if (umount2(found->mount_point.c_str(), UMOUNT_NOFOLLOW) == 0)
    return absl::OkStatus();
  if (errno == EBUSY) {
    return absl::FailedPreconditionError(
        absl::StrCat("the pool on ", mount_point,
                     " is in use; stop snapd and whatever has files open there "
                     "(see `fuser -vm ",
                     mount_point, "`), then try again"));
  }
  return absl::ErrnoToStatus(errno,
                             absl::StrCat("cannot unmount ", mount_point));
}

}  // namespace daxsnap::pool
