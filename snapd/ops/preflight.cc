// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/preflight.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"

namespace daxsnap {
namespace {

absl::Status Unsupported(const TaskInfo& task, absl::StatusCode code,
                         absl::string_view kind, absl::string_view what,
                         std::string hint) {
  return MakeError({.code = code,
                    .reason = reason::kTaskUnsupported,
                    .message = absl::StrCat("pid ", task.id.pid, " (",
                                            task.comm, ") is ", what),
                    .hint = std::move(hint),
                    .metadata = {{"pid", absl::StrCat(task.id.pid)},
                                 {"kind", std::string(kind)}}});
}

// Which ends of a pipe the tree holds.
struct PipeEnds {
  bool read = false;
  bool write = false;
  pid_t pid = 0;
  int fd = -1;
};

void Note(const FdInfo& fd, pid_t pid, PipeEnds* ends) {
  const unsigned mode = fd.flags & O_ACCMODE;
  ends->read = ends->read || mode != O_WRONLY;
  ends->write = ends->write || mode != O_RDONLY;
  ends->pid = pid;
  ends->fd = fd.fd;
}

// Whether a descriptor of none of the task's mounts is a POSIX message queue.
// Its file system is the kernel's own mount. One that was unmounted while in
// use has none either, and may hang when asked: only what looks like a queue
// is.
absl::StatusOr<bool> IsMessageQueue(const std::string& path) {
  // source: FILENT_SIZE of the kernel's ipc/mqueue.c
  constexpr uint64_t kQueueFileSize = 80;
  constexpr auto kMqueueMagic = 0x19800202;
  struct statx info;
  if (absl::Status known = StatFile(path, &info); !known.ok()) return known;
  if (!S_ISREG(info.stx_mode) || info.stx_size != kQueueFileSize) return false;
  struct statfs system;
  if (statfs(path.c_str(), &system) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot look at ", path));
  }
  return system.f_type == kMqueueMagic;
}

// TASK_UNSUPPORTED if one of the descriptors is a POSIX message queue.
absl::Status CheckMessageQueues(const ProcFs& proc, const TaskInfo& task,
                                const std::vector<FdInfo>& fds) {
  auto mounts = proc.ReadMounts(task.id.pid);
  if (!mounts.ok()) return proc.UnlessGone(task.id, mounts.status());
  std::set<int> ids;
  for (const MountInfo& mount : *mounts) ids.insert(mount.id);
  for (const FdInfo& fd : fds) {
    // "/NAME", of a mount that the task does not see.
    if (ids.contains(fd.mount_id) || fd.target.rfind('/') != 0) continue;
    auto queue = IsMessageQueue(
        absl::StrCat(proc.root(), "/", task.id.pid, "/fd/", fd.fd));
    if (absl::IsNotFound(queue.status())) continue;
    if (!queue.ok()) return proc.UnlessGone(task.id, queue.status());
    if (!*queue) continue;
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kTaskUnsupported,
         .message = absl::StrCat("pid ", task.id.pid, " (", task.comm,
                                 "): descriptor ", fd.fd,
                                 " is a POSIX message queue, ", fd.target),
         .hint = "have the program close the queue before the snapshot",
         .metadata = {{"pid", absl::StrCat(task.id.pid)},
                      {"kind", "message-queue"},
                      {"path", fd.target}}});
  }
  return absl::OkStatus();
}

// Whether a task outside `tree` has `target` open.
absl::StatusOr<bool> IsHeldOutside(const ProcFs& proc,
                                   const std::set<pid_t>& tree,
                                   const std::string& target) {
  auto pids = proc.ListPids();
  if (!pids.ok()) return pids.status();
  for (const pid_t pid : *pids) {
    if (tree.contains(pid)) continue;
    auto fds = proc.ReadFds(pid);
    if (absl::IsNotFound(fds.status())) continue;
    // What a security module keeps even from snapd has no part in the tree.
    if (ErrnoNameOf(fds.status()) == "EACCES") continue;
    if (!fds.ok()) return fds.status();
    if (std::any_of(fds->begin(), fds->end(),
                    [&](const FdInfo& fd) { return fd.target == target; })) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::Status TaskMissing(pid_t pid) {
  return MakeError({.code = absl::StatusCode::kNotFound,
                    .reason = reason::kTaskMissing,
                    .message = absl::StrCat("no task has pid ", pid),
                    .hint = "check the PID",
                    .metadata = {{"pid", absl::StrCat(pid)}}});
}

absl::Status CheckTaskKind(const TaskInfo& task) {
  constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  if (task.thread_group != task.id.pid) {
    return Unsupported(
        task, absl::StatusCode::kInvalidArgument, "thread",
        absl::StrCat("a thread of pid ", task.thread_group),
        absl::StrCat("pass the PID of the process, ", task.thread_group));
  }
  if (task.kernel_thread) {
    return Unsupported(task, kPrecondition, "kernel-thread", "a kernel thread",
                       "pass the PID of a user process");
  }
  if (task.state == 'Z' || task.state == 'X') {
    return Unsupported(task, kPrecondition, "zombie", "a zombie",
                       "it has ended: pass the PID of a running process");
  }
  if (task.id.pid == 1) {
    return Unsupported(task, kPrecondition, "init", "the init process",
                       "pass the PID of a process below it");
  }
  return absl::OkStatus();
}

absl::Status CheckSession(const TaskInfo& root) {
  if (root.session == root.id.pid) return absl::OkStatus();
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kExternalSession,
       .message = absl::StrCat("pid ", root.id.pid, " (", root.comm,
                               ") is in the session of pid ", root.session,
                               ", outside its tree"),
       .hint = "start the program with `snapctl run`, or with setsid(1)",
       .metadata = {{"pid", absl::StrCat(root.id.pid)},
                    {"session", absl::StrCat(root.session)}}});
}

absl::Status CheckWithoutSelf(const std::vector<TaskInfo>& tree, pid_t self) {
  const auto found = std::find_if(
      tree.begin(), tree.end(),
      [self](const TaskInfo& task) { return task.id.pid == self; });
  if (found == tree.end()) return absl::OkStatus();
  return Unsupported(*found, absl::StatusCode::kFailedPrecondition, "snapd",
                     "snapd itself",
                     "pass the PID of a process that snapd is not part of");
}

absl::Status CheckDescriptors(const ProcFs& proc,
                              const std::vector<TaskInfo>& tree) {
  std::map<std::string, PipeEnds> pipes;
  std::set<pid_t> pids;
  for (const TaskInfo& task : tree) {
    pids.insert(task.id.pid);
    auto fds = proc.ReadFds(task.id.pid);
    if (absl::IsNotFound(fds.status())) continue;
    if (!fds.ok()) return fds.status();
    if (absl::Status status = CheckMessageQueues(proc, task, *fds);
        !status.ok()) {
      return status;
    }
    for (const FdInfo& fd : *fds) {
      // Files there could be neither synced nor compared while it stands still.
      if (fd.target == "/dev/fuse") {
        return Unsupported(task, absl::StatusCode::kFailedPrecondition,
                           "fuse-server", "the server of a file system (FUSE)",
                           "run the server outside the tree of the program "
                           "that uses it");
      }
      if (fd.target == "anon_inode:[io_uring]") {
        return MakeError(
            {.code = absl::StatusCode::kFailedPrecondition,
             .reason = reason::kIoUring,
             .message = absl::StrCat("pid ", task.id.pid, " uses io_uring"),
             .hint = "run the program with io_uring switched off",
             .metadata = {{"pid", absl::StrCat(task.id.pid)}}});
      }
      if (absl::StartsWith(fd.target, "pipe:[")) {
        Note(fd, task.id.pid, &pipes[fd.target]);
      }
    }
  }
  for (const auto& [target, ends] : pipes) {
    if (ends.read && ends.write) continue;
    auto outside = IsHeldOutside(proc, pids, target);
    if (!outside.ok()) return outside.status();
    if (!*outside) continue;
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kExternalTerminal,
         .message = absl::StrCat("pid ", ends.pid, ": descriptor ", ends.fd,
                                 " is a pipe to a task outside its tree"),
         .hint = "start the program with `snapctl run`, which gives it a log "
                 "file, or take the snapshot of a parent of both tasks",
         .metadata = {{"pid", absl::StrCat(ends.pid)}, {"path", target}}});
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
