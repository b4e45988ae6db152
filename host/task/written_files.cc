// SPDX-License-Identifier: Apache-2.0
#include "host/task/written_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <functional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/files.h"
#include "host/task/ask_paths.h"

namespace daxsnap {
namespace {

// How often a file that others write all the time is looked at.
constexpr int kMaxLooks = 8;
// In which file systems count time: FAT, others of old, exFAT.
constexpr absl::Duration kSteps[] = {absl::Seconds(2), absl::Seconds(1),
                                     absl::Milliseconds(10)};

FileState StateOf(const struct statx& info) {
  const auto time = [](const statx_timestamp& from) {
    return absl::FromUnixSeconds(from.tv_sec) + absl::Nanoseconds(from.tv_nsec);
  };
  FileState state;
  state.size = info.stx_size;
  state.modify_time = time(info.stx_mtime);
  state.inode = info.stx_ino;
  if ((info.stx_mask & STATX_BTIME) != 0) {
    state.birth_time = time(info.stx_btime);
  }
  return state;
}

absl::Time ReadClock(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return absl::TimeFromTimespec(now);
}

// What file systems take their times from. Since Linux 6.13 some take a finer
// one if the last was looked at: then a time can be ahead of this clock.
absl::Time CoarseNow() { return ReadClock(CLOCK_REALTIME_COARSE); }

// The step of the times of a file system, as far as one of them tells: those
// that keep less than the clock has a time that is a multiple of it.
absl::Duration StepOf(absl::Time time) {
  const absl::Duration since_epoch = time - absl::UnixEpoch();
  for (const absl::Duration step : kSteps) {
    if (since_epoch % step == absl::ZeroDuration()) return step;
  }
  return absl::ZeroDuration();
}

// When a file of that time can be written so that it gets another; it was
// looked at between `before`, of the coarse clock, and `after`, of the fine
// one. In the past if it can now.
absl::Time SettlesAt(absl::Time modified, absl::Time before, absl::Time after) {
  // Set by hand: whatever is written gets another time.
  if (modified > after) return absl::InfinitePast();
  const absl::Duration step = std::max(StepOf(modified), absl::Nanoseconds(1));
  return modified + step <= before ? absl::InfinitePast() : modified + step;
}

// Until the clock shows `time`, or `deadline` is over.
void AwaitCoarse(absl::Time time, absl::Time deadline) {
  while (CoarseNow() < time && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// Where FUSE is mounted, as a task sees it, by ID and by device. After a write
// the kernel knows the time no more, and has to ask the server.
struct FuseMounts {
  std::set<int> ids;
  std::set<dev_t> devices;
};

absl::StatusOr<FuseMounts> ReadFuseMounts(const ProcFs& proc, pid_t pid) {
  auto mounts = proc.ReadMounts(pid);
  if (!mounts.ok()) return mounts.status();
  FuseMounts fuse;
  for (const MountInfo& mount : *mounts) {
    if (!absl::StartsWith(mount.type, "fuse")) continue;
    fuse.ids.insert(mount.id);
    fuse.devices.insert(mount.device);
  }
  return fuse;
}

// A way by which a task can write.
struct Way {
  // A link of /proc, and what it says.
  std::string link;
  std::string path;
  bool append_only = false;
  bool fuse = false;
};

absl::Status AddDescriptors(const ProcFs& proc, pid_t pid,
                            const FuseMounts& fuse, std::vector<Way>* ways) {
  auto fds = proc.ReadFds(pid);
  if (!fds.ok()) return fds.status();
  for (const FdInfo& fd : *fds) {
    if ((fd.flags & O_PATH) != 0 || (fd.flags & O_ACCMODE) == O_RDONLY ||
        !absl::StartsWith(fd.target, "/")) {
      continue;
    }
    ways->push_back({.link = absl::StrCat(proc.root(), "/", pid, "/fd/", fd.fd),
                     .path = fd.target,
                     .append_only = (fd.flags & O_ACCMODE) == O_WRONLY &&
                                    (fd.flags & O_APPEND) != 0,
                     .fuse = fuse.ids.contains(fd.mount_id)});
  }
  return absl::OkStatus();
}

// A shared mapping of a file through which its task can write, or make it so.
struct SharedMapping {
  // Below /proc/PID/map_files; leads to the file.
  std::string link;
  dev_t device;
  uint64_t inode = 0;
};

absl::StatusOr<std::vector<SharedMapping>> ReadSharedMappings(
    const ProcFs& proc, pid_t pid) {
  auto maps = proc.ReadMappings(pid);
  if (!maps.ok()) return maps.status();
  std::vector<SharedMapping> mappings;
  for (const MapInfo& map : *maps) {
    if (!map.shared || map.inode == 0) continue;
    const std::string link =
        absl::StrCat(proc.root(), "/", pid, "/map_files/", map.range);
    // Its mode says how the file is open.
    struct stat info;
    if (lstat(link.c_str(), &info) != 0) {
      if (errno == ENOENT) continue;
      return ErrnoError(errno, absl::StrCat("cannot stat ", link));
    }
    if ((info.st_mode & S_IWUSR) == 0) continue;
    mappings.push_back(
        {.link = link, .device = map.device, .inode = map.inode});
  }
  return mappings;
}

absl::Status AddMappings(const ProcFs& proc, pid_t pid, const FuseMounts& fuse,
                         std::vector<Way>* ways) {
  auto mappings = ReadSharedMappings(proc, pid);
  if (!mappings.ok()) return mappings.status();
  for (SharedMapping& mapping : *mappings) {
    auto path = ReadLink(mapping.link);
    if (absl::IsNotFound(path.status())) continue;
    if (!path.ok()) return path.status();
    ways->push_back({.link = std::move(mapping.link),
                     .path = *std::move(path),
                     .fuse = fuse.devices.contains(mapping.device)});
  }
  return absl::OkStatus();
}

// Calls `visit` for each task of the tree that has not ended.
absl::Status ForEachTask(const std::vector<TaskInfo>& tree,
                         const std::function<absl::Status(pid_t)>& visit) {
  for (const TaskInfo& task : tree) {
    if (task.ended()) continue;
    absl::Status status = visit(task.id.pid);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

// A regular file that some ways lead to, and their path as well.
struct Target {
  std::string link;
  std::string path;
  bool fuse = false;
  WrittenFile file;
};

bool IsRegular(const absl::StatusOr<struct statx>& info) {
  return info.ok() && S_ISREG(info->stx_mode);
}

// Without times: these are taken later.
absl::StatusOr<std::vector<Target>> FindTargets(const std::vector<Way>& ways,
                                                absl::Duration timeout) {
  std::vector<std::string> links;
  std::vector<std::string> paths;
  for (const Way& way : ways) {
    links.push_back(way.link);
    paths.push_back(way.path);
  }
  auto files = StatPaths(links, paths, timeout);
  if (!files.ok()) return files.status();
  // Ways to regular files, by path.
  std::map<std::string, std::vector<size_t>> by_path;
  for (size_t i = 0; i < ways.size(); ++i) {
    const absl::Status& status = (*files)[i].status();
    // Closed or unmapped meanwhile.
    if (!status.ok() && !absl::IsNotFound(status)) return status;
    if (IsRegular((*files)[i])) by_path[ways[i].path].push_back(i);
  }
  paths.clear();
  paths.reserve(by_path.size());
  for (const auto& [path, leading] : by_path) paths.push_back(path);
  auto there = StatPaths(paths, {}, timeout);
  if (!there.ok()) return there.status();
  std::vector<Target> targets;
  for (size_t i = 0; i < paths.size(); ++i) {
    const absl::StatusOr<struct statx>& info = (*there)[i];
    if (!info.ok() && !absl::IsNotFound(info.status())) return info.status();
    if (!IsRegular(info)) continue;
    const std::vector<size_t>& leading = by_path[paths[i]];
    const auto way =
        std::find_if(leading.begin(), leading.end(), [&](size_t at) {
          const struct statx& file = *(*files)[at];
          return file.stx_ino == info->stx_ino &&
                 file.stx_dev_major == info->stx_dev_major &&
                 file.stx_dev_minor == info->stx_dev_minor;
        });
    if (way == leading.end()) continue;
    Target& target = targets.emplace_back();
    target.link = ways[*way].link;
    target.path = paths[i];
    target.fuse = ways[*way].fuse;
    target.file.append_only =
        std::all_of(leading.begin(), leading.end(),
                    [&](size_t at) { return ways[at].append_only; });
  }
  return targets;
}

// By target.
absl::StatusOr<std::vector<absl::StatusOr<struct statx>>> StatTargets(
    const std::vector<Target*>& targets, absl::Duration timeout) {
  std::vector<absl::StatusOr<struct statx>> results(targets.size());
  for (const bool fuse : {false, true}) {
    std::vector<size_t> at;
    std::vector<std::string> links;
    std::vector<std::string> paths;
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i]->fuse != fuse) continue;
      at.push_back(i);
      links.push_back(targets[i]->link);
      paths.push_back(targets[i]->path);
    }
    auto found = StatPaths(links, paths, timeout,
                           fuse ? StatSource::kServer : StatSource::kKernel);
    if (!found.ok()) return found.status();
    for (size_t i = 0; i < at.size(); ++i) {
      results[at[i]] = std::move((*found)[i]);
    }
  }
  return results;
}

// Takes the states of files so that whatever is written afterwards changes
// them. Files take their times from a clock that has ticks: a second write
// within one leaves the time of the first.
absl::Status TakeStates(std::vector<Target>* targets, absl::Duration timeout,
                        absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  std::vector<Target*> left;
  left.reserve(targets->size());
  for (Target& target : *targets) left.push_back(&target);
  for (int look = 0; !left.empty(); ++look) {
    const absl::Time before = CoarseNow();
    auto found = StatTargets(left, timeout);
    if (!found.ok()) return found.status();
    const absl::Time after = ReadClock(CLOCK_REALTIME);
    const bool last = look + 1 == kMaxLooks || absl::Now() >= deadline;
    absl::Time settled = absl::InfinitePast();
    std::vector<Target*> unsettled;
    for (size_t i = 0; i < left.size(); ++i) {
      const absl::Status& status = (*found)[i].status();
      if (!status.ok() && !absl::IsNotFound(status)) return status;
      if (!status.ok()) {
        // Killed meanwhile.
        left[i]->path.clear();
        continue;
      }
      WrittenFile& file = left[i]->file;
      file.state = StateOf(*(*found)[i]);
      const absl::Time settles =
          SettlesAt(file.state.modify_time, before, after);
      // Those that are only appended to are told by their size.
      if (settles == absl::InfinitePast() || file.append_only) continue;
      file.state.unsettled = last;
      settled = std::max(settled, settles);
      unsettled.push_back(left[i]);
    }
    if (last) break;
    left = std::move(unsettled);
    AwaitCoarse(settled, deadline);
  }
  return absl::OkStatus();
}

// Runs in a child: see AskPaths(). The errno, or 0.
void WriteBack(const char* path, unsigned char* result) {
  struct stat info;
  const int fd = OpenRegularFile(path, &info);
  if (fd < 0 ||
      sync_file_range(fd, 0, 0,
                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                          SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
    *result = static_cast<unsigned char>(errno);
  }
  // Devices have nothing to be written back, and are not opened.
  if (fd < 0 && *result == EINVAL) *result = 0;
  if (fd >= 0) close(fd);
}

}  // namespace

absl::StatusOr<std::vector<absl::StatusOr<FileState>>> ReadFileStates(
    const std::vector<std::string>& paths, absl::Duration timeout) {
  auto found = StatPaths(paths, {}, timeout, StatSource::kServer);
  if (!found.ok()) return found.status();
  std::vector<absl::StatusOr<FileState>> states;
  states.reserve(paths.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    const absl::StatusOr<struct statx>& info = (*found)[i];
    if (!info.ok()) {
      states.emplace_back(info.status());
    } else if (S_ISREG(info->stx_mode)) {
      states.emplace_back(StateOf(*info));
    } else {
      states.emplace_back(absl::FailedPreconditionError(
          absl::StrCat(paths[i], " is not a regular file")));
    }
  }
  return states;
}

absl::StatusOr<FileState> ReadFileState(const std::string& path) {
  auto states = ReadFileStates({path});
  if (!states.ok()) return states.status();
  return std::move(states->front());
}

absl::StatusOr<std::map<std::string, WrittenFile>> ReadWrittenFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    absl::Duration timeout, absl::Duration patience) {
  std::vector<Way> ways;
  absl::Status status = ForEachTask(tree, [&](pid_t pid) -> absl::Status {
    auto fuse = ReadFuseMounts(proc, pid);
    if (!fuse.ok()) return fuse.status();
    absl::Status added = AddDescriptors(proc, pid, *fuse, &ways);
    return added.ok() ? AddMappings(proc, pid, *fuse, &ways) : added;
  });
  if (!status.ok()) return status;
  auto targets = FindTargets(ways, timeout);
  if (!targets.ok()) return targets.status();
  status = TakeStates(&*targets, timeout, patience);
  if (!status.ok()) return status;
  std::map<std::string, WrittenFile> files;
  for (Target& target : *targets) {
    if (target.path.empty()) continue;
    files.emplace(std::move(target.path), target.file);
  }
  return files;
}

absl::Status WriteBackMappings(const ProcFs& proc,
                               const std::vector<TaskInfo>& tree,
                               absl::Duration timeout) {
  std::vector<std::string> links;
  std::set<std::pair<dev_t, uint64_t>> known;
  absl::Status status = ForEachTask(tree, [&](pid_t pid) -> absl::Status {
    auto mappings = ReadSharedMappings(proc, pid);
    if (!mappings.ok()) return mappings.status();
    for (SharedMapping& mapping : *mappings) {
      if (!known.emplace(mapping.device, mapping.inode).second) continue;
      links.push_back(std::move(mapping.link));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  const auto what = [&links](size_t i) {
    return absl::StrCat("cannot write back what is mapped of ",
                        ReadLink(links[i]).value_or(links[i]));
  };
  return AskPaths<unsigned char, WriteBack>(
      links, timeout,
      [&](size_t i) {
        return MakeError(
            {.code = absl::StatusCode::kUnavailable,
             .reason = reason::kOverloaded,
             .message = absl::StrCat(what(i), " within ",
                                     absl::FormatDuration(timeout)),
             .hint = "check the device of that file"});
      },
      [&](size_t i, unsigned char error) -> absl::Status {
        // Shared memory has no file to be written back to: memfd, device.
        if (error == 0 || error == ESPIPE || error == ENXIO) {
          return absl::OkStatus();
        }
        return ErrnoError(error, what(i));
      });
}

}  // namespace daxsnap
