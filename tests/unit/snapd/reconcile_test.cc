// SPDX-License-Identifier: Apache-2.0
//
// What a snapd does with what a killed one left.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <utility>

#include "base/errors.h"
#include "base/files.h"
#include "base/uuid.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "snapd/ops/recovery.h"
#include "snapd/store/catalog.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ReconcileTest : public testing::Test {
 protected:
  ReconcileTest() : pool_(TestPool::Open(temp_.path())) {}

  internal::Operation OperationOn(const Child& task) {
    internal::Operation operation;
    operation.set_uid(NewUuid());
    operation.set_name("a");
    operation.set_pid(task.pid());
    operation.set_start_ticks(task.id().start_ticks);
    operation.set_boot_id(*proc_.BootId());
    return operation;
  }

  // As OperationOn, and `criu` works on it.
  internal::Operation OperationOn(const Child& task, const TaskId& criu) {
    internal::Operation operation = OperationOn(task);
    operation.set_criu_pid(criu.pid);
    operation.set_criu_start_ticks(criu.start_ticks);
    return operation;
  }

  // What a snapd did before it was killed.
  StagedSnapshot Begin(const internal::Operation& operation) {
    Catalog before(pool_.get());
    auto staged = before.Begin(operation);
    EXPECT_TRUE(staged.ok()) << staged.status();
    return *std::move(staged);
  }

  void Publish(const internal::Operation& operation,
               bool left_running = false) {
    Catalog before(pool_.get());
    auto staged = before.Begin(operation);
    ASSERT_TRUE(staged.ok()) << staged.status();
    v1::Manifest manifest;
    manifest.set_format_version(1);
    manifest.mutable_snapshot()->set_uid(operation.uid());
    manifest.mutable_snapshot()->set_left_running(left_running);
    ASSERT_TRUE(ReplaceFileAt(staged->images.get(), "x.img", "12345").ok());
    ASSERT_TRUE(before.WriteManifest(staged->directory.get(), manifest).ok());
    ASSERT_TRUE(before.Publish(&*staged).ok());
  }

  // A restore of "a" that has made `root`, or will.
  internal::Operation RestoreOf(const Child& root) {
    internal::Operation operation = OperationOn(root);
    operation.set_kind(internal::OPERATION_KIND_RESTORE);
    operation.set_cgroup("/daxsnap.slice/a");
    operation.set_request_id("r");
    return operation;
  }

  absl::Status Write(const internal::Operation& operation) {
    return Records(pool_->staging()).Write(operation);
  }

  absl::Status Reconcile() {
    Catalog catalog(pool_.get());
    return Recover(proc_, &engine_, pool_.get(), &catalog);
  }

  TempDirectory temp_;
  std::unique_ptr<TestPool> pool_;
  const ProcFs proc_;
  FakeEngine engine_{nullptr};
};

TEST_F(ReconcileTest, EmptyStagingNeedsNoCommit) {
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_EQ(pool_->commits(), 0);
}

TEST_F(ReconcileTest, RemovesWhatWasBeingMade) {
  const Child task;
  Begin(OperationOn(task));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
}

TEST_F(ReconcileTest, RemovesWhatHasNoRecord) {
  const std::string garbage = NewUuid();
  const std::string deleted = NewUuid();
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), garbage).ok());
  ASSERT_TRUE(
      ReplaceFileAt(pool_->staging(), garbage + "/operation.pb", "\xff").ok());
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), deleted).ok());
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), deleted + "/images").ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// Somebody puts it there while the pool is open.
TEST_F(ReconcileTest, LeavesWhatSnapdHasNotMade) {
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), "website").ok());
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), NewUuid()).ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), ElementsAre("website"));
}

TEST_F(ReconcileTest, TakesBackAPublicationWhoseTaskRunsOn) {
  const Child task;
  Publish(OperationOn(task));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_EQ(task.State(), 'R');
}

TEST_F(ReconcileTest, KeepsAPublicationWhoseTaskIsGone) {
  Child task;
  Publish(OperationOn(task));
  task.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  auto manifest = Catalog(pool_.get()).Read("a");
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ(manifest->snapshot().image_bytes(), 5u);
}

// Statistics are not worth the snapshot of tasks that are gone.
TEST_F(ReconcileTest, KeepsAPublicationWhoseManifestCannotBeWrittenAgain) {
  Child task;
  Publish(OperationOn(task));
  task.Kill();
  const ScopedFileFault fault(FailWith(EIO, "sync", "manifest.pb"));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

TEST_F(ReconcileTest, TakesBackAPublicationWhoseTaskOthersHaveEnded) {
  for (const bool let_go : {false, true}) {
    Child task;
    internal::Operation operation = OperationOn(task);
    operation.set_kill(let_go ? internal::KILL_STATE_AGREED
                              : internal::KILL_STATE_NOT_AGREED);
    engine_.has_let_go = let_go;
    Publish(operation);
    task.Kill();
    EXPECT_TRUE(Reconcile().ok());
    EXPECT_THAT(pool_->Staging(), IsEmpty());
    EXPECT_THAT(pool_->Snapshots(), IsEmpty()) << let_go;
  }
}

TEST_F(ReconcileTest, KeepsAPublicationWhoseTaskItHasKilled) {
  Child task;
  internal::Operation operation = OperationOn(task);
  operation.set_kill(internal::KILL_STATE_AGREED);
  Publish(operation);
  task.Kill();
  engine_.has_let_go = absl::UnavailableError("EMFILE");
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(1));
  engine_.has_let_go = false;
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

void AddVictim(const Child& task, uint64_t later, uint64_t ran,
               internal::Operation* operation) {
  internal::Victim* victim = operation->add_victims();
  victim->set_pid(task.pid());
  victim->set_start_ticks(task.id().start_ticks + later);
  victim->set_cpu_ticks(ProcFs().ReadTask(task.pid())->cpu_ticks + ran);
}

// CRIU kills the root first; it died before it came to the other.
TEST_F(ReconcileTest, EndsTheRestOfATreeThatWasBeingKilled) {
  Child root;
  Child other;
  const Child reused;
  other.Stop();
  internal::Operation operation = OperationOn(root);
  operation.set_kill(internal::KILL_STATE_AGREED);
  AddVictim(root, 0, 0, &operation);
  AddVictim(other, 0, 0, &operation);
  AddVictim(reused, 1, 1, &operation);
  Publish(operation);
  root.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_EQ(other.State(), 'Z');
  EXPECT_EQ(reused.State(), 'R');
}

// Its root has ended by itself, perhaps.
TEST_F(ReconcileTest, DoesNotEndATreeOfWhichATaskHasRunOn) {
  Child root;
  const Child idle;
  const Child busy;
  internal::Operation operation = OperationOn(root);
  operation.set_kill(internal::KILL_STATE_AGREED);
  AddVictim(root, 0, 0, &operation);
  AddVictim(idle, 0, 0, &operation);
  AddVictim(busy, 0, 1, &operation);
  Publish(operation);
  root.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_EQ(idle.State(), 'R');
  EXPECT_EQ(busy.State(), 'R');
}

// Nothing is known of what it has done since.
TEST_F(ReconcileTest, DoesNotEndTasksThatMayHaveRunOn) {
  Child root;
  const Child other;
  internal::Operation operation = OperationOn(root);
  operation.set_kill(internal::KILL_STATE_AGREED);
  Publish(operation);
  Catalog catalog(pool_.get());
  auto manifest = catalog.Read("a");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  v1::Task* record = manifest->add_tasks()->mutable_task();
  record->set_pid(other.pid());
  record->set_start_ticks(other.id().start_ticks);
  ASSERT_TRUE(catalog.WriteManifest(catalog.Open("a")->get(), *manifest).ok());
  root.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_EQ(other.State(), 'R');
}

// Asked to kill, it kills: its last words are needed.
TEST_F(ReconcileTest, CriuThatMayKillIsNotMadeToFail) {
  const Child task;
  const Child criu;
  internal::Operation operation = OperationOn(task, criu.id());
  operation.set_kill(internal::KILL_STATE_AGREED);
  Begin(operation);
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_dumps, IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// They ran on, until somebody else ended them.
TEST_F(ReconcileTest, PublicationThatWasBeingTakenBackHasKilledNothing) {
  Child task;
  internal::Operation operation = OperationOn(task);
  operation.set_kill(internal::KILL_STATE_AGREED);
  Publish(operation);
  {
    const ScopedFileFault fault(FailWith(EIO, "rename", operation.uid()));
    EXPECT_FALSE(Reconcile().ok());
  }
  task.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// They would wait for their CRIU for ever.
TEST_F(ReconcileTest, EndsTasksOfARestoreThoughThePoolCanOnlyBeRead) {
  const Child root;
  ASSERT_TRUE(Write(RestoreOf(root)).ok());
  pool_->writable = absl::FailedPreconditionError("read-only");
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_cgroups, ElementsAre("/daxsnap.slice/a"));
}

// It is all that is left of them.
TEST_F(ReconcileTest, KilledTasksCanBeReadInAPoolThatCanOnlyBeRead) {
  Child task;
  Publish(OperationOn(task));
  task.Kill();
  pool_->writable = absl::FailedPreconditionError("read-only");
  Catalog catalog(pool_.get());
  EXPECT_FALSE(Recover(proc_, &engine_, pool_.get(), &catalog).ok());
  EXPECT_TRUE(catalog.Read("a").ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(1));
}

TEST_F(ReconcileTest, KeepsAPublicationOfAnotherBoot) {
  // The PID is alive, but it is another task on another boot.
  const Child task;
  internal::Operation operation = OperationOn(task);
  operation.set_boot_id("another");
  Publish(operation);
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// A CRIU may be writing there.
TEST_F(ReconcileTest, LeavesWhatItCannotReadToTheNext) {
  const Child task;
  Begin(OperationOn(task, task.id()));
  for (const auto& [call, name] :
       {std::pair{"open", ".operation"}, std::pair{"read", "/boot_id"},
        std::pair{"read", "stat"}}) {
    const ScopedFileFault fault(FailWith(EMFILE, call, name));
    EXPECT_EQ(ErrnoNameOf(Reconcile()), "EMFILE") << name;
    EXPECT_THAT(pool_->Staging(), SizeIs(2));
    EXPECT_THAT(engine_.ended_dumps, IsEmpty());
  }
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, LeavesAPublicationThatItCannotReadToTheNext) {
  const Child task;
  Publish(OperationOn(task));
  {
    const ScopedFileFault fault(FailWith(EIO, "read", "manifest.pb"));
    EXPECT_EQ(ErrorReasonOf(Reconcile()), reason::kSnapshotUnreadable);
    EXPECT_THAT(pool_->Staging(), SizeIs(1));
  }
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
}

// It is not to be taken for the result of a call that asks again.
TEST_F(ReconcileTest, PublicationThatIsNotTakenBackYetIsNobodysSnapshot) {
  Child task;
  const internal::Operation operation = OperationOn(task);
  Publish(operation);
  pool_.reset();
  FakeEngine engine(&task);
  PoolHolder holder(
      [this]() -> absl::StatusOr<std::unique_ptr<Pool>> {
        return TestPool::Open(temp_.path());
      },
      proc_, &engine);
  // To staging, of which it was.
  const auto fail = [&] {
    return ScopedFileFault(FailWith(EIO, "rename", operation.uid()));
  };
  {
    const ScopedFileFault fault = fail();
    ASSERT_TRUE(holder.Get().ok());
  }
  Catalog& catalog = (*holder.Get())->catalog;
  EXPECT_EQ(ErrorReasonOf(catalog.Read("a").status()),
            reason::kSnapshotUnreadable);
  Operations operations(
      &holder, &engine, proc_,
      {.sync = [](const std::vector<SyncTarget>&, absl::Duration,
                  const Cancellation&, int) { return SyncOutcome(); },
       .find = [](const ProcFs&, const std::vector<TaskInfo>&,
                  const std::vector<UsedFile>&, const FindingsInput&)
           -> absl::StatusOr<std::vector<v1::Finding>> {
         return std::vector<v1::Finding>();
       }});
  v1::CreateSnapshotRequest request;
  request.set_pid(task.pid());
  request.set_name("a");
  Cancellation never;
  const auto create = [&] {
    return operations.Create(
        {.uid = 0, .gid = 0}, request, [](v1::ProgressPhase) {}, &never);
  };
  {
    const ScopedFileFault fault = fail();
    EXPECT_EQ(ErrorReasonOf(create().status()), reason::kBusy);
    EXPECT_EQ(task.State(), 'R');
  }
  // The next call takes it back first.
  auto result = create();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->already_existed());
  EXPECT_EQ(task.State(), 'Z');
}

TEST_F(ReconcileTest, LeavesAnotherSnapshotOfThatNameAlone) {
  Catalog catalog(pool_.get());
  AddSnapshot(&catalog, "a", 0);
  const Child task;
  Begin(OperationOn(task));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, WaitsForCriuThatStillWorks) {
  const Child task;
  const Child criu;
  Begin(OperationOn(task, criu.id()));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_dumps, ElementsAre(criu.pid()));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, TouchesNothingWhileCriuDoesNotEnd) {
  const Child task;
  const Child criu;
  Begin(OperationOn(task, criu.id()));
  engine_.worker_ends = false;
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(2));
}

TEST_F(ReconcileTest, DoesNotWaitForAnotherTaskOnCriusPid) {
  const Child task;
  const Child other;
  Begin(OperationOn(task, {other.pid(), other.id().start_ticks + 1}));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_dumps, IsEmpty());
}

// Its caller may have the result.
TEST_F(ReconcileTest, KeepsAPublicationWhoseTaskWasLeftRunning) {
  const Child task;
  Publish(OperationOn(task), /*left_running=*/true);
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_EQ(task.State(), 'R');
}

TEST_F(ReconcileTest, EndsTasksOfARestoreThatHaveNotRun) {
  const Child root;
  ASSERT_TRUE(Write(RestoreOf(root)).ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_cgroups, ElementsAre("/daxsnap.slice/a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, RemembersTasksOfARestoreThatDoNotEnd) {
  const Child root;
  ASSERT_TRUE(Write(RestoreOf(root)).ok());
  engine_.worker_ends = false;
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(1));
}

TEST_F(ReconcileTest, LeavesTasksOfARestoreThatMayHaveRun) {
  const Child root;
  const Child criu;
  internal::Operation operation = RestoreOf(root);
  operation.set_start_ticks(0);
  operation.set_criu_pid(criu.pid());
  operation.set_criu_start_ticks(criu.id().start_ticks);
  operation.set_resuming(true);
  ASSERT_TRUE(Write(operation).ok());
  engine_.tasks_left = TasksLeft::kRun;
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.awaited_restores, ElementsAre(criu.pid()));
  EXPECT_THAT(engine_.ended_cgroups, IsEmpty());
  // Who asks again is told.
  auto record = Records(pool_->staging()).Read(operation.uid());
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->result().pid(), root.pid());
  EXPECT_EQ(record->result().cgroup(), "/daxsnap.slice/a");
  EXPECT_EQ(record->start_ticks(), root.id().start_ticks);
}

// CRIU has died, too.
TEST_F(ReconcileTest, EndsTasksOfARestoreThatCouldRunAndNeverDid) {
  const Child root;
  internal::Operation operation = RestoreOf(root);
  operation.set_resuming(true);
  ASSERT_TRUE(Write(operation).ok());
  engine_.tasks_left = TasksLeft::kNeverRan;
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_cgroups, ElementsAre("/daxsnap.slice/a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, RestoreThatMayHaveRunAndHasNoTasksIsOver) {
  const Child root;
  internal::Operation operation = RestoreOf(root);
  operation.set_resuming(true);
  ASSERT_TRUE(Write(operation).ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_cgroups, IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, TasksThatCannotBeCountedAreLeftToTheNext) {
  const Child root;
  internal::Operation operation = RestoreOf(root);
  operation.set_resuming(true);
  ASSERT_TRUE(Write(operation).ok());
  engine_.tasks_left = absl::UnavailableError("EMFILE");
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(1));
}

TEST_F(ReconcileTest, RecordOfARestoreLastsAsLongAsItsRootTask) {
  Child root;
  internal::Operation operation = RestoreOf(root);
  operation.mutable_result()->set_pid(root.pid());
  ASSERT_TRUE(Write(operation).ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(1));
  EXPECT_THAT(engine_.ended_cgroups, IsEmpty());
  root.Kill();
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, RestoreOfAnotherBootHasNoTasks) {
  const Child root;
  internal::Operation operation = RestoreOf(root);
  operation.set_boot_id("another");
  ASSERT_TRUE(Write(operation).ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(engine_.ended_cgroups, IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, WhatANewerSnapdDoesIsLeftToIt) {
  const Child task;
  internal::Operation operation = OperationOn(task);
  operation.set_kind(static_cast<internal::OperationKind>(77));
  Begin(operation);
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(2));
}

TEST_F(ReconcileTest, HalfARecordGoes) {
  ASSERT_TRUE(
      ReplaceFileAt(pool_->staging(), NewUuid() + ".operation.new", "x").ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, RunningItTwiceChangesNothing) {
  Child task;
  Publish(OperationOn(task));
  task.Kill();
  ASSERT_TRUE(Reconcile().ok());
  ASSERT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

}  // namespace
}  // namespace daxsnap
