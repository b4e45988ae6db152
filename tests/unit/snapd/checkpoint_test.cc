// SPDX-License-Identifier: Apache-2.0
//
// CreateSnapshot with real processes and an engine that stops and kills them as
// CRIU does.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/operations.h"
#include "tests/unit/snapd/operations_test_base.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr Caller kRoot = {.uid = 0, .gid = 0};
constexpr Caller kStranger = {.uid = 65533, .gid = 65533};

absl::Status CommitFailed() {
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kCommitFailed,
                    .message = "the device is gone",
                    .hint = "h"});
}

absl::Status SyncTimedOut() {
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kSyncTimeout,
                    .message = "/mnt does not answer",
                    .hint = "h"});
}

class CheckpointTest : public OperationsTestBase {
 protected:
  explicit CheckpointTest(const std::string& script = "")
      : OperationsTestBase(script) {
    pool_->on_commit = [this](int) {
      events_.push_back(absl::StrCat("commit ", pool_->Snapshots().size(), " ",
                                     std::string(1, task_.State())));
      return commit_status_;
    };
    on_sync = [this](const std::vector<SyncTarget>& targets, absl::Duration) {
      EXPECT_FALSE(targets.empty());
      events_.push_back(absl::StrCat("sync ", std::string(1, task_.State())));
      if (events_.back() == cancel_at_) cancellation_.Cancel();
      return events_.back() == fail_sync_at_ ? SyncTimedOut()
                                             : absl::OkStatus();
    };
    engine_.on_point = [this](const std::string& point) {
      events_.push_back(point);
      if (point == cancel_at_) cancellation_.Cancel();
    };
  }

  absl::StatusOr<v1::CreateSnapshotResult> Create(
      const v1::CreateSnapshotRequest& request, const Caller& caller = kRoot) {
    return operations_.Create(
        caller, request,
        [this](v1::ProgressPhase phase) { phases_.push_back(phase); },
        &cancellation_);
  }

  void ExpectNothingHappened() {
    EXPECT_EQ(task_.State(), 'R') << "the task does not run on";
    EXPECT_THAT(pool_->Snapshots(), IsEmpty());
    EXPECT_THAT(pool_->Staging(), IsEmpty());
  }

  absl::Status commit_status_;
  std::vector<std::string> events_;
  std::vector<v1::ProgressPhase> phases_;
  std::atomic<bool> renames_fail_ = false;
  std::string cancel_at_;
  std::string fail_sync_at_;
  Cancellation cancellation_;
};

TEST_F(CheckpointTest, KillsOnlyWhenTheSnapshotIsDurable) {
  auto result = Create(Request("a"));
  ASSERT_TRUE(result.ok()) << result.status();
  // Each commit: number of published snapshots, state of the task.
  EXPECT_THAT(events_,
              ElementsAre("sync R", "started", "images", "sync T", "commit 0 T",
                          "commit 1 T", "killed", "commit 1 Z"));
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(
      phases_,
      ElementsAre(v1::PROGRESS_PHASE_CHECKING, v1::PROGRESS_PHASE_SYNCING,
                  v1::PROGRESS_PHASE_DUMPING, v1::PROGRESS_PHASE_SYNCING,
                  v1::PROGRESS_PHASE_COMMITTING, v1::PROGRESS_PHASE_KILLING));
}

TEST_F(CheckpointTest, LeaveRunningResumesBeforeTheCommit) {
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  auto result = Create(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(events_,
              ElementsAre("sync R", "started", "images", "resumed", "sync R",
                          "commit 0 R", "commit 1 R", "commit 1 R"));
  EXPECT_EQ(task_.State(), 'R');
}

TEST_F(CheckpointTest, FilesThatCannotBeSyncedFailItBeforeTheFreeze) {
  fail_sync_at_ = "sync R";
  EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()), reason::kSyncTimeout);
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, FilesThatCannotBeSyncedWhileFrozenLetTheTaskRunOn) {
  fail_sync_at_ = "sync T";
  EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()), reason::kSyncTimeout);
  EXPECT_THAT(events_,
              ElementsAre("sync R", "started", "images", "sync T", "resumed"));
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, FilesThatCannotBeSyncedLeaveNoSnapshotOfARunningTask) {
  int syncs = 0;
  on_sync = [&](const std::vector<SyncTarget>&, absl::Duration) {
    return ++syncs == 2 ? SyncTimedOut() : absl::OkStatus();
  };
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kSyncTimeout);
  EXPECT_EQ(syncs, 2);
  ExpectNothingHappened();
}

// `lost`: of it the first target.
SyncOutcome SyncFailed(int error, const std::vector<SyncTarget>& lost) {
  SyncOutcome outcome = MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncFailed,
       .message = "not synced",
       .hint = "h",
       .metadata = {{"path", "/mnt/x"}, {"error", std::strerror(error)}}});
  if (!lost.empty()) {
    outcome.lost.push_back({.device = lost.front().device,
                            .mount_point = "/mnt/x",
                            .error = std::strerror(error)});
  }
  return outcome;
}

// The kernel tells of lost data once.
TEST_F(CheckpointTest, DataThatASyncHasLostIsNotForgotten) {
  int syncs = 0;
  on_sync = [&](const std::vector<SyncTarget>& targets, absl::Duration) {
    return ++syncs == 1 ? SyncFailed(EIO, targets) : SyncOutcome();
  };
  v1::CreateSnapshotRequest request = Request("a");
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kSyncFailed);
  const absl::Status again = Create(request).status();
  EXPECT_EQ(ErrorReasonOf(again), reason::kSyncFailed) << again;
  EXPECT_EQ(ErrorMetadataOf(again)["path"], "/mnt/x");
  EXPECT_EQ(syncs, 1);
  ExpectNothingHappened();
  request.mutable_options()->set_force(true);
  const auto forced = Create(request);
  ASSERT_TRUE(forced.ok()) << forced.status();
  ASSERT_EQ(forced->snapshot().findings_size(), 1);
  const v1::Finding& finding = forced->snapshot().findings(0);
  EXPECT_EQ(finding.reason(), v1::ERROR_REASON_SYNC_FAILED);
  EXPECT_EQ(finding.consequence(), v1::FINDING_CONSEQUENCE_LOST);
  EXPECT_EQ(finding.path(), "/mnt/x");
  EXPECT_TRUE(forced->snapshot().forced());
}

TEST_F(CheckpointTest, WhatASyncDidNotReachIsNotLost) {
  int syncs = 0;
  on_sync = [&](const std::vector<SyncTarget>&, absl::Duration) {
    return ++syncs == 1 ? SyncFailed(ENOENT, {}) : SyncOutcome();
  };
  EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()), reason::kSyncFailed);
  const absl::Status again = Create(Request("a")).status();
  EXPECT_TRUE(again.ok()) << again;
}

std::vector<v1::Finding> LostFile() {
  v1::Finding finding;
  finding.set_reason(v1::ERROR_REASON_VOLATILE_FILE);
  finding.set_consequence(v1::FINDING_CONSEQUENCE_LOST);
  finding.set_path("/dev/shm/x");
  finding.set_message("/dev/shm/x goes");
  return {finding};
}

TEST_F(CheckpointTest, WhatDoesNotComeBackIsRefusedBeforeTheFreeze) {
  on_find = LostFile;
  const absl::Status status = Create(Request("a")).status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kVolatileFile);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, WhatCannotBeReadWhileFrozenIsNoReasonToKill) {
  for (const char* link : {"/ns/mnt", "/cwd"}) {
    const ScopedFileFault fault(
        [this, link](absl::string_view call, const std::string& name) {
          return call == "link" && absl::EndsWith(name, link) &&
                         task_.State() == 'T'
                     ? EMFILE
                     : 0;
        });
    events_.clear();
    EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()),
              reason::kOverloaded);
    EXPECT_THAT(events_, ::testing::Contains("images"));
    EXPECT_THAT(events_, ::testing::Not(::testing::Contains("killed")));
    ExpectNothingHappened();
  }
}

TEST_F(CheckpointTest, RulesOfBootThatCannotBeReadAreNoReasonToKill) {
  const ScopedFileFault fault(FailWith(EIO, "open", "tmpfiles.d/."));
  EXPECT_EQ(ErrnoNameOf(Create(Request("a")).status()), "EIO");
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, WhatIsFoundOnlyWhileFrozenIsRefusedBeforeTheKill) {
  on_find = [this] {
    return task_.State() == 'T' ? LostFile() : std::vector<v1::Finding>();
  };
  EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()),
            reason::kVolatileFile);
  EXPECT_EQ(engine_.dumps, 1);
  EXPECT_THAT(events_, ::testing::Not(::testing::Contains("killed")));
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, FindingsAreInTheSnapshotOfARunningOrForcedTask) {
  on_find = LostFile;
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  auto left = Create(request);
  ASSERT_TRUE(left.ok()) << left.status();
  ASSERT_EQ(left->snapshot().findings_size(), 1);
  EXPECT_EQ(left->snapshot().findings(0).path(), "/dev/shm/x");
  EXPECT_FALSE(left->snapshot().forced());
  request = Request("b");
  request.mutable_options()->set_force(true);
  auto forced = Create(request);
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_TRUE(forced->snapshot().forced());
  v1::GetSnapshotRequest get;
  get.set_name("b");
  auto got = operations_.Get(kRoot, get);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_TRUE(got->snapshot().forced());
  EXPECT_EQ(got->snapshot().findings(0).message(), "/dev/shm/x goes");
}

TEST_F(CheckpointTest, LimitsAreNoReasonToRefuse) {
  on_find = [] {
    std::vector<v1::Finding> findings = LostFile();
    findings[0].set_consequence(v1::FINDING_CONSEQUENCE_LIMITED);
    return findings;
  };
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_force(true);
  auto result = Create(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->snapshot().findings_size(), 1);
  EXPECT_FALSE(result->snapshot().forced()) << "there was nothing to force";
}

TEST_F(CheckpointTest, SyncHasTheTimeThatWasAskedFor) {
  std::vector<absl::Duration> timeouts;
  on_sync = [&](const std::vector<SyncTarget>&, absl::Duration timeout) {
    timeouts.push_back(timeout);
    return absl::OkStatus();
  };
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  ASSERT_TRUE(Create(request).ok());
  request.set_name("b");
  request.mutable_options()->set_sync_timeout_seconds(7);
  ASSERT_TRUE(Create(request).ok());
  EXPECT_THAT(timeouts, ElementsAre(absl::Minutes(1), absl::Minutes(1),
                                    absl::Seconds(7), absl::Seconds(7)));
}

TEST_F(CheckpointTest, ResultHasWhatTheManifestHas) {
  on_sync = [](const std::vector<SyncTarget>&, absl::Duration) {
    absl::SleepFor(absl::Milliseconds(2));
    return absl::OkStatus();
  };
  for (const bool leave_running : {true, false}) {
    v1::CreateSnapshotRequest request =
        Request(leave_running ? "running" : "killed");
    request.mutable_options()->set_leave_running(leave_running);
    (*request.mutable_labels())["k"] = "v";
    auto result = Create(request);
    ASSERT_TRUE(result.ok()) << result.status();
    const v1::Snapshot& snapshot = result->snapshot();
    EXPECT_EQ(snapshot.name(), request.name());
    EXPECT_EQ(snapshot.mode(), v1::SNAPSHOT_MODE_COPIED);
    EXPECT_EQ(snapshot.root_task().pid(), request.pid());
    EXPECT_EQ(snapshot.root_task().comm(), "sleep");
    EXPECT_EQ(snapshot.pages().by_reference(), 70u);
    EXPECT_EQ(snapshot.pages().hole(), 1u);
    EXPECT_EQ(snapshot.times().dump_us(), 2000u);
    // What snapd does meanwhile counts where nothing but it is waited for.
    EXPECT_EQ(snapshot.times().frozen_us(), leave_running ? 1000u : 700u);
    EXPECT_GE(snapshot.times().sync_us(), 2000u);
    if (leave_running) {
      EXPECT_EQ(snapshot.times().sync_frozen_us(), 0u);
    } else {
      EXPECT_GE(snapshot.times().sync_frozen_us(), 2000u);
    }
    EXPECT_EQ(snapshot.left_running(), leave_running);
    EXPECT_EQ(snapshot.labels().at("k"), "v");
    EXPECT_EQ(snapshot.versions().criu(), "9.9");
    v1::GetSnapshotRequest get;
    get.set_name(request.name());
    auto got = operations_.Get(kRoot, get);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->snapshot().SerializeAsString(),
              snapshot.SerializeAsString());
  }
}

TEST_F(CheckpointTest, ProgressCountsPages) {
  engine_.on_point = [this](const std::string& point) {
    if (point != "images") return;
    for (const std::string& name : pool_->Staging()) {
      auto images = OpenDirectory(pool_->staging(), name + "/images");
      if (!images.ok()) continue;
      const std::string page(4096, 'x');
      EXPECT_TRUE(ReplaceFileAt(images->get(), "pages-1.img", page).ok());
      EXPECT_TRUE(
          ReplaceFileAt(images->get(), "pages-22.img", page + page).ok());
      EXPECT_TRUE(ReplaceFileAt(images->get(), "pagemap-1.img", page).ok());
    }
  };
  uint64_t done = 0;
  uint64_t total = 0;
  auto result = operations_.Create(
      kRoot, Request("a"), [](v1::ProgressPhase) {}, &cancellation_,
      [&](v1::ProgressPhase phase, uint64_t pages_done, uint64_t pages_total) {
        EXPECT_EQ(phase, v1::PROGRESS_PHASE_DUMPING);
        done = pages_done;
        total = pages_total;
      });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(done, 3u);
  // What `sleep` has of its own.
  EXPECT_GT(total, 10u);
  EXPECT_LT(total, 10000u);
}

TEST_F(CheckpointTest, CriuThatDoesNotSayItsVersionStopsNobodyElse) {
  HeldVersion held(&engine_);
  auto first = std::async(std::launch::async,
                          [this] { return operations_.GetCriuVersion(); });
  held.AwaitAsked();
  auto result = Create(Request("a"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->snapshot().versions().criu(), "");
  held.Say();
  EXPECT_EQ(first.get(), "4.2.1");
  EXPECT_EQ(operations_.GetCriuVersion(), "4.2.1");
}

TEST_F(CheckpointTest, VersionThatCriuSaysDuringTheDumpIsInTheSnapshot) {
  HeldVersion held(&engine_);
  auto first = std::async(std::launch::async,
                          [this] { return operations_.GetCriuVersion(); });
  held.AwaitAsked();
  engine_.on_point = [&](const std::string& point) {
    if (point != "started") return;
    held.Say();
    EXPECT_EQ(first.get(), "4.2.1");
  };
  auto result = Create(Request("a"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->snapshot().versions().criu(), "4.2.1");
}

TEST_F(CheckpointTest, WhoTookAndDeletedWhatIsLogged) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(Create(Request("a")).ok());
  v1::DeleteSnapshotRequest request;
  request.set_name("a");
  EXPECT_FALSE(operations_.Delete(kStranger, request).ok());
  ASSERT_TRUE(operations_.Delete(kRoot, request).ok());
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, ::testing::HasSubstr("uid 0 took snapshot a\n"));
  EXPECT_THAT(log, ::testing::HasSubstr("uid 0 deleted snapshot a\n"));
  EXPECT_THAT(log, ::testing::Not(::testing::HasSubstr("uid 65533 deleted")));
}

TEST_F(CheckpointTest, CreateTimeIsTheTimeOfTheFreeze) {
  for (const bool leave_running : {true, false}) {
    const absl::Time before = absl::Now();
    absl::Time frozen;
    engine_.on_point = [&](const std::string& point) {
      if (point == "images") frozen = absl::Now();
    };
    v1::CreateSnapshotRequest request =
        Request(leave_running ? "running" : "killed");
    request.mutable_options()->set_leave_running(leave_running);
    auto result = Create(request);
    ASSERT_TRUE(result.ok()) << result.status();
    const auto& time = result->snapshot().create_time();
    const absl::Time created =
        absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
    EXPECT_GE(created, before);
    EXPECT_LE(created, frozen);
  }
}

TEST_F(CheckpointTest, NameIsMadeUpIfThereIsNone) {
  auto result = Create(Request(""));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(
      result->snapshot().name().rfind(
          absl::StrCat("sleep-", result->snapshot().root_task().pid()), 0),
      0u);
}

TEST_F(CheckpointTest, FailedCommitLetsTheTaskRunOn) {
  commit_status_ = CommitFailed();
  auto result = Create(Request("a"));
  EXPECT_EQ(ErrorReasonOf(result.status()), reason::kCommitFailed);
  EXPECT_THAT(events_, ::testing::Not(::testing::Contains("killed")));
  EXPECT_EQ(task_.State(), 'R');
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// Until then the task stands still: it must not wait for a device for ever.
TEST_F(CheckpointTest, CommitThatHangsLetsTheTaskRunOnInTime) {
  for (const bool cancelled : {false, true}) {
    std::promise<void> answer;
    const std::shared_future<void> answered = answer.get_future().share();
    std::promise<void> asked;
    std::once_flag once;
    pool_->on_commit = [&](int) {
      std::call_once(once, [&] { asked.set_value(); });
      answered.wait();
      return absl::OkStatus();
    };
    std::thread device([&] {
      asked.get_future().wait();
      EXPECT_EQ(task_.State(), 'T');
      if (cancelled) cancellation_.Cancel();
      while (task_.State() == 'T') absl::SleepFor(absl::Milliseconds(1));
      answer.set_value();
    });
    v1::CreateSnapshotRequest request = Request("a");
    request.mutable_options()->set_sync_timeout_seconds(cancelled ? 600 : 1);
    const absl::Status status = Create(request).status();
    device.join();
    if (cancelled) {
      EXPECT_TRUE(absl::IsCancelled(status)) << status;
    } else {
      EXPECT_EQ(ErrorReasonOf(status), reason::kSyncTimeout) << status;
    }
    pool_->on_commit = nullptr;
    ExpectNothingHappened();
  }
}

TEST_F(CheckpointTest, FailedCommitWithLeaveRunningLeavesNothing) {
  commit_status_ = CommitFailed();
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kCommitFailed);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, FailedDumpLeavesNothing) {
  engine_.fail = absl::InternalError("no");
  EXPECT_FALSE(Create(Request("a")).ok());
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, EngineThatDiesBeforeItKillsLeavesNothing) {
  engine_.fail_late = absl::InternalError("died");
  EXPECT_FALSE(Create(Request("a")).ok());
  ExpectNothingHappened();
}

// Who ends it later has not done so for the snapshot.
TEST_F(CheckpointTest, WhatCannotBeTakenBackIsNotOnRecordAsKilled) {
  engine_.fail_late = absl::InternalError("died");
  {
    // Of a snapshot, not of a record.
    const ScopedFileFault fault([&](absl::string_view call,
                                    const std::string& name) {
      return call == "rename" && renames_fail_ && !absl::StrContains(name, '.')
                 ? EIO
                 : 0;
    });
    engine_.on_point = [&](const std::string& point) {
      renames_fail_ = renames_fail_ || point == "resumed";
    };
    EXPECT_FALSE(Create(Request("a")).ok());
  }
  EXPECT_EQ(task_.State(), 'R');
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  auto uids = catalog().records().List();
  ASSERT_TRUE(uids.ok()) << uids.status();
  ASSERT_EQ(uids->size(), 1u);
  EXPECT_EQ(catalog().records().Read(*uids->begin())->kill(),
            internal::KILL_STATE_NOT_AGREED);
  // The next call finishes it.
  EXPECT_EQ(ErrorReasonOf(catalog().Read("a").status()),
            reason::kSnapshotUnreadable);
  engine_.fail_late = absl::OkStatus();
  const auto again = Create(Request("a"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->already_existed());
  EXPECT_EQ(task_.State(), 'Z');
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// Its caller was told that there is none.
TEST_F(CheckpointTest, WhatCannotBeTakenBackOfARunningTaskIsNotKept) {
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  {
    pool_->on_commit = [&](int commits) {
      renames_fail_ = renames_fail_ || commits == 2;
      return commits == 2 ? CommitFailed() : absl::OkStatus();
    };
    const ScopedFileFault fault([&](absl::string_view call,
                                    const std::string& name) {
      return call == "rename" && renames_fail_ && !absl::StrContains(name, '.')
                 ? EIO
                 : 0;
    });
    EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kCommitFailed);
  }
  pool_->on_commit = nullptr;
  const auto again = Create(request);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->already_existed());
  EXPECT_EQ(engine_.dumps, 2);
}

TEST_F(CheckpointTest, TaskThatCannotBeLookedAtForAMomentWasNotKilled) {
  engine_.fail_late = absl::InternalError("died");
  std::atomic<int> left = 0;
  engine_.on_point = [&](const std::string& point) {
    if (point == "resumed") left = 3;
  };
  const ScopedFileFault fault(
      [&](absl::string_view call, const std::string& name) {
        if (call != "open" || left == 0 ||
            !absl::EndsWith(name, absl::StrCat("/proc/", task_.pid()))) {
          return 0;
        }
        --left;
        return EMFILE;
      });
  EXPECT_FALSE(Create(Request("a")).ok());
  EXPECT_EQ(left, 0);
  ExpectNothingHappened();
}

// Its record of the kill is the last that is written before the tasks end.
TEST_F(CheckpointTest, PoolThatHangsBeforeTheKillIsAgreedLetsTheTaskRunOn) {
  std::atomic<bool> asked = false;
  const ScopedFileFault fault(
      [&](absl::string_view call, const std::string& name) {
        if (call != "create" || !absl::StrContains(name, ".operation") ||
            task_.State() != 'T' || pool_->Snapshots().empty() ||
            asked.exchange(true)) {
          return 0;
        }
        // Answers when the test is over, or has failed.
        const absl::Time deadline = absl::Now() + absl::Seconds(20);
        while (task_.State() == 'T' && absl::Now() < deadline) {
          absl::SleepFor(absl::Milliseconds(1));
        }
        return 0;
      });
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_sync_timeout_seconds(1);
  const absl::Status status = Create(request).status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kSyncTimeout) << status;
  EXPECT_TRUE(asked);
  ExpectNothingHappened();
}

// All that was asked for is done.
TEST_F(CheckpointTest, EngineThatDiesAfterItKilledIsNoFailure) {
  engine_.fail_late = absl::InternalError("died");
  engine_.die_killing = true;
  auto result = Create(Request("a"));
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// The snapshot would be of a task that had an end of its own.
TEST_F(CheckpointTest, TaskThatOthersKillBeforeTheKillIsAgreedHasNoSnapshot) {
  pool_->on_commit = [this](int commits) {
    if (commits == 2) task_.Kill();
    return absl::OkStatus();
  };
  EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()), reason::kTaskMissing);
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(CheckpointTest, KillIsOnRecordBeforeItIsAgreed) {
  std::vector<internal::KillState> states;
  const auto note = [&] {
    auto uids = catalog().records().List();
    ASSERT_TRUE(uids.ok()) << uids.status();
    ASSERT_EQ(uids->size(), 1u);
    states.push_back(catalog().records().Read(*uids->begin())->kill());
  };
  engine_.on_point = [&](const std::string& point) {
    if (point == "images" || point == "killed") note();
  };
  EXPECT_TRUE(Create(Request("a")).ok());
  EXPECT_THAT(states, ElementsAre(internal::KILL_STATE_NOT_AGREED,
                                  internal::KILL_STATE_AGREED));
}

class TreeCheckpointTest : public CheckpointTest {
 protected:
  TreeCheckpointTest()
      : CheckpointTest("sleep infinity 3>&- & echo >&3; exec 3>&-; wait") {}
};

TEST_F(TreeCheckpointTest, EngineThatDiesAmidItsKillsLeavesNoHalfTree) {
  const std::vector<TaskInfo> tree = *ProcFs().ReadTree(task_.pid());
  ASSERT_EQ(tree.size(), 2u);
  engine_.fail_late = absl::InternalError("died");
  engine_.die_killing = true;
  const absl::Status status = Create(Request("a")).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "snapshot a stays"))
      << status;
  EXPECT_FALSE(*ProcFs().IsAlive(tree[1].id));
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(CheckpointTest, OnlyTheIncarnationThatIsMeantIsTaken) {
  const TaskId id = task_.id();
  const std::string boot = *ProcFs().BootId();
  v1::CreateSnapshotRequest request = Request("a");
  const auto refused = [&](uint64_t start_ticks, const std::string& boot_id) {
    request.set_start_ticks(start_ticks);
    request.set_boot_id(boot_id);
    return ErrorReasonOf(Create(request).status()) == reason::kTaskMissing;
  };
  EXPECT_TRUE(refused(id.start_ticks - 1, ""));
  EXPECT_TRUE(refused(id.start_ticks, "another"));
  EXPECT_TRUE(refused(0, "another"));
  ExpectNothingHappened();
  EXPECT_FALSE(refused(id.start_ticks, boot));
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  // Asked again, of it and of another that had the PID.
  EXPECT_TRUE(Create(request)->already_existed());
  request.set_start_ticks(id.start_ticks - 1);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kNameTaken);
}

TEST_F(CheckpointTest, OptionThatIsNotKnownDoesNotTouchTheTask) {
  v1::CreateSnapshotRequest request = Request("a");
  ASSERT_TRUE(request.mutable_options()->ParseFromString("\x98\x06\x01"));
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kOptionInvalid);
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, CancelledBeforeItBeginsDoesNotTouchTheTask) {
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(Create(Request("a")).status()));
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, CancelledBeforeTheFreezeLeavesNothing) {
  cancel_at_ = "started";
  EXPECT_TRUE(absl::IsCancelled(Create(Request("a")).status()));
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, CancelledDuringASyncLeavesNothing) {
  for (const char* point : {"sync R", "sync T"}) {
    cancel_at_ = point;
    EXPECT_TRUE(absl::IsCancelled(Create(Request("a")).status())) << point;
    ExpectNothingHappened();
  }
}

TEST_F(CheckpointTest, CancelledWhileFrozenLeavesNothing) {
  cancel_at_ = "images";
  EXPECT_TRUE(absl::IsCancelled(Create(Request("a")).status()));
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, CancelledDuringTheCommitLeavesNothing) {
  pool_->on_commit = [this](int) {
    cancellation_.Cancel();
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsCancelled(Create(Request("a")).status()));
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, CancelledAfterTheCommitHasNoEffect) {
  cancel_at_ = "killed";
  const absl::Status status = Create(Request("a")).status();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

TEST_F(CheckpointTest, SameCallAgainReturnsTheSnapshot) {
  ASSERT_TRUE(Create(Request("a")).ok());
  task_.Kill();
  auto again = Create(Request("a"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->already_existed());
  EXPECT_EQ(engine_.dumps, 1);
}

TEST_F(CheckpointTest, OtherTasksAndOtherModesFindTheNameTaken) {
  v1::CreateSnapshotRequest request = Request("a");
  request.mutable_options()->set_leave_running(true);
  ASSERT_TRUE(Create(request).ok());
  request.mutable_options()->set_leave_running(false);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kNameTaken);
  const Child other;
  request.set_pid(other.pid());
  request.mutable_options()->set_leave_running(true);
  const absl::Status taken = Create(request).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ErrorReasonOf(taken), reason::kNameTaken);
  EXPECT_EQ(engine_.dumps, 1);
}

TEST_F(CheckpointTest, BadRequestsAreRefusedBeforeTheTaskIsTouched) {
  v1::CreateSnapshotRequest request = Request("../a");
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kNameInvalid);
  request = Request("a");
  (*request.mutable_labels())["bad key"] = "v";
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kLabelInvalid);
  request = Request("a");
  request.set_pid(0);
  EXPECT_EQ(Create(request).status().code(),
            absl::StatusCode::kInvalidArgument);
  request.set_pid(-5);
  EXPECT_EQ(Create(request).status().code(),
            absl::StatusCode::kInvalidArgument);
  request.set_pid(0x7fffffff);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kTaskMissing);
  request.set_pid(1);
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kTaskUnsupported);
  request.set_pid(getpid());
  EXPECT_EQ(ErrorReasonOf(Create(request).status()), reason::kTaskUnsupported);
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, ZombiesAreRefused) {
  task_.Kill();
  const absl::Status status = Create(Request("a")).status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kTaskUnsupported);
  EXPECT_EQ(ErrorMetadataOf(status)["kind"], "zombie");
}

TEST_F(CheckpointTest, StrangersAreDenied) {
  const absl::Status status = Create(Request("a"), kStranger).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrorReasonOf(status), reason::kPermissionDenied);
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

TEST_F(CheckpointTest, StrangersSeeNoSnapshotsOfOthers) {
  ASSERT_TRUE(Create(Request("a")).ok());
  v1::GetSnapshotRequest get;
  get.set_name("a");
  EXPECT_EQ(ErrorReasonOf(operations_.Get(kStranger, get).status()),
            reason::kPermissionDenied);
  v1::DeleteSnapshotRequest remove;
  remove.set_name("a");
  EXPECT_EQ(ErrorReasonOf(operations_.Delete(kStranger, remove).status()),
            reason::kPermissionDenied);
  EXPECT_EQ(operations_.List(kStranger, {})->snapshots_size(), 0);
  EXPECT_EQ(operations_.List(kRoot, {})->snapshots_size(), 1);
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

TEST_F(CheckpointTest, OnAPoolThatCanOnlyBeReadIsRefusedAndTheTaskNotTouched) {
  ASSERT_TRUE(Create(Request("a")).ok());
  const int dumps = engine_.dumps;
  pool_->writable = MakeError({.code = absl::StatusCode::kFailedPrecondition,
                               .reason = reason::kPoolReadOnly,
                               .message = "read-only",
                               .hint = "none"});
  EXPECT_EQ(ErrorReasonOf(Create(Request("b")).status()),
            reason::kPoolReadOnly);
  EXPECT_EQ(engine_.dumps, dumps);
  v1::DeleteSnapshotRequest remove;
  remove.set_name("a");
  EXPECT_EQ(ErrorReasonOf(operations_.Delete(kRoot, remove).status()),
            reason::kPoolReadOnly);
  EXPECT_EQ(operations_.List(kRoot, {})->snapshots_size(), 1);
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

TEST_F(CheckpointTest, SameTaskOrNameAtOnceIsAborted) {
  std::promise<void> at_images;
  std::promise<void> go_on;
  engine_.on_point = [&](const std::string& point) {
    if (point != "images") return;
    at_images.set_value();
    go_on.get_future().wait();
  };
  auto first = std::async(std::launch::async, [&] {
    Cancellation never;
    return operations_.Create(
        kRoot, Request("a"), [](v1::ProgressPhase) {}, &never);
  });
  at_images.get_future().wait();
  const absl::Status same_task = Create(Request("b")).status();
  const absl::Status same_name = Create(Request("a")).status();
  v1::DeleteSnapshotRequest remove;
  remove.set_name("a");
  const absl::Status deleted = operations_.Delete(kRoot, remove).status();
  go_on.set_value();
  EXPECT_TRUE(first.get().ok());
  EXPECT_EQ(same_task.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ErrorReasonOf(same_task), reason::kBusy);
  EXPECT_EQ(same_name.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(deleted.code(), absl::StatusCode::kAborted);
}

TEST_F(CheckpointTest, ListPagesByToken) {
  for (int i = 0; i < 5; ++i) AddSnapshot(&catalog(), absl::StrCat("s", i), 0);
  v1::ListSnapshotsRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  int pages = 0;
  do {
    auto page = operations_.List(kRoot, request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& snapshot : page->snapshots()) {
      names.push_back(snapshot.name());
    }
    request.set_page_token(page->next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(pages, 3);
  EXPECT_THAT(names, ElementsAre("s0", "s1", "s2", "s3", "s4"));
}

TEST_F(CheckpointTest, ListRefusesForeignTokensAndNegativeSizes) {
  v1::ListSnapshotsRequest request;
  request.set_page_size(-1);
  EXPECT_EQ(ErrorReasonOf(operations_.List(kRoot, request).status()),
            reason::kPageSizeInvalid);
  request.set_page_size(0);
  for (const char* token : {"x", "!!!", "YWZ0ZXI6Li4v"}) {
    request.set_page_token(token);
    EXPECT_EQ(ErrorReasonOf(operations_.List(kRoot, request).status()),
              reason::kPageTokenInvalid)
        << token;
  }
}

TEST_F(CheckpointTest, ListReportsDamagedSnapshots) {
  AddSnapshot(&catalog(), "good", 0);
  AddSnapshot(&catalog(), "bad", 0);
  ASSERT_TRUE(ReplaceFileAt(pool_->snapshots(), "bad/manifest.pb", "").ok());
  auto list = operations_.List(kRoot, {});
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->snapshots_size(), 1);
  EXPECT_THAT(list->damaged(), ElementsAre("bad"));
}

// Not listed as damaged, and not as if it were not there.
TEST_F(CheckpointTest, ListSaysWhatCannotBeReadAndWhatIsNewer) {
  AddSnapshot(&catalog(), "good", kStranger.uid);
  AddSnapshot(&catalog(), "newer", kStranger.uid);
  AddSnapshot(&catalog(), "sick", kStranger.uid);
  ASSERT_TRUE(
      ReplaceFileAt(pool_->snapshots(), "newer/manifest.pb", "\x08\x02").ok());
  const ScopedFileFault fault(FailWith(EIO, "open", "sick"));
  auto list = operations_.List(kRoot, {});
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->snapshots_size(), 1);
  EXPECT_THAT(list->damaged(), IsEmpty());
  ASSERT_EQ(list->unlisted_size(), 2);
  EXPECT_EQ(list->unlisted(0).name(), "newer");
  EXPECT_EQ(list->unlisted(0).reason(), reason::kVersionUnsupported);
  EXPECT_EQ(list->unlisted(1).name(), "sick");
  EXPECT_EQ(list->unlisted(1).reason(), reason::kSnapshotUnreadable);
  EXPECT_FALSE(list->unlisted(1).hint().empty());
  EXPECT_FALSE(list->incomplete());

  auto others = operations_.List(kStranger, {});
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_EQ(others->snapshots_size(), 1);
  EXPECT_EQ(others->unlisted_size(), 0);
  EXPECT_TRUE(others->incomplete());
}

TEST_F(CheckpointTest, ListFailsWhenThereAreNoDescriptors) {
  AddSnapshot(&catalog(), "a", 0);
  const ScopedFileFault fault(FailWith(EMFILE, "open", "manifest.pb"));
  const absl::Status status = operations_.List(kRoot, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded);
}

TEST_F(CheckpointTest, NameOfWhatCannotBeReadIsNeitherTakenNorFree) {
  ASSERT_TRUE(Create(Request("a")).ok());
  task_.Kill();
  for (const auto& [call, name] :
       {std::pair{"stat", "a"}, std::pair{"open", "manifest.pb"}}) {
    const ScopedFileFault fault(FailWith(EIO, call, name));
    EXPECT_EQ(ErrorReasonOf(Create(Request("a")).status()),
              reason::kSnapshotUnreadable);
  }
  EXPECT_TRUE(Create(Request("a"))->already_existed());
}

// A task that is not seen would neither be checked nor be told of.
TEST_F(CheckpointTest, TasksThatCannotBeReadAreNotLeftOut) {
  for (const auto& [call, name] :
       {std::pair{"read", "/children"}, std::pair{"open", "/task"},
        std::pair{"read", "stat"}, std::pair{"list", ""}}) {
    const ScopedFileFault fault(FailWith(EMFILE, call, name));
    const absl::Status status = Create(Request("a")).status();
    EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded) << status;
  }
  EXPECT_EQ(engine_.dumps, 0);
  ExpectNothingHappened();
}

// Their size and time could not be checked at restore.
TEST_F(CheckpointTest, FilesThatCannotBeReadFailIt) {
  for (const auto& [call, name] :
       {std::pair{"open", "/bin/sh"}, std::pair{"open", "/proc/cpuinfo"},
        std::pair{"read", "maps"}, std::pair{"read", "mountinfo"}}) {
    const ScopedFileFault fault(FailWith(EIO, call, name));
    EXPECT_EQ(ErrnoNameOf(Create(Request("a")).status()), "EIO") << name;
    ExpectNothingHappened();
  }
}

// A task with a file open for writing whose images name it.
class WriterTest : public CheckpointTest {
 protected:
  WriterTest() : engine_of_writer_(&writer_) {
    engine_of_writer_.open_files = {data()};
  }

  std::string data() const { return files_.path() + "/data"; }

  absl::Status Take(bool leave_running) {
    v1::CreateSnapshotRequest request = Request("a");
    request.set_pid(writer_.pid());
    request.mutable_options()->set_leave_running(leave_running);
    return operations_of_writer_
        .Create(
            kRoot, request, [](v1::ProgressPhase) {}, &cancellation_)
        .status();
  }

  absl::Status Restore(v1::FilesPolicy files) {
    v1::RestoreSnapshotRequest request;
    request.set_name("a");
    request.mutable_options()->set_files(files);
    return operations_of_writer_
        .Restore(
            kRoot, request, [](v1::ProgressPhase) {}, &cancellation_)
        .status();
  }

  // In place, of the same size.
  void Overwrite() {
    const UniqueFd fd(open(data().c_str(), O_WRONLY | O_CLOEXEC));
    // A clock tick later.
    struct stat before;
    struct stat after;
    ASSERT_EQ(fstat(fd.get(), &before), 0);
    do {
      ASSERT_EQ(pwrite(fd.get(), "x", 1, 0), 1);
      ASSERT_EQ(fstat(fd.get(), &after), 0);
    } while (absl::TimeFromTimespec(after.st_mtim) ==
             absl::TimeFromTimespec(before.st_mtim));
  }

  void EndWriter() {
    writer_.Kill();
    writer_.Reap();
  }

  TempDirectory files_;
  Child writer_{absl::StrCat("printf 12345 >", files_.path(), "/data; exec 4<>",
                             files_.path(),
                             "/data; echo >&3; exec 3>&-; exec sleep 9999")};
  FakeEngine engine_of_writer_;
  Operations operations_of_writer_{&holder_, &engine_of_writer_, ProcFs(),
                                   Host()};
};

TEST_F(WriterTest, UnchangedFilesPass) {
  const absl::Status taken = Take(/*leave_running=*/false);
  ASSERT_TRUE(taken.ok()) << taken;
  EndWriter();
  const absl::Status restored = Restore(v1::FILES_POLICY_UNSPECIFIED);
  EXPECT_TRUE(restored.ok()) << restored;
}

// A sync may change their times, and is the last that does.
TEST_F(WriterTest, FilesAreRecordedAfterTheLastSync) {
  on_sync = [&](const std::vector<SyncTarget>&, absl::Duration) {
    Overwrite();
    return absl::OkStatus();
  };
  const absl::Status taken = Take(/*leave_running=*/false);
  ASSERT_TRUE(taken.ok()) << taken;
  EndWriter();
  const absl::Status restored = Restore(v1::FILES_POLICY_UNSPECIFIED);
  EXPECT_TRUE(restored.ok()) << restored;
}

TEST_F(WriterTest, FilesWrittenSinceAreRefusedUnlessAccepted) {
  const absl::Status taken = Take(/*leave_running=*/false);
  ASSERT_TRUE(taken.ok()) << taken;
  EndWriter();
  Overwrite();
  for (const auto policy :
       {v1::FILES_POLICY_UNSPECIFIED, v1::FILES_POLICY_REFUSE}) {
    const absl::Status status = Restore(policy);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ErrorReasonOf(status), reason::kFileChanged);
    EXPECT_EQ(ErrorMetadataOf(status)["path"], data());
    EXPECT_THAT(ErrorMetadataOf(status)["hint"],
                ::testing::HasSubstr("--files=accept"));
  }
  const absl::Status accepted = Restore(v1::FILES_POLICY_ACCEPT);
  EXPECT_TRUE(accepted.ok()) << accepted;
}

TEST_F(WriterTest, WhatIsWrittenAfterTheFreezeCounts) {
  engine_of_writer_.on_point = [this](const std::string& point) {
    if (point == "resumed") Overwrite();
  };
  ASSERT_TRUE(Take(/*leave_running=*/true).ok());
  EndWriter();
  EXPECT_EQ(ErrorReasonOf(Restore(v1::FILES_POLICY_REFUSE)),
            reason::kFileChanged);
}

TEST_F(WriterTest, UnknownPoliciesAreRefused) {
  const absl::Status status = Restore(static_cast<v1::FilesPolicy>(77));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReasonOf(status), reason::kOptionInvalid);
  EXPECT_EQ(ErrorMetadataOf(status)["field"], "files");
}

TEST_F(CheckpointTest, PoolIsDescribed) {
  AddSnapshot(&catalog(), "a", 0);
  auto pool = operations_.GetPool({});
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_EQ(pool->pool().path(), temp_.path());
  EXPECT_EQ(pool->pool().kind(), v1::POOL_KIND_DIRECTORY);
  EXPECT_EQ(pool->pool().snapshot_count(), 1u);
  EXPECT_EQ(pool->pool().node(), -1);
}

TEST(WithoutPool, EveryCallSaysPoolMissing) {
  FakeEngine engine(nullptr);
  PoolHolder holder(
      []() -> absl::StatusOr<std::unique_ptr<Pool>> {
        return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                          .reason = reason::kPoolMissing,
                          .message = "none",
                          .hint = "h"});
      },
      ProcFs(), &engine);
  Operations operations(&holder, &engine, ProcFs());
  EXPECT_EQ(ErrorReasonOf(operations.GetPool({}).status()),
            reason::kPoolMissing);
  EXPECT_EQ(ErrorReasonOf(operations.List(kRoot, {}).status()),
            reason::kPoolMissing);
}

}  // namespace
}  // namespace daxsnap
