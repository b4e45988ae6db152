// SPDX-License-Identifier: Apache-2.0
#include "base/shared_work.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <optional>
#include <stdexcept>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace daxsnap {
namespace {

class SharedWorkTest : public testing::Test {
 protected:
  // Work that lasts until go_on_; another thread is at it on return.
  std::future<std::optional<int>> Begin(bool fail) {
    std::promise<void> at_it;
    auto worker = std::async(std::launch::async, [this, fail, &at_it] {
      return work_.Do(absl::ZeroDuration(), [&] {
        at_it.set_value();
        go_on_.get_future().wait();
        if (fail) throw std::runtime_error("no memory");
        return 1;
      });
    });
    at_it.get_future().wait();
    return worker;
  }

  static int Never() {
    ADD_FAILURE() << "another one is at it";
    return 0;
  }

  std::promise<void> go_on_;
  SharedWork<int> work_;
};

TEST_F(SharedWorkTest, WorkThatThrowsIsDoneAnew) {
  EXPECT_THROW(work_.Do(absl::InfiniteDuration(),
                        []() -> int { throw std::runtime_error("no memory"); }),
               std::runtime_error);
  EXPECT_EQ(work_.Do(absl::InfiniteDuration(), [] { return 2; }), 2);
}

TEST_F(SharedWorkTest, WhoWaitsForWorkThatThrowsHasNothing) {
  auto worker = Begin(/*fail=*/true);
  // Has time to get to its waiting; if it has not it does the work itself.
  auto waiter = std::async(std::launch::async, [this] {
    return work_.Do(absl::InfiniteDuration(), [] { return 2; });
  });
  EXPECT_EQ(waiter.wait_for(std::chrono::milliseconds(50)),
            std::future_status::timeout);
  go_on_.set_value();
  EXPECT_THROW(worker.get(), std::runtime_error);
  EXPECT_EQ(waiter.get().value_or(2), 2);
}

TEST_F(SharedWorkTest, PatienceCountsFromTheBeginningOfTheWork) {
  auto worker = Begin(/*fail=*/false);
  absl::SleepFor(absl::Milliseconds(20));
  // Each with a patience of its own would take 20 s.
  const absl::Duration patience = absl::Milliseconds(20);
  EXPECT_EQ(work_.Do(patience, Never), std::nullopt);
  const absl::Time start = absl::Now();
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(work_.Do(patience, Never), std::nullopt);
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  go_on_.set_value();
  EXPECT_EQ(worker.get(), 1);
  EXPECT_EQ(work_.Do(patience, [] { return 3; }), 3);
}

}  // namespace
}  // namespace daxsnap
