// SPDX-License-Identifier: Apache-2.0
#include "daxsnap/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "client/lib/status_mapping.h"
#include "daxsnap/error.h"
#include "tests/unit/client/fake_server.h"

namespace daxsnap::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class ClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Client>> client =
        Client::Connect({.socket = server_.socket()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  v1::CreateSnapshotResponse ProgressMessage(v1::ProgressPhase phase) {
    v1::CreateSnapshotResponse response;
    response.mutable_progress()->set_phase(phase);
    return response;
  }

  FakeServer server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, CreateReportsProgressThenReturnsTheResult) {
  server_.create_stream = {ProgressMessage(v1::PROGRESS_PHASE_DUMPING),
                           ProgressMessage(v1::PROGRESS_PHASE_COMMITTING)};
  v1::CreateSnapshotResponse last;
  last.mutable_result()->mutable_snapshot()->set_name("a");
  server_.create_stream.push_back(last);

  v1::CreateSnapshotRequest request;
  request.set_pid(42);
  request.set_name("a");
  (*request.mutable_labels())["k"] = "v";
  std::vector<v1::ProgressPhase> phases;
  CallOptions options;
  options.on_progress = [&](const v1::Progress& progress) {
    phases.push_back(progress.phase());
  };
  absl::StatusOr<v1::CreateSnapshotResult> result =
      client_->CreateSnapshot(request, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->snapshot().name(), "a");
  EXPECT_THAT(phases, ElementsAre(v1::PROGRESS_PHASE_DUMPING,
                                  v1::PROGRESS_PHASE_COMMITTING));
  EXPECT_EQ(server_.create_request.pid(), 42);
  EXPECT_EQ(server_.create_request.labels().at("k"), "v");
}

// It would kill the tasks of who asked to leave them running.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
TEST_F(ClientTest, OlderSnapdsAreToldTheOptionsTheirWay) {
  v1::CreateSnapshotRequest checkpoint;
  checkpoint.mutable_options()->set_leave_running(true);
  checkpoint.mutable_options()->set_force(true);
  checkpoint.mutable_options()->set_sync_timeout_seconds(7);
  (void)client_->CreateSnapshot(checkpoint, {});
  EXPECT_TRUE(server_.create_request.leave_running());
  EXPECT_TRUE(server_.create_request.force());
  EXPECT_EQ(server_.create_request.sync_timeout_seconds(), 7U);
  v1::RestoreSnapshotRequest restore;
  restore.mutable_options()->set_files(v1::FILES_POLICY_ACCEPT);
  restore.mutable_options()->set_verify(v1::VERIFY_POLICY_NEVER);
  (void)client_->RestoreSnapshot(restore, {});
  EXPECT_EQ(server_.restore_request.files(), v1::FILES_POLICY_ACCEPT);
  EXPECT_EQ(server_.restore_request.verify(), v1::VERIFY_POLICY_NEVER);
}
#pragma GCC diagnostic pop

TEST_F(ClientTest, CreateWithoutAResultIsAnError) {
  server_.create_stream = {ProgressMessage(v1::PROGRESS_PHASE_DUMPING)};
  EXPECT_EQ(client_->CreateSnapshot({}, {}).status().code(),
            absl::StatusCode::kInternal);
}

TEST_F(ClientTest, ErrorsKeepCodeMessageReasonHintAndFacts) {
  server_.stream_status =
      ErrorStatus(grpc::StatusCode::FAILED_PRECONDITION,
                  "pid 42: 3 established TCP connections", "TCP_ESTABLISHED",
                  {{"hint", "Close them."}, {"pid", "42"}});
  const absl::Status status = client_->CreateSnapshot({}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "pid 42: 3 established TCP connections");
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "TCP_ESTABLISHED");
  EXPECT_EQ(details.hint, "Close them.");
  EXPECT_THAT(details.metadata, ElementsAre(Pair("pid", "42")));
}

TEST_F(ClientTest, CancellationFromAnotherThreadEndsTheCallOnBothSides) {
  server_.hang = true;
  server_.restore_stream.resize(1);
  server_.restore_stream[0].mutable_progress()->set_phase(
      v1::PROGRESS_PHASE_RESTORING);
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  options.on_progress = [&](const v1::Progress&) { cancellation.Cancel(); };
  EXPECT_EQ(client_->RestoreSnapshot({}, options).status().code(),
            absl::StatusCode::kCancelled);
  server_.Stop();  // waits for the handler
  EXPECT_TRUE(server_.saw_cancel);
}

TEST_F(ClientTest, VerifyTellsOfFilesAlsoIfItThenFails) {
  v1::VerifySnapshotResponse file;
  file.mutable_file()->set_path("images/pages-1.img");
  v1::VerifySnapshotResponse last;
  last.mutable_result()->mutable_verification()->set_files(1);
  server_.verify_streams["a"] = {file, last};
  v1::VerifySnapshotRequest request;
  request.set_name("a");
  std::vector<std::string> paths;
  const auto on_file = [&](const v1::FileVerification& told) {
    paths.push_back(told.path());
  };
  const auto result = client_->VerifySnapshot(request, {}, on_file);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->verification().files(), 1U);
  server_.verify_statuses["a"] = ErrorStatus(grpc::StatusCode::DATA_LOSS,
                                             "damaged", "SNAPSHOT_DAMAGED", {});
  EXPECT_TRUE(
      absl::IsDataLoss(client_->VerifySnapshot(request, {}, on_file).status()));
  EXPECT_THAT(paths, ElementsAre("images/pages-1.img", "images/pages-1.img"));
  EXPECT_FALSE(client_->VerifySnapshot(request, {}, {}).ok());
}

TEST_F(ClientTest, CommitUnderWayIsNotCancelled) {
  server_.create_stream = {ProgressMessage(v1::PROGRESS_PHASE_COMMITTING)};
  v1::CreateSnapshotResponse last;
  last.mutable_result()->mutable_snapshot()->set_name("a");
  server_.create_stream.push_back(last);
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  options.on_progress = [&](const v1::Progress&) { cancellation.Cancel(); };
  const auto result = client_->CreateSnapshot({}, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->snapshot().name(), "a");
}

TEST_F(ClientTest, RestoreWhoseTasksBeginToRunIsNotCancelled) {
  v1::RestoreSnapshotResponse resuming;
  resuming.mutable_progress()->set_phase(v1::PROGRESS_PHASE_RESUMING);
  v1::RestoreSnapshotResponse last;
  last.mutable_result()->set_pid(42);
  server_.restore_stream = {resuming, last};
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  options.on_progress = [&](const v1::Progress&) { cancellation.Cancel(); };
  const auto result = client_->RestoreSnapshot({}, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pid(), 42);
}

TEST_F(ClientTest, CancellationBeforeTheCallEndsIt) {
  server_.hang = true;
  Cancellation cancellation;
  cancellation.Cancel();
  CallOptions options;
  options.cancellation = &cancellation;
  EXPECT_EQ(client_->CreateSnapshot({}, options).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, LostConnectionIsSaidSo) {
  server_.Stop();
  const absl::Status status = client_->GetDaemon().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the connection to snapd was lost"));
  EXPECT_EQ(GetErrorDetails(status).reason, "") << "snapd did not say so";
  EXPECT_THAT(GetErrorDetails(status).hint, HasSubstr("log"));
}

TEST_F(ClientTest, ListPutsAllPagesTogether) {
  for (const char* name : {"a", "b", "c", "d", "e"})
    server_.snapshots[name].set_name(name);
  absl::StatusOr<Client::SnapshotList> list = client_->ListSnapshots();
  ASSERT_TRUE(list.ok()) << list.status();
  std::vector<std::string> names;
  for (const v1::Snapshot& snapshot : list->snapshots)
    names.push_back(snapshot.name());
  EXPECT_THAT(names, ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(list->damaged, ElementsAre("torn"));
  EXPECT_EQ(server_.list_calls, 3);
}

TEST_F(ClientTest, GetAndDeleteFindWhatIsThereAndSayWhatIsNot) {
  server_.snapshots["a"].set_name("a");
  absl::StatusOr<v1::Snapshot> found = client_->GetSnapshot("a");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->name(), "a");
  EXPECT_TRUE(client_->DeleteSnapshot("a").ok());
  EXPECT_EQ(GetErrorDetails(client_->DeleteSnapshot("a")).reason,
            "SNAPSHOT_MISSING");
  EXPECT_EQ(client_->GetSnapshot("a").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, SnapdThatWentAwayIsUnavailable) {
  server_.Stop();
  EXPECT_EQ(client_->GetPool().status().code(), absl::StatusCode::kUnavailable);
}

TEST(ConnectTest, SaysThatSnapdIsNotRunning) {
  const absl::Status status =
      Client::Connect({.socket = "/nowhere/snapd.sock"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("snapd is not running"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/snapd.sock"));
  EXPECT_THAT(GetErrorDetails(status).hint, HasSubstr("systemctl start snapd"));
}

TEST(ConnectTest, RefusesPathsThatNoSocketCanHave) {
  for (const std::string& path : {std::string(), std::string(200, 'x')}) {
    EXPECT_EQ(Client::Connect({.socket = path}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << path;
  }
}

TEST(StatusMappingTest, ForeignOrBrokenDetailsAreIgnored) {
  const grpc::Status broken(grpc::StatusCode::INTERNAL, "x", "\xff\xff\xff");
  EXPECT_EQ(FromGrpc(broken).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(GetErrorDetails(FromGrpc(broken)).reason, "");
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
}

TEST(ErrorDetailsTest, RoundTrip) {
  absl::Status status = absl::AbortedError("x");
  SetErrorDetails(
      {.reason = "BUSY", .hint = "Wait.", .metadata = {{"pid", "1"}}}, &status);
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "BUSY");
  EXPECT_EQ(details.hint, "Wait.");
  EXPECT_THAT(details.metadata, ElementsAre(Pair("pid", "1")));
}

}  // namespace
}  // namespace daxsnap::client
