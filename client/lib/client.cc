// SPDX-License-Identifier: Apache-2.0
#include "daxsnap/client.h"

#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/reasons.h"
#include "base/unique_fd.h"
#include "client/lib/status_mapping.h"
#include "daxsnap/error.h"
#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"

namespace daxsnap::client {
namespace {

constexpr int kListPageSize = 1000;

// Tells apart, before gRPC makes "failed to connect" of all of them, why
// nothing answers.
absl::Status ProbeSocket(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "socket path \"", path, "\" has ", path.size(), " bytes; 1 to ",
        sizeof(address.sun_path) - 1, " are possible"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "cannot make a socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) == 0) {
    return absl::OkStatus();
  }
  ErrorDetails details;
  absl::Status status;
  if (errno == EACCES || errno == EPERM) {
    status = absl::PermissionDeniedError(
        absl::StrCat("no permission to use ", path));
    details.reason = std::string(reason::kPermissionDenied);
    details.hint = "Run as root or as a user that may use the socket.";
  } else if (errno == ENOENT || errno == ECONNREFUSED) {
    status = absl::UnavailableError(
        absl::StrCat("snapd is not running: nothing listens on ", path));
    details.hint = "Start it: systemctl start snapd.";
  } else {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot connect to ", path));
  }
  SetErrorDetails(details, &status);
  return status;
}

// An older snapd, which may run on while its packages are upgraded, knows the
// options by the fields that they had before. It must not kill the tasks of who
// asked to leave them running.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

v1::CreateSnapshotRequest ForAnySnapd(v1::CreateSnapshotRequest request) {
  const v1::CheckpointOptions& options = request.options();
  if (options.leave_running()) request.set_leave_running(true);
  if (options.force()) request.set_force(true);
  if (options.sync_timeout_seconds() != 0) {
    request.set_sync_timeout_seconds(options.sync_timeout_seconds());
  }
  return request;
}

v1::RestoreSnapshotRequest ForAnySnapd(v1::RestoreSnapshotRequest request) {
  const v1::RestoreOptions& options = request.options();
  if (options.files() != v1::FILES_POLICY_UNSPECIFIED) {
    request.set_files(options.files());
  }
  if (options.verify() != v1::VERIFY_POLICY_UNSPECIFIED) {
    request.set_verify(options.verify());
  }
  return request;
}

#pragma GCC diagnostic pop

// Keeps gRPC up until the process ends. Its shutdown with the last channel can
// take ten seconds after a cancelled call (1.51: a poller that is not woken).
void KeepGrpcUp() {
  static const bool kept = (grpc_init(), true);
  (void)kept;
}

}  // namespace

class Cancellation::Impl {
 public:
  void Add(grpc::ClientContext* context) {
    absl::MutexLock lock(&mutex_);
    contexts_.insert(context);
    if (cancelled_) context->TryCancel();
  }
  void Remove(grpc::ClientContext* context) {
    absl::MutexLock lock(&mutex_);
    contexts_.erase(context);
  }
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
  }

 private:
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

Cancellation::Cancellation() : impl_(std::make_unique<Impl>()) {}
Cancellation::~Cancellation() = default;
void Cancellation::Cancel() { impl_->Cancel(); }

class Client::Impl {
 public:
  Impl(const std::shared_ptr<grpc::Channel>& channel,
       absl::Duration call_timeout)
      : snapshots(v1::SnapshotService::NewStub(channel)),
        pools(v1::PoolService::NewStub(channel)),
        daemons(v1::DaemonService::NewStub(channel)),
        call_timeout_(call_timeout) {}

  // A call with one answer, under the timeout of short calls.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Short(
      Stub* stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + call_timeout_));
    Response response;
    const grpc::Status status = (stub->*method)(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  // A call whose stream ends with a result. `on_other` gets what is neither
  // that nor progress.
  template <typename Result, typename Response, typename Start>
  static absl::StatusOr<Result> Long(
      const CallOptions& options, Start start,
      const std::function<void(const Response&)>& on_other = {}) {
    grpc::ClientContext context;
    Registration registration(options.cancellation, &context);
    const std::unique_ptr<grpc::ClientReaderInterface<Response>> reader =
        start(&context);
    std::optional<Result> result;
    Response response;
    while (reader->Read(&response)) {
      if (response.has_progress()) {
        // From here on the call ends with a result, or with an error that is
        // not ours: nobody need guess whether there is a snapshot.
        if (response.progress().phase() == v1::PROGRESS_PHASE_COMMITTING ||
            response.progress().phase() == v1::PROGRESS_PHASE_RESUMING) {
          registration.Release();
        }
        if (options.on_progress) options.on_progress(response.progress());
      }
      if (response.has_result()) {
        result = std::move(*response.mutable_result());
      } else if (!response.has_progress() && on_other) {
        on_other(response);
      }
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return FromGrpc(status);
    if (!result)
      return absl::InternalError("snapd ended the call without a result");
    return *std::move(result);
  }

  const std::unique_ptr<v1::SnapshotService::StubInterface> snapshots;
  const std::unique_ptr<v1::PoolService::StubInterface> pools;
  const std::unique_ptr<v1::DaemonService::StubInterface> daemons;

 private:
  class Registration {
   public:
    Registration(Cancellation* cancellation, grpc::ClientContext* context)
        : cancellation_(cancellation), context_(context) {
      if (cancellation_ != nullptr) cancellation_->impl_->Add(context_);
    }
    ~Registration() { Release(); }
    // The call cannot be cancelled any more.
    void Release() {
      if (cancellation_ != nullptr) cancellation_->impl_->Remove(context_);
      cancellation_ = nullptr;
    }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    Cancellation* cancellation_;
    grpc::ClientContext* context_;
  };

  const absl::Duration call_timeout_;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const ConnectOptions& options) {
  if (absl::Status status = ProbeSocket(options.socket); !status.ok())
    return status;
  KeepGrpcUp();
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateChannel(absl::StrCat("unix:", options.socket),
                          grpc::InsecureChannelCredentials());
  return std::unique_ptr<Client>(
      new Client(std::make_unique<Impl>(channel, options.call_timeout)));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<v1::CreateSnapshotResult> Client::CreateSnapshot(
    const v1::CreateSnapshotRequest& request, const CallOptions& options) {
  return Impl::Long<v1::CreateSnapshotResult, v1::CreateSnapshotResponse>(
      options, [&](grpc::ClientContext* context) {
        return impl_->snapshots->CreateSnapshot(context, ForAnySnapd(request));
      });
}

absl::StatusOr<v1::RestoreSnapshotResult> Client::RestoreSnapshot(
    const v1::RestoreSnapshotRequest& request, const CallOptions& options) {
  return Impl::Long<v1::RestoreSnapshotResult, v1::RestoreSnapshotResponse>(
      options, [&](grpc::ClientContext* context) {
        return impl_->snapshots->RestoreSnapshot(context, ForAnySnapd(request));
      });
}

absl::StatusOr<v1::VerifySnapshotResult> Client::VerifySnapshot(
    const v1::VerifySnapshotRequest& request, const CallOptions& options,
    const std::function<void(const v1::FileVerification&)>& on_file) {
  return Impl::Long<v1::VerifySnapshotResult, v1::VerifySnapshotResponse>(
      options,
      [&](grpc::ClientContext* context) {
        return impl_->snapshots->VerifySnapshot(context, request);
      },
      [&](const v1::VerifySnapshotResponse& response) {
        if (response.has_file() && on_file) on_file(response.file());
      });
}

absl::StatusOr<v1::Snapshot> Client::GetSnapshot(const std::string& name) {
  v1::GetSnapshotRequest request;
  request.set_name(name);
  absl::StatusOr<v1::GetSnapshotResponse> response =
      impl_->Short(impl_->snapshots.get(),
                   &v1::SnapshotService::StubInterface::GetSnapshot, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_snapshot());
}

absl::StatusOr<Client::SnapshotList> Client::ListSnapshots() {
  SnapshotList list;
  v1::ListSnapshotsRequest request;
  request.set_page_size(kListPageSize);
  do {
    absl::StatusOr<v1::ListSnapshotsResponse> response = impl_->Short(
        impl_->snapshots.get(),
        &v1::SnapshotService::StubInterface::ListSnapshots, request);
    if (!response.ok()) return response.status();
    for (v1::Snapshot& snapshot : *response->mutable_snapshots()) {
      list.snapshots.push_back(std::move(snapshot));
    }
    for (std::string& name : *response->mutable_damaged())
      list.damaged.push_back(std::move(name));
    for (v1::UnlistedSnapshot& one : *response->mutable_unlisted())
      list.unlisted.push_back(std::move(one));
    list.incomplete = list.incomplete || response->incomplete();
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return list;
}

absl::Status Client::DeleteSnapshot(const std::string& name) {
  v1::DeleteSnapshotRequest request;
  request.set_name(name);
  grpc::ClientContext context;
  v1::DeleteSnapshotResponse response;
  return FromGrpc(
      impl_->snapshots->DeleteSnapshot(&context, request, &response));
}

absl::StatusOr<v1::Pool> Client::GetPool() {
  absl::StatusOr<v1::GetPoolResponse> response =
      impl_->Short(impl_->pools.get(), &v1::PoolService::StubInterface::GetPool,
                   v1::GetPoolRequest());
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_pool());
}

absl::StatusOr<v1::GetDaemonResponse> Client::GetDaemon() {
  return impl_->Short(impl_->daemons.get(),
                      &v1::DaemonService::StubInterface::GetDaemon,
                      v1::GetDaemonRequest());
}

}  // namespace daxsnap::client
