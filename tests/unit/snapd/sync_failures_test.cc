// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/sync_failures.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <thread>

#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kLater = std::numeric_limits<uint64_t>::max();

TaskInfo Task(pid_t pid, uint64_t start_ticks, pid_t parent = 0) {
  TaskInfo task;
  task.id = {.pid = pid, .start_ticks = start_ticks};
  task.parent_pid = parent;
  return task;
}

std::vector<SyncTarget> Uses(const std::vector<dev_t>& devices) {
  std::vector<SyncTarget> targets(devices.size());
  for (size_t i = 0; i < devices.size(); ++i) {
    targets[i].device = devices[i];
    targets[i].mount_point = "/x";
  }
  return targets;
}

const LostWrites kLost = {.device = 7, .mount_point = "/x", .error = "e"};

class SyncFailuresTest : public testing::Test {
 protected:
  SyncFailures Make() { return SyncFailures(Directory(), ProcFs()); }
  std::string Directory() const { return temp_.path() + "/syncs"; }
  std::vector<std::string> Files() const {
    auto directory = OpenDirectory(AT_FDCWD, Directory());
    return *ListDirectory(directory->get());
  }

  // A sync that says so at once.
  static void Fail(SyncFailures* failures, const std::vector<TaskInfo>& tree) {
    auto sync = failures->Begin(tree, Uses({kLost.device}));
    ASSERT_TRUE(sync.ok()) << sync.status();
    sync->Ended({kLost});
  }

  // Why the task is refused: an error, "?" if that is not known, or nothing.
  static std::string Suspect(SyncFailures* failures, const TaskInfo& task,
                             dev_t device) {
    const Cancellation never;
    const auto found =
        failures->Check({task}, Uses({device}), absl::Now(), never);
    EXPECT_TRUE(found.ok()) << found.status();
    if (found->empty()) return "";
    return found->front().error.empty() ? "?" : found->front().error;
  }

  const TempDirectory temp_;
  const TaskInfo task_ = Task(10, 5);
};

// The process of a sync: it says what it is told to, as long as it lives.
class Worker {
 public:
  explicit Worker(int record) : task_([record] { record_ = record; }, Serve) {}
  void Say(const SyncStep& step) const {
    EXPECT_EQ(write(pipe_[1], &step, sizeof(step)), ssize_t{sizeof(step)});
    char done = 0;
    EXPECT_EQ(read(pipe_[2], &done, 1), 1);
  }

 private:
  static void Serve() {
    SyncStep step;
    while (read(pipe_[0], &step, sizeof(step)) == sizeof(step)) {
      if (write(record_, &step, sizeof(step)) != sizeof(step)) _exit(1);
      if (write(pipe_[3], "", 1) != 1) _exit(1);
    }
  }
  static bool Pipes() {
    return pipe2(pipe_, O_CLOEXEC) == 0 && pipe2(pipe_ + 2, O_CLOEXEC) == 0;
  }

  static inline int record_ = -1;
  static inline int pipe_[4] = {};
  const bool pipes_ = Pipes();
  ForkedTask task_;
};

SyncStep Begins(uint32_t target) {
  return {.target = target, .state = SyncStep::kBegins, .ticks = 1};
}
SyncStep Ends(uint32_t target, int error) {
  return {.target = target,
          .state = SyncStep::kEnds,
          .error = static_cast<uint8_t>(error),
          .ticks = TicksNow()};
}

// The kernel tells of a file system, once, not of whose files.
TEST_F(SyncFailuresTest, AllThatRanWithFilesThereAreRefused) {
  SyncFailures failures = Make();
  Fail(&failures, {task_});
  EXPECT_EQ(Suspect(&failures, task_, 7), "e");
  EXPECT_EQ(Suspect(&failures, Task(11, 6), 7), "e");
  EXPECT_EQ(Suspect(&failures, Task(11, 6), 8), "");
  EXPECT_EQ(Suspect(&failures, Task(12, kLater), 7), "");
}

TEST_F(SyncFailuresTest, ThoseThatComeFromOneOfThemAreRefused) {
  const auto self = ProcFs().ReadTask(getpid());
  ASSERT_TRUE(self.ok()) << self.status();
  SyncFailures failures = Make();
  EXPECT_EQ(Suspect(&failures, Task(12, kLater, getpid()), 7), "");
  Fail(&failures, {*self});
  EXPECT_EQ(Suspect(&failures, Task(12, kLater, getpid()), 7), "e");
  EXPECT_EQ(Suspect(&failures, Task(12, kLater, 1), 7), "");
  SyncFailures after = Make();
  EXPECT_EQ(Suspect(&after, Task(12, kLater, getpid()), 7), "e");
}

TEST_F(SyncFailuresTest, ALaterSnapdKnowsThem) {
  {
    SyncFailures failures = Make();
    Fail(&failures, {task_});
    EXPECT_THAT(Files(), ElementsAre("lost"));
  }
  SyncFailures after = Make();
  EXPECT_EQ(Suspect(&after, task_, 7), "e");
  EXPECT_EQ(Suspect(&after, Task(12, kLater), 7), "");
  EXPECT_THAT(Files(), ElementsAre("lost"));
}

TEST_F(SyncFailuresTest, WhatSucceedsLeavesNothing) {
  SyncFailures failures = Make();
  auto sync = failures.Begin({task_}, Uses({7}));
  ASSERT_TRUE(sync.ok()) << sync.status();
  EXPECT_EQ(Files().size(), 1u);
  sync->Ended({});
  EXPECT_THAT(Files(), IsEmpty());
  EXPECT_EQ(Suspect(&failures, task_, 7), "");
}

TEST_F(SyncFailuresTest, ASyncThatHasNotEndedIsNotKnownToBeGood) {
  for (const bool restart : {false, true}) {
    for (const int error : {0, EIO}) {
      SCOPED_TRACE(testing::Message() << restart << " " << error);
      const TaskInfo& task = task_;
      ASSERT_TRUE(RemoveTree(AT_FDCWD, Directory()).ok());
      auto failures = std::make_unique<SyncFailures>(Directory(), ProcFs());
      auto sync = failures->Begin({task}, Uses({8, 9}));
      ASSERT_TRUE(sync.ok()) << sync.status();
      auto worker = std::make_unique<Worker>(sync->record());
      worker->Say(Begins(0));
      sync->Ended({});
      if (restart)
        failures = std::make_unique<SyncFailures>(Directory(), ProcFs());
      EXPECT_EQ(Suspect(failures.get(), task, 8), "?");
      EXPECT_EQ(Suspect(failures.get(), Task(12, kLater), 8), "?");
      EXPECT_EQ(Suspect(failures.get(), task, 9), "") << "it has not begun";
      worker->Say(Ends(0, error));
      const std::string expected = error == 0 ? "" : std::strerror(error);
      EXPECT_EQ(Suspect(failures.get(), task, 8), expected);
      EXPECT_EQ(Suspect(failures.get(), Task(12, kLater), 8), "");
      EXPECT_EQ(Files().size(), error == 0 ? 0u : 1u);
      worker.reset();
      EXPECT_EQ(Suspect(failures.get(), task, 8), expected);
    }
  }
}

TEST_F(SyncFailuresTest, ASyncWhoseProcessWasKilledMayHaveLostAll) {
  SyncFailures failures = Make();
  auto sync = failures.Begin({task_}, Uses({8, 9}));
  ASSERT_TRUE(sync.ok()) << sync.status();
  auto worker = std::make_unique<Worker>(sync->record());
  worker->Say(Begins(0));
  worker->Say(Ends(0, 0));
  worker->Say(Begins(1));
  sync->Ended({});
  worker.reset();
  EXPECT_EQ(Suspect(&failures, task_, 8), "");
  EXPECT_EQ(Suspect(&failures, task_, 9),
            "the process that synced it was killed");
}

// Whoever of two asks first is told.
TEST_F(SyncFailuresTest, SyncsOfOthersAreWaitedFor) {
  SyncFailures failures = Make();
  auto sync = failures.Begin({task_}, Uses({6, kLost.device}));
  ASSERT_TRUE(sync.ok()) << sync.status();
  Cancellation cancellation;
  const auto check = [&](dev_t device, absl::Duration time) {
    return failures.Check({Task(11, 6)}, Uses({device}), absl::Now() + time,
                          cancellation);
  };
  EXPECT_THAT(*check(5, absl::Hours(1)), IsEmpty());
  const auto late = check(7, absl::Milliseconds(50));
  ASSERT_EQ(late->size(), 1u);
  EXPECT_EQ(late->front().error, "");
  EXPECT_EQ(ErrorReasonOf(RefuseSuspicion(late->front())),
            reason::kSyncTimeout);
  std::thread waiter([&] {
    const auto found = check(7, absl::Hours(1));
    ASSERT_EQ(found->size(), 1u);
    EXPECT_EQ(found->front().error, "e");
    EXPECT_EQ(ErrorReasonOf(RefuseSuspicion(found->front())),
              reason::kSyncFailed);
  });
  sync->Ended({kLost});
  waiter.join();
  auto other = failures.Begin({task_}, Uses({6}));
  ASSERT_TRUE(other.ok()) << other.status();
  cancellation.Cancel();
  EXPECT_TRUE(absl::IsCancelled(check(6, absl::Hours(1)).status()));
}

// Of a call that was cancelled, for example: nothing is wrong with the disk.
TEST_F(SyncFailuresTest, SyncsThatWereLeftBehindAreWaitedFor) {
  for (const int error : {0, EIO}) {
    SyncFailures failures = Make();
    auto sync = failures.Begin({task_}, Uses({6, 8}));
    ASSERT_TRUE(sync.ok()) << sync.status();
    const Worker worker(sync->record());
    worker.Say(Begins(0));
    worker.Say(Ends(0, 0));
    worker.Say(Begins(1));
    sync->Ended({});
    const Cancellation cancellation;
    const auto check = [&](dev_t device, absl::Time deadline) {
      return failures.Check({task_}, Uses({device}), deadline, cancellation);
    };
    EXPECT_THAT(*check(6, absl::InfiniteFuture()), IsEmpty());
    EXPECT_THAT(*check(8, absl::InfinitePast()), IsEmpty());
    const auto late = check(8, absl::Now() + absl::Milliseconds(50));
    ASSERT_EQ(late->size(), 1u);
    EXPECT_EQ(late->front().error, "");
    std::thread waiter([&] {
      const auto found = check(8, absl::InfiniteFuture());
      ASSERT_EQ(found->size(), error == 0 ? 0u : 1u);
      if (error != 0) {
        EXPECT_EQ(found->front().error, std::strerror(error));
      }
    });
    Cancellation its;
    its.Cancel();
    EXPECT_TRUE(absl::IsCancelled(
        failures.Check({task_}, Uses({8}), absl::InfiniteFuture(), its)
            .status()));
    worker.Say(Ends(1, error));
    waiter.join();
    EXPECT_EQ(check(8, absl::InfinitePast())->size(), error == 0 ? 0u : 1u);
  }
}

TEST_F(SyncFailuresTest, WhatIsOfAnotherBootOrNotWholeIsForgotten) {
  SyncFailures failures = Make();
  Fail(&failures, {task_});
  auto directory = OpenDirectory(AT_FDCWD, Directory());
  internal::Syncs syncs;
  auto lost = ReadFileAt(directory->get(), "lost", 1 << 20);
  ASSERT_TRUE(lost.ok() && syncs.ParseFromString(*lost));
  syncs.set_boot_id("another");
  for (const std::string& bytes :
       {syncs.SerializeAsString(), std::string("\xff\xff"), std::string()}) {
    for (const char* name : {"lost", "sync.x"}) {
      ASSERT_TRUE(ReplaceFileAt(directory->get(), name, bytes).ok());
    }
    SyncFailures after = Make();
    EXPECT_EQ(Suspect(&after, task_, 7), "");
    EXPECT_THAT(Files(), ElementsAre("lost"));
  }
}

TEST_F(SyncFailuresTest, WhatCannotBeWrittenDownDoesNotBegin) {
  ASSERT_EQ(mkdir(Directory().c_str(), 0500), 0);
  const NoDescriptors none;
  SyncFailures failures = Make();
  EXPECT_EQ(ErrorReasonOf(failures.Begin({task_}, Uses({7})).status()),
            reason::kOverloaded);
}

}  // namespace
}  // namespace daxsnap
