// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/local_pool.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <uuid/uuid.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "host/pool/origin.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {

v1::Pool ToPool(const kmemfs_info& info) {
  v1::Pool pool;
  pool.set_kind(v1::POOL_KIND_KMEMFS);
  char uuid[UUID_STR_LEN];
  uuid_unparse_lower(info.uuid, uuid);
  pool.set_uuid(uuid);
  const auto* label = reinterpret_cast<const char*>(info.label);
  pool.set_label(std::string(label, strnlen(label, sizeof(info.label))));
  pool.set_generation(info.generation);
  pool.set_format_version(info.version);
  pool.set_dirty(info.dirty != 0);
  pool.set_node(info.node);
  pool.set_page_size(info.page_size);
  pool.set_total_pages(info.total_pages);
  pool.set_free_pages(info.free_pages);
  pool.set_file_pages(info.file_pages);
  pool.set_meta_pages(info.meta_pages);
  v1::PoolCounters& counters = *pool.mutable_counters();
  counters.set_captured_by_reference(info.captured_by_reference);
  counters.set_captured_shared(info.captured_shared);
  counters.set_captured_copied(info.captured_copied);
  counters.set_read_installed(info.read_installed);
  counters.set_read_copied(info.read_copied);
  counters.set_flushed_pages(info.flushed_pages);
  return pool;
}

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
  kmemfs_info info = {};
  if (!fd.valid() || ioctl(fd.get(), KMEMFS_IOC_INFO, &info) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot read the state of the pool on ",
                            chosen->mount_point));
  }
  v1::Pool pool = ToPool(info);
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
