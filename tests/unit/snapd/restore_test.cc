// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/operations.h"
#include "tests/unit/snapd/operations_test_base.h"

namespace daxsnap {
namespace {

constexpr Caller kRoot = {.uid = 0, .gid = 0};

class RestoreTest : public OperationsTestBase {
 protected:
  RestoreTest() {
    AddSnapshot(&catalog(), "a", /*owner=*/1000);
    auto images = EnsureDirectory(catalog().Open("a")->get(), "images");
    WriteImages(images->get(), 4242, "/bin/sh");
  }

  absl::StatusOr<v1::RestoreSnapshotResult> Restore(
      const std::string& name, const Caller& caller = kRoot) {
    v1::RestoreSnapshotRequest request;
    request.set_name(name);
    request.mutable_options()->set_verify(verify_);
    request.set_request_id(request_id_);
    if (!more_options_.empty()) {
      EXPECT_TRUE(request.mutable_options()->ParseFromString(more_options_));
    }
    return operations_.Restore(
        caller, request,
        [this](v1::ProgressPhase phase) {
          if (phase == cancel_at_) cancellation_.Cancel();
        },
        &cancellation_);
  }

  void Change(const std::function<void(v1::Manifest*)>& change) {
    auto manifest = catalog().Read("a");
    ASSERT_TRUE(manifest.ok());
    change(&*manifest);
    ASSERT_TRUE(
        catalog().WriteManifest(catalog().Open("a")->get(), *manifest).ok());
  }

  absl::StatusOr<internal::Operation> Record() {
    auto uids = catalog().records().List();
    if (!uids.ok()) return uids.status();
    if (uids->size() != 1) return absl::NotFoundError("no record, or several");
    return catalog().records().Read(*uids->begin());
  }

  v1::VerifyPolicy verify_ = v1::VERIFY_POLICY_UNSPECIFIED;
  std::string request_id_;
  std::string more_options_;
  v1::ProgressPhase cancel_at_ = v1::PROGRESS_PHASE_UNSPECIFIED;
  Cancellation cancellation_;
};

TEST_F(RestoreTest, TellsPidAndScope) {
  auto result = Restore("a");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pid(), 4242);
  EXPECT_EQ(result->scope(), "daxsnap-test.scope");
  EXPECT_EQ(result->times().restore_us(), 55u);
  // A plain directory has no node to bind memory to.
  EXPECT_EQ(engine_.restored.memory_node, std::nullopt);
}

TEST_F(RestoreTest, WhoRestoredWhatIsLogged) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(Restore("a", {.uid = 1000, .gid = 1000}).ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("uid 1000 restored snapshot a\n"));
}

TEST_F(RestoreTest, OwnersMayStrangersMayNot) {
  EXPECT_TRUE(Restore("a", {.uid = 1000, .gid = 7}).ok());
  EXPECT_EQ(ErrorReasonOf(Restore("a", {.uid = 1001, .gid = 7}).status()),
            reason::kPermissionDenied);
}

TEST_F(RestoreTest, MissingAndInvalidNames) {
  EXPECT_EQ(ErrorReasonOf(Restore("b").status()), reason::kSnapshotMissing);
  EXPECT_EQ(Restore("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReasonOf(Restore("../snapshots/a").status()),
            reason::kNameInvalid);
}

TEST_F(RestoreTest, PidInUse) {
  const Child child;
  Change([&](v1::Manifest* manifest) {
    manifest->add_tasks()->mutable_task()->set_pid(child.pid());
  });
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kPidInUse);
}

TEST_F(RestoreTest, PidOfAKilledTaskIsWaitedFor) {
  Child child;
  Change([&](v1::Manifest* manifest) {
    manifest->add_tasks()->mutable_task()->set_pid(child.pid());
  });
  child.Kill();
  auto restore =
      std::async(std::launch::async, [this] { return Restore("a").status(); });
  const auto waits = [] {
    const auto fds = ProcFs().ReadFds(getpid());
    return fds.ok() &&
           std::any_of(fds->begin(), fds->end(), [](const FdInfo& fd) {
             return absl::StrContains(fd.target, "pidfd");
           });
  };
  while (!waits()) {
    ASSERT_EQ(restore.wait_for(std::chrono::milliseconds(1)),
              std::future_status::timeout)
        << restore.get();
  }
  child.Reap();
  const absl::Status status = restore.get();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(RestoreTest, MissingImagesAreDamage) {
  auto directory = catalog().Open("a");
  ASSERT_TRUE(RemoveTree(directory->get(), "images").ok());
  const absl::Status status = Restore("a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged);
}

TEST_F(RestoreTest, ImagesAreThereInFull) {
  Change([](v1::Manifest* manifest) {
    v1::ImageRecord* image = manifest->add_images();
    image->set_name("pages-1.img");
    image->set_size(10);
  });
  const auto damaged = [&](const std::string& what) {
    const absl::Status status = Restore("a").status();
    EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged) << status;
    EXPECT_EQ(ErrorMetadataOf(status)["path"], "images/pages-1.img");
    EXPECT_TRUE(absl::StrContains(status.message(), what)) << status;
  };
  auto images = catalog().OpenImages("a");
  ASSERT_TRUE(images.ok());
  damaged("pages-1.img is missing");
  ASSERT_TRUE(ReplaceFileAt(images->get(), "pages-1.img", "123456789").ok());
  damaged("has 9 bytes instead of 10");
  ASSERT_TRUE(ReplaceFileAt(images->get(), "pages-1.img", "1234567890").ok());
  EXPECT_TRUE(Restore("a").ok());
}

TEST_F(RestoreTest, WhatCannotBeReadIsNotDamage) {
  for (const auto& [call, name] :
       {std::pair{"open", "manifest.pb"}, std::pair{"stat", "inventory.img"},
        std::pair{"open", "images"}}) {
    const ScopedFileFault fault(FailWith(EIO, call, name));
    const absl::Status status = Restore("a").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotUnreadable);
  }
  EXPECT_TRUE(Restore("a").ok());
}

// Neither a PID that is free nor a CPU that lacks everything.
TEST_F(RestoreTest, WhatCannotBeToldOfTheMachineIsNotGuessed) {
  Change([](v1::Manifest* manifest) {
    manifest->add_tasks()->mutable_task()->set_pid(getpid());
    manifest->add_cpu_features("fpu9000");
  });
  {
    const ScopedFileFault fault(FailWith(EMFILE, "open", "/proc/cpuinfo"));
    EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kOverloaded);
  }
  Change([](v1::Manifest* manifest) { manifest->clear_cpu_features(); });
  const ScopedFileFault fault(FailWith(EMFILE, "read", "status"));
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kOverloaded);
}

TEST_F(RestoreTest, MissingCpuFeature) {
  Change([](v1::Manifest* manifest) { manifest->add_cpu_features("avx9000"); });
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kCpuFeatureMissing);
}

TEST_F(RestoreTest, ChangedFile) {
  Change([](v1::Manifest* manifest) {
    v1::FileRecord* file = manifest->add_files();
    file->set_path("/bin/sh");
    file->set_size(1);
    file->set_mapped(true);
    file->mutable_modify_time()->set_seconds(1);
  });
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kFileChanged);
}

TEST_F(RestoreTest, FileWhoseSecondNameIsUsedUp) {
  const std::string link = absl::StrCat(temp_.path(), "/link_remap.12");
  Change([&link](v1::Manifest* manifest) {
    manifest->add_files()->set_path(link);
  });
  const absl::Status status = Restore("a").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kLinkRemapped) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["path"], link);
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, link, "x").ok());
  EXPECT_TRUE(Restore("a").ok());
}

TEST_F(RestoreTest, FilesOfOtherNamesMayBeGone) {
  for (const char* name : {"link_remap.", "link_remap.1a", "link_remap"}) {
    Change([&](v1::Manifest* manifest) {
      manifest->add_files()->set_path(absl::StrCat(temp_.path(), "/", name));
    });
  }
  EXPECT_TRUE(Restore("a").ok());
}

// A pool all of whose stored pages are what was stored.
absl::StatusOr<pool::RangeCheck> Whole(const std::string&, uint64_t,
                                       uint64_t length) {
  return pool::RangeCheck{.done = length,
                          .pages_checked = length / 4096,
                          .pages_without_sum = 0,
                          .first_bad = std::nullopt};
}

TEST_F(RestoreTest, VerifiesWhereNobodyPromisesThatMemoryKeepsIt) {
  pool_->on_check_range = Whole;
  for (const auto& [memory, policy, wanted] :
       {std::tuple{Persistence::kUnknown, v1::VERIFY_POLICY_UNSPECIFIED, false},
        std::tuple{Persistence::kPromised, v1::VERIFY_POLICY_UNSPECIFIED,
                   false},
        std::tuple{Persistence::kPromised, v1::VERIFY_POLICY_AUTO, false},
        std::tuple{Persistence::kPromised, v1::VERIFY_POLICY_ALWAYS, true},
        std::tuple{Persistence::kNotPromised, v1::VERIFY_POLICY_UNSPECIFIED,
                   true},
        std::tuple{Persistence::kNotPromised, v1::VERIFY_POLICY_AUTO, true},
        std::tuple{Persistence::kNotPromised, v1::VERIFY_POLICY_NEVER,
                   false}}) {
    pool_->memory = memory;
    verify_ = policy;
    auto result = Restore("a");
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->has_verification(), wanted)
        << static_cast<int>(memory) << " " << policy;
    // The manifest and five images.
    EXPECT_EQ(result->verification().files(), wanted ? 6u : 0u);
    EXPECT_EQ(result->verification().bytes_verified(), wanted ? 6 * 4096u : 0u);
  }
}

TEST_F(RestoreTest, WhatIsDamagedDoesNotRun) {
  pool_->memory = Persistence::kNotPromised;
  pool_->on_check_range = [](const std::string& path, uint64_t offset,
                             uint64_t length) {
    auto range = Whole(path, offset, length);
    if (absl::EndsWith(path, "images/files.img")) {
      *range = {.done = 0,
                .pages_checked = 0,
                .pages_without_sum = 0,
                .first_bad = offset};
    }
    return range;
  };
  engine_.on_point = [](const std::string& point) {
    ADD_FAILURE() << "the engine was asked to " << point;
  };
  const absl::Status status = Restore("a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged);
  EXPECT_EQ(ErrorMetadataOf(status)["path"], "images/files.img");
  EXPECT_EQ(ErrorMetadataOf(status)["offset"], "0");
  EXPECT_EQ(ErrorMetadataOf(status)["length"], "4096");
  EXPECT_TRUE(absl::StrContains(status.message(), "images/files.img"));
  engine_.on_point = nullptr;
  verify_ = v1::VERIFY_POLICY_NEVER;
  EXPECT_TRUE(Restore("a").ok());
}

TEST_F(RestoreTest, PagesWithoutChecksumAreToldAndNoReasonToRefuse) {
  // As it is where there are none at all.
  verify_ = v1::VERIFY_POLICY_ALWAYS;
  auto result = Restore("a");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->verification().bytes_verified(), 0u);
  EXPECT_EQ(result->verification().bytes_without_checksum(), 6 * 4096u);
}

TEST_F(RestoreTest, VerificationThatCannotReadIsNotDamage) {
  pool_->memory = Persistence::kNotPromised;
  pool_->on_check_range = [](const std::string&, uint64_t, uint64_t) {
    return absl::UnavailableError("cannot compare checksums");
  };
  const absl::Status status = Restore("a").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotUnreadable) << status;
}

TEST_F(RestoreTest, IsCancelledWhileItVerifies) {
  pool_->memory = Persistence::kNotPromised;
  pool_->on_check_range = [this](const std::string& path, uint64_t offset,
                                 uint64_t length) {
    cancellation_.Cancel();
    return Whole(path, offset, length);
  };
  engine_.on_point = [](const std::string& point) {
    ADD_FAILURE() << "the engine was asked to " << point;
  };
  EXPECT_TRUE(absl::IsCancelled(Restore("a").status()));
}

TEST_F(RestoreTest, PoliciesThatAreNotKnownAreRefused) {
  verify_ = static_cast<v1::VerifyPolicy>(77);
  const absl::Status status = Restore("a").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kOptionInvalid);
  EXPECT_EQ(ErrorMetadataOf(status)["field"], "verify");
}

TEST_F(RestoreTest, EngineErrorsAndCancellationPassThrough) {
  engine_.fail = MakeError({.code = absl::StatusCode::kFailedPrecondition,
                            .reason = reason::kCriuFailed,
                            .message = "m",
                            .hint = "h"});
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kCriuFailed);
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(Restore("a").status()));
}

TEST_F(RestoreTest, IsRecordedUntilItIsDone) {
  std::vector<std::string> points;
  engine_.on_point = [&](const std::string& point) {
    points.push_back(point);
    auto record = Record();
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_EQ(record->kind(), internal::OPERATION_KIND_RESTORE);
    EXPECT_EQ(record->name(), "a");
    EXPECT_EQ(record->criu_pid(), getpid());
    EXPECT_EQ(record->cgroup(), "/daxsnap.slice/daxsnap-test.scope");
    EXPECT_EQ(record->resuming(), point == "resuming");
  };
  EXPECT_TRUE(Restore("a").ok());
  EXPECT_THAT(points, ::testing::ElementsAre("restore", "resuming"));
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
}

// What a pool has that takes nothing more, as after a commit that failed, comes
// back all the same.
TEST_F(RestoreTest, ReadOnlyPoolGivesBackWhatItHas) {
  const ScopedFileFault fault([](absl::string_view call, const std::string&) {
    return call == "create" || call == "rename" || call == "unlink" ? EROFS : 0;
  });
  auto result = Restore("a");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pid(), 4242);
}

// Its staging/ may be one of the directories that the damage took.
TEST_F(RestoreTest, ReadOnlyPoolWithoutStagingGivesBackWhatItHas) {
  pool_->writable = absl::FailedPreconditionError("read-only");
  const ScopedFileFault fault([](absl::string_view call, const std::string&) {
    return call == "create" ? ENOENT : 0;
  });
  EXPECT_TRUE(Restore("a").ok());
  pool_->writable = absl::OkStatus();
  EXPECT_FALSE(Restore("a").ok());
}

TEST_F(RestoreTest, FailureLeavesNoRecord) {
  request_id_ = "r";
  for (const bool late : {false, true}) {
    (late ? engine_.fail_resuming : engine_.fail) =
        absl::UnavailableError("CRIU died");
    EXPECT_FALSE(Restore("a").ok());
    EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
  }
}

TEST_F(RestoreTest, CancelledBeforeTheTasksRunLeavesNothing) {
  engine_.on_point = [this](const std::string& point) {
    if (point == "restore") cancellation_.Cancel();
  };
  EXPECT_TRUE(absl::IsCancelled(Restore("a").status()));
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
}

// Who gives up before hearing that they run is right to say so.
TEST_F(RestoreTest, CancelledWhenItSaysThatTheTasksWillRunLeavesNothing) {
  cancel_at_ = v1::PROGRESS_PHASE_RESUMING;
  EXPECT_TRUE(absl::IsCancelled(Restore("a").status()));
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
}

TEST_F(RestoreTest, OptionThatIsNotKnownStartsNothing) {
  engine_.on_point = [](const std::string& point) {
    ADD_FAILURE() << "the engine was asked to " << point;
  };
  more_options_ = "\x98\x06\x01";
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kOptionInvalid);
}

TEST_F(RestoreTest, CancelledOnceTheTasksRunHasItsResult) {
  engine_.on_point = [this](const std::string& point) {
    if (point == "resuming") cancellation_.Cancel();
  };
  const absl::Status status = Restore("a").status();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(RestoreTest, AskedAgainWithTheSameIdGivesTheSameAnswer) {
  Child root;
  engine_.restored_pid = root.pid();
  request_id_ = "0b5c9d4e-1";
  auto first = Restore("a");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->already_running());
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
  engine_.on_point = [](const std::string& point) {
    ADD_FAILURE() << "the engine was asked to " << point;
  };
  // Its tasks have the PIDs.
  Change([&](v1::Manifest* manifest) {
    manifest->add_tasks()->mutable_task()->set_pid(root.pid());
  });
  auto second = Restore("a");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->already_running());
  EXPECT_EQ(second->pid(), root.pid());
  EXPECT_EQ(second->scope(), first->scope());
  EXPECT_EQ(second->times().restore_us(), 55u);
  // Another call is another restore.
  for (const char* id : {"", "0b5c9d4e-2"}) {
    request_id_ = id;
    EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kPidInUse) << id;
  }
  EXPECT_EQ(ErrorReasonOf(Restore("a", {.uid = 1001, .gid = 7}).status()),
            reason::kPermissionDenied);
}

// The same ID is no leave to answer for something else.
TEST_F(RestoreTest, IdOfAnotherRestoreIsRefused) {
  Child root;
  engine_.restored_pid = root.pid();
  request_id_ = "r";
  ASSERT_TRUE(Restore("a").ok());
  verify_ = v1::VERIFY_POLICY_ALWAYS;
  EXPECT_EQ(ErrorMetadataOf(Restore("a").status())["field"], "request_id");
  verify_ = v1::VERIFY_POLICY_UNSPECIFIED;
  EXPECT_TRUE(Restore("a")->already_running());
  Change([](v1::Manifest* manifest) {
    manifest->mutable_snapshot()->set_uid("that of a later one");
  });
  EXPECT_EQ(ErrorMetadataOf(Restore("a").status())["field"], "request_id");
}

TEST_F(RestoreTest, FullPoolStillKnowsTheResult) {
  Child root;
  engine_.restored_pid = root.pid();
  request_id_ = "r";
  const ScopedFileFault fault(FailWith(ENOSPC, "create", ".operation"));
  ASSERT_TRUE(Restore("a").ok());
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
  auto again = Restore("a");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->already_running());
  root.Kill();
  again = Restore("a");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->already_running());
}

TEST_F(RestoreTest, ResultsAreThereForTheNextSnapd) {
  TempDirectory kept;
  Child root;
  engine_.restored_pid = root.pid();
  v1::RestoreSnapshotRequest request;
  request.set_name("a");
  const auto restore = [&](const std::string& id) {
    request.set_request_id(id);
    Operations snapd(&holder_, &engine_, ProcFs(), Host(), kept.path());
    return snapd.Restore(
        kRoot, request, [](v1::ProgressPhase) {}, &cancellation_);
  };
  const auto results = [&] {
    return ListDirectory(OpenDirectory(AT_FDCWD, kept.path())->get())->size();
  };
  ASSERT_TRUE(restore("r").ok());
  auto again = restore("r");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->already_running());
  EXPECT_EQ(results(), 1u);
  // Nobody asks for tasks that have ended: the next restore forgets them.
  root.Kill();
  ASSERT_TRUE(restore("").ok());
  EXPECT_EQ(results(), 0u);
}

// A damaged pool is what one restores from.
TEST_F(RestoreTest, RecordThatCannotBeReadIsNoReasonNotToRestore) {
  internal::Operation record;
  record.set_uid("01234567-89ab-cdef-0123-456789abcdef");
  ASSERT_TRUE(catalog().records().Write(record).ok());
  const ScopedFileFault fault(FailWith(EIO, "open", ".operation"));
  for (const char* id : {"", "r"}) {
    request_id_ = id;
    const absl::Status status = Restore("a").status();
    EXPECT_TRUE(status.ok()) << status;
  }
  // It may be that of the tasks that run.
  const Child child;
  Change([&](v1::Manifest* manifest) {
    manifest->add_tasks()->mutable_task()->set_pid(child.pid());
  });
  EXPECT_EQ(ErrnoNameOf(Restore("a").status()), "EIO");
  request_id_.clear();
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kPidInUse);
  request_id_ = "r";
  pool_->writable = absl::FailedPreconditionError("read-only");
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kPidInUse);
}

TEST_F(RestoreTest, RecordsThatCannotBeListedAreNoReasonNotToRestore) {
  const ScopedFileFault fault(FailWith(EIO, "list", ""));
  request_id_ = "r";
  const absl::Status status = Restore("a").status();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(RestoreTest, SameIdRestoresAnewOnceTheTasksAreGone) {
  Child root;
  engine_.restored_pid = root.pid();
  request_id_ = "r";
  ASSERT_TRUE(Restore("a").ok());
  root.Kill();
  root.Reap();
  auto again = Restore("a");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->already_running());
  EXPECT_THAT(pool_->Staging(), ::testing::IsEmpty());
}

TEST_F(RestoreTest, RequestIdsAreChecked) {
  for (const std::string& id :
       {std::string("a b"), std::string("\xff"), std::string(65, 'x')}) {
    request_id_ = id;
    const absl::Status status = Restore("a").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReasonOf(status), reason::kOptionInvalid);
    EXPECT_EQ(ErrorMetadataOf(status)["field"], "request_id");
  }
}

TEST_F(RestoreTest, SnapshotStaysForAnotherRestore) {
  EXPECT_TRUE(Restore("a").ok());
  EXPECT_TRUE(Restore("a").ok());
}

}  // namespace
}  // namespace daxsnap
