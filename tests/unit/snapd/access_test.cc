// SPDX-License-Identifier: Apache-2.0
#include "snapd/access.h"

#include <gtest/gtest.h>

#include "snapd/errors.h"

namespace daxsnap {
namespace {

constexpr Caller kUser = {.uid = 1000, .gid = 1000};
constexpr Caller kRoot = {.uid = 0, .gid = 0};

TaskInfo TaskOfUser() {
  TaskInfo task;
  task.uids = {1000, 1000, 1000, 1000};
  task.gids = {1000, 1000, 1000, 1000};
  task.proc_owner = 1000;
  return task;
}

TEST(Access, OwnTasksAreAllowed) {
  EXPECT_TRUE(CheckTaskAccess(kUser, {TaskOfUser(), TaskOfUser()}).ok());
}

TEST(Access, RootMayDoEverything) {
  TaskInfo task = TaskOfUser();
  task.uids = {1, 2, 3, 4};
  EXPECT_TRUE(CheckTaskAccess(kRoot, {task}).ok());
  EXPECT_TRUE(CheckSnapshotAccess(kRoot, 1000, "s").ok());
}

TEST(Access, EveryIdOfEveryTaskCounts) {
  for (size_t id = 0; id < 4; ++id) {
    TaskInfo task = TaskOfUser();
    task.uids[id] = 0;
    EXPECT_EQ(ErrorReasonOf(CheckTaskAccess(kUser, {TaskOfUser(), task})),
              reason::kPermissionDenied)
        << "uid " << id;
    task = TaskOfUser();
    task.gids[id] = 0;
    EXPECT_EQ(ErrorReasonOf(CheckTaskAccess(kUser, {TaskOfUser(), task})),
              reason::kPermissionDenied)
        << "gid " << id;
  }
}

TEST(Access, TasksThatAreNotDumpableAreDenied) {
  TaskInfo task = TaskOfUser();
  task.proc_owner = 0;
  EXPECT_EQ(ErrorReasonOf(CheckTaskAccess(kUser, {task})),
            reason::kPermissionDenied);
}

TEST(Access, TasksWithCapabilitiesAreDenied) {
  TaskInfo task = TaskOfUser();
  task.privileged = true;
  EXPECT_EQ(ErrorReasonOf(CheckTaskAccess(kUser, {task})),
            reason::kPermissionDenied);
}

TEST(Access, SnapshotIsOfTheUserWhoCouldHaveTakenItElseRoots) {
  EXPECT_EQ(OwnerOf({TaskOfUser(), TaskOfUser()}), 1000u);
  TaskInfo set_user_id = TaskOfUser();
  set_user_id.uids = {1000, 0, 0, 0};
  set_user_id.proc_owner = 0;
  EXPECT_EQ(OwnerOf({set_user_id}), 0u);
  EXPECT_EQ(OwnerOf({TaskOfUser(), set_user_id}), 0u);
}

TEST(Access, SnapshotsOfOthersAreDenied) {
  EXPECT_TRUE(CheckSnapshotAccess(kUser, 1000, "s").ok());
  const absl::Status status = CheckSnapshotAccess(kUser, 1001, "s");
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrorMetadataOf(status)["uid"], "1000");
}

}  // namespace
}  // namespace daxsnap
