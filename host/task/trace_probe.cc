// SPDX-License-Identifier: Apache-2.0
#include "host/task/trace_probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/bounded_child.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

struct Question {
  uid_t uid;
  gid_t gid;
  // Ends with a null pointer.
  char* const* paths;
};

// These two run in the child: see BoundedChild::Work. Some wrappers of glibc
// would have all threads change their IDs, of which the child has but one.

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
void Answer(const void* argument, int report) {
  const auto* question = static_cast<const Question*>(argument);
  unsigned char verdict = 0;
  if (!TakeCredentials(question->uid, question->gid)) {
    verdict = static_cast<unsigned char>(errno);
  }
  bool written = write(report, &verdict, 1) == 1;
  for (char* const* path = question->paths;
       written && verdict == 0 && *path != nullptr; ++path) {
    const int fd = open(*path, O_RDONLY | O_CLOEXEC);
    const unsigned char result = fd < 0 ? static_cast<unsigned char>(errno) : 0;
    if (fd >= 0) close(fd);
    written = write(report, &result, 1) == 1;
  }
}

absl::Status Explain(const absl::Status& status) {
  if (!absl::IsDeadlineExceeded(status)) return status;
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kOverloaded,
       .message = "the kernel does not say in time who may trace a task",
       .hint = "try again; a task in the middle of execve(2) may be slow to "
               "read its program"});
}

// Whether the thread is gone or has given up its memory.
absl::StatusOr<bool> HasEnded(const ProcFs& proc, pid_t thread) {
  auto task = proc.ReadTask(thread);
  if (absl::IsNotFound(task.status())) return true;
  if (!task.ok()) return task.status();
  return task->ended();
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
  std::vector<char*> pointers;
  pointers.reserve(paths.size() + 1);
  for (const std::string& path : paths) {
    pointers.push_back(const_cast<char*>(path.c_str()));
  }
  pointers.push_back(nullptr);
  const Question question = {.uid = uid, .gid = gid, .paths = pointers.data()};
  const absl::Time deadline = absl::Now() + timeout;
  auto probe = BoundedChild::Start(Answer, &question);
  if (!probe.ok()) return probe.status();
  auto ready = probe->Next(deadline);
  if (!ready.ok()) return Explain(ready.status());
  if (*ready != 0) return ErrnoError(*ready, "cannot take a user's IDs");
  for (const pid_t thread : threads) {
    auto error = probe->Next(deadline);
    if (!error.ok()) return Explain(error.status());
    if (*error == 0) continue;
    // With hidepid= /proc does not have tasks that the user may not trace.
    if (*error != EACCES && *error != EPERM && *error != ENOENT &&
        *error != ESRCH) {
      return ErrnoError(*error,
                        absl::StrCat("cannot tell who may trace pid ", thread));
    }
    // A task without memory is root's in /proc, and one that is gone nobody's.
    auto ended = HasEnded(proc, thread);
    if (!ended.ok()) return ended.status();
    if (!*ended) return thread;
  }
  return std::nullopt;
}

}  // namespace daxsnap
