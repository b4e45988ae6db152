// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/sync_failures.h"

#include <unistd.h>

#include <limits>

#include "base/errors.h"
#include "gtest/gtest.h"

namespace daxsnap {
namespace {

constexpr uint64_t kLater = std::numeric_limits<uint64_t>::max();

TaskInfo Task(pid_t pid, uint64_t start_ticks, pid_t parent = 0) {
  TaskInfo task;
  task.id = {.pid = pid, .start_ticks = start_ticks};
  task.parent_pid = parent;
  return task;
}

std::vector<SyncTarget> Uses(dev_t device) {
  std::vector<SyncTarget> targets(1);
  targets[0].device = device;
  return targets;
}

class SyncFailuresTest : public testing::Test {
 protected:
  std::string Reason(const TaskInfo& task, dev_t device) {
    const absl::Status status = failures_.Check(ProcFs(), {task}, Uses(device));
    return std::string(ErrorReasonOf(status));
  }

  SyncFailures failures_;
};

const LostWrites kLost = {.device = 7, .mount_point = "/x", .error = "e"};

// The kernel tells of a file system, once, not of whose files.
TEST_F(SyncFailuresTest, AllThatRanWithFilesThereAreRefused) {
  failures_.Add({Task(10, 5)}, {kLost});
  EXPECT_EQ(Reason(Task(10, 5), 7), reason::kSyncFailed);
  EXPECT_EQ(Reason(Task(11, 6), 7), reason::kSyncFailed);
  EXPECT_EQ(Reason(Task(11, 6), 8), "");
  EXPECT_EQ(Reason(Task(12, kLater), 7), "");
}

TEST_F(SyncFailuresTest, ThoseThatComeFromOneOfThemAreRefused) {
  const auto self = ProcFs().ReadTask(getpid());
  ASSERT_TRUE(self.ok()) << self.status();
  EXPECT_EQ(Reason(Task(12, kLater, getpid()), 7), "");
  failures_.Add({*self}, {kLost});
  EXPECT_EQ(Reason(Task(12, kLater, getpid()), 7), reason::kSyncFailed);
  EXPECT_EQ(Reason(Task(12, kLater, 1), 7), "");
}

}  // namespace
}  // namespace daxsnap
