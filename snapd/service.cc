// SPDX-License-Identifier: Apache-2.0
#include "snapd/service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"
#include "snapd/cancellation.h"
#include "snapd/errors.h"
#include "snapd/log.h"
#include "snapd/machine.h"
#include "snapd/stream_reactor.h"
#include "snapd/version.h"

namespace daxsnap {
namespace {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  LogInfo(status.ToString(absl::StatusToStringMode::kWithNoExtraData));
  // The codes of absl are those of gRPC.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()),
                      SerializedRpcStatus(status));
}

absl::Status NoThread() {
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kOverloaded,
                    .message = "snapd cannot start another thread",
                    .hint = std::string(kTryAgainHint)});
}

// Answers a unary call with the result of `work`, off gRPC's threads.
template <typename Response, typename Work>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                 Executor* executor, Response* response,
                                 Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool started = executor->Run([reactor, response, work] {
    absl::StatusOr<Response> result = work();
    const absl::Status status = result.status();
    if (status.ok()) *response = *std::move(result);
    reactor->Finish(ToGrpc(status));
  });
  if (!started) reactor->Finish(ToGrpc(NoThread()));
  return reactor;
}

// Answers a call with progress and a result, off gRPC's threads. `work` takes a
// ProgressSink and a Cancellation*.
template <typename Response, typename Work>
grpc::ServerWriteReactor<Response>* Stream(Executor* executor, Work work) {
  auto* reactor = new StreamReactor<Response>();
  const absl::Time start = absl::Now();
  const bool started = executor->Run([reactor, start, work] {
    auto result = work(
        [reactor, start](v1::ProgressPhase phase) {
          Response response;
          v1::Progress* progress = response.mutable_progress();
          progress->set_phase(phase);
          progress->set_elapsed_us(static_cast<uint64_t>(
              absl::ToInt64Microseconds(absl::Now() - start)));
          reactor->Send(std::move(response));
        },
        reactor->cancellation());
    const absl::Status status = result.status();
    if (status.ok()) {
      Response response;
      *response.mutable_result() = *std::move(result);
      reactor->Send(std::move(response));
    }
    reactor->End(ToGrpc(status));
  });
  if (!started) reactor->End(ToGrpc(NoThread()));
  return reactor;
}

class SnapshotServiceImpl : public v1::SnapshotService::CallbackService {
 public:
  SnapshotServiceImpl(const Caller& caller, Operations* operations,
                      Executor* executor)
      : caller_(caller), operations_(operations), executor_(executor) {}

  grpc::ServerWriteReactor<v1::CreateSnapshotResponse>* CreateSnapshot(
      grpc::CallbackServerContext* /*context*/,
      const v1::CreateSnapshotRequest* request) override {
    return Stream<v1::CreateSnapshotResponse>(
        executor_, [this, request = *request](const ProgressSink& progress,
                                              Cancellation* cancellation) {
          return operations_->Create(caller_, request, progress, cancellation);
        });
  }

  grpc::ServerWriteReactor<v1::RestoreSnapshotResponse>* RestoreSnapshot(
      grpc::CallbackServerContext* /*context*/,
      const v1::RestoreSnapshotRequest* request) override {
    return Stream<v1::RestoreSnapshotResponse>(
        executor_, [this, request = *request](const ProgressSink& progress,
                                              Cancellation* cancellation) {
          return operations_->Restore(caller_, request, progress, cancellation);
        });
  }

  grpc::ServerUnaryReactor* GetSnapshot(
      grpc::CallbackServerContext* context,
      const v1::GetSnapshotRequest* request,
      v1::GetSnapshotResponse* response) override {
    return Answer(context, executor_, response, [this, request] {
      return operations_->Get(caller_, *request);
    });
  }

  grpc::ServerUnaryReactor* ListSnapshots(
      grpc::CallbackServerContext* context,
      const v1::ListSnapshotsRequest* request,
      v1::ListSnapshotsResponse* response) override {
    return Answer(context, executor_, response, [this, request] {
      return operations_->List(caller_, *request);
    });
  }

  grpc::ServerUnaryReactor* DeleteSnapshot(
      grpc::CallbackServerContext* context,
      const v1::DeleteSnapshotRequest* request,
      v1::DeleteSnapshotResponse* response) override {
    return Answer(context, executor_, response, [this, request] {
      return operations_->Delete(caller_, *request);
    });
  }

 private:
  const Caller caller_;
  Operations* const operations_;
  Executor* const executor_;
};

class PoolServiceImpl : public v1::PoolService::CallbackService {
 public:
  PoolServiceImpl(Operations* operations, Executor* executor)
      : operations_(operations), executor_(executor) {}

  grpc::ServerUnaryReactor* GetPool(grpc::CallbackServerContext* context,
                                    const v1::GetPoolRequest* request,
                                    v1::GetPoolResponse* response) override {
    return Answer(context, executor_, response,
                  [this, request] { return operations_->GetPool(*request); });
  }

 private:
  Operations* const operations_;
  Executor* const executor_;
};

class DaemonServiceImpl : public v1::DaemonService::CallbackService {
 public:
  DaemonServiceImpl(Operations* operations, Executor* executor)
      : operations_(operations), executor_(executor) {}

  grpc::ServerUnaryReactor* GetDaemon(
      grpc::CallbackServerContext* context,
      const v1::GetDaemonRequest* /*request*/,
      v1::GetDaemonResponse* response) override {
    return Answer(context, executor_, response, [this] { return Describe(); });
  }

 private:
  absl::StatusOr<v1::GetDaemonResponse> Describe() {
    v1::GetDaemonResponse response;
    response.set_version(kVersion);
    response.set_criu_version(operations_->CriuVersion());
    response.set_kernel_release(KernelRelease());
    response.set_pid(getpid());
    response.set_uptime_us(operations_->UptimeMicroseconds());
    return response;
  }

  Operations* const operations_;
  Executor* const executor_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeServices(const Caller& caller,
                                                         Operations* operations,
                                                         Executor* executor) {
  std::vector<std::unique_ptr<grpc::Service>> services;
  services.push_back(
      std::make_unique<SnapshotServiceImpl>(caller, operations, executor));
  services.push_back(std::make_unique<PoolServiceImpl>(operations, executor));
  services.push_back(std::make_unique<DaemonServiceImpl>(operations, executor));
  return services;
}

}  // namespace daxsnap
