// SPDX-License-Identifier: Apache-2.0
#include "snapd/file_sync.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "snapd/errors.h"
#include "snapd/files.h"
#include "tests/unit/snapd/child.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> MountPoints(const Child& child) {
  const ProcFs proc;
  std::vector<std::string> mount_points;
  std::set<dev_t> devices;
  auto files = ReadUsedFiles(proc, {*proc.ReadTask(child.pid())});
  EXPECT_TRUE(files.ok()) << files.status();
  auto targets = CollectSyncTargets(proc, *files);
  EXPECT_TRUE(targets.ok()) << targets.status();
  for (const SyncTarget& target : *targets) {
    struct stat info;
    EXPECT_EQ(fstat(target.fd.get(), &info), 0);
    EXPECT_TRUE(S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
    EXPECT_TRUE(devices.insert(info.st_dev).second)
        << target.mount_point << " is there twice";
    mount_points.push_back(target.mount_point);
  }
  return mount_points;
}

TEST(CollectSyncTargets, HasTheFileSystemsOfDescriptorsAndDirectoriesOnce) {
  const Child without("cd /; echo >&3; exec sleep infinity");
  EXPECT_THAT(MountPoints(without), Contains("/"));
  EXPECT_THAT(MountPoints(without), Not(Contains("/dev/shm")));
  EXPECT_THAT(MountPoints(without), Not(Contains("/proc")));
  const Child with(
      "cd /proc; f=/dev/shm/daxsnap-sync-test.$$; exec 5>$f 6>$f; rm $f; "
      "echo >&3; exec sleep infinity");
  EXPECT_THAT(MountPoints(with), Contains("/"));
  EXPECT_THAT(MountPoints(with), Contains("/dev/shm"));
  EXPECT_THAT(MountPoints(with), Contains("/proc"));
}

TEST(CollectSyncTargets, DevicesAndPipesAreNotOpened) {
  TempDirectory temp;
  const std::string fifo = temp.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const Child child(absl::StrCat("exec 5<>", fifo,
                                 " 6</dev/zero; cd /; echo >&3; "
                                 "exec sleep infinity"));
  EXPECT_THAT(MountPoints(child), Not(Contains("/dev")));
}

TEST(CollectSyncTargets, TasksThatAreGoneOrZombiesHaveNone) {
  Child child;
  const ProcFs proc;
  const std::vector<TaskInfo> tree = {*proc.ReadTask(child.pid())};
  const std::vector<UsedFile> files = *ReadUsedFiles(proc, tree);
  EXPECT_FALSE(files.empty());
  child.Kill();
  for (const char* state : {"zombie", "gone"}) {
    auto left = ReadUsedFiles(proc, tree);
    ASSERT_TRUE(left.ok()) << state << ": " << left.status();
    EXPECT_TRUE(left->empty()) << state;
    auto targets = CollectSyncTargets(proc, files);
    ASSERT_TRUE(targets.ok()) << state << ": " << targets.status();
    EXPECT_TRUE(targets->empty()) << state;
    child.Reap();
  }
}

TEST(ReadUsedFiles, WhatCannotBeReadIsNotTakenForNothing) {
  const Child child("cd /; exec 5</etc/passwd; echo >&3; exec sleep infinity");
  const ProcFs proc;
  const std::vector<TaskInfo> tree = {*proc.ReadTask(child.pid())};
  for (const auto& [call, name] :
       {std::pair{"link", "/ns/mnt"}, std::pair{"read", "mountinfo"},
        std::pair{"link", "/cwd"}, std::pair{"stat", "/root"},
        std::pair{"open", "/fd"}, std::pair{"list", ""},
        std::pair{"link", "/fd/5"}, std::pair{"stat", "/fd/5"},
        std::pair{"read", "maps"}}) {
    for (const int error : {EIO, EMFILE, EACCES}) {
      const ScopedFileFault fault(FailWith(error, call, name));
      const absl::Status status = ReadUsedFiles(proc, tree).status();
      EXPECT_EQ(ErrnoNameOf(status), strerrorname_np(error))
          << call << " " << name << ": " << status;
    }
  }
  const std::vector<UsedFile> files = *ReadUsedFiles(proc, tree);
  const NoDescriptors none;
  EXPECT_EQ(ErrorReasonOf(ReadUsedFiles(proc, tree).status()),
            reason::kOverloaded);
  EXPECT_EQ(ErrorReasonOf(CollectSyncTargets(proc, files).status()),
            reason::kOverloaded);
}

TEST(ReadUsedFiles, ClosedMeanwhileIsNoError) {
  const Child child("cd /; exec 5</etc/passwd; echo >&3; exec sleep infinity");
  const ProcFs proc;
  for (const auto& [call, name] :
       {std::pair{"link", "/fd/5"}, std::pair{"stat", "/fd/5"}}) {
    const ScopedFileFault fault(FailWith(ENOENT, call, name));
    const auto files = ReadUsedFiles(proc, {*proc.ReadTask(child.pid())});
    EXPECT_TRUE(files.ok()) << files.status();
  }
}

SyncTarget Target(const std::string& path) {
  SyncTarget target;
  target.fd.reset(open(path.c_str(), O_PATH | O_CLOEXEC));
  EXPECT_TRUE(target.fd.valid()) << path;
  target.mount_point = path;
  return target;
}

size_t OpenDescriptors() { return ProcFs().ReadFds(getpid())->size(); }

TEST(SyncFileSystems, SyncsAllAndLeavesNothing) {
  std::vector<SyncTarget> targets;
  targets.push_back(Target("/dev/shm"));
  targets.push_back(Target("/proc"));
  targets.push_back(Target("/proc/self/status"));
  const Cancellation never;
  const size_t before = OpenDescriptors();
  const absl::Status status = SyncFileSystems(targets, absl::Minutes(5), never);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_TRUE(SyncFileSystems({}, absl::ZeroDuration(), never).ok());
}

TEST(SyncFileSystems, FailureNamesTheFileSystem) {
  std::vector<SyncTarget> targets;
  targets.push_back(Target("/dev/shm"));
  // What cannot be synced: nobody opens a device for that.
  targets.push_back(Target("/dev/zero"));
  targets.push_back(Target("/proc"));
  const Cancellation never;
  const absl::Status status = SyncFileSystems(targets, absl::Minutes(5), never);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReasonOf(status), reason::kSyncFailed);
  EXPECT_EQ(ErrorMetadataOf(status)["path"], "/dev/zero");
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/zero"));
}

TEST(SyncFileSystems, CancellationEndsIt) {
  std::vector<SyncTarget> targets;
  targets.push_back(Target("/dev/shm"));
  Cancellation cancelled;
  cancelled.Cancel();
  EXPECT_TRUE(
      absl::IsCancelled(SyncFileSystems(targets, absl::Minutes(5), cancelled)));
}

}  // namespace
}  // namespace daxsnap
