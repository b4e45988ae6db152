// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/pool_holder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "base/errors.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

class PoolHolderTest : public testing::Test {
 protected:
  PoolHolder Holder(absl::Duration patience) {
    return PoolHolder([this] { return Open(); }, ProcFs(), &engine_, patience);
  }

  // Says that it is at it, and waits until it may go on.
  absl::StatusOr<std::unique_ptr<Pool>> Open() {
    if (++opened_ == 1) {
      at_it_.set_value();
      go_on_.get_future().wait();
    }
    if (!fail_.ok()) return fail_;
    return std::unique_ptr<Pool>(TestPool::Open(temp_.path()));
  }

  TempDirectory temp_;
  FakeEngine engine_{nullptr};
  std::atomic<int> opened_ = 0;
  std::promise<void> at_it_;
  std::promise<void> go_on_;
  absl::Status fail_;
};

TEST_F(PoolHolderTest, PoolThatDoesNotComeUpHoldsUpOneCall) {
  PoolHolder holder = Holder(absl::Milliseconds(1));
  auto first = std::async(std::launch::async, [&] { return holder.Get(); });
  at_it_.get_future().wait();
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = holder.Get().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(ErrorReasonOf(status), reason::kPoolMissing);
    EXPECT_FALSE(ErrorMetadataOf(status)["hint"].empty());
  }
  go_on_.set_value();
  auto open = first.get();
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(*holder.Get(), *open);
  EXPECT_EQ(opened_, 1);
}

TEST_F(PoolHolderTest, WhoWaitsHasTheResultOfThatAttempt) {
  PoolHolder holder = Holder(absl::InfiniteDuration());
  fail_ = MakeError({.code = absl::StatusCode::kFailedPrecondition,
                     .reason = reason::kPoolMissing,
                     .message = "no device",
                     .hint = "h"});
  auto first = std::async(std::launch::async, [&] { return holder.Get(); });
  at_it_.get_future().wait();
  std::promise<void> about_to;
  auto second = std::async(std::launch::async, [&] {
    about_to.set_value();
    return holder.Get();
  });
  about_to.get_future().wait();
  go_on_.set_value();
  EXPECT_EQ(first.get().status(), fail_);
  // One that came too late to wait has tried for itself.
  EXPECT_EQ(second.get().status(), fail_);
  EXPECT_LE(opened_, 2);
  // And what failed is tried again.
  fail_ = absl::OkStatus();
  EXPECT_TRUE(holder.Get().ok());
}

}  // namespace
}  // namespace daxsnap
