// SPDX-License-Identifier: Apache-2.0
//
// The C++ client of snapd.
//
//   absl::StatusOr<std::unique_ptr<daxsnap::client::Client>> client =
//       daxsnap::client::Client::Connect({});
//   daxsnap::v1::CreateSnapshotRequest request;
//   request.set_pid(4242);
//   absl::StatusOr<daxsnap::v1::CreateSnapshotResult> result =
//       (*client)->CreateSnapshot(request, {});
//
// Errors are absl::Status with the codes of the tables in
// daxsnap/v1/snapshot.proto; GetErrorDetails() (daxsnap/error.h) gives reason,
// hint and facts.
#ifndef DAXSNAP_CLIENT_H_
#define DAXSNAP_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daxsnap/v1/pool.pb.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap::client {

inline constexpr char kDefaultSocket[] = "/run/daxsnap/snapd.sock";

struct ConnectOptions {
  // UNIX socket of snapd.
  std::string socket = kDefaultSocket;
  // For the calls that answer at once (Get*, List*). The long ones have none.
  absl::Duration call_timeout = absl::Seconds(30);
};

// Ends a call from another thread or from a signal handler's thread. One
// cancellation may serve several calls. Thread-safe; must outlive the calls.
class Cancellation {
 public:
  Cancellation();
  ~Cancellation();
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Ends calls under way and those still to come: they return CANCELLED. A
  // CreateSnapshot that has begun to commit goes on to its result.
  void Cancel();

 private:
  friend class Client;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct CallOptions {
  // Called on the calling thread for every progress message.
  std::function<void(const v1::Progress&)> on_progress;
  // If set, can end the call. Not owned.
  Cancellation* cancellation = nullptr;
};

// A connection to one snapd. Thread-safe: calls may run in parallel.
class Client {
 public:
  // Connects. UNAVAILABLE if nothing answers on the socket; PERMISSION_DENIED
  // if the socket may not be used.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const ConnectOptions& options);

  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Takes a snapshot. Returns when it is durable.
  absl::StatusOr<v1::CreateSnapshotResult> CreateSnapshot(
      const v1::CreateSnapshotRequest& request, const CallOptions& options);

  // Restores a snapshot. Returns when its tasks run.
  absl::StatusOr<v1::RestoreSnapshotResult> RestoreSnapshot(
      const v1::RestoreSnapshotRequest& request, const CallOptions& options);

  // Compares what is stored with its checksums. `on_file` is called on the
  // calling thread for every file, also if the call then fails with DATA_LOSS
  // (something is damaged) or FAILED_PRECONDITION (CHECKSUMS_MISSING).
  absl::StatusOr<v1::VerifySnapshotResult> VerifySnapshot(
      const v1::VerifySnapshotRequest& request, const CallOptions& options,
      const std::function<void(const v1::FileVerification&)>& on_file);

  absl::StatusOr<v1::Snapshot> GetSnapshot(const std::string& name);

  // All snapshots, all pages put together; `snapshots` is ordered by name. The
  // rest as in v1::ListSnapshotsResponse.
  struct SnapshotList {
    std::vector<v1::Snapshot> snapshots;
    std::vector<std::string> damaged;
    std::vector<v1::UnlistedSnapshot> unlisted;
    bool incomplete = false;
  };
  absl::StatusOr<SnapshotList> ListSnapshots();

  // Returns when the deletion is durable.
  absl::Status DeleteSnapshot(const std::string& name);

  absl::StatusOr<v1::Pool> GetPool();

  absl::StatusOr<v1::GetDaemonResponse> GetDaemon();

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace daxsnap::client

#endif  // DAXSNAP_CLIENT_H_
