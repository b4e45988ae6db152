// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/criu_version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/unit/snapd/fake_engine.h"

namespace daxsnap {
namespace {

class CriuVersionTest : public testing::Test {
 protected:
  CriuVersionTest() {
    engine_.on_version = [this]() -> absl::StatusOr<std::string> {
      ++asked_;
      if (!fail_.ok()) return fail_;
      return "4.2.1";
    };
  }

  FakeEngine engine_{nullptr};
  std::atomic<int> asked_ = 0;
  absl::Status fail_;
};

TEST_F(CriuVersionTest, IsAskedOnce) {
  CriuVersion version(&engine_);
  EXPECT_EQ(version.Known(), "");
  EXPECT_EQ(asked_, 0);
  EXPECT_EQ(version.Get(), "4.2.1");
  EXPECT_EQ(version.Get(), "4.2.1");
  EXPECT_EQ(version.Known(), "4.2.1");
  EXPECT_EQ(asked_, 1);
}

// A CRIU that hangs takes ten seconds to fail.
TEST_F(CriuVersionTest, FailureCountsForAWhile) {
  fail_ = absl::UnavailableError("did not say its version");
  CriuVersion version(&engine_, absl::Seconds(2), absl::Hours(1));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(version.Get(), "");
  EXPECT_EQ(asked_, 1);
}

TEST_F(CriuVersionTest, FailureIsNotForGood) {
  fail_ = absl::UnavailableError("did not say its version");
  CriuVersion version(&engine_, absl::Seconds(2), absl::ZeroDuration());
  EXPECT_EQ(version.Get(), "");
  fail_ = absl::OkStatus();
  EXPECT_EQ(version.Get(), "4.2.1");
  EXPECT_EQ(asked_, 2);
}

TEST_F(CriuVersionTest, WhoGoesOnWithoutItSaysSo) {
  HeldVersion held(&engine_);
  CriuVersion version(&engine_, absl::Milliseconds(1));
  auto first = std::async(std::launch::async, [&] { return version.Get(); });
  held.AwaitAsked();
  testing::internal::CaptureStderr();
  EXPECT_EQ(version.Get(), "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("CRIU has not said its version yet"));
  held.Say();
  EXPECT_EQ(first.get(), "4.2.1");
  EXPECT_EQ(version.Known(), "4.2.1");
}

}  // namespace
}  // namespace daxsnap
