// SPDX-License-Identifier: Apache-2.0
#include "snapd/service/service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/version.h"
#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"
#include "host/task/machine.h"
#include "snapd/service/stream_reactor.h"

namespace daxsnap {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  LogInfo(status.ToString(absl::StatusToStringMode::kWithNoExtraData));
  // The codes of absl are those of gRPC.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()),
                      SerializedRpcStatus(status));
}

namespace {

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

// What a call that streams uses to say where it stands.
template <typename Response>
class ProgressSender {
 public:
  explicit ProgressSender(StreamReactor<Response>* reactor)
      : reactor_(reactor) {}

  void operator()(v1::ProgressPhase phase, uint64_t pages_done = 0,
                  uint64_t pages_total = 0) const {
    Response response;
    v1::Progress* progress = response.mutable_progress();
    progress->set_phase(phase);
    progress->set_elapsed_us(
        static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - start_)));
    progress->set_pages_done(pages_done);
    progress->set_pages_total(pages_total);
    reactor_->Send(std::move(response));
  }

 private:
  StreamReactor<Response>* const reactor_;
  const absl::Time start_ = absl::Now();
};

// Answers a call with a stream, off gRPC's threads. `work` takes the
// StreamReactor, and returns the status that ends the stream.
template <typename Response, typename Work>
grpc::ServerWriteReactor<Response>* Stream(Executor* executor, Work work) {
  auto* reactor = new StreamReactor<Response>();
  const bool started =
      executor->Run([reactor, work] { reactor->End(ToGrpc(work(reactor))); });
  if (!started) reactor->End(ToGrpc(NoThread()));
  return reactor;
}

// Sends the result, if there is one.
template <typename Response, typename Result>
absl::Status SendResult(absl::StatusOr<Result> result,
                        StreamReactor<Response>* reactor) {
  absl::Status status = result.status();
  if (!status.ok()) return status;
  Response response;
  *response.mutable_result() = *std::move(result);
  reactor->Send(std::move(response));
  return status;
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
        executor_, [this, request = *request](auto* reactor) {
          const ProgressSender progress(reactor);
          return SendResult(
              operations_->Create(caller_, request, progress,
                                  reactor->cancellation(), progress),
              reactor);
        });
  }

  grpc::ServerWriteReactor<v1::RestoreSnapshotResponse>* RestoreSnapshot(
      grpc::CallbackServerContext* /*context*/,
      const v1::RestoreSnapshotRequest* request) override {
    return Stream<v1::RestoreSnapshotResponse>(
        executor_, [this, request = *request](auto* reactor) {
          const ProgressSender progress(reactor);
          return SendResult(operations_->Restore(caller_, request, progress,
                                                 reactor->cancellation(),
                                                 {.progress = progress}),
                            reactor);
        });
  }

  grpc::ServerWriteReactor<v1::VerifySnapshotResponse>* VerifySnapshot(
      grpc::CallbackServerContext* /*context*/,
      const v1::VerifySnapshotRequest* request) override {
    return Stream<v1::VerifySnapshotResponse>(
        executor_, [this, request = *request](auto* reactor) {
          VerifyEvents events;
          events.progress = ProgressSender(reactor);
          events.file = [reactor](v1::FileVerification file) {
            v1::VerifySnapshotResponse response;
            *response.mutable_file() = std::move(file);
            reactor->Send(std::move(response));
          };
          events.result = [reactor](v1::VerifySnapshotResult result) {
            v1::VerifySnapshotResponse response;
            *response.mutable_result() = std::move(result);
            reactor->Send(std::move(response));
          };
          return operations_->Verify(caller_, request, events,
                                     *reactor->cancellation());
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
    response.set_criu_version(operations_->GetCriuVersion());
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
