// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/progress.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/utf8.h"
#include "client/snapctl/errors.h"
#include "client/snapctl/output.h"

namespace daxsnap::snapctl {
namespace {

constexpr auto kQuietAtFirst = std::chrono::seconds(1);
constexpr auto kRedraw = std::chrono::milliseconds(200);
constexpr char kClearLine[] = "\r\033[K";

const char* PhaseText(v1::ProgressPhase phase) {
  switch (phase) {
    case v1::PROGRESS_PHASE_CHECKING:
      return "checking";
    case v1::PROGRESS_PHASE_SYNCING:
      return "syncing the tasks' files";
    case v1::PROGRESS_PHASE_DUMPING:
      return "dumping";
    case v1::PROGRESS_PHASE_COMMITTING:
      return "making it durable";
    case v1::PROGRESS_PHASE_KILLING:
      return "ending the tasks";
    case v1::PROGRESS_PHASE_RESTORING:
      return "restoring";
    case v1::PROGRESS_PHASE_SUMMING:
      return "making checksums";
    case v1::PROGRESS_PHASE_VERIFYING:
      return "comparing with checksums";
    case v1::PROGRESS_PHASE_RESUMING:
      return "letting the tasks run";
    default:
      return "working";
  }
}

}  // namespace

std::string DescribeProgress(const v1::Progress& progress) {
  std::string text = PhaseText(progress.phase());
  if (progress.pages_total() > 0) {
    absl::StrAppend(&text, ", ", progress.pages_done(), " of ",
                    progress.pages_total(), " pages");
  }
  return text;
}

ProgressLine::ProgressLine(const Context& context, std::string what)
    : err_(context.show_progress ? context.err : nullptr),
      start_(absl::Now()),
      what_(std::move(what)) {
  if (err_ != nullptr) thread_ = std::thread([this] { Draw(); });
}

ProgressLine::~ProgressLine() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ProgressLine::Update(std::string what) {
  std::lock_guard lock(mutex_);
  what_ = std::move(what);
}

void ProgressLine::Draw() {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, kQuietAtFirst, [this] { return done_; })) return;
  do {
    *err_ << kClearLine << ToPrintableUtf8(what_) << ", "
          << FormatMicroseconds(absl::ToInt64Microseconds(absl::Now() - start_))
          << std::flush;
  } while (!changed_.wait_for(lock, kRedraw, [this] { return done_; }));
  *err_ << kClearLine << std::flush;
}

SignalCancellation::SignalCancellation() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Watch(); });
}

SignalCancellation::~SignalCancellation() {
  const std::uint64_t one = 1;
  (void)!write(stop_fd_, &one, sizeof(one));
  thread_.join();
  close(signal_fd_);
  close(stop_fd_);
}

void SignalCancellation::Watch() {
  bool cancelled = false;
  for (;;) {
    pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    if (cancelled) _exit(kExitCancelled);
    cancelled = true;
    cancellation_.Cancel();
  }
}

}  // namespace daxsnap::snapctl
