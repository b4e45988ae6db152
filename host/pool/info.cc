// SPDX-License-Identifier: Apache-2.0
#include "host/pool/info.h"

#include <sys/ioctl.h>
#include <uuid/uuid.h>

#include <cstring>
#include <string>

namespace daxsnap::pool {

bool ReadInfo(int fd, kmemfs_info* info) {
  *info = {};
  return ioctl(fd, KMEMFS_IOC_INFO, info) == 0;
}

v1::Pool ToProto(const kmemfs_info& info) {
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

}  // namespace daxsnap::pool
