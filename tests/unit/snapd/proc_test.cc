// SPDX-License-Identifier: Apache-2.0
#include "host/task/proc.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "snapd/ops/preflight.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/host/fake_proc.h"

namespace daxsnap {
namespace {

std::string Stat(const std::string& comm, char state, unsigned flags) {
  return absl::StrCat("7 (", comm, ") ", std::string(1, state), " 3 7 7 0 -1 ",
                      flags, " 0 0 0 0 0 0 0 0 20 0 1 0 98765 0 0\n");
}

constexpr char kStatus[] =
    "Name:\tx\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";

TEST(ProcFs, ParsesNamesThatLookLikeFields) {
  FakeProc fake;
  fake.AddTask(7, Stat("a) S 1 (b", 'S', 0), kStatus);
  auto task = fake.proc().ReadTask(7);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ(task->comm, "a) S 1 (b");
  EXPECT_EQ(task->parent_pid, 3);
  EXPECT_EQ(task->id.start_ticks, 98765u);
  EXPECT_EQ(task->uids, (std::array<uid_t, 4>{1, 2, 3, 4}));
  EXPECT_EQ(task->gids, (std::array<gid_t, 4>{5, 6, 7, 8}));
}

TEST(ProcFs, MissingTaskIsNotFound) {
  const FakeProc fake;
  EXPECT_TRUE(absl::IsNotFound(fake.proc().ReadTask(7).status()));
  EXPECT_TRUE(absl::IsNotFound(fake.proc().ReadTree(7).status()));
}

TEST(ProcFs, ReadsFilesThatAreMappedOnce) {
  FakeProc fake;
  fake.AddFile(
      "7/maps",
      "00400000-00401000 r-xp 00000000 fd:0a 12   /bin/a b\n"
      "00500000-00501000 rw-s 00001000 fd:0a 12   /bin/a b\n"
      "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
      "7f0000002000-7f0000003000 rw-s 00000000 00:01 0   /SYSV00001234 "
      "(deleted)\n"
      "7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0   [stack]\n\n");
  auto maps = fake.proc().ReadMaps(7);
  ASSERT_TRUE(maps.ok()) << maps.status();
  ASSERT_EQ(maps->size(), 2u);
  EXPECT_EQ(maps->at(0).path, "/bin/a b");
  EXPECT_EQ(maps->at(0).range, "400000-401000");
  EXPECT_EQ(maps->at(0).device, makedev(0xfd, 0x0a));
  EXPECT_EQ(maps->at(0).inode, 12u);
  EXPECT_TRUE(maps->at(0).shared);
  EXPECT_EQ(maps->at(1).path, "/SYSV00001234 (deleted)");
  EXPECT_TRUE(absl::IsNotFound(fake.proc().ReadMaps(8).status()));
  fake.AddFile("7/maps", "gibberish\n");
  EXPECT_TRUE(absl::IsInternal(fake.proc().ReadMaps(7).status()));
}

TEST(ProcFs, ReadsMounts) {
  FakeProc fake;
  fake.AddFile("7/mountinfo",
               "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
               "23 22 0:21 /sub /mnt/a\\040b\\134c rw - tmpfs tmpfs rw\n\n");
  auto mounts = fake.proc().ReadMounts(7);
  ASSERT_TRUE(mounts.ok()) << mounts.status();
  ASSERT_EQ(mounts->size(), 2u);
  EXPECT_EQ(mounts->at(0).id, 22);
  EXPECT_EQ(mounts->at(0).device, makedev(254, 1));
  EXPECT_EQ(mounts->at(0).mount_point, "/");
  EXPECT_EQ(mounts->at(0).type, "ext4");
  EXPECT_EQ(mounts->at(1).mount_point, "/mnt/a b\\c");
  EXPECT_EQ(mounts->at(1).type, "tmpfs");
  for (const char* text :
       {"gibberish\n", "22 1 254:1 / / rw,relatime shared:1\n"}) {
    fake.AddFile("7/mountinfo", text);
    EXPECT_TRUE(absl::IsInternal(fake.proc().ReadMounts(7).status())) << text;
  }
}

TEST(TaskKind, KernelThreadsZombiesThreadsAndInitAreRefused) {
  struct Case {
    TaskInfo task;
    const char* kind;
  };
  TaskInfo user;
  user.id.pid = 7;
  user.thread_group = 7;
  user.state = 'S';
  EXPECT_TRUE(CheckTaskKind(user).ok());
  Case cases[] = {{user, "kernel-thread"},
                  {user, "zombie"},
                  {user, "thread"},
                  {user, "init"}};
  cases[0].task.kernel_thread = true;
  cases[1].task.state = 'Z';
  cases[2].task.thread_group = 6;
  cases[3].task.id.pid = cases[3].task.thread_group = 1;
  for (const Case& c : cases) {
    const absl::Status status = CheckTaskKind(c.task);
    EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported) << c.kind;
    EXPECT_EQ(ErrorMetadataOf(status)["kind"], c.kind);
  }
}

TEST(TaskKind, KernelThreadIsToldByItsFlag) {
  FakeProc fake;
  fake.AddTask(7, Stat("kworker", 'I', 0x00208040), kStatus);
  EXPECT_TRUE(fake.proc().ReadTask(7)->kernel_thread);
}

TEST(ProcFs, OnlyTasksKnownToLackCapabilitiesAreNotPrivileged) {
  struct Case {
    const char* line;
    bool privileged;
  };
  for (const Case& c : {Case{"CapPrm:\t0000000000000000\n", false},
                        Case{"CapPrm:\t0000000000000400\n", true},
                        Case{"CapPrm:\tnone\n", true}, Case{"", true}}) {
    FakeProc fake;
    fake.AddTask(7, Stat("x", 'S', 0), std::string(kStatus) + c.line);
    EXPECT_EQ(fake.proc().ReadTask(7)->privileged, c.privileged) << c.line;
  }
}

// A shell with a pipeline of two below it.
constexpr char kPipeline[] =
    "sleep infinity 3>&- | { echo >&3; exec 3>&-; exec sleep infinity; }";

void KillDescendants(const std::vector<TaskInfo>& tree) {
  for (size_t i = 1; i < tree.size(); ++i) kill(tree[i].id.pid, SIGKILL);
}

TEST(ProcFs, KilledTasksAreDoomed) {
  struct Case {
    unsigned flags;
    const char* pending;
    bool doomed;
  };
  for (const Case& c :
       {Case{0, "SigPnd:\t0000000000000100\n", true},
        Case{0, "ShdPnd:\t0000000000000100\n", true}, Case{0x4, "", true},
        Case{0, "SigPnd:\t0000000000004000\n", false}}) {
    FakeProc fake;
    fake.AddTask(7, Stat("x", 'R', c.flags), std::string(kStatus) + c.pending);
    EXPECT_EQ(fake.proc().ReadTask(7)->doomed, c.doomed) << c.pending;
    EXPECT_EQ(*fake.proc().IsAlive({.pid = 7, .start_ticks = 98765}),
              !c.doomed);
  }
}

TEST(ProcFs, ReadsRealTrees) {
  const Child shell(kPipeline);
  auto tree = ProcFs().ReadTree(shell.pid());
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_EQ(tree->size(), 3u);
  EXPECT_EQ(tree->at(0).id, shell.id());
  for (size_t i = 1; i < tree->size(); ++i) {
    EXPECT_EQ(tree->at(i).parent_pid, shell.pid());
  }
  KillDescendants(*tree);
}

TEST(ProcFs, AliveMeansThisIncarnation) {
  Child child;
  const ProcFs proc;
  EXPECT_TRUE(*proc.IsAlive(child.id()));
  EXPECT_FALSE(*proc.IsAlive({child.pid(), child.id().start_ticks + 1}));
  EXPECT_TRUE(OpenPidfd(proc, child.id()).ok());
  EXPECT_TRUE(absl::IsNotFound(
      OpenPidfd(proc, {child.pid(), child.id().start_ticks + 1}).status()));
  child.Kill();
  EXPECT_FALSE(*proc.IsAlive(child.id()));
}

TEST(Preflight, SnapdItselfIsRefused) {
  auto tree = ProcFs().ReadTree(getpid());
  ASSERT_TRUE(tree.ok());
  const absl::Status status = CheckWithoutSelf(*tree, getpid());
  EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported);
  EXPECT_EQ(ErrorMetadataOf(status)["kind"], "snapd");
}

TEST(Preflight, MembersOfOthersSessionsAreRefused) {
  const Child shell(kPipeline);
  auto tree = ProcFs().ReadTree(shell.pid());
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_TRUE(CheckSession(tree->front()).ok());
  const absl::Status status = CheckSession(tree->back());
  EXPECT_EQ(ErrorReasonOf(status), reason::kExternalSession) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["session"], absl::StrCat(shell.pid()));
  KillDescendants(*tree);
}

TEST(Preflight, MessageQueuesAreRefused) {
  const std::string name = absl::StrCat("/daxsnap-unit-", getpid());
  const mqd_t queue = mq_open(name.c_str(), O_CREAT | O_RDWR, 0600, nullptr);
  ASSERT_GE(queue, 0) << errno;
  mq_unlink(name.c_str());
  // Of the kernel's own mounts as well.
  const UniqueFd memory(memfd_create("queue", 0));
  ASSERT_EQ(ftruncate(memory.get(), 80), 0);
  const ProcFs proc;
  auto task = proc.ReadTask(getpid());
  ASSERT_TRUE(task.ok());
  const absl::Status status = CheckDescriptors(proc, {*task});
  EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["kind"], "message-queue");
  mq_close(queue);
  EXPECT_NE(ErrorReasonOf(CheckDescriptors(proc, {*task})),
            reason::kTaskUnsupported);
}

TEST(Preflight, PoliciesThatDoNotComeBackAreRefused) {
  struct Case {
    unsigned policy;
    const char* name;
  };
  const ProcFs real;
  auto self = real.ReadTask(getpid());
  ASSERT_TRUE(self.ok());
  EXPECT_TRUE(CheckPolicies(real, {*self}).ok());
  for (const Case& c :
       {Case{SCHED_OTHER, ""}, Case{SCHED_FIFO, ""}, Case{SCHED_RR, ""},
        Case{SCHED_BATCH, ""}, Case{SCHED_IDLE, ""}, Case{6, "SCHED_DEADLINE"},
        Case{7, "SCHED_EXT"}, Case{42, "policy 42"}}) {
    FakeProc fake;
    fake.AddTask(7, Stat("x", 'S', 0), kStatus);
    std::string stat = "8 (a) b) S";
    // Fields 4 to 40, and those behind.
    for (int field = 4; field <= 40; ++field) stat += " 1";
    fake.AddFile("7/task/8/stat", absl::StrCat(stat, " ", c.policy, " 0 0\n"));
    auto task = fake.proc().ReadTask(7);
    ASSERT_TRUE(task.ok()) << task.status();
    const absl::Status status = CheckPolicies(fake.proc(), {*task});
    if (*c.name == '\0') {
      EXPECT_TRUE(status.ok()) << status;
      continue;
    }
    EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported) << c.name;
    EXPECT_EQ(ErrorMetadataOf(status)["kind"], "scheduling-policy");
    EXPECT_TRUE(absl::StrContains(status.message(), c.name)) << status;
  }
}

TEST(Preflight, PipesWithinTheTreeAreFine) {
  const Child shell(kPipeline);
  const ProcFs proc;
  auto tree = proc.ReadTree(shell.pid());
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_TRUE(CheckDescriptors(proc, *tree).ok());
  // One end of the pipe is outside now.
  const absl::Status status = CheckDescriptors(proc, {tree->back()});
  EXPECT_EQ(ErrorReasonOf(status), reason::kExternalTerminal) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["pid"], absl::StrCat(tree->back().id.pid));
  KillDescendants(*tree);
}

TEST(Preflight, ServersOfFileSystemsAreRefused) {
  const FakeProc fake;
  fake.AddLink("7/fd/3", "/dev/fuse");
  fake.AddFile("7/fdinfo/3", "pos:\t0\nflags:\t0100002\nmnt_id:\t30\n");
  TaskInfo task;
  task.id.pid = 7;
  const absl::Status status = CheckDescriptors(fake.proc(), {task});
  EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["kind"], "fuse-server");
}

}  // namespace
}  // namespace daxsnap
