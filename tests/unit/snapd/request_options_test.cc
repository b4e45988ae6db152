// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/request_options.h"

#include <gtest/gtest.h>

#include "base/errors.h"

namespace daxsnap {
namespace {

// What daxsnaps before the options sent: fields 3, 20 and 21, 30 and 40.
constexpr char kOldCheckpoint[] = "\x18\x01\xa0\x01\x07\xa8\x01\x01";
constexpr char kOldRestore[] = "\xf0\x01\x02\xc0\x02\x03";

TEST(RequestOptions, OldFieldsOfACheckpointAreHeeded) {
  v1::CreateSnapshotRequest request;
  ASSERT_TRUE(request.ParseFromString(kOldCheckpoint));
  const v1::CheckpointOptions options = OptionsOf(request);
  EXPECT_TRUE(options.leave_running());
  EXPECT_TRUE(options.force());
  EXPECT_EQ(options.sync_timeout_seconds(), 7u);
}

TEST(RequestOptions, OldFieldsOfARestoreAreHeeded) {
  v1::RestoreSnapshotRequest request;
  ASSERT_TRUE(request.ParseFromString(kOldRestore));
  const v1::RestoreOptions options = OptionsOf(request);
  EXPECT_EQ(options.files(), v1::FILES_POLICY_ACCEPT);
  EXPECT_EQ(options.verify(), v1::VERIFY_POLICY_NEVER);
}

// Field 99 of options, and of a request.
TEST(RequestOptions, FieldsThatAreNotKnownAreRefused) {
  v1::CheckpointOptions newer;
  ASSERT_TRUE(newer.ParseFromString("\x98\x06\x01"));
  v1::CreateSnapshotRequest checkpoint;
  EXPECT_TRUE(CheckKnown(checkpoint).ok());
  *checkpoint.mutable_options() = newer;
  EXPECT_EQ(ErrorReasonOf(CheckKnown(checkpoint)), reason::kOptionInvalid);
  EXPECT_EQ(ErrorMetadataOf(CheckKnown(checkpoint))["field"], "options.99");
  v1::RestoreSnapshotRequest restore;
  EXPECT_TRUE(CheckKnown(restore).ok());
  ASSERT_TRUE(restore.mutable_options()->ParseFromString("\x98\x06\x01"));
  EXPECT_EQ(ErrorMetadataOf(CheckKnown(restore))["field"], "options.99");
  ASSERT_TRUE(restore.ParseFromString("\x98\x06\x01"));
  EXPECT_EQ(ErrorMetadataOf(CheckKnown(restore))["field"], "99");
}

TEST(RequestOptions, NewOnesCountMore) {
  v1::CreateSnapshotRequest checkpoint;
  ASSERT_TRUE(checkpoint.ParseFromString(kOldCheckpoint));
  checkpoint.mutable_options()->set_sync_timeout_seconds(9);
  EXPECT_EQ(OptionsOf(checkpoint).sync_timeout_seconds(), 9u);
  // Nobody who asked for it finds his tasks killed.
  EXPECT_TRUE(OptionsOf(checkpoint).leave_running());

  v1::RestoreSnapshotRequest restore;
  ASSERT_TRUE(restore.ParseFromString(kOldRestore));
  restore.mutable_options()->set_files(v1::FILES_POLICY_REFUSE);
  EXPECT_EQ(OptionsOf(restore).files(), v1::FILES_POLICY_REFUSE);
  EXPECT_EQ(OptionsOf(restore).verify(), v1::VERIFY_POLICY_NEVER);
}

TEST(RequestOptions, NothingIsAskedForByDefault) {
  const v1::CheckpointOptions checkpoint =
      OptionsOf(v1::CreateSnapshotRequest());
  EXPECT_FALSE(checkpoint.leave_running());
  EXPECT_FALSE(checkpoint.force());
  EXPECT_EQ(checkpoint.sync_timeout_seconds(), 0u);
}

}  // namespace
}  // namespace daxsnap
