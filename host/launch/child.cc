// SPDX-License-Identifier: Apache-2.0
#include "host/launch/child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace daxsnap::launch {
namespace {

// What the child was doing when it failed.
enum class Step : int {
  kSession,
  kSignals,
  kNeutral,
  kMemoryPolicy,
  kDirectory,
  kDescriptors,
  kExec
};

struct Failure {
  Step step;
  int error;
};

struct ChildPipes {
  int go_read;
  int go_write;
  int report_write;
};

constexpr int kMaxNode = 1023;
constexpr std::size_t kMaxInherited = 16;

// From here to Become(): runs in the child of a process that may have threads,
// so only system calls and the stack may be used.

[[noreturn]] void Fail(int report, Step step) {
  const Failure failure{step, errno};
  // A lost report looks like success to nobody: the exit is seen as well.
  (void)!write(report, &failure, sizeof(failure));
  _exit(127);
}

bool ResetSignals() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) {
    // Fails for SIGKILL, SIGSTOP and the two that libc keeps: default already.
    sigaction(signal, &action, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  return sigprocmask(SIG_SETMASK, &none, nullptr) == 0;
}

bool PreferNode(int node) {
  std::array<unsigned long, (kMaxNode + 1) / 64> mask = {};
  mask[node / 64] = 1UL << (node % 64);
  // The kernel reads one bit less than it is told.
  return syscall(SYS_set_mempolicy, MPOL_PREFERRED_MANY, mask.data(),
                 kMaxNode + 2) == 0;
}

// Sandboxes filter these calls (EPERM): what is as it shall be may stay.
bool SetPersonality() {
  constexpr unsigned long kAsItIs = 0xffffffff;
  return personality(PER_LINUX) >= 0 ||
         (errno == EPERM && personality(kAsItIs) == PER_LINUX);
}

bool SetNoIoprio() {
  constexpr int kIoprioWhoProcess = 1;
  constexpr int kClassShift = 13;
  if (syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, 0) == 0) return true;
  // A kernel without block devices lacks it.
  if (errno == ENOSYS) return true;
  if (errno != EPERM) return false;
  const long now = syscall(SYS_ioprio_get, kIoprioWhoProcess, 0);
  return now >= 0 && now >> kClassShift == 0;
}

// What a unit of systemd may have been given by CPUAffinity=, Personality=,
// IOSchedulingClass= and TimerSlackNSec=.
bool BecomeNeutral() {
  constexpr unsigned long kUsualSlackNs = 50000;
  // As many processors as Linux can have; those that are not there count not.
  std::array<unsigned long, 8192 / 64> all;
  all.fill(~0UL);
  return syscall(SYS_sched_setaffinity, 0, sizeof(all), all.data()) == 0 &&
         SetPersonality() && SetNoIoprio() &&
         prctl(PR_SET_TIMERSLACK, kUsualSlackNs, 0, 0, 0) == 0;
}

// Puts descriptors where the command expects them and marks all others
// close-on-exec. `report` may move.
bool ArrangeDescriptors(const HeldChild::Exec& exec, int* report) {
  int above = 3;
  for (const InheritedFd& fd : exec.inherited_fds)
    above = std::max(above, fd.target + 1);

  // First out of the way of all targets, then into place.
  const int new_report = fcntl(*report, F_DUPFD_CLOEXEC, above);
  if (new_report < 0) return false;
  *report = new_report;
  const int in = fcntl(exec.stdin_fd, F_DUPFD_CLOEXEC, above);
  const int log = fcntl(exec.log_fd, F_DUPFD_CLOEXEC, above);
  if (in < 0 || log < 0) return false;
  std::array<int, kMaxInherited> moved;
  for (std::size_t i = 0; i < exec.inherited_fds.size(); ++i) {
    moved[i] = fcntl(exec.inherited_fds[i].source, F_DUPFD_CLOEXEC, above);
    if (moved[i] < 0) return false;
  }
  if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0) return false;
  if (dup2(in, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) return false;
  for (std::size_t i = 0; i < exec.inherited_fds.size(); ++i) {
    if (dup2(moved[i], exec.inherited_fds[i].target) < 0) return false;
  }
  return true;
}

[[noreturn]] void Become(const HeldChild::Exec& exec, const ChildPipes& pipes) {
  int report = pipes.report_write;
  // Else the end of the parent would not be the end of the pipe.
  close(pipes.go_write);
  char go;
  ssize_t got;
  do {
    got = read(pipes.go_read, &go, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) _exit(127);

  if (setsid() < 0) Fail(report, Step::kSession);
  if (!ResetSignals()) Fail(report, Step::kSignals);
  if (exec.neutral && !BecomeNeutral()) Fail(report, Step::kNeutral);
  if (exec.numa_node && !PreferNode(*exec.numa_node))
    Fail(report, Step::kMemoryPolicy);
  if (chdir(exec.cwd) != 0) Fail(report, Step::kDirectory);
  if (!ArrangeDescriptors(exec, &report)) Fail(report, Step::kDescriptors);
  execve(exec.path, exec.argv, exec.envp);
  Fail(report, Step::kExec);
}

absl::Status CloneError(int error, pid_t pid) {
  switch (error) {
    case EEXIST:
      return absl::AlreadyExistsError(absl::StrCat("PID ", pid, " is in use"));
    case EPERM:
      return absl::PermissionDeniedError(
          "choosing a PID needs CAP_CHECKPOINT_RESTORE; run as root");
    case EINVAL:
      return absl::FailedPreconditionError(absl::StrCat(
          "the kernel refuses PID ", pid,
          "; it needs clone3 with set_tid (Linux 5.5) and a pid_max above it"));
    default:
      return absl::ErrnoToStatus(error, "cannot start a process");
  }
}

absl::Status FailureStatus(const Failure& failure,
                           const HeldChild::Exec& exec) {
  switch (failure.step) {
    case Step::kSession:
      return absl::ErrnoToStatus(failure.error, "cannot start a session");
    case Step::kSignals:
      return absl::ErrnoToStatus(failure.error, "cannot reset signals");
    case Step::kNeutral:
      return absl::ErrnoToStatus(failure.error,
                                 "cannot reset the scheduling of a process");
    case Step::kMemoryPolicy:
      return absl::FailedPreconditionError(absl::StrCat(
          "NUMA node ", *exec.numa_node, " cannot be used for memory: ",
          strerror(failure.error), "; check that the pool is attached"));
    case Step::kDirectory:
      return absl::ErrnoToStatus(
          failure.error, absl::StrCat("cannot enter directory ", exec.cwd));
    case Step::kDescriptors:
      return absl::ErrnoToStatus(failure.error,
                                 "cannot set up file descriptors");
    case Step::kExec:
      return absl::ErrnoToStatus(failure.error,
                                 absl::StrCat("cannot execute ", exec.path));
  }
  return absl::InternalError("unknown step of starting a process");
}

}  // namespace

absl::StatusOr<HeldChild> HeldChild::Clone(const Exec& exec, pid_t pid) {
  if (exec.inherited_fds.size() > kMaxInherited) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMaxInherited, " inherited descriptors"));
  }
  if (exec.numa_node && (*exec.numa_node < 0 || *exec.numa_node > kMaxNode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("no NUMA node ", *exec.numa_node));
  }
  int go[2], report[2];
  if (pipe2(go, O_CLOEXEC) != 0)
    return absl::ErrnoToStatus(errno, "cannot make a pipe");
  UniqueFd go_read(go[0]), go_write(go[1]);
  if (pipe2(report, O_CLOEXEC) != 0)
    return absl::ErrnoToStatus(errno, "cannot make a pipe");
  UniqueFd report_read(report[0]), report_write(report[1]);

  int pidfd = -1;
  struct clone_args args = {};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (pid != 0) {
    args.set_tid = reinterpret_cast<std::uintptr_t>(&pid);
    args.set_tid_size = 1;
  }
  const ChildPipes pipes{go[0], go[1], report[1]};
  const long child = syscall(SYS_clone3, &args, sizeof(args));
  if (child < 0) return CloneError(errno, pid);
  if (child == 0) Become(exec, pipes);
  return HeldChild(static_cast<pid_t>(child), UniqueFd(pidfd),
                   std::move(go_write), std::move(report_read), exec);
}

HeldChild::~HeldChild() {
  if (!pidfd_.valid()) return;
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  siginfo_t info;
  while (waitid(static_cast<idtype_t>(P_PIDFD), pidfd_.get(), &info, WEXITED) !=
             0 &&
         errno == EINTR) {
  }
}

absl::StatusOr<UniqueFd> HeldChild::Release() && {
  if (write(go_.get(), "g", 1) != 1) {
    return absl::AbortedError(
        absl::StrCat("process ", pid_, " ended before it was started"));
  }
  Failure failure;
  ssize_t got;
  do {
    got = read(report_.get(), &failure, sizeof(failure));
  } while (got < 0 && errno == EINTR);
  if (got == sizeof(failure)) return FailureStatus(failure, exec_);
  if (got != 0)
    return absl::InternalError("broken report of a starting process");
  return std::move(pidfd_);
}

}  // namespace daxsnap::launch
