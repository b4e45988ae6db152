// SPDX-License-Identifier: Apache-2.0
#include "snapd/bounded_child.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "snapd/errors.h"

namespace daxsnap {
namespace {

// How long a killed child gets to end.
constexpr int kEndTimeoutMs = 1000;

// The child's part: see BoundedChild::Work.
[[noreturn]] void Become(BoundedChild::Work work, const void* argument,
                         int report) {
  const auto keep = static_cast<unsigned>(report);
  if (keep > 0) syscall(SYS_close_range, 0U, keep - 1, 0U);
  syscall(SYS_close_range, keep + 1, ~0U, 0U);
  work(argument, report);
  _exit(0);
}

}  // namespace

BoundedChild::BoundedChild(UniqueFd pidfd, UniqueFd reader)
    : pidfd_(std::move(pidfd)), reader_(std::move(reader)) {}

absl::StatusOr<BoundedChild> BoundedChild::Start(Work work,
                                                 const void* argument) {
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
  if (child == 0) Become(work, argument, writer.get());
  return BoundedChild(UniqueFd(pidfd), std::move(reader));
}

BoundedChild::~BoundedChild() {
  if (!pidfd_.valid()) return;
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  pollfd poll_for = {.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  while (poll(&poll_for, 1, kEndTimeoutMs) < 0 && errno == EINTR) {
  }
  siginfo_t info;
  waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG);
}

absl::StatusOr<int> BoundedChild::Next(absl::Time deadline) {
  for (;;) {
    pollfd poll_for = {.fd = reader_.get(), .events = POLLIN, .revents = 0};
    const int64_t left_ms =
        std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    const int ready =
        left_ms == 0 ? 0 : poll(&poll_for, 1, static_cast<int>(left_ms));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return ErrnoError(errno, "cannot wait for a process");
    if (ready == 0) {
      return absl::DeadlineExceededError("the kernel does not answer in time");
    }
    unsigned char byte = 0;
    const ssize_t got = read(reader_.get(), &byte, 1);
    if (got == 1) return byte;
    if (got < 0 && errno == EINTR) continue;
    return absl::InternalError("the child that asks the kernel ended early");
  }
}

}  // namespace daxsnap
