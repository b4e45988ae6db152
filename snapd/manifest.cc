// SPDX-License-Identifier: Apache-2.0
#include "snapd/manifest.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/launch/unique_fd.h"
#include "client/pool/utf8.h"
#include "snapd/build_id.h"
#include "snapd/errors.h"
#include "snapd/files.h"
#include "snapd/log.h"
#include "snapd/version.h"

namespace daxsnap {
namespace {

constexpr uint32_t kFormatVersion = 1;
constexpr int kReapTimeoutMs = 5000;

// A killed task has its PID until its parent, mostly init, has heard of its
// end, which is a matter of milliseconds.
void AwaitReaping(const ProcFs& proc, const TaskId& id) {
  auto pidfd = OpenPidfd(proc, id);
  if (!pidfd.ok()) return;
  // Nothing but POLLHUP.
  pollfd poll_for = {.fd = pidfd->get(), .events = 0, .revents = 0};
  poll(&poll_for, 1, kReapTimeoutMs);
}

void SetTimestamp(int64_t seconds, int32_t nanos,
                  google::protobuf::Timestamp* timestamp) {
  timestamp->set_seconds(seconds);
  timestamp->set_nanos(nanos);
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp) {
  const timespec value = absl::ToTimespec(time);
  SetTimestamp(value.tv_sec, static_cast<int32_t>(value.tv_nsec), timestamp);
}

void FillTask(const TaskInfo& from, const std::string& boot_id,
              v1::Task* task) {
  task->set_pid(from.id.pid);
  // Any bytes, and comm may be cut within a character.
  task->set_comm(pool::ToPrintableUtf8(from.comm));
  task->set_exe(pool::ToPrintableUtf8(from.exe));
  task->set_uid(from.uids[0]);
  task->set_gid(from.gids[0]);
  task->set_start_ticks(from.id.start_ticks);
  task->set_boot_id(boot_id);
}

// Whether there is a regular file: NOT_FOUND and FAILED_PRECONDITION of
// OpenRegular() are no.
bool IsNoRegularFile(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
}

absl::Status FillFile(const ImageFile& from, v1::FileRecord* file) {
  file->set_path(from.path);
  file->set_size(from.size);
  file->set_mapped(from.mapped);
  if (!from.regular) return absl::OkStatus();
  struct stat info;
  auto fd = OpenRegular(from.path, &info);
  if (IsNoRegularFile(fd.status())) return absl::OkStatus();
  if (!fd.ok()) return fd.status();
  // Of another size: the tasks see another file under that path, in a mount
  // namespace of their own. What is known of theirs is its size.
  if (static_cast<uint64_t>(info.st_size) != from.size) return absl::OkStatus();
  SetTimestamp(info.st_mtim.tv_sec, static_cast<int32_t>(info.st_mtim.tv_nsec),
               file->mutable_modify_time());
  if (!from.mapped) return absl::OkStatus();
  auto build_id = ReadBuildId(fd->get());
  if (build_id.ok()) file->set_build_id(*std::move(build_id));
  return build_id.status();
}

absl::Status FileChanged(const std::string& path, absl::string_view what) {
  return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                    .reason = reason::kFileChanged,
                    .message = absl::StrCat("file ", path, " ", what),
                    .hint = "put the file back as it was",
                    .metadata = {{"path", path}}});
}

absl::Status CheckFile(const v1::FileRecord& file) {
  struct stat info;
  auto fd = OpenRegular(file.path(), &info);
  if (absl::IsNotFound(fd.status())) {
    return FileChanged(file.path(), "is gone");
  }
  if (absl::IsFailedPrecondition(fd.status())) {
    return FileChanged(file.path(), "is no regular file any more");
  }
  if (!fd.ok()) return fd.status();
  if (static_cast<uint64_t>(info.st_size) != file.size()) {
    return FileChanged(file.path(),
                       absl::StrCat("has ", info.st_size, " bytes, it had ",
                                    file.size(), " in the snapshot"));
  }
  if (!file.build_id().empty()) {
    auto now = ReadBuildId(fd->get());
    if (!now.ok()) return now.status();
    if (*now == file.build_id()) return absl::OkStatus();
    return FileChanged(
        file.path(), absl::StrCat("has ",
                                  now->empty() ? "no build-id"
                                               : "build-id " + *now,
                                  ", it had ", file.build_id(),
                                  " in the snapshot"));
  }
  if (info.st_mtim.tv_sec != file.modify_time().seconds() ||
      info.st_mtim.tv_nsec != file.modify_time().nanos()) {
    return FileChanged(file.path(), "was modified after the snapshot");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Manifest> MakeManifest(const ManifestInput& input,
                                          const ImageSet& images) {
  v1::Manifest manifest;
  manifest.set_format_version(kFormatVersion);
  v1::Snapshot* snapshot = manifest.mutable_snapshot();
  snapshot->set_name(input.name);
  snapshot->set_uid(input.uid);
  SetTimestamp(input.create_time, snapshot->mutable_create_time());
  FillTask(input.root, input.boot_id, snapshot->mutable_root_task());
  snapshot->set_task_count(static_cast<int32_t>(images.tasks.size()));
  snapshot->set_mode(input.pool_is_kmemfs ? v1::SNAPSHOT_MODE_BY_REFERENCE
                                          : v1::SNAPSHOT_MODE_COPIED);
  snapshot->set_page_size(static_cast<uint32_t>(sysconf(_SC_PAGESIZE)));
  snapshot->set_left_running(input.left_running);
  snapshot->mutable_labels()->insert(input.labels.begin(), input.labels.end());
  snapshot->set_owner_uid(input.owner);
  snapshot->set_pool_uuid(input.pool_uuid);
  snapshot->mutable_versions()->set_daxsnap(kVersion);
  snapshot->mutable_versions()->set_criu(input.criu_version);
  snapshot->mutable_versions()->set_kernel(KernelRelease());

  auto cpu = ReadCpuInfo();
  if (!cpu.ok()) return cpu.status();
  manifest.set_cpu_model(cpu->model);
  manifest.mutable_cpu_features()->Assign(cpu->features.begin(),
                                          cpu->features.end());
  for (const ImageTask& task : images.tasks) {
    v1::TaskRecord* record = manifest.add_tasks();
    record->mutable_task()->set_pid(task.pid);
    record->mutable_task()->set_boot_id(input.boot_id);
    if (const auto known = input.tasks.find(task.pid);
        known != input.tasks.end()) {
      FillTask(known->second, input.boot_id, record->mutable_task());
    }
    record->set_parent_pid(task.parent_pid);
    record->mutable_thread_ids()->Assign(task.thread_ids.begin(),
                                         task.thread_ids.end());
  }
  for (const ImageFile& file : images.files) {
    absl::Status filled = FillFile(file, manifest.add_files());
    if (!filled.ok()) return filled;
  }
  v1::NetworkRecord* network = manifest.mutable_network();
  network->set_tcp_listening(images.network.tcp_listening);
  network->set_tcp_established(images.network.tcp_established);
  network->set_udp(images.network.udp);
  network->set_unix_sockets(images.network.unix_sockets);
  manifest.set_memory_node(input.memory_node);
  return manifest;
}

void AddStatistics(int directory, uint64_t callback_us,
                   v1::Manifest* manifest) {
  v1::Snapshot* snapshot = manifest->mutable_snapshot();
  auto images = OpenDirectory(directory, "images");
  if (!images.ok()) {
    LogWarning(absl::StrCat(snapshot->name(), ": ", images.status().message()));
    return;
  }
  auto counts = ReadPageCounts(images->get());
  if (!counts.ok()) {
    LogWarning(absl::StrCat(snapshot->name(), ": ", counts.status().message()));
  }
  const bool counted = counts.ok() && counts->has_value();
  v1::SnapshotPages* pages = snapshot->mutable_pages();
  if (counted) {
    pages->set_by_reference((*counts)->by_reference);
    pages->set_shared((*counts)->shared);
    pages->set_copied((*counts)->copied);
    pages->set_hole((*counts)->hole);
  }
  auto times = ReadDumpTimes(directory);
  if (times.ok()) {
    v1::SnapshotTimes* to = snapshot->mutable_times();
    to->set_freezing_us(times->freezing_us);
    to->set_frozen_us(times->frozen_us -
                      std::min(times->frozen_us, callback_us));
    to->set_pages_us(times->pages_us);
    if (!counted) pages->set_copied(times->pages_written);
  } else {
    LogWarning(absl::StrCat(snapshot->name(), ": ", times.status().message()));
  }
  if (auto bytes = BytesInDirectory(images->get()); bytes.ok()) {
    snapshot->set_image_bytes(*bytes);
  }
}

absl::Status CheckFiles(const v1::Manifest& manifest) {
  for (const v1::FileRecord& file : manifest.files()) {
    // Without a time it was not found under that path when it was recorded.
    if (!file.mapped() || !file.has_modify_time()) continue;
    if (absl::Status status = CheckFile(file); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckCpu(const v1::Manifest& manifest, const CpuInfo& cpu) {
  const std::vector<std::string> need(manifest.cpu_features().begin(),
                                      manifest.cpu_features().end());
  const std::vector<std::string> missing = MissingFeatures(need, cpu.features);
  if (missing.empty()) return absl::OkStatus();
  const std::string list = absl::StrJoin(missing, " ");
  return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                    .reason = reason::kCpuFeatureMissing,
                    .message = absl::StrCat("this CPU (", cpu.model, ") lacks ",
                                            list, ", which the snapshot's (",
                                            manifest.cpu_model(), ") had"),
                    .hint = "restore on a machine whose CPU has these features",
                    .metadata = {{"features", list}}});
}

std::vector<pid_t> PidsOf(const v1::Manifest& manifest) {
  std::vector<pid_t> pids;
  for (const v1::TaskRecord& task : manifest.tasks()) {
    pids.push_back(task.task().pid());
    pids.insert(pids.end(), task.thread_ids().begin(), task.thread_ids().end());
  }
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return pids;
}

absl::Status CheckPidsFree(const v1::Manifest& manifest, const ProcFs& proc) {
  for (const pid_t pid : PidsOf(manifest)) {
    auto task = proc.ReadTask(pid);
    absl::StatusOr<bool> alive = true;
    if (task.ok()) alive = proc.IsAlive(task->id);
    if (!alive.ok()) return alive.status();
    if (task.ok() && !*alive) {
      AwaitReaping(proc, task->id);
      task = proc.ReadTask(pid);
    }
    if (absl::IsNotFound(task.status())) continue;
    if (!task.ok()) return task.status();
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kPidInUse,
         .message = absl::StrCat("pid ", pid, " is in use by ", task->comm,
                                 task->state == 'Z' ? ", a zombie" : ""),
         .hint = "end that task first",
         .metadata = {{"pid", absl::StrCat(pid)}, {"comm", task->comm}}});
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
