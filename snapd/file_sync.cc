// SPDX-License-Identifier: Apache-2.0
#include "snapd/file_sync.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "snapd/errors.h"
#include "snapd/files.h"

namespace daxsnap {
namespace {

bool CanSync(mode_t mode) { return S_ISREG(mode) || S_ISDIR(mode); }

// What the process that syncs is told. It is made by fork() in a process that
// has threads, so from RunSyncs() on only system calls may be used.
struct SyncJob {
  // Of each target: its descriptor, and the path by which it is opened anew.
  std::vector<int> fds;
  std::vector<std::string> paths;
  // Where the errno of each goes, 0 if it is synced.
  int report = -1;
  // All descriptors above, sorted.
  std::vector<int> kept;
};

void CloseAllBut(const std::vector<int>& kept) {
  unsigned from = 0;
  for (const int fd : kept) {
    const auto keep = static_cast<unsigned>(fd);
    if (keep > from) close_range(from, keep - 1, 0);
    from = keep + 1;
  }
  close_range(from, ~0U, 0);
}

int SyncOne(int target, const char* path) {
  // A descriptor of O_PATH cannot be synced, and what is no file or directory
  // must not be opened.
  struct stat info;
  if (fstat(target, &info) != 0) return errno;
  if (!CanSync(info.st_mode)) return EINVAL;
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = syncfs(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

[[noreturn]] void RunSyncs(const SyncJob& job) {
  // Nobody's child, so that nobody has to wait for it.
  const pid_t worker = _Fork();
  if (worker != 0) _exit(worker < 0 ? 1 : 0);
  // Pools, sockets and locks of snapd would outlive it here.
  CloseAllBut(job.kept);
  for (size_t i = 0; i < job.fds.size(); ++i) {
    const int error = SyncOne(job.fds[i], job.paths[i].c_str());
    // Nobody reads it any more: the time is over.
    if (write(job.report, &error, sizeof(error)) != sizeof(error)) break;
  }
  _exit(0);
}

absl::Status StartSyncs(const SyncJob& job) {
  const pid_t child = _Fork();
  if (child == 0) RunSyncs(job);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) break;
  }
  if (child > 0 && status == 0) return absl::OkStatus();
  return ErrnoError(child < 0 ? errno : EAGAIN, "cannot start a sync");
}

absl::Status TimedOut(const std::string& mount_point, absl::Duration timeout) {
  const int64_t seconds = absl::ToInt64Seconds(timeout);
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncTimeout,
       .message = absl::StrCat("the file system on ", mount_point,
                               ", which the tasks use, was not synced within ",
                               seconds, " s; the tasks run on"),
       .hint = "check the device of that file system; if it is just slow, try "
               "again or give more time (--sync-timeout)",
       .metadata = {{"path", mount_point},
                    {"seconds", absl::StrCat(seconds)}}});
}

absl::Status Failed(const std::string& mount_point, int error) {
  const std::string text = std::strerror(error);
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncFailed,
       .message = absl::StrCat("the file system on ", mount_point,
                               ", which the tasks use, cannot be synced: ",
                               text, "; the tasks run on"),
       .hint = error == ENOSPC || error == EDQUOT
                   ? "make room on that file system and try again"
                   : "check the device of that file system and the kernel log",
       .metadata = {{"path", mount_point}, {"error", text}}});
}

}  // namespace

absl::StatusOr<std::vector<SyncTarget>> CollectSyncTargets(
    const ProcFs& proc, const std::vector<UsedFile>& files) {
  std::vector<SyncTarget> targets;
  std::set<dev_t> seen;
  for (const UsedFile& file : files) {
    if (!CanSync(file.mode) || seen.contains(file.device)) continue;
    const std::string path =
        absl::StrCat(proc.root(), "/", file.pid, "/", file.link);
    auto fd = OpenPath(path);
    if (absl::IsNotFound(fd.status())) continue;
    if (!fd.ok()) return fd.status();
    struct statx info;
    if (statx(fd->get(), "", AT_STATX_DONT_SYNC | AT_EMPTY_PATH, STATX_TYPE,
              &info) != 0) {
      return ErrnoError(errno, absl::StrCat("cannot stat ", path));
    }
    // The task has put something else there since.
    if (!CanSync(info.stx_mode) ||
        makedev(info.stx_dev_major, info.stx_dev_minor) != file.device) {
      continue;
    }
    seen.insert(file.device);
    targets.push_back({.fd = *std::move(fd),
                       .mount_point = file.mount_point.empty()
                                          ? file.path
                                          : file.mount_point});
  }
  return targets;
}

absl::Status SyncFileSystems(const std::vector<SyncTarget>& targets,
                             absl::Duration timeout,
                             const Cancellation& cancellation) {
  if (targets.empty()) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + timeout;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoError(errno, "cannot sync");
  const UniqueFd results(ends[0]);
  UniqueFd report(ends[1]);
  SyncJob job;
  for (const SyncTarget& target : targets) {
    job.fds.push_back(target.fd.get());
    job.paths.push_back(absl::StrCat("/proc/self/fd/", target.fd.get()));
  }
  job.report = report.get();
  job.kept = job.fds;
  job.kept.push_back(job.report);
  std::sort(job.kept.begin(), job.kept.end());
  if (absl::Status started = StartSyncs(job); !started.ok()) return started;
  report.reset();

  for (size_t done = 0; done < targets.size();) {
    pollfd poll_for[] = {
        {.fd = results.get(), .events = POLLIN, .revents = 0},
        {.fd = cancellation.fd(), .events = POLLIN, .revents = 0},
    };
    const int64_t left_ms = absl::ToInt64Milliseconds(std::clamp(
        deadline - absl::Now(), absl::ZeroDuration(), absl::Hours(24)));
    const int ready = poll(poll_for, 2, static_cast<int>(left_ms));
    if (ready < 0 && errno != EINTR) return ErrnoError(errno, "cannot sync");
    if (ready < 0) continue;
    if (poll_for[1].revents != 0) return CancelledError();
    if (poll_for[0].revents == 0) {
      if (absl::Now() < deadline) continue;
      return TimedOut(targets[done].mount_point, timeout);
    }
    int error = 0;
    const ssize_t got = read(results.get(), &error, sizeof(error));
    if (got != sizeof(error)) {
      return ErrnoError(ECHILD, "the process that syncs has ended early");
    }
    if (error != 0) return Failed(targets[done].mount_point, error);
    ++done;
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
