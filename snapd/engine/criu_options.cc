// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_options.h"

#include <cstdint>

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

// Deleted files that are still open are stored up to this size, in bytes.
constexpr uint32_t kGhostLimit = 64u << 20;

// What a dump and its restore have in common, whatever was asked for.
pb::Request Common(pb::RequestType type, int images, int work, const char* log,
                   int log_level) {
  pb::Request request;
  request.set_type(type);
  pb::Options* options = request.mutable_opts();
  options->set_images_dir_fd(images);
  options->set_work_dir_fd(work);
  options->set_log_file(log);
  options->set_log_level(log_level);
  options->set_notify_scripts(true);
  options->set_file_locks(true);
  options->set_link_remap(true);
  options->set_ghost_limit(kGhostLimit);
  options->set_manage_cgroups_mode(pb::IGNORE);
  return request;
}

}  // namespace

pb::Request ToCriu(const DumpRequest& request, int log_level) {
  pb::Request criu =
      Common(pb::DUMP, request.images, request.work, kCriuDumpLog, log_level);
  criu.mutable_opts()->set_pid(request.task.pid);
  criu.mutable_opts()->set_leave_running(request.options.leave_running());
  return criu;
}

// No option of a restore is CRIU's so far: files and checksums are compared
// before it begins.
pb::Request ToCriu(const RestoreRequest& request, int work, int log_level) {
  return Common(pb::RESTORE, request.images, work, kCriuRestoreLog, log_level);
}

pb::Request CriuVersionRequest() {
  pb::Request request;
  request.set_type(pb::VERSION);
  return request;
}

}  // namespace daxsnap
