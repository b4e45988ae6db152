// SPDX-License-Identifier: Apache-2.0
//
// A snapd that answers what a test tells it to, on a socket of its own.
#ifndef DAXSNAP_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
#define DAXSNAP_TESTS_UNIT_CLIENT_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"

namespace daxsnap {

// A gRPC status with an ErrorInfo, as snapd sends it.
grpc::Status ErrorStatus(grpc::StatusCode code, const std::string& message,
                         const std::string& reason,
                         const std::map<std::string, std::string>& metadata);

class FakeServer : public v1::SnapshotService::Service,
                   public v1::PoolService::Service,
                   public v1::DaemonService::Service {
 public:
  FakeServer();
  ~FakeServer() override;

  const std::string& socket() const { return socket_; }

  // Stops to serve; the socket file is gone.
  void Stop();

  // What to answer. Set before a call. Of a snapshot that is to be verified: by
  // its name.
  std::vector<v1::CreateSnapshotResponse> create_stream;
  std::vector<v1::RestoreSnapshotResponse> restore_stream;
  std::map<std::string, std::vector<v1::VerifySnapshotResponse>> verify_streams;
  std::map<std::string, grpc::Status> verify_statuses;
  grpc::Status stream_status;
  // If true, streams do not end by themselves, only when they are cancelled.
  bool hang = false;
  std::map<std::string, v1::Snapshot> snapshots;
  // Snapshots in one page of a list, whatever was asked for.
  std::vector<v1::UnlistedSnapshot> unlisted;
  bool incomplete = false;
  int page_size = 2;

  // What was asked. Read after a call.
  v1::CreateSnapshotRequest create_request;
  v1::RestoreSnapshotRequest restore_request;
  std::vector<v1::VerifySnapshotRequest> verify_requests;
  std::atomic<bool> saw_cancel = false;
  std::atomic<int> list_calls = 0;

 private:
  grpc::Status CreateSnapshot(
      grpc::ServerContext* context, const v1::CreateSnapshotRequest* request,
      grpc::ServerWriter<v1::CreateSnapshotResponse>* writer) override;
  grpc::Status RestoreSnapshot(
      grpc::ServerContext* context, const v1::RestoreSnapshotRequest* request,
      grpc::ServerWriter<v1::RestoreSnapshotResponse>* writer) override;
  grpc::Status VerifySnapshot(
      grpc::ServerContext* context, const v1::VerifySnapshotRequest* request,
      grpc::ServerWriter<v1::VerifySnapshotResponse>* writer) override;
  grpc::Status GetSnapshot(grpc::ServerContext* context,
                           const v1::GetSnapshotRequest* request,
                           v1::GetSnapshotResponse* response) override;
  grpc::Status ListSnapshots(grpc::ServerContext* context,
                             const v1::ListSnapshotsRequest* request,
                             v1::ListSnapshotsResponse* response) override;
  grpc::Status DeleteSnapshot(grpc::ServerContext* context,
                              const v1::DeleteSnapshotRequest* request,
                              v1::DeleteSnapshotResponse* response) override;
  grpc::Status GetPool(grpc::ServerContext* context,
                       const v1::GetPoolRequest* request,
                       v1::GetPoolResponse* response) override;
  grpc::Status GetDaemon(grpc::ServerContext* context,
                         const v1::GetDaemonRequest* request,
                         v1::GetDaemonResponse* response) override;

  template <typename Response>
  grpc::Status Stream(grpc::ServerContext* context,
                      const std::vector<Response>& stream,
                      grpc::ServerWriter<Response>* writer);

  std::string dir_;
  std::string socket_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
