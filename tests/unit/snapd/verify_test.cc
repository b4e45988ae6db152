// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/operations.h"
#include "tests/unit/snapd/operations_test_base.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Caller kRoot = {.uid = 0, .gid = 0};
constexpr uint64_t kPage = 4096;

class VerifyTest : public OperationsTestBase {
 protected:
  VerifyTest() {
    AddSnapshot(&catalog(), "a", /*owner=*/1000);
    auto images = EnsureDirectory(catalog().Open("a")->get(), "images");
    WriteImages(images->get(), 4242, "/bin/sh");
    EXPECT_TRUE(ReplaceFileAt(images->get(), "pages-1.img",
                              std::string(10 * kPage, 'p'))
                    .ok());
    pool_->on_check_range = [this](const std::string& path, uint64_t offset,
                                   uint64_t length) {
      return Check(path, offset, length);
    };
  }

  // A kernel that finds the pages of `damaged_` in pages-1.img.
  absl::StatusOr<pool::RangeCheck> Check(const std::string& path,
                                         uint64_t offset, uint64_t length) {
    pool::RangeCheck range;
    const bool pages = absl::EndsWith(path, "pages-1.img");
    for (; range.done < length; range.done += kPage) {
      const uint64_t at = offset + range.done;
      if (pages && damaged_.contains(at / kPage)) {
        range.first_bad = at;
        break;
      }
      if (pages && at / kPage >= first_without_) {
        ++range.pages_without_sum;
      } else {
        ++range.pages_checked;
      }
    }
    return range;
  }

  absl::Status Verify(const std::string& name, const Caller& caller = kRoot,
                      bool make_checksums = false) {
    v1::VerifySnapshotRequest request;
    request.set_name(name);
    request.set_make_checksums(make_checksums);
    files_.clear();
    results_.clear();
    VerifyEvents events;
    events.progress = [this](v1::ProgressPhase phase, uint64_t done,
                             uint64_t total) {
      EXPECT_LE(done, total);
      if (phases_.empty() || phases_.back() != phase) phases_.push_back(phase);
    };
    events.file = [this](v1::FileVerification file) {
      files_.push_back(std::move(file));
    };
    events.result = [this](v1::VerifySnapshotResult result) {
      results_.push_back(std::move(result));
    };
    return operations_.Verify(caller, request, events, cancellation_);
  }

  std::vector<std::string> Paths() const {
    std::vector<std::string> paths;
    for (const v1::FileVerification& file : files_)
      paths.push_back(file.path());
    return paths;
  }

  std::set<uint64_t> damaged_;        // pages
  uint64_t first_without_ = 1 << 20;  // page
  std::vector<v1::FileVerification> files_;
  std::vector<v1::VerifySnapshotResult> results_;
  std::vector<v1::ProgressPhase> phases_;
  Cancellation cancellation_;
};

TEST_F(VerifyTest, LooksAtEveryFileOfASnapshot) {
  EXPECT_TRUE(Verify("a").ok());
  EXPECT_THAT(Paths(), ElementsAre("images/core-4242.img", "images/files.img",
                                   "images/inventory.img", "images/mm-4242.img",
                                   "images/pages-1.img", "images/pstree.img",
                                   "manifest.pb"));
  ASSERT_EQ(results_.size(), 1u);
  const v1::Verification& totals = results_[0].verification();
  EXPECT_EQ(totals.files(), 7u);
  EXPECT_EQ(totals.bytes_verified(), 16 * kPage);
  EXPECT_EQ(totals.bytes_without_checksum(), 0u);
  EXPECT_EQ(totals.bytes_damaged(), 0u);
  EXPECT_THAT(phases_, ElementsAre(v1::PROGRESS_PHASE_CHECKING,
                                   v1::PROGRESS_PHASE_VERIFYING));
}

TEST_F(VerifyTest, AnImageThatIsMissingIsDamage) {
  auto manifest = catalog().Read("a");
  ASSERT_TRUE(manifest.ok());
  for (const auto& [name, size] : {std::pair{"pages-1.img", 10 * kPage},
                                   std::pair{"pages-2.img", kPage}}) {
    v1::ImageRecord* image = manifest->add_images();
    image->set_name(name);
    image->set_size(size);
  }
  ASSERT_TRUE(
      catalog().WriteManifest(catalog().Open("a")->get(), *manifest).ok());
  const absl::Status status = Verify("a");
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["path"], "images/pages-2.img");
  EXPECT_EQ(files_.size(), 7u) << "what is there was not looked at";
}

TEST_F(VerifyTest, NamesWhatIsDamagedAndGoesOnBehindIt) {
  damaged_ = {2, 3, 7};
  const absl::Status status = Verify("a");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged);
  auto metadata = ErrorMetadataOf(status);
  EXPECT_EQ(metadata["name"], "a");
  EXPECT_EQ(metadata["path"], "images/pages-1.img");
  EXPECT_EQ(metadata["offset"], "8192");
  EXPECT_EQ(metadata["length"], "8192");
  EXPECT_EQ(metadata["bytes_damaged"], "12288");
  EXPECT_THAT(metadata["hint"], ::testing::Not(HasSubstr("rm")));
  const v1::FileVerification& file = files_[4];
  EXPECT_EQ(file.bytes_damaged(), 3 * kPage);
  EXPECT_EQ(file.bytes_verified(), 7 * kPage);
  ASSERT_EQ(file.damaged_size(), 2);
  EXPECT_EQ(file.damaged(1).offset(), 7 * kPage);
  EXPECT_EQ(file.damaged(1).length(), kPage);
  EXPECT_EQ(files_.size(), 7u) << "files behind it were not looked at";
  EXPECT_EQ(results_.size(), 1u);
}

TEST_F(VerifyTest, WhatHasNoChecksumYetIsNotCalledWhole) {
  first_without_ = 4;
  const absl::Status status = Verify("a");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReasonOf(status), reason::kChecksumsMissing);
  EXPECT_EQ(ErrorMetadataOf(status)["bytes_without_checksum"],
            absl::StrCat(6 * kPage));
  EXPECT_EQ(results_.size(), 1u);
  // Damage comes first.
  damaged_ = {0};
  EXPECT_EQ(Verify("a").code(), absl::StatusCode::kDataLoss);
}

TEST_F(VerifyTest, PoolWithoutChecksumsIsSaidToBeOne) {
  pool_->on_check_range = nullptr;
  for (const bool make_checksums : {false, true}) {
    const absl::Status status = Verify("a", kRoot, make_checksums);
    EXPECT_EQ(ErrorReasonOf(status), reason::kChecksumsMissing) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("a directory of another file system"));
    EXPECT_EQ(results_.size(), 1u);
  }
}

TEST_F(VerifyTest, MissingAndInvalidNames) {
  EXPECT_EQ(ErrorReasonOf(Verify("b")), reason::kSnapshotMissing);
  EXPECT_EQ(Verify("b").code(), absl::StatusCode::kNotFound);
  for (const std::string name : {"", "../snapshots/a", "a/images"}) {
    EXPECT_EQ(ErrorReasonOf(Verify(name)), reason::kNameInvalid) << name;
  }
  EXPECT_THAT(results_, IsEmpty());
}

TEST_F(VerifyTest, OwnersMayStrangersMayNot) {
  EXPECT_TRUE(Verify("a", {.uid = 1000, .gid = 7}).ok());
  EXPECT_EQ(ErrorReasonOf(Verify("a", {.uid = 1001, .gid = 7})),
            reason::kPermissionDenied);
  EXPECT_THAT(files_, IsEmpty());
}

TEST_F(VerifyTest, OnlyRootHasChecksumsMade) {
  int made = 0;
  pool_->on_make_checksums = [&](const Cancellation&) {
    ++made;
    first_without_ = 1 << 20;
    return absl::OkStatus();
  };
  first_without_ = 0;
  EXPECT_EQ(ErrorReasonOf(
                Verify("a", {.uid = 1000, .gid = 7}, /*make_checksums=*/true)),
            reason::kPermissionDenied);
  EXPECT_EQ(made, 0);
  EXPECT_TRUE(Verify("a", kRoot, /*make_checksums=*/true).ok());
  EXPECT_EQ(made, 1);
}

TEST_F(VerifyTest, ChecksumsThatCannotBeMadeFailIt) {
  pool_->on_make_checksums = [](const Cancellation&) {
    return ErrnoError(ENOSPC, "cannot make checksums");
  };
  EXPECT_EQ(ErrorReasonOf(Verify("a", kRoot, /*make_checksums=*/true)),
            reason::kNoSpace);
  EXPECT_THAT(results_, IsEmpty());
}

TEST_F(VerifyTest, IsCancelledBetweenSteps) {
  int steps = 0;
  pool_->on_check_range = [&](const std::string& path, uint64_t offset,
                              uint64_t length) {
    if (++steps == 2) cancellation_.Cancel();
    return Check(path, offset, length);
  };
  EXPECT_TRUE(absl::IsCancelled(Verify("a")));
  EXPECT_EQ(steps, 2);
  EXPECT_THAT(results_, IsEmpty());
}

TEST_F(VerifyTest, ManifestThatDoesNotHoldIsDamageAndTheRestIsLookedAt) {
  auto directory = catalog().Open("a");
  ASSERT_TRUE(ReplaceFileAt(directory->get(), "manifest.pb", "junk").ok());
  EXPECT_EQ(Verify("a").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(files_.size(), 7u);
  // Whose it is is not known.
  EXPECT_EQ(Verify("a", {.uid = 1000, .gid = 7}).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_THAT(files_, IsEmpty());
}

TEST_F(VerifyTest, ImagesThatDoNotHoldAreDamage) {
  auto images = catalog().OpenImages("a");
  ASSERT_TRUE(ReplaceFileAt(images->get(), "pstree.img", "junk").ok());
  const absl::Status status = Verify("a");
  EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged) << status;
  ASSERT_TRUE(RemoveTree(images->get(), "inventory.img").ok());
  EXPECT_EQ(ErrorReasonOf(Verify("a")), reason::kSnapshotDamaged);
}

TEST_F(VerifyTest, WhatCannotBeReadIsNotDamage) {
  pool_->on_check_range = [](const std::string&, uint64_t, uint64_t) {
    return absl::UnavailableError("cannot compare checksums");
  };
  EXPECT_EQ(ErrorReasonOf(Verify("a")), reason::kSnapshotUnreadable);
  const ScopedFileFault fault(FailWith(EMFILE, "open", "images"));
  EXPECT_NE(Verify("a").code(), absl::StatusCode::kDataLoss);
}

TEST_F(VerifyTest, NewerSnapshotIsNotCalledDamaged) {
  auto manifest = catalog().Read("a");
  manifest->set_format_version(99);
  ASSERT_TRUE(
      catalog().WriteManifest(catalog().Open("a")->get(), *manifest).ok());
  EXPECT_EQ(ErrorReasonOf(Verify("a")), reason::kVersionUnsupported);
  EXPECT_EQ(results_.size(), 1u);
}

TEST_F(VerifyTest, SnapshotThatIsDeletedMeanwhileIsMissing) {
  pool_->on_check_range = [this](const std::string& path, uint64_t offset,
                                 uint64_t length) {
    if (catalog().Has("a").value()) {
      v1::DeleteSnapshotRequest request;
      request.set_name("a");
      EXPECT_TRUE(operations_.Delete(kRoot, request).ok())
          << "it is in the way of others";
    }
    return Check(path, offset, length);
  };
  EXPECT_EQ(ErrorReasonOf(Verify("a")), reason::kSnapshotMissing);
  EXPECT_THAT(results_, IsEmpty());
}

// Neither a FIFO, which would be waited for, nor what a symlink leads to.
TEST_F(VerifyTest, WhatIsNoFileIsLeftAlone) {
  auto directory = catalog().Open("a");
  ASSERT_EQ(mkfifoat(directory->get(), "fifo", 0600), 0);
  ASSERT_EQ(symlinkat("/etc/passwd", directory->get(), "link"), 0);
  EXPECT_TRUE(Verify("a").ok());
  EXPECT_EQ(files_.size(), 7u);
}

}  // namespace
}  // namespace daxsnap
