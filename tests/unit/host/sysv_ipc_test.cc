// SPDX-License-Identifier: Apache-2.0
#include "host/task/sysv_ipc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/base/child.h"
#include "tests/unit/host/fake_proc.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::UnorderedElementsAre;

// "used shm 3" of each, with the PID behind.
std::vector<std::string> Texts(const std::vector<SysvObject>& objects) {
  std::vector<std::string> texts;
  for (const SysvObject& object : objects) {
    const char* const tie = object.tie == SysvTie::kUsed          ? "used "
                            : object.tie == SysvTie::kMaybeTheirs ? "maybe "
                                                                  : "unknown ";
    texts.push_back(
        absl::StrCat(tie, object.kind, " ", object.id, " ", object.pid));
  }
  return texts;
}

// Objects of an IPC namespace of the test's own, and real tasks.
class SysvIpcTest : public testing::Test {
 protected:
  SysvIpcTest() { EXPECT_EQ(unshare(CLONE_NEWIPC), 0); }

  static std::vector<std::string> Find(const std::vector<TaskInfo>& tree) {
    auto files = ReadUsedFiles(ProcFs(), tree);
    EXPECT_TRUE(files.ok()) << files.status();
    auto objects = FindSysvObjects(ProcFs(), tree, *files);
    EXPECT_TRUE(objects.ok()) << objects.status();
    return Texts(*objects);
  }

  // A task of another user has no objects of root's.
  static std::vector<TaskInfo> OfOther(std::vector<TaskInfo> tree) {
    for (TaskInfo& task : tree) task.uids.fill(4711);
    return tree;
  }

  static int Queue() { return msgget(IPC_PRIVATE, 0600); }
  static int Semaphores(int count) { return semget(IPC_PRIVATE, count, 0600); }
  static int Segment() { return shmget(IPC_PRIVATE, 4096, 0600); }
  static void Send(int id) {
    const long message[2] = {1, 0};
    if (msgsnd(id, message, sizeof(long), 0) != 0) _exit(1);
  }
  static void Raise(int id) {
    sembuf up = {.sem_num = 0, .sem_op = 1, .sem_flg = 0};
    if (semop(id, &up, 1) != 0) _exit(1);
  }
};

TEST_F(SysvIpcTest, WhoHasUsedThemLastUsesThem) {
  const int queue = Queue();
  const int semaphores = Semaphores(3);
  const int segment = Segment();
  const ForkedTask task([&] {
    Send(queue);
    Raise(semaphores);
    const void* at = shmat(segment, nullptr, 0);
    if (at == reinterpret_cast<void*>(-1) || shmdt(at) != 0) _exit(1);
  });
  EXPECT_THAT(Find(OfOther(task.Tree())),
              UnorderedElementsAre(
                  absl::StrCat("used msg ", queue, " ", task.pid()),
                  absl::StrCat("used sem ", semaphores, " ", task.pid()),
                  absl::StrCat("used shm ", segment, " ", task.pid())));
}

TEST_F(SysvIpcTest, WhoHasMemoryAttachedOrHasMadeItUsesIt) {
  const int segment = Segment();
  const ForkedTask task([&] {
    if (shmat(segment, nullptr, 0) == reinterpret_cast<void*>(-1)) _exit(1);
  });
  // The last to use it is another now.
  EXPECT_EQ(shmdt(shmat(segment, nullptr, 0)), 0);
  EXPECT_THAT(Find(OfOther(task.Tree())),
              ElementsAre(absl::StrCat("used shm ", segment, " ", task.pid())));
  const ForkedTask maker([] {
    if (Segment() < 0) _exit(1);
  });
  EXPECT_THAT(
      Find(OfOther(maker.Tree())),
      ElementsAre(MatchesRegex(absl::StrCat("used shm .* ", maker.pid()))));
}

TEST_F(SysvIpcTest, OthersObjectsAreNotTheirs) {
  const int queue = Queue();
  const int semaphores = Semaphores(1);
  const ForkedTask other([&] {
    Send(queue);
    Raise(semaphores);
    if (Segment() < 0) _exit(1);
  });
  const ForkedTask task([] {});
  EXPECT_THAT(Find(task.Tree()), IsEmpty());
}

// It may have been one of the tree.
TEST_F(SysvIpcTest, WhatOnlyTheDeadHaveUsedMayBeTheirs) {
  const int queue = Queue();
  const int semaphores = Semaphores(1);
  const int segment = Segment();
  {
    const ForkedTask dead([&] {
      Send(queue);
      Raise(semaphores);
      if (shmat(segment, nullptr, 0) == reinterpret_cast<void*>(-1)) _exit(1);
    });
  }
  const ForkedTask task([] {});
  EXPECT_THAT(Find(task.Tree()),
              UnorderedElementsAre(
                  absl::StrCat("maybe msg ", queue, " ", task.pid()),
                  absl::StrCat("maybe sem ", semaphores, " ", task.pid()),
                  absl::StrCat("maybe shm ", segment, " ", task.pid())));
  EXPECT_THAT(Find(OfOther(task.Tree())), IsEmpty());
}

TEST_F(SysvIpcTest, WhatNobodyHasUsedYetMayBeTheirs) {
  const int queue = Queue();
  const int semaphores = Semaphores(1);
  const ForkedTask task([] {});
  EXPECT_THAT(Find(task.Tree()),
              UnorderedElementsAre(
                  absl::StrCat("maybe msg ", queue, " ", task.pid()),
                  absl::StrCat("maybe sem ", semaphores, " ", task.pid())));
}

// As programs do that make a semaphore before they use it.
TEST_F(SysvIpcTest, SettingASemaphoreUsesIt) {
  const int semaphores = Semaphores(1);
  const ForkedTask task([&] {
    if (semctl(semaphores, 0, SETVAL, 1) != 0) _exit(1);
  });
  EXPECT_THAT(
      Find(OfOther(task.Tree())),
      ElementsAre(absl::StrCat("used sem ", semaphores, " ", task.pid())));
}

TEST_F(SysvIpcTest, SemaphoresThatAreTooManyToLookAtAreSaid) {
  std::vector<int> sets;
  for (int i = 0; i < 3; ++i) {
    sets.push_back(Semaphores(32000));
    ASSERT_GE(sets.back(), 0);
  }
  const ForkedTask task([] {});
  EXPECT_THAT(
      Find(OfOther(task.Tree())),
      ElementsAre(absl::StrCat("unknown sem ", sets[2], " ", task.pid())));
}

// PIDs that were others' before: by what /proc says.
class ReusedPidTest : public testing::Test {
 protected:
  // When the tasks 7 and 8 have started: two minutes ago.
  ReusedPidTest() {
    timespec since_boot = {};
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    ticks_ = (since_boot.tv_sec - 120) * sysconf(_SC_CLK_TCK);
    proc_.AddTask(8,
                  absl::StrCat("8 (other) S 1 8 8 0 -1 0 0 0 0 0 0 0 0 0 20 0 "
                               "1 0 ",
                               ticks_, "\n"),
                  "Tgid: 8\nUid: 0 0 0 0\nGid: 0 0 0 0\n");
  }

  // Of a queue of user `uid` that `pid` has used so long ago.
  std::vector<std::string> Find(pid_t pid, absl::Duration ago, uid_t uid) {
    const int64_t time = absl::ToUnixSeconds(absl::Now() - ago);
    proc_.AddFile(
        "sysvipc/msg",
        absl::StrCat("key msqid lspid lrpid uid cuid stime rtime\n", "0 3 ",
                     pid, " 0 ", uid, " ", uid, " ", time, " 0\n"));
    TaskInfo task;
    task.id = {.pid = 7, .start_ticks = static_cast<uint64_t>(ticks_)};
    auto objects = FindSysvObjects(proc_.proc(), {task}, {});
    EXPECT_TRUE(objects.ok()) << objects.status();
    return Texts(*objects);
  }

  FakeProc proc_;
  int64_t ticks_ = 0;
};

TEST_F(ReusedPidTest, ThatOfATaskIsNoUseOfIts) {
  EXPECT_THAT(Find(7, absl::Minutes(1), 901), ElementsAre("used msg 3 7"));
  EXPECT_THAT(Find(7, absl::Minutes(3), 901), IsEmpty());
  EXPECT_THAT(Find(7, absl::Minutes(3), 0), ElementsAre("maybe msg 3 7"));
}

TEST_F(ReusedPidTest, ThatOfAnotherMayHaveBeenATasks) {
  EXPECT_THAT(Find(8, absl::Minutes(1), 0), IsEmpty());
  EXPECT_THAT(Find(8, absl::Minutes(3), 0), ElementsAre("maybe msg 3 7"));
}

}  // namespace
}  // namespace daxsnap
