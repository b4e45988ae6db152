// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/access.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "base/errors.h"
#include "host/task/trace_probe.h"
#include "tests/unit/base/child.h"

namespace daxsnap {
namespace {

constexpr uid_t kUid = 65534;
constexpr Caller kUser = {.uid = kUid, .gid = kUid};
constexpr Caller kRoot = {.uid = 0, .gid = 0};

// glibc's wrappers are for all threads: a sanitizer may have started one.
bool TakeIds(bool of_all_threads) {
  if (of_all_threads) {
    return setresgid(kUid, kUid, kUid) == 0 && setresuid(kUid, kUid, kUid) == 0;
  }
  return syscall(SYS_setresgid, kUid, kUid, kUid) == 0 &&
         syscall(SYS_setresuid, kUid, kUid, kUid) == 0;
}

// A task of kUser's, made by this test, which is root.
class UserTask : public ForkedTask {
 public:
  // `as_user` runs in the task when it is kUser's, `as_root` before. Threads
  // that `as_root` starts stay root's.
  explicit UserTask(
      const std::function<void()>& as_user = [] {},
      const std::function<void()>& as_root = nullptr)
      : ForkedTask([&] {
          if (as_root) as_root();
          if (!TakeIds(/*of_all_threads=*/!as_root)) _exit(1);
          // As after execve(2) of an ordinary program.
          prctl(PR_SET_DUMPABLE, 1);
          as_user();
        }) {
    EXPECT_EQ(geteuid(), 0u) << "only root can make tasks of other users";
  }
};

absl::Status Check(const Caller& caller, const std::vector<TaskInfo>& tree) {
  return CheckTaskAccess(caller, tree, ProcFs());
}

TEST(Access, OwnTasksAreAllowed) {
  const UserTask task;
  const absl::Status status = Check(kUser, task.Tree());
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Access, RootMayDoEverything) {
  const UserTask task([] { prctl(PR_SET_DUMPABLE, 0); });
  EXPECT_TRUE(Check(kRoot, task.Tree()).ok());
  EXPECT_TRUE(CheckSnapshotAccess(kRoot, 1000, "s").ok());
}

TEST(Access, TasksOfOthersAreDenied) {
  const UserTask task;
  for (const Caller& caller :
       {Caller{.uid = 65533, .gid = kUid}, Caller{.uid = kUid, .gid = 65533}}) {
    EXPECT_EQ(ErrorReasonOf(Check(caller, task.Tree())),
              reason::kPermissionDenied);
  }
}

TEST(Access, EveryIdOfEveryTaskCounts) {
  const UserTask task;
  for (size_t id = 0; id < 4; ++id) {
    std::vector<TaskInfo> tree = {task.Tree()[0], task.Tree()[0]};
    tree[1].uids[id] = 0;
    EXPECT_EQ(ErrorReasonOf(Check(kUser, tree)), reason::kPermissionDenied)
        << "uid " << id;
    tree[1] = tree[0];
    tree[1].gids[id] = 0;
    EXPECT_EQ(ErrorReasonOf(Check(kUser, tree)), reason::kPermissionDenied)
        << "gid " << id;
  }
}

// As ssh-agent does: all of its IDs are its user's.
TEST(Access, TasksThatAreNotDumpableAreDenied) {
  const UserTask agent([] { prctl(PR_SET_DUMPABLE, 0); });
  const UserTask ordinary;
  const absl::Status status = Check(kUser, agent.Tree());
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_EQ(ErrorReasonOf(status), reason::kPermissionDenied);
  EXPECT_EQ(ErrorReasonOf(Check(kUser, {ordinary.Tree()[0], agent.Tree()[0]})),
            reason::kPermissionDenied);
}

// A second /proc, in which users see only what they may trace.
class HidingProc {
 public:
  HidingProc() {
    EXPECT_NE(mkdtemp(path_), nullptr);
    EXPECT_EQ(mount("proc", path_, "proc", 0, "hidepid=2"), 0);
  }
  HidingProc(const HidingProc&) = delete;
  HidingProc& operator=(const HidingProc&) = delete;
  ~HidingProc() {
    umount2(path_, MNT_DETACH);
    rmdir(path_);
  }

  ProcFs fs() const { return ProcFs(path_); }

 private:
  char path_[32] = "/tmp/daxsnap-proc.XXXXXX";
};

TEST(Access, WhatProcHidesIsNotTakenForGone) {
  const UserTask agent([] { prctl(PR_SET_DUMPABLE, 0); });
  const UserTask ordinary;
  const HidingProc proc;
  const absl::Status status = CheckTaskAccess(kUser, agent.Tree(), proc.fs());
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_TRUE(CheckTaskAccess(kUser, ordinary.Tree(), proc.fs()).ok());
}

TEST(Access, TasksWithCapabilitiesAreDenied) {
  const UserTask task;
  std::vector<TaskInfo> tree = task.Tree();
  tree[0].privileged = true;
  EXPECT_EQ(ErrorReasonOf(Check(kUser, tree)), reason::kPermissionDenied);
}

// One thread can have IDs that the others have not.
TEST(Access, EveryThreadCounts) {
  const UserTask task([] {},
                      [] {
                        std::thread([] {
                          for (;;) pause();
                        }).detach();
                      });
  const std::vector<TaskInfo> tree = task.Tree();
  EXPECT_EQ(tree[0].uids[0], kUid);
  EXPECT_GE(ProcFs().ReadThreads(task.pid())->size(), 2u);
  EXPECT_EQ(ErrorReasonOf(Check(kUser, tree)), reason::kPermissionDenied);
}

TEST(Access, ZombiesHaveNothingToTake) {
  const UserTask task;
  kill(task.pid(), SIGKILL);
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(task.pid()), &info, WEXITED | WNOWAIT),
      0);
  const std::vector<TaskInfo> tree = task.Tree();
  EXPECT_EQ(tree[0].state, 'Z');
  const absl::Status status = Check(kUser, tree);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Access, AskingHasAnEnd) {
  const UserTask task;
  const auto late =
      FindUntraceable(kUid, kUid, {task.pid()}, ProcFs(), absl::ZeroDuration());
  EXPECT_TRUE(absl::IsUnavailable(late.status())) << late.status();
  EXPECT_EQ(ErrorReasonOf(late.status()), reason::kOverloaded);
}

TEST(Access, SnapshotIsOfTheUserWhoCouldHaveTakenItElseRoots) {
  const UserTask task;
  const UserTask agent([] { prctl(PR_SET_DUMPABLE, 0); });
  EXPECT_EQ(*OwnerOf(task.Tree(), ProcFs()), kUid);
  EXPECT_EQ(*OwnerOf(agent.Tree(), ProcFs()), 0u);
  TaskInfo set_user_id = task.Tree()[0];
  set_user_id.uids = {kUid, 0, 0, 0};
  EXPECT_EQ(*OwnerOf({set_user_id}, ProcFs()), 0u);
  EXPECT_EQ(*OwnerOf({task.Tree()[0], set_user_id}, ProcFs()), 0u);
}

TEST(Access, SnapshotsOfOthersAreDenied) {
  EXPECT_TRUE(CheckSnapshotAccess(kUser, kUid, "s").ok());
  const absl::Status status = CheckSnapshotAccess(kUser, 1001, "s");
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrorMetadataOf(status)["uid"], "65534");
}

}  // namespace
}  // namespace daxsnap
