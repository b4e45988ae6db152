// SPDX-License-Identifier: Apache-2.0
#include "base/bounded_child.h"

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
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/stopwatch.h"

namespace daxsnap {
namespace {

// How long a killed child gets to end.
constexpr int kEndTimeoutMs = 1000;

// Whether it had ended.
bool Reaped(const UniqueFd& pidfd) {
  siginfo_t info = {};
  return waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info,
                WEXITED | WNOHANG) != 0 ||
         info.si_pid != 0;
}

// Children that the kernel held on to.
class LeftBehind {
 public:
  void Add(UniqueFd pidfd) {
    const std::lock_guard lock(mutex_);
    pidfds_.push_back(std::move(pidfd));
  }
  void Reap() {
    const std::lock_guard lock(mutex_);
    std::erase_if(pidfds_, Reaped);
  }

 private:
  std::mutex mutex_;
  std::vector<UniqueFd> pidfds_;  // guarded by mutex_
};

LeftBehind& left_behind() {
  static auto* const children = new LeftBehind;
  return *children;
}

// The child's part: see BoundedChild::Work. `kept` is sorted.
[[noreturn]] void Become(BoundedChild::Work work, const void* argument,
                         int report, const std::vector<int>& kept) {
  unsigned from = 0;
  for (const int fd : kept) {
    const auto keep = static_cast<unsigned>(fd);
    if (keep > from) syscall(SYS_close_range, from, keep - 1, 0U);
    from = keep + 1;
  }
  syscall(SYS_close_range, from, ~0U, 0U);
  work(argument, report);
  _exit(0);
}

}  // namespace

BoundedChild::BoundedChild(UniqueFd pidfd, UniqueFd reader)
    : pidfd_(std::move(pidfd)), reader_(std::move(reader)) {}

absl::StatusOr<BoundedChild> BoundedChild::Start(Work work,
                                                 const void* argument,
                                                 std::vector<int> kept) {
  left_behind().Reap();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoError(errno, "cannot make a pipe");
  }
  UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  kept.push_back(writer.get());
  std::sort(kept.begin(), kept.end());
  int pidfd = -1;
  // No memory is shared: a change of IDs makes memory undumpable.
  clone_args args = {};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long child = syscall(SYS_clone3, &args, sizeof(args));
  if (child < 0) return ErrnoError(errno, "cannot start a process");
  if (child == 0) Become(work, argument, writer.get(), kept);
  return BoundedChild(UniqueFd(pidfd), std::move(reader));
}

void BoundedChild::Leave() {
  reader_.reset();
  left_behind().Add(std::move(pidfd_));
}

BoundedChild::~BoundedChild() {
  if (!pidfd_.valid()) return;
  // What it still writes fails from here on.
  reader_.reset();
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  pollfd poll_for = {.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  while (poll(&poll_for, 1, kEndTimeoutMs) < 0 && errno == EINTR) {
  }
  if (!Reaped(pidfd_)) left_behind().Add(std::move(pidfd_));
}

absl::Status BoundedChild::Read(void* to, size_t size, absl::Time deadline,
                                const Cancellation* cancellation) {
  auto* next = static_cast<unsigned char*>(to);
  while (size > 0) {
    // A descriptor below 0 is not looked at.
    pollfd poll_for[] = {
        {.fd = reader_.get(), .events = POLLIN, .revents = 0},
        {.fd = cancellation == nullptr ? -1 : cancellation->fd(),
         .events = POLLIN,
         .revents = 0},
    };
    const int ready = poll(poll_for, 2, MillisecondsUntil(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return ErrnoError(errno, "cannot wait for a process");
    if (poll_for[1].revents != 0) return CancelledError();
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError("the kernel does not answer in time");
    }
    if (ready == 0) continue;
    const ssize_t got = read(reader_.get(), next, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::InternalError("the child that asks the kernel ended early");
    }
    next += got;
    size -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<int> BoundedChild::Next(absl::Time deadline,
                                       const Cancellation* cancellation) {
  unsigned char byte = 0;
  absl::Status read = Read(&byte, 1, deadline, cancellation);
  if (!read.ok()) return read;
  return byte;
}

}  // namespace daxsnap
