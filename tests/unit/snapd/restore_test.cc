// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/errors.h"
#include "snapd/files.h"
#include "snapd/operations.h"
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
    return operations_.Restore(
        caller, request, [](v1::ProgressPhase) {}, &cancellation_);
  }

  void Change(const std::function<void(v1::Manifest*)>& change) {
    auto manifest = catalog().Read("a");
    ASSERT_TRUE(manifest.ok());
    change(&*manifest);
    ASSERT_TRUE(
        catalog().WriteManifest(catalog().Open("a")->get(), *manifest).ok());
  }

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

TEST_F(RestoreTest, EngineErrorsAndCancellationPassThrough) {
  engine_.fail = MakeError({.code = absl::StatusCode::kFailedPrecondition,
                            .reason = reason::kCriuFailed,
                            .message = "m",
                            .hint = "h"});
  EXPECT_EQ(ErrorReasonOf(Restore("a").status()), reason::kCriuFailed);
  cancellation_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(Restore("a").status()));
}

TEST_F(RestoreTest, SnapshotStaysForAnotherRestore) {
  EXPECT_TRUE(Restore("a").ok());
  EXPECT_TRUE(Restore("a").ok());
}

}  // namespace
}  // namespace daxsnap
