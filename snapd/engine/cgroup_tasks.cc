// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/cgroup_tasks.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
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
  std::vector<pid_t> pids;
  if (!unknown_.ok()) return unknown_;
  if (!directory_.valid()) return pids;
  auto procs = ReadFileAt(directory_.get(), "cgroup.procs", kMaxProcs);
  if (IsGone(procs.status())) return pids;
  if (!procs.ok()) return procs.status();
  for (absl::string_view line :
       absl::StrSplit(*procs, '\n', absl::SkipEmpty())) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(line, &pid)) {
      return absl::InternalError(
          absl::StrCat("cgroup.procs of ", cgroup_, " has \"", line, "\""));
    }
    pids.push_back(pid);
  }
  return pids;
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
