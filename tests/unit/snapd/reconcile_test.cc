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
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "host/task/machine.h"
#include "snapd/store/catalog.h"
#include "tests/unit/base/child.h"
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

  void Publish(const internal::Operation& operation) {
    Catalog before(pool_.get());
    auto staged = before.Begin(operation);
    ASSERT_TRUE(staged.ok()) << staged.status();
    v1::Manifest manifest;
    manifest.set_format_version(1);
    manifest.mutable_snapshot()->set_uid(operation.uid());
    ASSERT_TRUE(before.WriteManifest(staged->directory.get(), manifest).ok());
    ASSERT_TRUE(before.Publish(&*staged).ok());
  }

  absl::Status Reconcile() {
    return Catalog(pool_.get())
        .Reconcile(
            proc_,
            [this](const TaskId& task) {
              waited_for_.push_back(task.pid);
              return criu_ends_;
            },
            [](int, v1::Manifest* manifest) {
              manifest->mutable_snapshot()->set_image_bytes(4711);
            });
  }

  TempDirectory temp_;
  std::unique_ptr<TestPool> pool_;
  const ProcFs proc_;
  std::vector<pid_t> waited_for_;
  bool criu_ends_ = true;
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
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), "garbage").ok());
  ASSERT_TRUE(
      ReplaceFileAt(pool_->staging(), "garbage/operation.pb", "\xff").ok());
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), "deleted").ok());
  ASSERT_TRUE(EnsureDirectory(pool_->staging(), "deleted/images").ok());
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
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
  EXPECT_EQ(manifest->snapshot().image_bytes(), 4711u);
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
    EXPECT_THAT(waited_for_, IsEmpty());
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
  EXPECT_THAT(waited_for_, ElementsAre(criu.pid()));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(ReconcileTest, TouchesNothingWhileCriuDoesNotEnd) {
  const Child task;
  const Child criu;
  Begin(OperationOn(task, criu.id()));
  criu_ends_ = false;
  EXPECT_FALSE(Reconcile().ok());
  EXPECT_THAT(pool_->Staging(), SizeIs(2));
}

TEST_F(ReconcileTest, DoesNotWaitForAnotherTaskOnCriusPid) {
  const Child task;
  const Child other;
  Begin(OperationOn(task, {other.pid(), other.id().start_ticks + 1}));
  EXPECT_TRUE(Reconcile().ok());
  EXPECT_THAT(waited_for_, IsEmpty());
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
