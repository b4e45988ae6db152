// SPDX-License-Identifier: Apache-2.0
#include "snapd/trace_probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/launch/unique_fd.h"
#include "snapd/errors.h"

namespace daxsnap {
namespace {

// From here to Answer(): runs in the child of a process that has threads, so
// only system calls and the stack may be used. Some wrappers of glibc would
// have all threads change their IDs, of which the child has but one.

// File system IDs are those that /proc checks with. The real ones stay root's,
// so that the user can neither trace the child nor send it signals.
bool TakeCredentials(uid_t uid, gid_t gid) {
  if (syscall(SYS_setgroups, 0, nullptr) != 0) return false;
  // These two return the previous ID, whether they have changed it or not.
  syscall(SYS_setfsgid, gid);
  syscall(SYS_setfsuid, uid);
  if (static_cast<gid_t>(syscall(SYS_setfsgid, -1)) != gid ||
      static_cast<uid_t>(syscall(SYS_setfsuid, -1)) != uid) {
    errno = EPERM;
    return false;
  }
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3,
                                     .pid = 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

// One byte first: the errno of taking the credentials, or 0. Then one for each
// path: the errno of opening it, or 0.
[[noreturn]] void Answer(uid_t uid, gid_t gid, char* const* paths, int report) {
  unsigned char verdict = 0;
  if (!TakeCredentials(uid, gid)) verdict = static_cast<unsigned char>(errno);
  bool written = write(report, &verdict, 1) == 1;
  for (; written && verdict == 0 && *paths != nullptr; ++paths) {
    const int fd = open(*paths, O_RDONLY | O_CLOEXEC);
    unsigned char result = fd < 0 ? static_cast<unsigned char>(errno) : 0;
    if (fd >= 0) close(fd);
    written = write(report, &result, 1) == 1;
  }
  _exit(0);
}

// Killed and reaped with the object.
class Probe {
 public:
  static absl::StatusOr<Probe> Start(uid_t uid, gid_t gid,
                                     const std::vector<std::string>& paths) {
    std::vector<char*> pointers;
    pointers.reserve(paths.size() + 1);
    for (const std::string& path : paths) {
      pointers.push_back(const_cast<char*>(path.c_str()));
    }
    pointers.push_back(nullptr);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      return ErrnoError(errno, "cannot make a pipe");
    }
    UniqueFd reader(ends[0]);
    const UniqueFd writer(ends[1]);
    int pidfd = -1;
    // No memory is shared: a change of IDs makes memory undumpable.
    clone_args args = {};
    args.flags = CLONE_PIDFD;
    args.pidfd = reinterpret_cast<uintptr_t>(&pidfd);
    args.exit_signal = SIGCHLD;
    const long child = syscall(SYS_clone3, &args, sizeof(args));
    if (child < 0) return ErrnoError(errno, "cannot start a process");
    if (child == 0) Answer(uid, gid, pointers.data(), writer.get());
    return Probe(UniqueFd(pidfd), std::move(reader));
  }

  Probe(Probe&&) noexcept = default;
  Probe& operator=(Probe&&) = delete;
  ~Probe() {
    if (!pidfd_.valid()) return;
    syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    siginfo_t info;
    while (waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) !=
               0 &&
           errno == EINTR) {
    }
  }

  // The next byte of its answer: an errno or 0.
  absl::StatusOr<int> Next(absl::Time deadline) {
    for (;;) {
      pollfd poll_for = {.fd = reader_.get(), .events = POLLIN, .revents = 0};
      const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
      const int ready =
          left_ms <= 0 ? 0 : poll(&poll_for, 1, static_cast<int>(left_ms));
      if (ready < 0 && errno == EINTR) continue;
      if (ready < 0) return ErrnoError(errno, "cannot wait for a process");
      if (ready == 0) {
        return MakeError(
            {.code = absl::StatusCode::kUnavailable,
             .reason = reason::kOverloaded,
             .message = "the kernel does not say in time who may trace a task",
             .hint = "try again; a task in the middle of execve(2) may be slow "
                     "to read its program"});
      }
      unsigned char byte = 0;
      const ssize_t got = read(reader_.get(), &byte, 1);
      if (got == 1) return byte;
      if (got < 0 && errno == EINTR) continue;
      return absl::InternalError("the child that asks the kernel ended early");
    }
  }

 private:
  Probe(UniqueFd pidfd, UniqueFd reader)
      : pidfd_(std::move(pidfd)), reader_(std::move(reader)) {}

  UniqueFd pidfd_;
  UniqueFd reader_;
};

// Whether the thread is gone or has given up its memory.
absl::StatusOr<bool> HasEnded(const ProcFs& proc, pid_t thread) {
  auto task = proc.ReadTask(thread);
  if (absl::IsNotFound(task.status())) return true;
  if (!task.ok()) return task.status();
  return task->state == 'Z' || task->state == 'X';
}

}  // namespace

absl::StatusOr<std::optional<pid_t>> FindUntraceable(
    uid_t uid, gid_t gid, const std::vector<pid_t>& threads, const ProcFs& proc,
    absl::Duration timeout) {
  std::vector<std::string> paths;
  paths.reserve(threads.size());
  for (const pid_t thread : threads) {
    paths.push_back(absl::StrCat(proc.root(), "/", thread, "/mem"));
  }
  const absl::Time deadline = absl::Now() + timeout;
  auto probe = Probe::Start(uid, gid, paths);
  if (!probe.ok()) return probe.status();
  auto ready = probe->Next(deadline);
  if (!ready.ok()) return ready.status();
  if (*ready != 0) return ErrnoError(*ready, "cannot take a user's IDs");
  for (const pid_t thread : threads) {
    auto error = probe->Next(deadline);
    if (!error.ok()) return error.status();
    if (*error == 0 || *error == ENOENT || *error == ESRCH) continue;
    if (*error != EACCES && *error != EPERM) {
      return ErrnoError(*error,
                        absl::StrCat("cannot tell who may trace pid ", thread));
    }
    // A task without memory is root's in /proc.
    auto ended = HasEnded(proc, thread);
    if (!ended.ok()) return ended.status();
    if (!*ended) return thread;
  }
  return std::nullopt;
}

}  // namespace daxsnap
