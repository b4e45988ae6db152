// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/preflight.h"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "host/task/message_queues.h"

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

// Those that CRIU brings back. Their numbers are of the kernel's
// include/uapi/linux/sched.h.
bool IsRestorablePolicy(unsigned policy) {
  return policy == SCHED_OTHER || policy == SCHED_FIFO || policy == SCHED_RR ||
         policy == SCHED_BATCH || policy == SCHED_IDLE;
}

std::string PolicyName(unsigned policy) {
  constexpr unsigned kDeadline = 6;
  constexpr unsigned kExt = 7;
  if (policy == kDeadline) return "the scheduling policy SCHED_DEADLINE";
  if (policy == kExt) return "the scheduling policy SCHED_EXT";
  return absl::StrCat("scheduling policy ", policy);
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

// TASK_UNSUPPORTED if one of the descriptors is a POSIX message queue. Queues
// are on mounts of their own type, most on one that the kernel keeps to itself:
// any descriptor without a mount that the task sees may be one.
absl::Status CheckMessageQueues(const ProcFs& proc, const TaskInfo& task,
                                const std::vector<FdInfo>& fds) {
  auto mounts = proc.ReadMounts(task.id.pid);
  if (!mounts.ok()) return proc.UnlessGone(task.id, mounts.status());
  std::set<int> others;
  for (const MountInfo& mount : *mounts) {
    if (mount.type != "mqueue") others.insert(mount.id);
  }
  std::vector<const FdInfo*> asked;
  std::vector<std::string> paths;
  std::vector<std::string> names;
  for (const FdInfo& fd : fds) {
    if (others.contains(fd.mount_id) || fd.target.rfind('/', 0) != 0) continue;
    asked.push_back(&fd);
    names.push_back(fd.target);
    paths.push_back(absl::StrCat(proc.root(), "/", task.id.pid, "/fd/", fd.fd));
  }
  auto queues = AreMessageQueues(paths, names);
  if (!queues.ok()) return queues.status();
  for (size_t i = 0; i < asked.size(); ++i) {
    const absl::StatusOr<bool>& queue = (*queues)[i];
    if (absl::IsNotFound(queue.status())) continue;
    if (!queue.ok()) return proc.UnlessGone(task.id, queue.status());
    if (!*queue) continue;
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kTaskUnsupported,
         .message = absl::StrCat("pid ", task.id.pid, " (", task.comm,
                                 "): descriptor ", asked[i]->fd,
                                 " is a POSIX message queue, ", names[i]),
         .hint = "have the program close the queue before the snapshot",
         .metadata = {{"pid", absl::StrCat(task.id.pid)},
                      {"kind", "message-queue"},
                      {"path", names[i]}}});
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
  if (task.ended()) {
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

absl::Status CheckPolicies(const ProcFs& proc,
                           const std::vector<TaskInfo>& tree) {
  for (const TaskInfo& task : tree) {
    auto threads = proc.ReadThreads(task.id.pid);
    if (absl::IsNotFound(threads.status())) continue;
    if (!threads.ok()) return proc.UnlessGone(task.id, threads.status());
    for (const pid_t thread : *threads) {
      auto policy = proc.ReadPolicy(task.id.pid, thread);
      if (absl::IsNotFound(policy.status())) continue;
      if (!policy.ok()) {
        absl::Status status = proc.UnlessGone(task.id, policy.status());
        if (!status.ok()) return status;
        continue;
      }
      if (IsRestorablePolicy(*policy)) continue;
      return MakeError(
          {.code = absl::StatusCode::kFailedPrecondition,
           .reason = reason::kTaskUnsupported,
           .message =
               absl::StrCat("pid ", task.id.pid, " (", task.comm, "): thread ",
                            thread, " has ", PolicyName(*policy)),
           .hint = "have the program go back to another scheduling policy "
                   "before the snapshot, as by `chrt --other --pid 0 TID`",
           .metadata = {{"pid", absl::StrCat(task.id.pid)},
                        {"kind", "scheduling-policy"}}});
    }
  }
  return absl::OkStatus();
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
