// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/manifest.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "base/utf8.h"
#include "base/version.h"
#include "host/task/build_id.h"
#include "host/task/stat_paths.h"
#include "snapd/store/catalog.h"

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
  task->set_comm(ToPrintableUtf8(from.comm));
  task->set_exe(ToPrintableUtf8(from.exe));
  task->set_uid(from.uids[0]);
  task->set_gid(from.gids[0]);
  task->set_start_ticks(from.id.start_ticks);
  task->set_boot_id(boot_id);
}

void FillWrittenFile(const WrittenFile& from, v1::FileRecord* file) {
  file->set_size(from.state.size);
  SetTimestamp(from.state.modify_time, file->mutable_modify_time());
  file->set_writable(true);
  file->set_inode(from.state.inode);
  if (from.state.birth_time.has_value()) {
    SetTimestamp(*from.state.birth_time, file->mutable_birth_time());
  }
  file->set_unsettled(from.state.unsettled);
}

// What is known of a file that no task could write.
struct LookedAt {
  uint64_t size = 0;
  timespec modify_time = {};
  std::string build_id;
};

void FillLookedAt(const LookedAt& from, v1::FileRecord* file) {
  // Of another size: the tasks see another file under that path, in a mount
  // namespace of their own. What is known of theirs is its size.
  if (from.size != file->size()) return;
  SetTimestamp(from.modify_time.tv_sec,
               static_cast<int32_t>(from.modify_time.tv_nsec),
               file->mutable_modify_time());
  if (file->mapped()) file->set_build_id(from.build_id);
}

// Those of the files that are regular, by path. The tasks stand still, and the
// server of a file may be among them.
absl::StatusOr<std::map<std::string, LookedAt>> LookAt(
    const std::vector<const ImageFile*>& files) {
  std::vector<std::string> mapped;
  std::vector<std::string> others;
  for (const ImageFile* file : files) {
    (file->mapped ? mapped : others).push_back(file->path);
  }
  std::map<std::string, LookedAt> result;
  auto found = LookAtMappedFiles(mapped);
  if (!found.ok()) return found.status();
  for (size_t i = 0; i < mapped.size(); ++i) {
    absl::StatusOr<MappedFile>& file = (*found)[i];
    if (IsNoRegularFile(file.status())) continue;
    if (!file.ok()) return file.status();
    result[mapped[i]] = {.size = static_cast<uint64_t>(file->info.st_size),
                         .modify_time = file->info.st_mtim,
                         .build_id = std::move(file->build_id)};
  }
  auto stats = StatPaths(others);
  if (!stats.ok()) return stats.status();
  for (size_t i = 0; i < others.size(); ++i) {
    const absl::StatusOr<struct statx>& info = (*stats)[i];
    if (absl::IsNotFound(info.status())) continue;
    if (!info.ok()) return info.status();
    if (!S_ISREG(info->stx_mode)) continue;
    // One that is mapped as well is there already.
    LookedAt file;
    file.size = info->stx_size;
    file.modify_time = {.tv_sec = info->stx_mtime.tv_sec,
                        .tv_nsec = static_cast<long>(info->stx_mtime.tv_nsec)};
    result.try_emplace(others[i], std::move(file));
  }
  return result;
}

absl::Status FillFiles(const ManifestInput& input,
                       const std::vector<ImageFile>& files,
                       v1::Manifest* manifest) {
  std::vector<const ImageFile*> unwritten;
  for (const ImageFile& file : files) {
    if (file.regular && !input.written_files.contains(file.path)) {
      unwritten.push_back(&file);
    }
  }
  auto looked_at = LookAt(unwritten);
  if (!looked_at.ok()) return looked_at.status();
  for (const ImageFile& from : files) {
    v1::FileRecord* file = manifest->add_files();
    file->set_path(from.path);
    file->set_size(from.size);
    file->set_mapped(from.mapped);
    if (!from.regular) continue;
    const auto written = input.written_files.find(from.path);
    if (written != input.written_files.end()) {
      // It is checked by its time alone, which was read while the tasks stood
      // still.
      FillWrittenFile(written->second, file);
      file->set_append_only(written->second.append_only && !from.size_checked);
    } else if (const auto found = looked_at->find(from.path);
               found != looked_at->end()) {
      FillLookedAt(found->second, file);
    }
  }
  return absl::OkStatus();
}

// What a changed file comes to.
enum class Remedy {
  // CRIU would go on: who restores may choose to.
  kAccept,
  // CRIU would refuse it as well.
  kPutBack
};

absl::Status FileChanged(const std::string& path, absl::string_view what,
                         Remedy remedy = Remedy::kPutBack) {
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kFileChanged,
       .message = absl::StrCat("file ", path, " ", what),
       .hint = remedy == Remedy::kPutBack
                   ? "put the file back as it was"
                   : "put the file back as it was, with its time, or go on "
                     "with what it is now: snapctl restore --files=accept",
       .metadata = {{"path", path}}});
}

std::string OtherSize(uint64_t now, uint64_t then) {
  return absl::StrCat("has ", now, " bytes, it had ", then, " in the snapshot");
}

absl::Time ToTime(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) +
         absl::Nanoseconds(timestamp.nanos());
}

absl::Status ModifiedSince(const v1::FileRecord& file, absl::Time now) {
  const auto text = [](absl::Time time) {
    return absl::FormatTime("%E4Y-%m-%dT%H:%M:%E9SZ", time,
                            absl::UTCTimeZone());
  };
  return FileChanged(
      file.path(),
      absl::StrCat("was modified at ", text(now), "; in the snapshot it is of ",
                   text(ToTime(file.modify_time()))),
      Remedy::kAccept);
}

// One that the tasks only append to. Where it is the same file, no byte that
// they have written is touched by what they do next; CRIU takes any size.
absl::Status CheckAppendOnly(const v1::FileRecord& file, const FileState& now) {
  const bool same_file =
      now.inode == file.inode() &&
      (!file.has_birth_time() || !now.birth_time.has_value() ||
       *now.birth_time == ToTime(file.birth_time()));
  if (same_file && now.size >= file.size()) return absl::OkStatus();
  // Put back, or not written since.
  if (now.size == file.size() &&
      now.modify_time == ToTime(file.modify_time())) {
    return absl::OkStatus();
  }
  return FileChanged(file.path(),
                     same_file ? OtherSize(now.size, file.size())
                               : "is another file than in the snapshot",
                     Remedy::kAccept);
}

// A file that the tasks could write, and its state now.
absl::Status CheckWritable(const v1::FileRecord& file,
                           const absl::StatusOr<FileState>& now,
                           v1::FilesPolicy policy) {
  if (absl::IsNotFound(now.status())) {
    return FileChanged(file.path(), "is gone");
  }
  if (absl::IsFailedPrecondition(now.status())) {
    return FileChanged(file.path(), "is no regular file any more");
  }
  if (!now.ok()) return now.status();
  if (file.append_only()) {
    if (policy == v1::FILES_POLICY_ACCEPT) return absl::OkStatus();
    return CheckAppendOnly(file, *now);
  }
  if (now->size != file.size()) {
    return FileChanged(file.path(), OtherSize(now->size, file.size()));
  }
  if (policy == v1::FILES_POLICY_ACCEPT) return absl::OkStatus();
  if (file.unsettled()) {
    return FileChanged(file.path(),
                       "was written by others while the snapshot was taken",
                       Remedy::kAccept);
  }
  if (now->modify_time == ToTime(file.modify_time())) return absl::OkStatus();
  return ModifiedSince(file, now->modify_time);
}

// One that the tasks had mapped, and what is there now.
absl::Status CheckFile(const v1::FileRecord& file,
                       const absl::StatusOr<MappedFile>& found,
                       v1::FilesPolicy policy) {
  if (absl::IsNotFound(found.status())) {
    return FileChanged(file.path(), "is gone");
  }
  if (absl::IsFailedPrecondition(found.status())) {
    return FileChanged(file.path(), "is no regular file any more");
  }
  if (!found.ok()) return found.status();
  const struct stat& info = found->info;
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size != file.size()) {
    return FileChanged(file.path(), OtherSize(size, file.size()));
  }
  if (!file.build_id().empty()) {
    const std::string& now = found->build_id;
    if (now == file.build_id()) return absl::OkStatus();
    return FileChanged(
        file.path(),
        absl::StrCat("has ", now.empty() ? "no build-id" : "build-id " + now,
                     ", it had ", file.build_id(), " in the snapshot"));
  }
  const absl::Time now = absl::TimeFromTimespec(info.st_mtim);
  if (now == ToTime(file.modify_time()) || policy == v1::FILES_POLICY_ACCEPT) {
    return absl::OkStatus();
  }
  return ModifiedSince(file, now);
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
  absl::Status filled = FillFiles(input, images.files, &manifest);
  if (!filled.ok()) return filled;
  v1::NetworkRecord* network = manifest.mutable_network();
  network->set_tcp_listening(images.network.tcp_listening);
  network->set_tcp_established(images.network.tcp_established);
  network->set_udp(images.network.udp);
  network->set_unix_sockets(images.network.unix_sockets);
  manifest.set_memory_node(input.memory_node);
  for (const auto& [image, size] : input.image_sizes) {
    v1::ImageRecord* record = manifest.add_images();
    record->set_name(image);
    record->set_size(size);
  }
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
    // The plugin does not see all: shared memory, that of huge pages and what
    // the kernel maps are written by CRIU itself, by copying.
    const uint64_t seen = !counted
                              ? 0
                              : (*counts)->by_reference + (*counts)->shared +
                                    (*counts)->copied + (*counts)->hole;
    pages->set_copied((counted ? (*counts)->copied : 0) + times->pages_written -
                      std::min(times->pages_written, seen) +
                      times->shared_memory_pages_written);
  } else {
    LogWarning(absl::StrCat(snapshot->name(), ": ", times.status().message()));
  }
  if (pages->by_reference() + pages->shared() == 0 && pages->copied() > 0) {
    snapshot->set_mode(v1::SNAPSHOT_MODE_COPIED);
  }
  if (auto bytes = BytesInDirectory(images->get()); bytes.ok()) {
    snapshot->set_image_bytes(*bytes);
  }
}

absl::Status CheckFiles(const v1::Manifest& manifest, v1::FilesPolicy policy) {
  std::vector<const v1::FileRecord*> writable;
  std::vector<const v1::FileRecord*> mapped;
  std::vector<std::string> writable_paths;
  std::vector<std::string> mapped_paths;
  for (const v1::FileRecord& file : manifest.files()) {
    // Without a time it was not found under that path when it was recorded.
    if (!file.has_modify_time()) continue;
    if (file.writable()) {
      writable.push_back(&file);
      writable_paths.push_back(file.path());
    } else if (file.mapped()) {
      mapped.push_back(&file);
      mapped_paths.push_back(file.path());
    }
  }
  // A server that does not answer must not hold up the restore for ever.
  auto states = ReadFileStates(writable_paths);
  if (!states.ok()) return states.status();
  for (size_t i = 0; i < writable.size(); ++i) {
    absl::Status same = CheckWritable(*writable[i], (*states)[i], policy);
    if (!same.ok()) return same;
  }
  auto found = LookAtMappedFiles(mapped_paths);
  if (!found.ok()) return found.status();
  for (size_t i = 0; i < mapped.size(); ++i) {
    absl::Status same = CheckFile(*mapped[i], (*found)[i], policy);
    if (!same.ok()) return same;
  }
  return absl::OkStatus();
}

absl::Status CheckImages(const v1::Manifest& manifest, const std::string& name,
                         int images) {
  for (const v1::ImageRecord& image : manifest.images()) {
    struct stat info;
    const std::string path = absl::StrCat("images/", image.name());
    const int error =
        fstatat(images, image.name().c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0
            ? 0
            : errno;
    if (error != 0 && error != ENOENT) {
      return SnapshotUnreadable(name, path, ErrnoError(error, path));
    }
    const bool there = error == 0 && S_ISREG(info.st_mode);
    const auto size = static_cast<uint64_t>(there ? info.st_size : 0);
    if (there && size == image.size()) continue;
    return MakeError(
        {.code = absl::StatusCode::kDataLoss,
         .reason = reason::kSnapshotDamaged,
         .message = absl::StrCat(
             "snapshot ", name, " is damaged: ", path,
             there ? absl::StrCat(" has ", size, " bytes instead of ",
                                  image.size())
                   : std::string(" is missing")),
         .hint = "restore an older one",
         .metadata = {{"name", name}, {"path", path}}});
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

absl::Status CheckNodes(const v1::Manifest& manifest,
                        const std::set<ImagePolicy>& policies, uint64_t there,
                        int pool_node) {
  uint64_t usable = there;
  const int node_then = manifest.memory_node();
  if (node_then >= 0 && node_then < 64 && pool_node != node_then) {
    usable &= ~(uint64_t{1} << node_then);
  }
  uint64_t lacking = 0;
  for (const ImagePolicy& policy : policies) {
    // Their numbers count those nodes that the task may use.
    if ((policy.mode & MPOL_F_RELATIVE_NODES) != 0) continue;
    // As the program gave them: some may never have been there.
    if ((policy.mode & MPOL_F_STATIC_NODES) != 0 &&
        (policy.nodes & usable) != 0) {
      continue;
    }
    lacking |= policy.nodes & ~usable;
  }
  std::vector<int> missing;
  for (int node = 0; node < 64; ++node) {
    if ((lacking >> node & 1) != 0) missing.push_back(node);
  }
  if (missing.empty()) return absl::OkStatus();
  const std::string list = absl::StrJoin(missing, " ");
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kNodeMissing,
       .message = absl::StrCat(
           "memory policies of the tasks name NUMA nodes that have no memory "
           "now, or one that was the pool's and is not any more: ",
           list),
       .hint = "boot so that the nodes have their memory and numbers again, "
               "then restore; the snapshot stays",
       .metadata = {{"nodes", list}}});
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

absl::Status CheckRemappedLinks(const v1::Manifest& manifest) {
  // source: create_link_remap() of CRIU 4.2.1
  constexpr absl::string_view kPrefix = "link_remap.";
  for (const v1::FileRecord& file : manifest.files()) {
    const std::string& path = file.path();
    absl::string_view number = path;
    number.remove_prefix(path.rfind('/') + 1);
    int id = 0;
    if (!absl::ConsumePrefix(&number, kPrefix) ||
        !absl::SimpleAtoi(number, &id) ||
        faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
        errno != ENOENT) {
      continue;
    }
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kLinkRemapped,
         .message = absl::StrCat(
             "the tasks had a file open whose name was removed, and ", path,
             ", by which a restore finds it, is gone: ",
             manifest.snapshot().left_running()
                 ? "the tasks were left running"
                 : "such a snapshot can be restored once"),
         .hint = "take another snapshot of tasks that have opened it anew",
         .metadata = {{"path", path}}});
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
