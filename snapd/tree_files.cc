// SPDX-License-Identifier: Apache-2.0
#include "snapd/tree_files.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "snapd/errors.h"
#include "snapd/files.h"

namespace daxsnap {
namespace {

class Reader {
 public:
  explicit Reader(const ProcFs& proc) : proc_(proc) {}

  absl::Status AddTask(const TaskInfo& task) {
    if (task.state == 'Z' || task.state == 'X') return absl::OkStatus();
    absl::Status added = AddAllOf(task.id.pid);
    return added.ok() ? added : proc_.UnlessGone(task.id, added);
  }

  std::vector<UsedFile> Take() && { return std::move(files_); }

 private:
  absl::Status AddAllOf(pid_t pid) {
    pid_ = pid;
    if (absl::Status found = FindMounts(); !found.ok()) return found;
    for (const char* name : {"cwd", "root"}) {
      auto path = proc_.ReadLink(pid, name);
      if (!path.ok()) return path.status();
      absl::Status added = Add(name, *path);
      if (!added.ok() && !absl::IsNotFound(added)) return added;
    }
    auto fds = proc_.ReadFdTargets(pid);
    if (!fds.ok()) return fds.status();
    for (const FdInfo& fd : *fds) {
      // All others, pipes and sockets, look like "pipe:[4711]".
      if (!absl::StartsWith(fd.target, "/")) continue;
      absl::Status added = Add(absl::StrCat("fd/", fd.fd), fd.target);
      // Closed meanwhile.
      if (!added.ok() && !absl::IsNotFound(added)) return added;
    }
    auto maps = proc_.ReadMaps(pid);
    if (!maps.ok()) return maps.status();
    for (const MapInfo& map : *maps) {
      if (!mapped_.insert({map.device, map.inode}).second) continue;
      if (absl::Status added = AddMapping(map); !added.ok()) return added;
    }
    return absl::OkStatus();
  }

  // Tasks that share a mount namespace see the same.
  absl::Status FindMounts() {
    auto space = proc_.ReadLink(pid_, "ns/mnt");
    if (!space.ok()) return space.status();
    auto found = mounts_by_namespace_.find(*space);
    if (found == mounts_by_namespace_.end()) {
      auto mounts = proc_.ReadMounts(pid_);
      if (!mounts.ok()) return mounts.status();
      found = mounts_by_namespace_.emplace(*space, *std::move(mounts)).first;
    }
    mounts_ = &found->second;
    return absl::OkStatus();
  }

  absl::Status Add(const std::string& link, const std::string& path) {
    struct statx info;
    const std::string whole = absl::StrCat(proc_.root(), "/", pid_, "/", link);
    // A file system whose server does not answer must not be asked.
    if (absl::Status status = StatFile(whole, &info); !status.ok()) {
      return status;
    }
    UsedFile file;
    file.pid = pid_;
    file.link = link;
    file.path = path;
    file.mode = info.stx_mode;
    file.device = makedev(info.stx_dev_major, info.stx_dev_minor);
    file.inode = info.stx_ino;
    file.links = info.stx_nlink;
    if (!known_.emplace(file.device, file.inode, path).second) {
      return absl::OkStatus();
    }
    const int mount_id = static_cast<int>(info.stx_mnt_id);
    Finish(std::move(file),
           [mount_id](const MountInfo& mount) { return mount.id == mount_id; });
    return absl::OkStatus();
  }

  absl::Status AddMapping(const MapInfo& map) {
    const std::string link = absl::StrCat("map_files/", map.range);
    absl::Status added = Add(link, map.path);
    // Unmapped meanwhile.
    if (added.ok() || absl::IsNotFound(added)) return absl::OkStatus();
    // Such a link may be followed with CAP_CHECKPOINT_RESTORE alone.
    if (ErrnoNameOf(added) != "EPERM") return added;
    UsedFile file;
    file.pid = pid_;
    file.link = link;
    file.path = map.path;
    file.mode = S_IFREG;
    file.device = map.device;
    file.inode = map.inode;
    Finish(std::move(file), [&map](const MountInfo& mount) {
      return mount.device == map.device;
    });
    return absl::OkStatus();
  }

  template <typename Predicate>
  void Finish(UsedFile file, Predicate is_mount) {
    for (const MountInfo& mount : *mounts_) {
      if (!is_mount(mount)) continue;
      file.mount_point = mount.mount_point;
      file.file_system = mount.type;
      break;
    }
    files_.push_back(std::move(file));
  }

  const ProcFs& proc_;
  pid_t pid_ = 0;
  const std::vector<MountInfo>* mounts_ = nullptr;  // of the task
  std::map<std::string, std::vector<MountInfo>> mounts_by_namespace_;
  std::set<std::tuple<dev_t, uint64_t, std::string>> known_;
  std::set<std::pair<dev_t, uint64_t>> mapped_;
  std::vector<UsedFile> files_;
};

}  // namespace

absl::StatusOr<std::vector<UsedFile>> ReadUsedFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree) {
  Reader reader(proc);
  for (const TaskInfo& task : tree) {
    if (absl::Status added = reader.AddTask(task); !added.ok()) return added;
  }
  return std::move(reader).Take();
}

}  // namespace daxsnap
