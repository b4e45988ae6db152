// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/pool_opening.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "base/errors.h"
#include "daxsnap/v1/pool.grpc.pb.h"
#include "daxsnap/v1/snapshot.grpc.pb.h"
#include "snapd/ops/operations.h"
#include "snapd/service/socket_server.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::HasSubstr;

// What `snapd` is made of, in the order in which it starts them, and a pool
// that comes up when the test says so.
class PoolOpeningTest : public testing::Test {
 protected:
  PoolOpeningTest() {
    auto server =
        SocketServer::Start(socket_dir_.path() + "/sock", std::nullopt,
                            &operations_, [](int) -> absl::StatusOr<Caller> {
                              return Caller{.uid = 0, .gid = 0};
                            });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel("unix:" + socket_dir_.path() + "/sock",
                                   grpc::InsecureChannelCredentials());
  }

  absl::StatusOr<std::unique_ptr<Pool>> Open() {
    at_it_.set_value();
    go_on_.get_future().wait();
    if (!fail_.ok()) return fail_;
    return std::unique_ptr<Pool>(TestPool::Open(temp_.path()));
  }

  grpc::Status List() {
    grpc::ClientContext context;
    v1::ListSnapshotsResponse response;
    return v1::SnapshotService::NewStub(channel_)->ListSnapshots(&context, {},
                                                                 &response);
  }

  std::promise<void> at_it_;
  std::promise<void> go_on_;
  absl::Status fail_;
  TempDirectory temp_;
  TempDirectory socket_dir_;
  FakeEngine engine_{nullptr};
  PoolHolder holder_{[this] { return Open(); }, ProcFs(), &engine_,
                     /*patience=*/absl::Milliseconds(1)};
  Operations operations_{&holder_, &engine_, ProcFs()};
  std::unique_ptr<SocketServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(PoolOpeningTest, PoolThatHangsAtTheStartKeepsNobodyFromAnAnswer) {
  std::atomic<bool> ended = false;
  PoolOpening opening(&holder_, [&] { ended = true; });
  at_it_.get_future().wait();
  const grpc::Status status = List();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_details(), HasSubstr(reason::kPoolMissing));
  grpc::ClientContext context;
  v1::GetDaemonResponse response;
  EXPECT_TRUE(v1::DaemonService::NewStub(channel_)
                  ->GetDaemon(&context, {}, &response)
                  .ok());
  EXPECT_FALSE(opening.AwaitEnd(absl::Milliseconds(1)));
  EXPECT_FALSE(ended);
  go_on_.set_value();
  EXPECT_TRUE(opening.AwaitEnd(absl::Seconds(60)));
  EXPECT_TRUE(ended);
  EXPECT_TRUE(List().ok());
}

TEST_F(PoolOpeningTest, ServerEndsWhileThePoolHangs) {
  PoolOpening opening(&holder_, [] {});
  at_it_.get_future().wait();
  EXPECT_EQ(List().error_code(), grpc::StatusCode::UNAVAILABLE);
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(opening.AwaitEnd(absl::ZeroDuration()));
  go_on_.set_value();
}

TEST_F(PoolOpeningTest, AttemptThatFailsEnds) {
  fail_ = absl::FailedPreconditionError("no device");
  go_on_.set_value();
  std::atomic<bool> ended = false;
  PoolOpening opening(&holder_, [&] { ended = true; });
  EXPECT_TRUE(opening.AwaitEnd(absl::Seconds(60)));
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace daxsnap
