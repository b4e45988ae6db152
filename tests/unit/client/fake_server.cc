// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/fake_server.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace daxsnap {

grpc::Status ErrorStatus(grpc::StatusCode code, const std::string& message,
                         const std::string& reason,
                         const std::map<std::string, std::string>& metadata) {
  google::rpc::ErrorInfo info;
  info.set_domain("daxsnap");
  info.set_reason(reason);
  info.mutable_metadata()->insert(metadata.begin(), metadata.end());
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  status.add_details()->PackFrom(info);
  return grpc::Status(code, message, status.SerializeAsString());
}

FakeServer::FakeServer() {
  std::string name =
      std::filesystem::temp_directory_path() / "fake_snapd.XXXXXX";
  dir_ = mkdtemp(name.data());
  socket_ = dir_ + "/snapd.sock";
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_,
                           grpc::InsecureServerCredentials());
  builder.RegisterService(static_cast<v1::SnapshotService::Service*>(this));
  builder.RegisterService(static_cast<v1::PoolService::Service*>(this));
  builder.RegisterService(static_cast<v1::DaemonService::Service*>(this));
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() {
  Stop();
  std::filesystem::remove_all(dir_);
}

void FakeServer::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_ = nullptr;
  std::filesystem::remove(socket_);
}

template <typename Response>
grpc::Status FakeServer::Stream(grpc::ServerContext* context,
                                const std::vector<Response>& stream,
                                grpc::ServerWriter<Response>* writer) {
  for (const Response& response : stream) writer->Write(response);
  while (hang && !context->IsCancelled()) {
    // A write to a call that the client has ended fails: no need to wait for
    // it.
    if (!writer->Write(Response())) break;
  }
  saw_cancel = context->IsCancelled();
  return stream_status;
}

grpc::Status FakeServer::CreateSnapshot(
    grpc::ServerContext* context, const v1::CreateSnapshotRequest* request,
    grpc::ServerWriter<v1::CreateSnapshotResponse>* writer) {
  create_request = *request;
  return Stream(context, create_stream, writer);
}

grpc::Status FakeServer::RestoreSnapshot(
    grpc::ServerContext* context, const v1::RestoreSnapshotRequest* request,
    grpc::ServerWriter<v1::RestoreSnapshotResponse>* writer) {
  restore_request = *request;
  return Stream(context, restore_stream, writer);
}

grpc::Status FakeServer::VerifySnapshot(
    grpc::ServerContext* context, const v1::VerifySnapshotRequest* request,
    grpc::ServerWriter<v1::VerifySnapshotResponse>* writer) {
  verify_requests.push_back(*request);
  const grpc::Status status =
      Stream(context, verify_streams[request->name()], writer);
  const auto own = verify_statuses.find(request->name());
  return own == verify_statuses.end() ? status : own->second;
}

grpc::Status FakeServer::GetSnapshot(grpc::ServerContext*,
                                     const v1::GetSnapshotRequest* request,
                                     v1::GetSnapshotResponse* response) {
  const auto found = snapshots.find(request->name());
  if (found == snapshots.end()) {
    return ErrorStatus(
        grpc::StatusCode::NOT_FOUND, "no snapshot is called " + request->name(),
        "SNAPSHOT_MISSING", {{"hint", "List them: snapctl ls."}});
  }
  *response->mutable_snapshot() = found->second;
  return grpc::Status::OK;
}

grpc::Status FakeServer::ListSnapshots(grpc::ServerContext*,
                                       const v1::ListSnapshotsRequest* request,
                                       v1::ListSnapshotsResponse* response) {
  ++list_calls;
  auto next = snapshots.upper_bound(request->page_token());
  for (int i = 0; i < page_size && next != snapshots.end(); ++i, ++next) {
    *response->add_snapshots() = next->second;
  }
  if (next != snapshots.end()) {
    response->set_next_page_token(response->snapshots().rbegin()->name());
  } else {
    response->add_damaged("torn");
    *response->mutable_unlisted() = {unlisted.begin(), unlisted.end()};
    response->set_incomplete(incomplete);
  }
  return grpc::Status::OK;
}

grpc::Status FakeServer::DeleteSnapshot(
    grpc::ServerContext*, const v1::DeleteSnapshotRequest* request,
    v1::DeleteSnapshotResponse*) {
  if (snapshots.erase(request->name()) == 0) {
    return ErrorStatus(
        grpc::StatusCode::NOT_FOUND, "no snapshot is called " + request->name(),
        "SNAPSHOT_MISSING", {{"hint", "List them: snapctl ls."}});
  }
  return grpc::Status::OK;
}

grpc::Status FakeServer::GetPool(grpc::ServerContext*,
                                 const v1::GetPoolRequest*,
                                 v1::GetPoolResponse* response) {
  v1::Pool& pool = *response->mutable_pool();
  pool.set_path("/run/daxsnap/pool");
  pool.set_kind(v1::POOL_KIND_KMEMFS);
  pool.set_device("dax0.0");
  pool.set_node(1);
  pool.set_page_size(4096);
  pool.set_total_pages(524288);
  pool.set_free_pages(262144);
  pool.set_snapshot_count(snapshots.size());
  return grpc::Status::OK;
}

grpc::Status FakeServer::GetDaemon(grpc::ServerContext*,
                                   const v1::GetDaemonRequest*,
                                   v1::GetDaemonResponse* response) {
  response->set_version("9.8.7");
  response->set_criu_version("4.1.1");
  response->set_pid(77);
  return grpc::Status::OK;
}

}  // namespace daxsnap
