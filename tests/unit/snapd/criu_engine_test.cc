// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_engine.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/errors.h"
#include "base/files.h"
#include "snapd/engine/restorer.h"
#include "tests/unit/base/child.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Needs root, as snapd does: CRIU gets a cgroup of its own.
class CriuEngineTest : public testing::Test {
 protected:
  CriuEngineTest() : work_(OpenDirectory(AT_FDCWD, temp_.path()).value()) {
    callbacks_.started = [this](const TaskId& worker) {
      events_.push_back("started");
      worker_ = worker;
      return started_;
    };
    callbacks_.images_complete = [this] {
      events_.push_back("complete");
      return complete_;
    };
    restore_callbacks_.started = [this](const TaskId& worker,
                                        const Placement& placement) {
      events_.push_back("started");
      const std::lock_guard lock(mutex_);
      worker_ = worker;
      placement_ = placement;
      return started_;
    };
    restore_callbacks_.resuming = [this] {
      events_.push_back("resuming");
      return resuming_;
    };
  }

  CriuEngine Engine(const std::string& behaviour) {
    return CriuEngine({.criu_path = FAKE_CRIU,
                       .plugin_directory = behaviour,
                       .work_directory = temp_.path() + "/run",
                       .log_directory = temp_.path() + "/log",
                       .log_level = 2,
                       .tidy_timeout = absl::Milliseconds(100),
                       .version_timeout = absl::Milliseconds(100)});
  }

  absl::StatusOr<DumpOutcome> Dump(const std::string& behaviour) {
    CriuEngine engine = Engine(behaviour);
    return engine.Dump({.task = {.pid = 4242, .start_ticks = 1},
                        .name = "unit-test",
                        .options = {},
                        .images = work_.get(),
                        .work = work_.get()},
                       callbacks_, &cancellation_);
  }

  absl::StatusOr<RestoreOutcome> Restore(const std::string& behaviour) {
    CriuEngine engine = Engine(behaviour);
    RestoreRequest request;
    request.name = "unit-test";
    request.images = work_.get();
    request.root = 4711;
    return engine.Restore(request, restore_callbacks_, &cancellation_);
  }

  // The task that CRIU has made, once there is one.
  pid_t Task() {
    pid_t pid = 0;
    while (!absl::SimpleAtoi(ReadFileAt(work_.get(), "task", 64).value_or(""),
                             &pid)) {
      sched_yield();
    }
    return pid;
  }

  static bool Lives(pid_t pid) {
    auto task = ProcFs().ReadTask(pid);
    return task.ok() && *ProcFs().IsAlive(task->id);
  }

  std::vector<std::string> KeptLogs() {
    auto logs = OpenDirectory(work_.get(), "log");
    return logs.ok() ? *ListDirectory(logs->get()) : std::vector<std::string>();
  }

  TempDirectory temp_;
  UniqueFd work_;
  Cancellation cancellation_;
  DumpCallbacks callbacks_;
  RestoreCallbacks restore_callbacks_;
  std::vector<std::string> events_;
  TaskId worker_;
  absl::Status started_;
  std::mutex mutex_;  // while a thread restores
  Placement placement_;
  absl::Status complete_;
  absl::Status resuming_;
};

TEST_F(CriuEngineTest, DumpAsksBeforeItEnds) {
  auto outcome = Dump("ok");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_THAT(events_, ElementsAre("started", "complete"));
  EXPECT_GT(outcome->dump_us, 0u);
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
  EXPECT_THAT(KeptLogs(), IsEmpty());
}

TEST_F(CriuEngineTest, DumpEndsWithTheErrorOfItsCallback) {
  complete_ = absl::UnavailableError("the commit failed");
  EXPECT_EQ(Dump("ok").status(), complete_);
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
}

TEST_F(CriuEngineTest, NothingIsAskedOfCriuIfItCannotBeRecorded) {
  started_ = absl::UnavailableError("no record");
  EXPECT_EQ(Dump("ok").status(), started_);
  EXPECT_THAT(events_, ElementsAre("started"));
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
}

TEST_F(CriuEngineTest, FailureCarriesFirstErrorAndKeepsTheLog) {
  const absl::Status status = Dump("error").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  auto metadata = ErrorMetadataOf(status);
  EXPECT_EQ(metadata["criu_error"], "x: broken");
  ASSERT_THAT(KeptLogs(), SizeIs(1));
  EXPECT_EQ(metadata["criu_log"], temp_.path() + "/log/" + KeptLogs()[0]);
  EXPECT_TRUE(ReadFileAt(AT_FDCWD, metadata["criu_log"], 1000).ok());
}

TEST_F(CriuEngineTest, OldLogsOfCriuGoAndOutputOfTasksStays) {
  auto logs = EnsureDirectory(work_.get(), "log");
  ASSERT_TRUE(logs.ok()) << logs.status();
  const auto add = [&](const std::string& name) {
    EXPECT_TRUE(ReplaceFileAt(logs->get(), name, "x").ok());
  };
  // Their order is that of time, not of names.
  for (int i = 0; i < 100; ++i) {
    add(absl::StrFormat("%c-20250101T0000%02d.%03dZ.criu-%s.log", 'z' - i % 26,
                        i / 2, i, i % 2 == 0 ? "dump" : "restore"));
  }
  const std::vector<std::string> others = {
      "task.log", "x-criu-dump.log", "x.criu-dump.log", "x-1Z.criu-dump.log",
      "-20250101T000000.000Z.log"};
  for (const std::string& name : others) add(name);
  EXPECT_FALSE(Dump("error").ok());
  const std::vector<std::string> kept = KeptLogs();
  EXPECT_THAT(kept, SizeIs(100 + others.size()));
  for (const std::string& name : others) {
    EXPECT_THAT(kept, ::testing::Contains(name));
  }
  EXPECT_FALSE(*Exists(logs->get(), "z-20250101T000000.000Z.criu-dump.log"));
  EXPECT_TRUE(*Exists(logs->get(), "y-20250101T000000.001Z.criu-restore.log"));
}

TEST_F(CriuEngineTest, DeathOfCriuIsAFailure) {
  const absl::Status status = Dump("die").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("exit status 7"));
}

TEST_F(CriuEngineTest, DeathOfCriuBeforeItIsAskedIsTheSameFailure) {
  callbacks_.started = [](const TaskId& worker) {
    auto pidfd = OpenPidfd(ProcFs(), worker);
    if (!pidfd.ok()) return pidfd.status();
    pollfd end = {.fd = pidfd->get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&end, 1, -1), 1);
    return absl::OkStatus();
  };
  const absl::Status status = Dump("gone").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("exit status 7"));
}

TEST_F(CriuEngineTest, CancelledDumpIsStoppedByItsNextWrite) {
  auto dump = std::async(std::launch::async, [this] { return Dump("write"); });
  // The file appears when the writing has begun.
  while (!*Exists(work_.get(), "pages")) {
    ASSERT_EQ(dump.wait_for(std::chrono::milliseconds(1)),
              std::future_status::timeout);
  }
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(dump.get().status()));
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
  EXPECT_THAT(KeptLogs(), IsEmpty());
}

TEST_F(CriuEngineTest, CancellationAfterTheCommitHasNoEffect) {
  callbacks_.images_complete = [this] {
    cancellation_.Cancel();
    return absl::OkStatus();
  };
  const absl::Status status = Dump("ok").status();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(CriuEngineTest, OrphanIsStoppedByItsNextWrite) {
  // Writes until it cannot, as CRIU does while it dumps.
  Child orphan(absl::StrCat("trap '' XFSZ; echo >&3; exec 3>&-; while echo x >",
                            temp_.path(), "/pages; do :; done"));
  CriuEngine engine = Engine("ok");
  ASSERT_TRUE(engine.EndDump(orphan.id()));
  orphan.Reap();
  EXPECT_TRUE(engine.EndDump(orphan.id())) << "it is gone";
}

TEST_F(CriuEngineTest, TasksAreLetGoIfTheLogEndsSo) {
  CriuEngine engine = Engine("ok");
  EXPECT_FALSE(*engine.HasLetGo(work_.get())) << "there is none";
  const std::string failed =
      "(00.3) Error (criu/cr-dump.c:2086): Dumping FAILED.\n";
  const std::string no_answer =
      "(00.4) Error (criu/cr-service.c:860): Can't send response: EPIPE\n";
  for (const auto& [log, let_go] : {
           std::pair{failed, true},
           {"(00.1) Warn  (criu/a.c:1): odd\n" + failed, true},
           {failed + no_answer, true},
           {std::string(""), false},
           {"(00.1) Warn  (criu/a.c:1): file /tmp/Dumping FAILED.\n", false},
           {"(00.1) Warn  (criu/a.c:1): file Error (criu/cr-dump.c:1): "
            "Dumping FAILED.\n",
            false},
           {failed + "(00.4) Warn  (criu/a.c:1): more\n", false},
           {failed.substr(0, failed.size() - 1), false},
           {no_answer, false},
       }) {
    ASSERT_TRUE(ReplaceFileAt(work_.get(), "criu-dump.log", log).ok());
    EXPECT_EQ(*engine.HasLetGo(work_.get()), let_go) << log;
  }
}

TEST_F(CriuEngineTest, OrphansPidMayBeAnothersByNow) {
  const Child other;
  const TaskId orphan = {.pid = other.pid(),
                         .start_ticks = other.id().start_ticks + 1};
  EXPECT_TRUE(Engine("ok").EndDump(orphan));
  rlimit limit = {};
  ASSERT_EQ(prlimit(other.pid(), RLIMIT_FSIZE, nullptr, &limit), 0);
  EXPECT_NE(limit.rlim_cur, 0u);
}

TEST_F(CriuEngineTest, MissingCriuIsSaidSo) {
  CriuEngine engine({.criu_path = "/nonexistent/criu",
                     .plugin_directory = "",
                     .work_directory = temp_.path() + "/run",
                     .log_directory = temp_.path() + "/log",
                     .log_level = 2});
  EXPECT_EQ(ErrorReasonOf(engine.Version().status()),
            reason::kKernelUnsupported);
  EXPECT_EQ(ErrorReasonOf(engine.Dump({}, callbacks_, &cancellation_).status()),
            reason::kKernelUnsupported);
  EXPECT_THAT(events_, IsEmpty());
  EXPECT_EQ(
      ErrorReasonOf(
          engine.Restore({}, restore_callbacks_, &cancellation_).status()),
      reason::kKernelUnsupported);
}

TEST_F(CriuEngineTest, VersionIsCrius) {
  EXPECT_EQ(*Engine("ok").Version(), "4.1.1");
}

TEST_F(CriuEngineTest, VersionThatIsNeverSaidHasAnEnd) {
  const absl::Status status = Engine("hang").Version().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded);
}

TEST_F(CriuEngineTest, WhoWaitsIsToldThatItIsStillAtWork) {
  const auto let_go = [this] {
    ASSERT_TRUE(ReplaceFileAt(work_.get(), "go", "").ok());
  };
  callbacks_.working = let_go;
  EXPECT_TRUE(Dump("wait").ok());
  ASSERT_TRUE(RemoveTree(work_.get(), "go").ok());
  restore_callbacks_.working = let_go;
  EXPECT_TRUE(Restore("wait").ok());
}

// What was told last is the phase from which there is no way back.
TEST_F(CriuEngineTest, WhoHasAgreedIsNotToldThatItIsStillAtWork) {
  const auto ticked = [this] {
    ASSERT_TRUE(ReplaceFileAt(work_.get(), "ticked", "").ok());
  };
  callbacks_.working = ticked;
  EXPECT_TRUE(Dump("busy").ok());
  restore_callbacks_.working = ticked;
  EXPECT_TRUE(Restore("busy").ok());
}

// Without systemd nobody else removes them.
TEST_F(CriuEngineTest, EmptyScopesOfAKilledSnapdGo) {
  ASSERT_TRUE(Restore("ok").ok());
  if (!placement_.scope.empty()) {
    GTEST_SKIP() << "systemd sees to its scopes";
  }
  std::string mount = "/sys/fs/cgroup";
  if (*Exists(AT_FDCWD, mount + "/unified")) mount += "/unified";
  const std::string left =
      mount + placement_.cgroup.substr(0, placement_.cgroup.rfind('/')) +
      "/daxsnap-left-0123abcd.scope";
  // One with a cgroup of its tasks' own in it.
  ASSERT_TRUE(EnsureDirectories(left + "/below", 0755).ok());
  ASSERT_TRUE(Engine("ok").Version().ok());
  EXPECT_FALSE(*Exists(AT_FDCWD, left));
}

TEST_F(CriuEngineTest, RestoreTellsPidAndCgroup) {
  auto outcome = Restore("ok");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->pid, 4242);
  EXPECT_THAT(outcome->placement.cgroup,
              ::testing::HasSubstr("/daxsnap.slice/"));
  EXPECT_EQ(outcome->placement.cgroup, placement_.cgroup);
  EXPECT_THAT(events_, ElementsAre("started", "resuming"));
  // Scratch space is gone.
  EXPECT_THAT(*ListDirectory(OpenDirectory(work_.get(), "run")->get()),
              ElementsAre("criu.log"));
}

TEST_F(CriuEngineTest, FailedRestoreKeepsTheLog) {
  const absl::Status status = Restore("error").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  EXPECT_THAT(KeptLogs(), SizeIs(1));
}

// Else its PIDs would still be in use when the restore is tried again.
TEST_F(CriuEngineTest, FailedRestoreReturnsWhenItsTasksHaveEnded) {
  EXPECT_FALSE(Restore("orphan").ok());
  const std::string cgroups =
      ReadFileAt(work_.get(), "cgroup", 4096).value_or("");
  const size_t at = cgroups.find("0::/");
  ASSERT_NE(at, std::string::npos) << cgroups;
  const std::string cgroup =
      cgroups.substr(at + 3, cgroups.find('\n', at) - at - 3);
  for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    auto events = ReadFileAt(
        AT_FDCWD, absl::StrCat(mount, cgroup, "/cgroup.events"), 4096);
    if (!events.ok()) continue;
    EXPECT_THAT(*events, ::testing::HasSubstr("populated 0"));
  }
}

TEST_F(CriuEngineTest, NothingRunsThatCannotBeRecorded) {
  started_ = absl::UnavailableError("no record");
  EXPECT_EQ(Restore("ok").status(), started_);
  EXPECT_THAT(events_, ElementsAre("started"));
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
  started_ = absl::OkStatus();
  resuming_ = absl::UnavailableError("no record now");
  EXPECT_EQ(Restore("ok").status(), resuming_);
  EXPECT_FALSE(*ProcFs().IsAlive(worker_));
}

TEST_F(CriuEngineTest, CancellationAfterTheTasksMayRunHasNoEffect) {
  restore_callbacks_.resuming = [this] {
    cancellation_.Cancel();
    return absl::OkStatus();
  };
  const absl::Status status = Restore("ok").status();
  EXPECT_TRUE(status.ok()) << status;
}

// They may have written to their files: the snapshot is not what it was.
TEST_F(CriuEngineTest, TasksThatRunOutliveTheDeathOfCriu) {
  auto outcome = Restore("late");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->pid, 4711);
}

// The kernel lets go of the tasks then, as CRIU would have.
TEST_F(CriuEngineTest, TasksThatAreCompleteOutliveTheDeathOfCriu) {
  auto outcome = Restore("let-go");
  EXPECT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_TRUE(Lives(Task()));
  kill(Task(), SIGKILL);
}

TEST_F(CriuEngineTest, TasksThatRunAreLeftAndToldOf) {
  const absl::Status status = Restore("running").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["cgroup"], placement_.cgroup);
  EXPECT_EQ(ErrorMetadataOf(status)["pid"], "4711");
  EXPECT_TRUE(Lives(Task()));
  EXPECT_EQ(*Engine("ok").LookAtTasks(placement_), TasksLeft::kRun);
  kill(Task(), SIGKILL);
}

TEST_F(CriuEngineTest, TasksThatWaitForADeadCriuAreEnded) {
  const absl::Status status = Restore("half").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::Not(::testing::HasSubstr("run on")));
  EXPECT_FALSE(Lives(Task()));
}

// Files that it makes for its tasks would stay.
TEST_F(CriuEngineTest, CancelledRestoreLetsCriuTidyUp) {
  auto restore =
      std::async(std::launch::async, [this] { return Restore("ghost"); });
  const pid_t task = Task();
  EXPECT_TRUE(*Exists(work_.get(), "ghost"));
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(restore.get().status()));
  EXPECT_FALSE(Lives(task));
  EXPECT_FALSE(*Exists(work_.get(), "ghost"));
}

TEST_F(CriuEngineTest, OrphanedRestoreGetsToTidyUp) {
  auto restore =
      std::async(std::launch::async, [this] { return Restore("ghost"); });
  const pid_t task = Task();
  {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(Engine("ok").EndTasks(worker_, placement_));
  }
  EXPECT_FALSE(Lives(task));
  EXPECT_FALSE(*Exists(work_.get(), "ghost"));
  EXPECT_FALSE(restore.get().ok());
}

// As they are seen from outside.
TEST_F(CriuEngineTest, TasksInTheRestorerAreTold) {
  constexpr char kMaps[] =
      "00010000-00020000 rwxp 00000000 00:00 0 \n"
      "00030000-00031000 rw-s 00000000 00:01 77    /dev/zero (deleted)\n"
      "00040000-00041000 r-xp 00000000 08:01 5     /usr/lib/libc.so.6\n"
      "00050000-00051000 rw-p 00000000 00:00 0 \n";
  const auto at = [](int number, const char* futex, const char* pc) {
    return absl::StrCat(number, " 0x", futex, " 0x0 0x4 0x0 0x0 0x0 0x7ffc 0x",
                        pc, "\n");
  };
  EXPECT_TRUE(WaitsInRestorer(at(SYS_futex, "30010", "10123"), kMaps));
  EXPECT_FALSE(WaitsInRestorer(at(SYS_futex, "30010", "40123"), kMaps));
  EXPECT_FALSE(WaitsInRestorer(at(SYS_futex, "50010", "10123"), kMaps));
  EXPECT_FALSE(WaitsInRestorer(at(SYS_read, "30010", "10123"), kMaps));
  EXPECT_FALSE(WaitsInRestorer("running\n", kMaps));
  EXPECT_FALSE(WaitsInRestorer("-1 0x7ffc 0x10123\n", kMaps));
  EXPECT_FALSE(WaitsInRestorer("", ""));
}

TEST_F(CriuEngineTest, TasksOfARestoreWithoutItsSnapdAreFoundAndEnded) {
  CriuEngine engine = Engine("ok");
  EXPECT_EQ(*engine.LookAtTasks({}), TasksLeft::kNone) << "of no cgroup";
  EXPECT_TRUE(engine.EndTasks({}, {}));
  restore_callbacks_.started = [&](const TaskId& worker,
                                   const Placement& placement) {
    EXPECT_EQ(*engine.LookAtTasks(placement), TasksLeft::kRun);
    EXPECT_TRUE(engine.EndTasks({}, placement));
    EXPECT_EQ(*engine.LookAtTasks(placement), TasksLeft::kNone);
    EXPECT_FALSE(*ProcFs().IsAlive(worker));
    EXPECT_TRUE(engine.AwaitWorker(worker));
    return absl::OkStatus();
  };
  EXPECT_EQ(ErrorReasonOf(Restore("ok").status()), reason::kCriuFailed);
}

TEST_F(CriuEngineTest, CancelledRestoreIsKilled) {
  auto restore =
      std::async(std::launch::async, [this] { return Restore("hang"); });
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(restore.get().status()));
}

}  // namespace
}  // namespace daxsnap
