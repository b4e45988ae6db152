// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/checksum_maker.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <future>
#include <memory>

#include "absl/status/status.h"
#include "base/errors.h"
#include "tests/unit/snapd/operations_test_base.h"

namespace daxsnap {
namespace {

constexpr Caller kRoot = {.uid = 0, .gid = 0};

class ChecksumMakerTest : public testing::Test {
 protected:
  TempDirectory temp_;
  std::unique_ptr<TestPool> pool_ = TestPool::Open(temp_.path());
};

TEST_F(ChecksumMakerTest, RequestDoesNotBlockAndTheEndWaitsForIt) {
  std::promise<void> go_on;
  std::promise<void> begun;
  std::atomic<int> made = 0;
  pool_->on_make_checksums = [&](const Cancellation&) {
    if (made == 0) begun.set_value();
    if (made == 0) go_on.get_future().wait();
    ++made;
    return absl::OkStatus();
  };
  {
    ChecksumMaker maker(absl::Hours(1));
    maker.Request(pool_.get());
    begun.get_future().wait();
    // What became durable since has to be looked at once more.
    maker.Request(pool_.get());
    maker.Request(pool_.get());
    EXPECT_EQ(made, 0);
    go_on.set_value();
  }
  EXPECT_EQ(made, 2);
}

TEST_F(ChecksumMakerTest, EndIsNotWaitedForForEver) {
  std::promise<void> begun;
  pool_->on_make_checksums = [&](const Cancellation& cancellation) {
    begun.set_value();
    pollfd poll_for = {.fd = cancellation.fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&poll_for, 1, -1), 1);
    return CancelledError();
  };
  ChecksumMaker maker(absl::ZeroDuration());
  maker.Request(pool_.get());
  begun.get_future().wait();
}

TEST_F(ChecksumMakerTest, FailureIsNotTheLastWord) {
  std::atomic<int> calls = 0;
  std::promise<void> first;
  pool_->on_make_checksums = [&](const Cancellation&) {
    if (++calls == 1) first.set_value();
    return absl::ResourceExhaustedError("no room");
  };
  {
    ChecksumMaker maker(absl::Hours(1));
    maker.Request(pool_.get());
    first.get_future().wait();
    maker.Request(pool_.get());
  }
  EXPECT_EQ(calls, 2);
}

class ChecksumsOfCheckpointTest : public OperationsTestBase {
 protected:
  absl::Status Create(const std::string& name) {
    Cancellation cancellation;
    v1::CreateSnapshotRequest request = Request(name);
    request.mutable_options()->set_leave_running(true);
    return operations_
        .Create(
            kRoot, request, [](v1::ProgressPhase) {}, &cancellation)
        .status();
  }
};

TEST_F(ChecksumsOfCheckpointTest, AreMadeAtOnceWhereMemoryIsNotPersistent) {
  std::promise<void> asked;
  std::atomic<int> calls = 0;
  pool_->on_make_checksums = [&](const Cancellation&) {
    if (++calls == 1) asked.set_value();
    return absl::OkStatus();
  };
  pool_->memory = Persistence::kPromised;
  ASSERT_TRUE(Create("a").ok());
  EXPECT_EQ(calls, 0);
  pool_->memory = Persistence::kNotPromised;
  ASSERT_TRUE(Create("b").ok());
  asked.get_future().wait();
}

}  // namespace
}  // namespace daxsnap
