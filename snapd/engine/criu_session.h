// SPDX-License-Identifier: Apache-2.0
//
// One CRIU process that serves one request over a socket (`criu swrk`).
#ifndef DAXSNAP_SNAPD_ENGINE_CRIU_SESSION_H_
#define DAXSNAP_SNAPD_ENGINE_CRIU_SESSION_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "host/launch/launch.h"

namespace daxsnap {

namespace internal::criu {
class Request;
class Response;
}  // namespace internal::criu

// What CRIU reaches at certain points, for example "post-dump"; the answer lets
// it go on or makes it roll back.
using NotificationHandler =
    std::function<absl::Status(const std::string& script)>;

// Not thread-safe.
class CriuSession {
 public:
  // Starts CRIU as `spec` says, with "swrk 3" added to the arguments and the
  // socket as descriptor 3.
  static absl::StatusOr<CriuSession> Start(launch::LaunchSpec spec);

  CriuSession(CriuSession&&) noexcept = default;
  CriuSession& operator=(CriuSession&&) = delete;
  // CRIU sees the end of its socket, rolls back at the next notification and
  // ends; it is waited for.
  ~CriuSession();

  const launch::LaunchedTask& task() const { return task_; }

  // Sends the request and serves notifications until CRIU has answered and
  // ended. `on_cancel` is called if `cancellation` fires meanwhile, and every
  // tenth of a second while CRIU is silent from then on; all further
  // notifications are answered with failure. UNAVAILABLE: CRIU
  // died without an answer; the message says how.
  absl::StatusOr<internal::criu::Response> Run(
      const internal::criu::Request& request,
      const NotificationHandler& handler, Cancellation* cancellation,
      const std::function<void()>& on_cancel);

  // From then on a run counts as cancelled.
  void SetDeadline(absl::Time deadline) { deadline_ = deadline; }

  // Called some times a second while CRIU is silent and nobody has cancelled.
  void SetTick(std::function<void()> on_tick) { on_tick_ = std::move(on_tick); }

  // For a handler: what is being answered cannot be undone, so a cancellation
  // that comes later is not heeded, and nobody is told that all is under way.
  void Agree() {
    heeds_cancellation_ = false;
    on_tick_ = nullptr;
  }

 private:
  CriuSession(UniqueFd socket, launch::LaunchedTask task)
      : socket_(std::move(socket)), task_(std::move(task)) {}

  absl::Status Send(const internal::criu::Request& request);
  absl::StatusOr<internal::criu::Response> Receive();
  // Waits for a message, or for the cancellation unless it is null.
  void AwaitMessage(Cancellation** cancellation,
                    const std::function<void()>& on_cancel);
  // Waits for the process; how it ended, for people.
  std::string Reap();

  UniqueFd socket_;
  launch::LaunchedTask task_;
  std::function<void()> on_tick_;
  absl::Time deadline_ = absl::InfiniteFuture();
  bool heeds_cancellation_ = true;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CRIU_SESSION_H_
