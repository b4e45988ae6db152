// SPDX-License-Identifier: Apache-2.0
#include "host/task/tree_files.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "host/task/stat_paths.h"

namespace daxsnap {
namespace {

// Something that a link of /proc leads to, before it is looked at.
struct Candidate {
  TaskId task;
  UsedFile file;
  const std::vector<MountInfo>* mounts = nullptr;  // that the task sees
};

class Reader {
 public:
  explicit Reader(const ProcFs& proc) : proc_(proc) {}

  absl::Status AddTask(const TaskInfo& task) {
    if (task.ended()) return absl::OkStatus();
    task_ = task.id;
    absl::Status added = AddAll();
    return added.ok() ? added : proc_.UnlessGone(task.id, added);
  }

  absl::StatusOr<std::vector<UsedFile>> Finish() {
    std::vector<std::string> links;
    std::vector<std::string> names;
    for (const Candidate& candidate : candidates_) {
      links.push_back(absl::StrCat(proc_.root(), "/", candidate.file.pid, "/",
                                   candidate.file.link));
      names.push_back(candidate.file.path);
    }
    auto found = StatPaths(links, names);
    if (!found.ok()) return found.status();
    for (size_t i = 0; i < candidates_.size(); ++i) {
      Candidate& candidate = candidates_[i];
      absl::Status status = (*found)[i].status();
      // Such a link may be followed with CAP_CHECKPOINT_RESTORE alone.
      if (candidate.file.is_mapping() && ErrnoNameOf(status) == "EPERM") {
        FinishMapping(std::move(candidate));
        continue;
      }
      // Closed or unmapped meanwhile.
      if (!status.ok()) status = proc_.UnlessGone(candidate.task, status);
      if (!status.ok()) return status;
      if ((*found)[i].ok()) FinishFile(std::move(candidate), *(*found)[i]);
    }
    return std::move(files_);
  }

 private:
  absl::Status AddAll() {
    if (absl::Status found = FindMounts(); !found.ok()) return found;
    for (const char* name : {"cwd", "root"}) {
      auto path = proc_.ReadLink(task_.pid, name);
      if (!path.ok()) return path.status();
      Add(name, *std::move(path));
    }
    auto fds = proc_.ReadFdTargets(task_.pid);
    if (!fds.ok()) return fds.status();
    for (FdInfo& fd : *fds) {
      // All others, pipes and sockets, look like "pipe:[4711]".
      if (!absl::StartsWith(fd.target, "/")) continue;
      Add(absl::StrCat("fd/", fd.fd), std::move(fd.target));
    }
    auto maps = proc_.ReadMaps(task_.pid);
    if (!maps.ok()) return maps.status();
    for (MapInfo& map : *maps) {
      if (!mapped_.insert({map.device, map.inode}).second) continue;
      Add(absl::StrCat("map_files/", map.range), std::move(map.path));
      // Until it is looked at.
      UsedFile& file = candidates_.back().file;
      file.mode = S_IFREG;
      file.device = map.device;
      file.inode = map.inode;
    }
    return absl::OkStatus();
  }

  // Tasks that share a mount namespace see the same.
  absl::Status FindMounts() {
    auto space = proc_.ReadLink(task_.pid, "ns/mnt");
    if (!space.ok()) return space.status();
    auto found = mounts_by_namespace_.find(*space);
    if (found == mounts_by_namespace_.end()) {
      auto mounts = proc_.ReadMounts(task_.pid);
      if (!mounts.ok()) return mounts.status();
      found = mounts_by_namespace_.emplace(*space, *std::move(mounts)).first;
    }
    mounts_ = &found->second;
    return absl::OkStatus();
  }

  void Add(std::string link, std::string path) {
    Candidate& candidate = candidates_.emplace_back();
    candidate.task = task_;
    candidate.mounts = mounts_;
    candidate.file.pid = task_.pid;
    // The link's mode says how the file is open.
    struct stat info;
    const std::string full =
        absl::StrCat(proc_.root(), "/", task_.pid, "/", link);
    candidate.file.writable = (absl::StartsWith(link, "fd/") ||
                               absl::StartsWith(link, "map_files/")) &&
                              lstat(full.c_str(), &info) == 0 &&
                              (info.st_mode & S_IWUSR) != 0;
    candidate.file.link = std::move(link);
    candidate.file.path = std::move(path);
  }

  void FinishFile(Candidate candidate, const struct statx& info) {
    UsedFile& file = candidate.file;
    file.mode = info.stx_mode;
    file.device = makedev(info.stx_dev_major, info.stx_dev_minor);
    file.inode = info.stx_ino;
    file.links = info.stx_nlink;
    file.mount_id = static_cast<int>(info.stx_mnt_id);
    const auto [at, fresh] =
        known_.try_emplace({file.device, file.inode, file.path}, files_.size());
    if (!fresh) {
      // One by which it can be written can also be synced, unlike O_PATH.
      UsedFile& kept = files_[at->second];
      if (file.writable && !kept.writable) {
        kept.pid = file.pid;
        kept.link = std::move(file.link);
        kept.writable = true;
      }
      return;
    }
    const int mount_id = file.mount_id;
    AddFile(std::move(candidate), [mount_id](const MountInfo& mount) {
      return mount.id == mount_id;
    });
  }

  void FinishMapping(Candidate candidate) {
    const dev_t device = candidate.file.device;
    AddFile(std::move(candidate), [device](const MountInfo& mount) {
      return mount.device == device;
    });
  }

  template <typename Predicate>
  void AddFile(Candidate candidate, Predicate is_mount) {
    SetMount(*candidate.mounts, is_mount, &candidate.file);
    files_.push_back(std::move(candidate.file));
  }

  const ProcFs& proc_;
  TaskId task_;
  const std::vector<MountInfo>* mounts_ = nullptr;  // of the task
  std::map<std::string, std::vector<MountInfo>> mounts_by_namespace_;
  std::set<std::pair<dev_t, uint64_t>> mapped_;
  std::vector<Candidate> candidates_;
  // Where in files_.
  std::map<std::tuple<dev_t, uint64_t, std::string>, size_t> known_;
  std::vector<UsedFile> files_;
};

}  // namespace

void SetMount(const std::vector<MountInfo>& mounts,
              const std::function<bool(const MountInfo&)>& is_mount,
              UsedFile* file) {
  const auto found = std::find_if(mounts.begin(), mounts.end(), is_mount);
  if (found == mounts.end()) return;
  file->mount_id = found->id;
  file->mount_point = found->mount_point;
  file->file_system = found->type;
  file->mount_device = found->device;
  file->mount_source = found->source;
  file->mount_options = found->options;
}

absl::StatusOr<std::vector<UsedFile>> ReadUsedFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree) {
  Reader reader(proc);
  for (const TaskInfo& task : tree) {
    if (absl::Status added = reader.AddTask(task); !added.ok()) return added;
  }
  return reader.Finish();
}

}  // namespace daxsnap
