// SPDX-License-Identifier: Apache-2.0
#include "snapd/written_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "snapd/bounded_child.h"
#include "snapd/errors.h"
#include "snapd/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProcFile = size_t{256} << 20;

using Device = std::pair<unsigned, unsigned>;

// Identity of a file in this boot, and its state.
struct Found {
  Device device;
  FileState state;
};

// NOT_FOUND if there is nothing, FAILED_PRECONDITION if it is no regular file.
absl::StatusOr<Found> Stat(const std::string& path) {
  struct statx info;
  if (absl::Status status = StatFile(path, &info); !status.ok()) return status;
  if (!S_ISREG(info.stx_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not a regular file"));
  }
  const auto time = [](const statx_timestamp& from) {
    return absl::FromUnixSeconds(from.tv_sec) + absl::Nanoseconds(from.tv_nsec);
  };
  Found found;
  found.device = {info.stx_dev_major, info.stx_dev_minor};
  found.state.size = info.stx_size;
  found.state.modify_time = time(info.stx_mtime);
  found.state.inode = info.stx_ino;
  if ((info.stx_mask & STATX_BTIME) != 0) {
    found.state.birth_time = time(info.stx_btime);
  }
  return found;
}

// The mounts of FUSE that a task sees, by ID and by device. A server that is in
// the tree stands still with it, and whoever asks it anything waits for ever.
struct FuseMounts {
  std::set<int> ids;
  std::set<Device> devices;
};

// "ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE ..."
absl::StatusOr<FuseMounts> ReadFuseMounts(const std::string& task) {
  auto text = ReadFileAt(AT_FDCWD, task + "/mountinfo", kMaxProcFile);
  if (!text.ok()) return text.status();
  FuseMounts mounts;
  for (const absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    const size_t dash = line.find(" - ");
    int id = 0;
    Device device;
    const std::pair<absl::string_view, absl::string_view> numbers =
        absl::StrSplit(fields.size() > 2 ? fields[2] : "", ':');
    if (dash == absl::string_view::npos || !absl::SimpleAtoi(fields[0], &id) ||
        !absl::SimpleAtoi(numbers.first, &device.first) ||
        !absl::SimpleAtoi(numbers.second, &device.second)) {
      return absl::InternalError("cannot parse /proc/PID/mountinfo");
    }
    const absl::string_view type = line.substr(dash + 3);
    if (!absl::StartsWith(type, "fuse")) continue;
    mounts.ids.insert(id);
    mounts.devices.insert(device);
  }
  return mounts;
}

// Collects what is found into files by path.
class Collector {
 public:
  // `link` is a link of /proc that leads to the file, `target` what it says.
  absl::Status Add(const std::string& link, const std::string& target,
                   bool append_only) {
    auto file = Stat(link);
    // Closed or unmapped meanwhile, or a pipe, socket or device.
    if (IsNoRegularFile(file.status())) return absl::OkStatus();
    if (!file.ok()) return file.status();
    if (const auto known = files_.find(target); known != files_.end()) {
      known->second.append_only = known->second.append_only && append_only;
      return absl::OkStatus();
    }
    auto there = Stat(target);
    if (IsNoRegularFile(there.status())) return absl::OkStatus();
    if (!there.ok()) return there.status();
    if (there->device != file->device ||
        there->state.inode != file->state.inode) {
      return absl::OkStatus();
    }
    files_[target] = {.state = file->state, .append_only = append_only};
    return absl::OkStatus();
  }

  std::map<std::string, WrittenFile> Take() { return std::move(files_); }

 private:
  std::map<std::string, WrittenFile> files_;
};

absl::Status AddDescriptors(const ProcFs& proc, pid_t pid,
                            const FuseMounts& fuse, Collector* files) {
  auto fds = proc.ReadFds(pid);
  if (!fds.ok()) return fds.status();
  for (const FdInfo& fd : *fds) {
    if ((fd.flags & O_PATH) != 0 || (fd.flags & O_ACCMODE) == O_RDONLY ||
        !absl::StartsWith(fd.target, "/") || fuse.ids.contains(fd.mount_id)) {
      continue;
    }
    const bool append_only =
        (fd.flags & O_ACCMODE) == O_WRONLY && (fd.flags & O_APPEND) != 0;
    absl::Status added =
        files->Add(absl::StrCat(proc.root(), "/", pid, "/fd/", fd.fd),
                   fd.target, append_only);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

// A shared mapping through which its task can write, or make it so.
struct SharedMapping {
  // Below /proc/PID/map_files; leads to the file.
  std::string link;
  Device device;
  uint64_t inode = 0;
};

// "START-END PERMISSIONS OFFSET MAJOR:MINOR INODE     PATH"
absl::StatusOr<std::vector<SharedMapping>> ReadSharedMappings(
    const ProcFs& proc, pid_t pid, const FuseMounts& fuse) {
  const std::string task = absl::StrCat(proc.root(), "/", pid);
  auto text = ReadFileAt(AT_FDCWD, task + "/maps", kMaxProcFile);
  if (!text.ok()) return text.status();
  std::vector<SharedMapping> mappings;
  for (const absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(' ', 5));
    if (fields.size() != 6 || fields[1].size() != 4) continue;
    if (fields[1][3] != 's' || fields[4] == "0") continue;
    SharedMapping mapping;
    uint64_t start = 0;
    uint64_t end = 0;
    const std::pair<absl::string_view, absl::string_view> range =
        absl::StrSplit(fields[0], '-');
    const std::pair<absl::string_view, absl::string_view> numbers =
        absl::StrSplit(fields[3], ':');
    if (!absl::SimpleHexAtoi(range.first, &start) ||
        !absl::SimpleHexAtoi(range.second, &end) ||
        !absl::SimpleHexAtoi(numbers.first, &mapping.device.first) ||
        !absl::SimpleHexAtoi(numbers.second, &mapping.device.second) ||
        !absl::SimpleAtoi(fields[4], &mapping.inode)) {
      return absl::InternalError("cannot parse /proc/PID/maps");
    }
    if (fuse.devices.contains(mapping.device)) continue;
    mapping.link = absl::StrFormat("%s/map_files/%x-%x", task, start, end);
    // Its mode says how the file is open.
    struct stat info;
    if (lstat(mapping.link.c_str(), &info) != 0) {
      if (errno == ENOENT) continue;
      return ErrnoError(errno, absl::StrCat("cannot stat ", mapping.link));
    }
    if ((info.st_mode & S_IWUSR) != 0) mappings.push_back(std::move(mapping));
  }
  return mappings;
}

absl::Status AddMappings(const ProcFs& proc, pid_t pid, const FuseMounts& fuse,
                         Collector* files) {
  auto mappings = ReadSharedMappings(proc, pid, fuse);
  if (!mappings.ok()) return mappings.status();
  for (const SharedMapping& mapping : *mappings) {
    auto target = ReadLink(mapping.link);
    if (absl::IsNotFound(target.status())) continue;
    if (!target.ok()) return target.status();
    absl::Status added =
        files->Add(mapping.link, *target, /*append_only=*/false);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

// Calls `visit` for each task of the tree that has not ended.
absl::Status ForEachTask(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    const std::function<absl::Status(pid_t, const FuseMounts&)>& visit) {
  for (const TaskInfo& task : tree) {
    if (task.state == 'Z' || task.state == 'X') continue;
    auto fuse = ReadFuseMounts(absl::StrCat(proc.root(), "/", task.id.pid));
    absl::Status status = fuse.status();
    if (status.ok()) status = visit(task.id.pid, *fuse);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

// Runs in the child: see BoundedChild::Work. A byte for each path: an errno, or
// 0.
void WriteBack(const void* argument, int report) {
  auto* const* paths = static_cast<char* const*>(argument);
  bool written = true;
  for (; written && *paths != nullptr; ++paths) {
    const int fd = open(*paths, O_RDONLY | O_CLOEXEC);
    const bool done =
        fd >= 0 &&
        sync_file_range(fd, 0, 0,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER) == 0;
    const unsigned char result = done ? 0 : static_cast<unsigned char>(errno);
    if (fd >= 0) close(fd);
    written = write(report, &result, 1) == 1;
  }
}

}  // namespace

absl::StatusOr<FileState> ReadFileState(const std::string& path) {
  auto found = Stat(path);
  if (!found.ok()) return found.status();
  return found->state;
}

absl::StatusOr<std::map<std::string, WrittenFile>> ReadWrittenFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree) {
  Collector files;
  absl::Status status = ForEachTask(
      proc, tree, [&](pid_t pid, const FuseMounts& fuse) -> absl::Status {
        absl::Status added = AddDescriptors(proc, pid, fuse, &files);
        return added.ok() ? AddMappings(proc, pid, fuse, &files) : added;
      });
  if (!status.ok()) return status;
  return files.Take();
}

absl::Status WriteBackMappings(const ProcFs& proc,
                               const std::vector<TaskInfo>& tree,
                               absl::Duration timeout) {
  std::vector<std::string> links;
  std::set<std::pair<Device, uint64_t>> known;
  absl::Status status = ForEachTask(
      proc, tree, [&](pid_t pid, const FuseMounts& fuse) -> absl::Status {
        auto mappings = ReadSharedMappings(proc, pid, fuse);
        if (!mappings.ok()) return mappings.status();
        for (SharedMapping& mapping : *mappings) {
          if (!known.emplace(mapping.device, mapping.inode).second) continue;
          links.push_back(std::move(mapping.link));
        }
        return absl::OkStatus();
      });
  if (!status.ok() || links.empty()) return status;
  std::vector<char*> paths;
  paths.reserve(links.size() + 1);
  for (std::string& link : links) paths.push_back(link.data());
  paths.push_back(nullptr);
  const absl::Time deadline = absl::Now() + timeout;
  auto child = BoundedChild::Start(WriteBack, paths.data());
  if (!child.ok()) return child.status();
  for (const std::string& link : links) {
    const auto what = [&link] {
      return absl::StrCat("cannot write back what is mapped of ",
                          ReadLink(link).value_or(link));
    };
    auto error = child->Next(deadline);
    if (absl::IsDeadlineExceeded(error.status())) {
      return MakeError({.code = absl::StatusCode::kUnavailable,
                        .reason = reason::kOverloaded,
                        .message = absl::StrCat(what(), " within ",
                                                absl::FormatDuration(timeout)),
                        .hint = "check the device of that file"});
    }
    if (!error.ok()) return error.status();
    // Shared memory has no file to be written back to: memfd, device.
    if (*error == 0 || *error == ESPIPE || *error == ENXIO) continue;
    return ErrnoError(*error, what());
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
