// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_session.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/stopwatch.h"
#include "daxsnap/internal/criu.pb.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

constexpr int kSocketInCriu = 3;
constexpr int kUrgeEveryMs = 100;
constexpr int kTickEveryMs = 250;

}  // namespace

absl::StatusOr<CriuSession> CriuSession::Start(launch::LaunchSpec spec) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoError(errno, "cannot make a socket for CRIU");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  spec.argv.insert(spec.argv.end(), {"swrk", absl::StrCat(kSocketInCriu)});
  spec.inherited_fds.push_back(
      {.source = theirs.get(), .target = kSocketInCriu});
  auto task = launch::Launch(spec);
  if (!task.ok()) return task.status();
  return CriuSession(std::move(ours), *std::move(task));
}

CriuSession::~CriuSession() {
  if (!task_.pidfd.valid()) return;
  socket_.reset();
  Reap();
}

std::string CriuSession::Reap() {
  const UniqueFd pidfd = std::move(task_.pidfd);
  siginfo_t info;
  std::memset(&info, 0, sizeof(info));
  while (waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED) != 0) {
    if (errno != EINTR) return absl::StrCat("cannot wait: ", errno);
  }
  if (info.si_code == CLD_EXITED) {
    return absl::StrCat("exit status ", info.si_status);
  }
  return absl::StrCat("signal ", info.si_status);
}

absl::Status CriuSession::Send(const pb::Request& request) {
  const std::string bytes = request.SerializeAsString();
  ssize_t sent = -1;
  do {
    sent = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent == static_cast<ssize_t>(bytes.size())) return absl::OkStatus();
  if (errno == EPIPE) return absl::UnavailableError("CRIU closed its socket");
  return ErrnoError(errno, "cannot send to CRIU");
}

absl::StatusOr<pb::Response> CriuSession::Receive() {
  ssize_t size = -1;
  do {
    size = recv(socket_.get(), nullptr, 0, MSG_PEEK | MSG_TRUNC);
  } while (size < 0 && errno == EINTR);
  if (size <= 0) return absl::UnavailableError("CRIU closed its socket");
  std::string bytes(static_cast<size_t>(size), '\0');
  size = recv(socket_.get(), bytes.data(), bytes.size(), 0);
  if (size < 0) return ErrnoError(errno, "cannot receive from CRIU");
  pb::Response response;
  if (!response.ParseFromArray(bytes.data(), static_cast<int>(size))) {
    return absl::InternalError("CRIU's answer does not parse");
  }
  return response;
}

void CriuSession::AwaitMessage(Cancellation** cancellation,
                               const std::function<void()>& on_cancel) {
  for (;;) {
    pollfd poll_for[] = {
        {.fd = socket_.get(), .events = POLLIN, .revents = 0},
        {.fd = *cancellation == nullptr || !heeds_cancellation_
                   ? -1
                   : (*cancellation)->fd(),
         .events = POLLIN,
         .revents = 0},
    };
    int wait_ms = MillisecondsUntil(deadline_);
    if (on_tick_) wait_ms = std::min(wait_ms, kTickEveryMs);
    if (*cancellation == nullptr) wait_ms = kUrgeEveryMs;
    const int ready = poll(poll_for, 2, wait_ms);
    if (ready < 0 && errno != EINTR) return;
    if (poll_for[1].revents != 0 || absl::Now() >= deadline_) {
      *cancellation = nullptr;
    }
    if (*cancellation != nullptr) {
      if (ready == 0 && on_tick_) on_tick_();
    } else if (ready == 0 || poll_for[1].revents != 0) {
      on_cancel();
    }
    if (poll_for[0].revents != 0) return;
  }
}

absl::StatusOr<pb::Response> CriuSession::Run(
    const pb::Request& request, const NotificationHandler& handler,
    Cancellation* cancellation, const std::function<void()>& on_cancel) {
  // Null from the moment on at which it has fired.
  Cancellation* watched = cancellation;
  absl::StatusOr<pb::Response> response = pb::Response();
  if (absl::Status sent = Send(request); !sent.ok()) response = sent;
  while (response.ok()) {
    AwaitMessage(&watched, on_cancel);
    response = Receive();
    if (!response.ok() || response->type() != pb::NOTIFY) break;
    pb::Request answer;
    answer.set_type(pb::NOTIFY);
    const bool go_on =
        watched != nullptr && handler(response->notify().script()).ok();
    answer.set_notify_success(go_on);
    if (absl::Status sent = Send(answer); !sent.ok()) response = sent;
  }
  // A CRIU that waits for us must see that nothing comes any more.
  if (!response.ok()) socket_.reset();
  const std::string end = Reap();
  if (absl::IsUnavailable(response.status())) {
    return absl::UnavailableError(absl::StrCat("CRIU ended early, ", end));
  }
  return response;
}

}  // namespace daxsnap
