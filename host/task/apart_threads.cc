// SPDX-License-Identifier: Apache-2.0
#include "host/task/apart_threads.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

// Those that a thread can be in alone. The kernel has none alone in a PID or
// user namespace (copy_process(), userns_install()) or in a time namespace
// (timens_install(), copy_namespaces()).
constexpr const char* kNamespaces[] = {"net", "ipc", "uts", "cgroup"};

class Finder {
 public:
  explicit Finder(const ProcFs& proc) : proc_(proc) {}

  absl::Status AddTask(const TaskInfo& task) {
    if (task.ended()) return absl::OkStatus();
    auto threads = proc_.ReadThreads(task.id.pid);
    if (!threads.ok()) return proc_.UnlessGone(task.id, threads.status());
    leader_.clear();
    for (const pid_t thread : *threads) {
      if (thread == task.id.pid) continue;
      absl::Status added = AddThread(task.id.pid, thread);
      if (!added.ok()) added = proc_.UnlessGone(task.id, added);
      if (!added.ok()) return added;
    }
    return absl::OkStatus();
  }

  std::vector<ApartThread> Finish() { return std::move(found_); }

 private:
  absl::Status AddThread(pid_t pid, pid_t thread) {
    for (const char* kind : kNamespaces) {
      auto same = IsSameLink(pid, thread, absl::StrCat("ns/", kind));
      if (!same.ok()) return same.status();
      if (!*same) found_.push_back({pid, thread, kind});
    }
    auto descriptors = Shares(pid, thread, KCMP_FILES);
    if (!descriptors.ok()) return descriptors.status();
    if (!*descriptors) found_.push_back({pid, thread, "fd"});
    auto directories = Shares(pid, thread, KCMP_FS);
    if (!directories.ok()) return directories.status();
    // Who is in a mount namespace alone has directories of its own.
    if (*directories) return absl::OkStatus();
    auto same = IsSameLink(pid, thread, "ns/mnt");
    if (!same.ok()) return same.status();
    if (!*same) found_.push_back({pid, thread, "mnt"});
    // Of its own, but the same ones: nothing is lost.
    for (const char* link : {"cwd", "root"}) {
      same = IsSameLink(pid, thread, link);
      if (!same.ok()) return same.status();
      if (*same) continue;
      found_.push_back({pid, thread, "cwd"});
      break;
    }
    return absl::OkStatus();
  }

  // Also if one of them has no such link, as it has ended.
  absl::StatusOr<bool> IsSameLink(pid_t pid, pid_t thread,
                                  const std::string& link) {
    const auto [at, first] = leader_.try_emplace(link);
    if (first) at->second = proc_.ReadLink(pid, link);
    const absl::StatusOr<std::string>& leader = at->second;
    if (absl::IsNotFound(leader.status())) return true;
    if (!leader.ok()) return leader.status();
    auto its = proc_.ReadLink(pid, absl::StrCat("task/", thread, "/", link));
    if (absl::IsNotFound(its.status())) return true;
    if (!its.ok()) return its.status();
    return *its == *leader;
  }

  absl::StatusOr<bool> Shares(pid_t pid, pid_t thread, int what) {
    for (bool again = false;; again = true) {
      const long order = syscall(SYS_kcmp, pid, thread, what, 0, 0);
      if (order == 0) return true;
      if (order < 0) {
        if (errno == ESRCH || errno == ENOSYS) return true;
        return ErrnoError(errno, absl::StrCat("cannot compare thread ", thread,
                                              " of pid ", pid));
      }
      // One that ends has nothing to share any more.
      for (const pid_t one : {pid, thread}) {
        auto ends = proc_.IsEnding(pid, one);
        if (!ends.ok()) return ends.status();
        if (*ends) return true;
      }
      // The ID may have been that of another.
      if (again) return false;
    }
  }

  const ProcFs& proc_;
  // What the links of the leader of the task at hand say.
  std::map<std::string, absl::StatusOr<std::string>> leader_;
  std::vector<ApartThread> found_;
};

}  // namespace

absl::StatusOr<std::vector<ApartThread>> FindApartThreads(
    const ProcFs& proc, const std::vector<TaskInfo>& tree) {
  Finder finder(proc);
  for (const TaskInfo& task : tree) {
    if (absl::Status added = finder.AddTask(task); !added.ok()) return added;
  }
  return finder.Finish();
}

}  // namespace daxsnap
