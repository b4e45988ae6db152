// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/cgroup_tasks.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "host/task/proc.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProcs = size_t{64} << 20;

// systemd removes a cgroup whose tasks have ended.
bool IsGone(const absl::Status& status) {
  return absl::IsNotFound(status) || ErrnoNameOf(status) == "ENODEV";
}

// The IDs in a file of a cgroup; none if it is gone.
absl::StatusOr<std::vector<pid_t>> ReadIds(int cgroup, const char* file) {
  std::vector<pid_t> ids;
  auto text = ReadFileAt(cgroup, file, kMaxProcs);
  if (IsGone(text.status())) return ids;
  if (!text.ok()) return text.status();
  for (absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    pid_t id = 0;
    if (!absl::SimpleAtoi(line, &id)) {
      return absl::InternalError(absl::StrCat(file, " has \"", line, "\""));
    }
    ids.push_back(id);
  }
  return ids;
}

// Those of a threaded cgroup are listed by their threads alone.
absl::Status AddByThreads(int cgroup, std::set<pid_t>* pids) {
  auto threads = ReadIds(cgroup, "cgroup.threads");
  if (!threads.ok()) return threads.status();
  const ProcFs proc;
  for (const pid_t thread : *threads) {
    auto task = proc.ReadTask(thread);
    if (absl::IsNotFound(task.status())) continue;
    if (!task.ok()) return task.status();
    pids->insert(task->thread_group);
  }
  return absl::OkStatus();
}

// The processes in a cgroup, and in those below.
absl::Status Add(int cgroup, std::set<pid_t>* pids) {
  auto procs = ReadIds(cgroup, "cgroup.procs");
  absl::Status added = procs.status();
  if (procs.ok()) pids->insert(procs->begin(), procs->end());
  if (ErrnoNameOf(added) == "EOPNOTSUPP") added = AddByThreads(cgroup, pids);
  if (!added.ok()) return added;
  auto names = ListDirectory(cgroup);
  if (IsGone(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    struct stat info;
    if (fstatat(cgroup, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISDIR(info.st_mode)) {
      continue;
    }
    auto below = OpenDirectory(cgroup, name);
    if (IsGone(below.status())) continue;
    if (!below.ok()) return below.status();
    added = Add(below->get(), pids);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

}  // namespace

CgroupTasks::CgroupTasks(const std::string& cgroup) : cgroup_(cgroup) {
  if (cgroup.empty()) return;
  for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    auto found = OpenDirectory(AT_FDCWD, absl::StrCat(mount, cgroup));
    if (found.ok()) {
      directory_ = *std::move(found);
    } else if (!absl::IsNotFound(found.status())) {
      unknown_ = found.status();
    }
  }
  if (directory_.valid()) unknown_ = absl::OkStatus();
}

absl::StatusOr<std::vector<pid_t>> CgroupTasks::List() const {
  if (!unknown_.ok()) return unknown_;
  std::set<pid_t> pids;
  if (directory_.valid()) {
    if (absl::Status added = Add(directory_.get(), &pids); !added.ok()) {
      return added;
    }
  }
  return std::vector<pid_t>(pids.begin(), pids.end());
}

void CgroupTasks::KillAllBut(pid_t spared) const {
  auto before = List();
  if (!before.ok()) return;
  std::vector<std::pair<pid_t, UniqueFd>> tasks;
  for (const pid_t pid : *before) {
    if (pid == spared) continue;
    UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (pidfd.valid()) tasks.emplace_back(pid, std::move(pidfd));
  }
  // A PID that another task got meanwhile is not in there any more.
  auto after = List();
  if (!after.ok()) return;
  for (const auto& [pid, pidfd] : tasks) {
    if (std::find(after->begin(), after->end(), pid) == after->end()) continue;
    KillTask(pidfd);
  }
}

void CgroupTasks::Kill() const {
  if (!unknown_.ok()) {
    LogWarning(absl::StrCat("cannot kill what is in cgroup ", cgroup_, ": ",
                            unknown_.message()));
  }
  if (!directory_.valid()) return;
  const UniqueFd fd(
      openat(directory_.get(), "cgroup.kill", O_WRONLY | O_CLOEXEC));
  if (fd.valid() && write(fd.get(), "1", 1) == 1) return;
  if (faccessat(directory_.get(), "cgroup.events", F_OK, 0) != 0) return;
  LogWarning(absl::StrCat("cannot kill what is in cgroup ", cgroup_));
}

bool CgroupTasks::AwaitEnd(absl::Duration timeout) const {
  if (!unknown_.ok()) return false;
  if (!directory_.valid()) return true;
  const UniqueFd fd(
      openat(directory_.get(), "cgroup.events", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT || errno == ENODEV;
  const absl::Time deadline = absl::Now() + timeout;
  char text[256];
  for (;;) {
    // Also what tells poll() which change has been seen.
    const ssize_t size = pread(fd.get(), text, sizeof(text), 0);
    if (size <= 0 ||
        absl::StrContains(absl::string_view(text, static_cast<size_t>(size)),
                          "populated 0")) {
      return true;
    }
    pollfd poll_for = {.fd = fd.get(), .events = POLLPRI, .revents = 0};
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms <= 0 || poll(&poll_for, 1, static_cast<int>(left_ms)) <= 0) {
      LogWarning(
          absl::StrCat("killed tasks in ", cgroup_, " have not ended yet"));
      return false;
    }
  }
}

}  // namespace daxsnap
