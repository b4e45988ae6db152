// SPDX-License-Identifier: Apache-2.0
//
// The whole server over a real socket.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "snapd/ops/operations.h"
#include "snapd/service/socket_server.h"
#include "tests/unit/snapd/operations_test_base.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  google::rpc::ErrorInfo info;
  if (!rpc.ParseFromString(status.error_details()) || rpc.details_size() != 1 ||
      !rpc.details(0).UnpackTo(&info) || info.metadata().count("hint") == 0) {
    return "";
  }
  return info.reason();
}

class ServiceTest : public OperationsTestBase {
 protected:
  ServiceTest() {
    auto server = SocketServer::Start(
        socket_dir_.path() + "/sock", std::nullopt, &operations_,
        [this](int) -> absl::StatusOr<Caller> { return caller_.load(); });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect() {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("unix:" + socket_dir_.path() + "/sock",
                                     grpc::InsecureChannelCredentials(), args);
  }

  std::unique_ptr<v1::SnapshotService::Stub> Stub() {
    return v1::SnapshotService::NewStub(Connect());
  }

  // Calls a method of unknown type with one message.
  std::string CallGeneric(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(Connect());
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(this);
    const auto next = [&] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    EXPECT_TRUE(next());
    const grpc::Slice slice(bytes);
    call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, this);
    EXPECT_TRUE(next());
    grpc::ByteBuffer response;
    call->Read(&response, this);
    EXPECT_TRUE(next());
    grpc::Slice whole;
    EXPECT_TRUE(response.DumpToSingleSlice(&whole).ok());
    grpc::Status status;
    call->Finish(&status, this);
    EXPECT_TRUE(next());
    return std::string(reinterpret_cast<const char*>(whole.begin()),
                       whole.size());
  }

  TempDirectory socket_dir_;
  std::atomic<Caller> caller_{Caller{.uid = 0, .gid = 0}};
  std::unique_ptr<SocketServer> server_;
};

// A full pool would be another matter, and have other remedies.
TEST_F(ServiceTest, LackOfThreadsIsNoLackOfSpace) {
  // As many as snapd runs at once; each waits in the file layer.
  constexpr int kCalls = 256;
  std::promise<void> go_on;
  std::shared_future<void> gone_on = go_on.get_future().share();
  std::atomic<int> waiting = 0;
  std::promise<void> all_wait;
  const ScopedFileFault hold(
      [&](absl::string_view call, const std::string& name) {
        if (call != "stat" || name != "snapshots" || waiting >= kCalls)
          return 0;
        if (++waiting == kCalls) all_wait.set_value();
        gone_on.wait();
        return 0;
      });
  struct Call {
    grpc::ClientContext context;
    v1::ListSnapshotsRequest request;
    v1::ListSnapshotsResponse response;
    std::promise<grpc::Status> status;
  };
  auto stub = Stub();
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < kCalls; ++i) {
    Call* call = calls.emplace_back(std::make_unique<Call>()).get();
    stub->async()->ListSnapshots(
        &call->context, &call->request, &call->response,
        [call](const grpc::Status& status) { call->status.set_value(status); });
  }
  all_wait.get_future().wait();
  grpc::ClientContext context;
  v1::ListSnapshotsResponse response;
  const grpc::Status status = stub->ListSnapshots(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "OVERLOADED");
  go_on.set_value();
  for (const auto& call : calls) {
    EXPECT_TRUE(call->status.get_future().get().ok());
  }
}

TEST_F(ServiceTest, CreateStreamsProgressThenTheResult) {
  auto stub = Stub();
  grpc::ClientContext context;
  auto stream = stub->CreateSnapshot(&context, Request("a"));
  v1::CreateSnapshotResponse response;
  std::vector<int> phases;
  int results = 0;
  while (stream->Read(&response)) {
    EXPECT_EQ(results, 0) << "the result is not the last message";
    const int phase = response.progress().phase();
    // Some are told of several times, with pages.
    if (response.has_progress() && (phases.empty() || phases.back() != phase)) {
      phases.push_back(phase);
    }
    if (response.has_result()) ++results;
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(results, 1);
  EXPECT_THAT(
      phases,
      ElementsAre(v1::PROGRESS_PHASE_CHECKING, v1::PROGRESS_PHASE_SYNCING,
                  v1::PROGRESS_PHASE_DUMPING, v1::PROGRESS_PHASE_SYNCING,
                  v1::PROGRESS_PHASE_COMMITTING, v1::PROGRESS_PHASE_KILLING));
  EXPECT_EQ(response.result().snapshot().name(), "a");
}

TEST_F(ServiceTest, ErrorsCarryErrorInfo) {
  auto stub = Stub();
  grpc::ClientContext context;
  v1::GetSnapshotRequest request;
  request.set_name("nothing");
  v1::GetSnapshotResponse response;
  const grpc::Status status = stub->GetSnapshot(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(status), "SNAPSHOT_MISSING");
}

TEST_F(ServiceTest, StreamErrorsCarryErrorInfo) {
  auto stub = Stub();
  grpc::ClientContext context;
  v1::RestoreSnapshotRequest request;
  request.set_name("nothing");
  auto stream = stub->RestoreSnapshot(&context, request);
  v1::RestoreSnapshotResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(ReasonOf(stream->Finish()), "SNAPSHOT_MISSING");
}

TEST_F(ServiceTest, VerifyStreamsFilesAndResultThenTheVerdict) {
  AddSnapshot(&catalog(), "a", 0);
  pool_->on_check_range = [](const std::string&, uint64_t offset, uint64_t) {
    return pool::RangeCheck{.done = 0,
                            .pages_checked = 0,
                            .pages_without_sum = 0,
                            .first_bad = offset};
  };
  auto stub = Stub();
  grpc::ClientContext context;
  v1::VerifySnapshotRequest request;
  request.set_name("a");
  auto stream = stub->VerifySnapshot(&context, request);
  v1::VerifySnapshotResponse response;
  std::vector<std::string> events;
  while (stream->Read(&response)) {
    if (response.has_file()) events.push_back(response.file().path());
    if (response.has_result()) events.emplace_back("result");
  }
  EXPECT_THAT(events, ElementsAre("manifest.pb", "result"));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(ReasonOf(status), "SNAPSHOT_DAMAGED");
}

// It is at work on the one file that there is; the client goes.
TEST_F(ServiceTest, CancelledVerifyEndsAndOthersGoOnMeanwhile) {
  AddSnapshot(&catalog(), "a", 0);
  std::promise<void> at_work;
  std::promise<void> go_on;
  std::atomic<int> steps = 0;
  pool_->on_check_range = [&](const std::string&, uint64_t, uint64_t) {
    if (++steps == 1) {
      at_work.set_value();
      go_on.get_future().wait();
    }
    // Never done by itself.
    return pool::RangeCheck{};
  };
  auto stub = Stub();
  grpc::ClientContext context;
  v1::VerifySnapshotRequest request;
  request.set_name("a");
  auto stream = stub->VerifySnapshot(&context, request);
  at_work.get_future().wait();
  grpc::ClientContext list_context;
  v1::ListSnapshotsResponse list;
  EXPECT_TRUE(stub->ListSnapshots(&list_context, {}, &list).ok());
  grpc::ClientContext delete_context;
  v1::DeleteSnapshotRequest remove;
  remove.set_name("a");
  v1::DeleteSnapshotResponse removed;
  EXPECT_TRUE(stub->DeleteSnapshot(&delete_context, remove, &removed).ok());
  context.TryCancel();
  go_on.set_value();
  v1::VerifySnapshotResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Waits for the end of the call.
  server_->Shutdown(absl::InfiniteDuration());
}

TEST_F(ServiceTest, NamesWithNulAreRefused) {
  auto stub = Stub();
  grpc::ClientContext context;
  v1::DeleteSnapshotRequest request;
  request.set_name(std::string("a\0b", 3));
  v1::DeleteSnapshotResponse response;
  EXPECT_EQ(ReasonOf(stub->DeleteSnapshot(&context, request, &response)),
            "NAME_INVALID");
}

// The client goes while the tasks stand still: they run on, nothing is left.
TEST_F(ServiceTest, CancelledCreateLeavesNothing) {
  std::promise<void> at_images;
  std::promise<void> go_on;
  engine_.on_point = [&](const std::string& point) {
    if (point != "images") return;
    at_images.set_value();
    go_on.get_future().wait();
  };
  auto stub = Stub();
  grpc::ClientContext context;
  auto stream = stub->CreateSnapshot(&context, Request("a"));
  at_images.get_future().wait();
  context.TryCancel();
  v1::CreateSnapshotResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Whether or not the server has heard of it by now, Shutdown cancels the call
  // too, and waits for its end.
  auto down = std::async(std::launch::async,
                         [this] { server_->Shutdown(absl::ZeroDuration()); });
  engine_.AwaitCancelled();
  go_on.set_value();
  down.get();
  EXPECT_EQ(task_.State(), 'R');
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ServiceTest, EachCallerHasItsOwnRights) {
  AddSnapshot(&catalog(), "roots", 0);
  AddSnapshot(&catalog(), "users", 1000);
  const auto list = [](v1::SnapshotService::Stub& stub) {
    grpc::ClientContext context;
    v1::ListSnapshotsResponse response;
    EXPECT_TRUE(stub.ListSnapshots(&context, {}, &response).ok());
    std::vector<std::string> names;
    for (const auto& snapshot : response.snapshots()) {
      names.push_back(snapshot.name());
    }
    return names;
  };
  auto root = Stub();
  EXPECT_THAT(list(*root), ElementsAre("roots", "users"));
  caller_ = Caller{.uid = 1000, .gid = 1000};
  auto user = Stub();
  EXPECT_THAT(list(*user), ElementsAre("users"));
  caller_ = Caller{.uid = 1001, .gid = 1000};
  auto other = Stub();
  EXPECT_THAT(list(*other), IsEmpty());
  // Connections keep who made them.
  EXPECT_THAT(list(*root), ElementsAre("roots", "users"));
  EXPECT_THAT(list(*user), ElementsAre("users"));
}

TEST_F(ServiceTest, DaemonAndPoolAnswer) {
  auto daemon = v1::DaemonService::NewStub(Connect());
  grpc::ClientContext context;
  v1::GetDaemonResponse response;
  ASSERT_TRUE(daemon->GetDaemon(&context, {}, &response).ok());
  EXPECT_EQ(response.pid(), getpid());
  EXPECT_EQ(response.criu_version(), "9.9");
  auto pool = v1::PoolService::NewStub(Connect());
  grpc::ClientContext pool_context;
  v1::GetPoolResponse pool_response;
  ASSERT_TRUE(pool->GetPool(&pool_context, {}, &pool_response).ok());
  EXPECT_EQ(pool_response.pool().path(), temp_.path());
}

TEST_F(ServiceTest, HealthServiceSaysServing) {
  // HealthCheckResponse{status: SERVING}.
  EXPECT_EQ(CallGeneric("/grpc.health.v1.Health/Check", ""), "\x08\x01");
}

TEST_F(ServiceTest, ReflectionListsTheServices) {
  // ServerReflectionRequest{list_services: ""}.
  const std::string answer = CallGeneric(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      std::string("\x3a\x00", 2));
  EXPECT_THAT(answer, HasSubstr("daxsnap.v1.SnapshotService"));
  EXPECT_THAT(answer, HasSubstr("daxsnap.v1.PoolService"));
}

TEST_F(ServiceTest, SocketIsTheOwnersAndGoneAfterShutdown) {
  const std::string path = socket_dir_.path() + "/sock";
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_EQ(info.st_uid, geteuid());
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_NE(stat(path.c_str(), &info), 0);
}

TEST_F(ServiceTest, SocketIsOpenToAGroup) {
  ASSERT_EQ(geteuid(), 0u) << "only root can give files away";
  const std::string path = socket_dir_.path() + "/group.sock";
  auto server = SocketServer::Start(path, gid_t{65533}, &operations_);
  ASSERT_TRUE(server.ok()) << server.status();
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0660u);
  EXPECT_EQ(info.st_uid, 0u);
  EXPECT_EQ(info.st_gid, 65533u);
}

TEST(SocketDirectory, IsOpenToOthersWhateverTheUmask) {
  const TempDirectory top;
  const mode_t before = umask(077);
  const absl::Status made =
      MakeSocketDirectory(top.path() + "/a/b/sock", gid_t{65533});
  umask(before);
  ASSERT_TRUE(made.ok()) << made;
  for (const char* directory : {"/a", "/a/b"}) {
    struct stat info;
    ASSERT_EQ(stat((top.path() + directory).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0755u) << directory;
  }
}

TEST(SocketDirectory, SaysIfTheGroupCannotReachIt) {
  const TempDirectory top;
  const auto warning = [&](gid_t group) {
    testing::internal::CaptureStderr();
    const absl::Status made = MakeSocketDirectory(top.path() + "/sock", group);
    EXPECT_TRUE(made.ok()) << made;
    return testing::internal::GetCapturedStderr();
  };
  ASSERT_EQ(chmod(top.path().c_str(), 0700), 0);
  EXPECT_THAT(warning(65533), HasSubstr(top.path() + " does not let them"));
  ASSERT_EQ(chown(top.path().c_str(), 0, 65533), 0);
  ASSERT_EQ(chmod(top.path().c_str(), 0710), 0);
  EXPECT_THAT(warning(65533), Not(HasSubstr(top.path() + " does not")));
  EXPECT_THAT(warning(65532), HasSubstr(top.path() + " does not let them"));
}

// Of memory, for example.
TEST_F(ServiceTest, WaitThatFailsDoesNotMakeItDeaf) {
  std::atomic<int> polls = 0;
  const ScopedFileFault fail([&](absl::string_view call, const std::string&) {
    return call == "poll" && ++polls <= 2 ? ENOMEM : 0;
  });
  // The first one wakes it from a wait that has begun before.
  for (int i = 0; i < 3; ++i) {
    auto stub = Stub();
    grpc::ClientContext context;
    v1::ListSnapshotsResponse response;
    const grpc::Status status = stub->ListSnapshots(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_GT(polls, 2);
}

// Not a connection that just closes.
TEST_F(ServiceTest, OneUserTooManyIsToldSo) {
  const auto list = [this](uid_t uid) {
    caller_ = Caller{.uid = uid, .gid = uid};
    auto stub = Stub();
    grpc::ClientContext context;
    v1::ListSnapshotsResponse response;
    return stub->ListSnapshots(&context, {}, &response);
  };
  for (uid_t uid = 1; uid <= 64; ++uid) {
    const grpc::Status status = list(uid);
    ASSERT_TRUE(status.ok()) << uid << ": " << status.error_message();
  }
  for (const uid_t uid : {65, 66}) {
    const grpc::Status status = list(uid);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(ReasonOf(status), "OVERLOADED") << status.error_message();
  }
  EXPECT_TRUE(list(64).ok());
  EXPECT_TRUE(list(0).ok());
}

TEST_F(ServiceTest, SecondServerIsKeptOutAndLeavesTheSocket) {
  const std::string path = socket_dir_.path() + "/sock";
  auto second = SocketServer::Start(path, std::nullopt, &operations_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  auto stub = Stub();
  grpc::ClientContext context;
  v1::ListSnapshotsResponse response;
  EXPECT_TRUE(stub->ListSnapshots(&context, {}, &response).ok());
}

TEST_F(ServiceTest, SocketOfADeadServerIsReplaced) {
  server_.reset();
  const std::string path = socket_dir_.path() + "/sock";
  ASSERT_EQ(mknod(path.c_str(), S_IFSOCK | 0600, 0), 0);
  auto again = SocketServer::Start(path, std::nullopt, &operations_);
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST(Peer, IsWhoTheKernelSays) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  auto peer = ReadPeer(one.get());
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->uid, geteuid());
  EXPECT_EQ(peer->gid, getegid());
}

}  // namespace
}  // namespace daxsnap
