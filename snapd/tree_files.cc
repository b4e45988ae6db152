// SPDX-License-Identifier: Apache-2.0
#include "snapd/tree_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace daxsnap {
namespace {

class Reader {
 public:
  explicit Reader(const ProcFs& proc) : proc_(proc) {}

  void AddTask(pid_t pid) {
    pid_ = pid;
    mounts_ = &MountsOf(pid);
    for (const char* name : {"cwd", "root"})
      Add(name, proc_.ReadLink(pid, name));
    if (auto fds = proc_.ReadFdTargets(pid); fds.ok()) {
      for (const FdInfo& fd : *fds) {
        // All others, pipes and sockets, look like "pipe:[4711]".
        if (!absl::StartsWith(fd.target, "/")) continue;
        Add(absl::StrCat("fd/", fd.fd), fd.target);
      }
    }
    if (auto maps = proc_.ReadMaps(pid); maps.ok()) {
      for (const MapInfo& map : *maps) {
        if (mapped_.insert({map.device, map.inode}).second) AddMapping(map);
      }
    }
  }

  std::vector<UsedFile> Take() && { return std::move(files_); }

 private:
  // Tasks that share a mount namespace see the same.
  const std::vector<MountInfo>& MountsOf(pid_t pid) {
    const auto [found, fresh] = mounts_by_namespace_.try_emplace(
        proc_.ReadLink(pid, "ns/mnt"), std::vector<MountInfo>());
    if (fresh) {
      auto mounts = proc_.ReadMounts(pid);
      if (mounts.ok()) found->second = *std::move(mounts);
    }
    return found->second;
  }

  bool Add(const std::string& link, const std::string& path) {
    if (path.empty()) return false;
    struct statx info;
    const std::string whole = absl::StrCat(proc_.root(), "/", pid_, "/", link);
    // A file system whose server does not answer must not be asked.
    if (statx(AT_FDCWD, whole.c_str(), AT_STATX_DONT_SYNC,
              STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_MNT_ID,
              &info) != 0) {
      return false;
    }
    UsedFile file;
    file.pid = pid_;
    file.link = link;
    file.path = path;
    file.mode = info.stx_mode;
    file.device = makedev(info.stx_dev_major, info.stx_dev_minor);
    file.inode = info.stx_ino;
    file.links = info.stx_nlink;
    if (!known_.emplace(file.device, file.inode, path).second) return true;
    const int mount_id = static_cast<int>(info.stx_mnt_id);
    Finish(std::move(file),
           [mount_id](const MountInfo& mount) { return mount.id == mount_id; });
    return true;
  }

  void AddMapping(const MapInfo& map) {
    const std::string link = absl::StrCat("map_files/", map.range);
    if (Add(link, map.path)) return;
    // Such a link may be followed with CAP_CHECKPOINT_RESTORE alone.
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

std::vector<UsedFile> ReadUsedFiles(const ProcFs& proc,
                                    const std::vector<TaskInfo>& tree) {
  Reader reader(proc);
  for (const TaskInfo& task : tree) reader.AddTask(task.id.pid);
  return std::move(reader).Take();
}

}  // namespace daxsnap
