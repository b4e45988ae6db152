// SPDX-License-Identifier: Apache-2.0
#include "host/task/file_sync.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/host/fuse_tree.h"

namespace daxsnap {
namespace {

using ::testing::Contains;
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

// The one on which the second task of the tree has something.
std::vector<SyncTarget> TargetsOf(const FuseTree& tree) {
  const ProcFs proc;
  auto files = ReadUsedFiles(proc, tree.tasks());
  EXPECT_TRUE(files.ok()) << files.status();
  auto targets = CollectSyncTargets(proc, *files);
  EXPECT_TRUE(targets.ok()) << targets.status();
  std::erase_if(*targets, [&](const SyncTarget& target) {
    // Of what is unmounted the kernel knows no more than that.
    return target.mount_point != tree.path() && target.mount_point != "/file";
  });
  EXPECT_EQ(targets->size(), 1u);
  return *std::move(targets);
}

absl::Status Sync(const std::vector<SyncTarget>& targets) {
  const Cancellation never;
  return SyncFileSystems(targets, absl::Minutes(5), never).status;
}

size_t OpenDescriptors() { return ProcFs().ReadFds(getpid())->size(); }

TEST(SyncFileSystems, SyncsAllAndLeavesNothing) {
  const TempDirectory temp;
  std::vector<SyncTarget> targets;
  targets.push_back(Target(temp.path()));
  targets.push_back(Target("/proc"));
  targets.push_back(Target("/"));
  const size_t before = OpenDescriptors();
  const absl::Status status = Sync(targets);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_TRUE(Sync({}).ok());
}

// Opening it is what breaks leases, and what its server sees.
TEST(SyncFileSystems, OpensNoFile) {
  const FuseTree tree([](const std::string& path) {
    if (open((path + "/file").c_str(), O_RDWR) < 0) _exit(1);
  });
  const uint64_t opened = tree.Requests(FUSE_OPEN);
  const absl::Status status = Sync(TargetsOf(tree));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tree.Requests(FUSE_OPEN), opened);
  EXPECT_EQ(tree.Requests(FUSE_OPENDIR), 1u) << "what else was synced?";
}

TEST(SyncFileSystems, WhatNoPathLeadsToIsReachedByTheTasksOwnDescriptor) {
  for (const bool hidden : {true, false}) {
    const FuseTree tree([](const std::string& path) {
      if (open((path + "/file").c_str(), O_RDWR) < 0) _exit(1);
    });
    const char* path = tree.path().c_str();
    if (hidden) {
      // By another file system, which is not to be taken for it.
      ASSERT_EQ(mount("test", path, "tmpfs", 0, nullptr), 0);
    } else {
      ASSERT_EQ(umount2(path, MNT_DETACH), 0);
    }
    const uint64_t opened = tree.Requests(FUSE_OPEN);
    const absl::Status status = Sync(TargetsOf(tree));
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(tree.Requests(FUSE_OPEN), opened);
    EXPECT_EQ(tree.Requests(FUSE_OPENDIR), 0u);
    // The child has closed its copies: one to sync all, and the file's.
    EXPECT_EQ(tree.Requests(FUSE_FLUSH), 2u) << "what else was synced?";
    if (hidden) {
      EXPECT_EQ(umount2(path, MNT_DETACH), 0);
    }
  }
}

// One that was opened with O_PATH is none.
TEST(SyncFileSystems, AnyDescriptorThatCanBeSyncedWillDo) {
  const FuseTree tree([](const std::string& path) {
    if (open((path + "/file").c_str(), O_PATH) < 0 ||
        open((path + "/other").c_str(), O_RDWR) < 0) {
      _exit(1);
    }
  });
  ASSERT_EQ(umount2(tree.path().c_str(), MNT_DETACH), 0);
  const absl::Status status = Sync(TargetsOf(tree));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tree.Requests(FUSE_FLUSH), 2u) << "what else was synced?";
}

TEST(CollectSyncTargets, WhoIsGoneDoesNotStandForOthers) {
  Child gone("cd /dev/shm; echo >&3; exec sleep infinity");
  const Child stays(
      "cd /; f=/dev/shm/daxsnap-sync-test.$$; exec 5>$f; rm $f; echo >&3; "
      "exec sleep infinity");
  const ProcFs proc;
  const auto files = ReadUsedFiles(
      proc, {*proc.ReadTask(gone.pid()), *proc.ReadTask(stays.pid())});
  ASSERT_TRUE(files.ok()) << files.status();
  gone.Kill();
  gone.Reap();
  const auto targets = CollectSyncTargets(proc, *files);
  ASSERT_TRUE(targets.ok()) << targets.status();
  EXPECT_TRUE(std::any_of(
      targets->begin(), targets->end(),
      [](const SyncTarget& t) { return t.mount_point == "/dev/shm"; }));
}

TEST(SyncFileSystems, WhatCannotBeReachedIsNamed) {
  const FuseTree tree([](const std::string& path) {
    const int fd = open((path + "/file").c_str(), O_RDONLY);
    if (mmap(nullptr, 1, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) {
      _exit(1);
    }
    close(fd);
  });
  EXPECT_TRUE(Sync(TargetsOf(tree)).ok());
  ASSERT_EQ(umount2(tree.path().c_str(), MNT_DETACH), 0);
  const uint64_t opened = tree.Requests(FUSE_OPEN);
  const absl::Status status = Sync(TargetsOf(tree));
  EXPECT_EQ(ErrorReasonOf(status), reason::kSyncFailed) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["path"], "/file");
  EXPECT_EQ(tree.Requests(FUSE_OPEN), opened);
}

// To whose server a sync of the file system says nothing.
TEST(SyncFileSystems, EachFileOnFuseIsSynced) {
  const FuseTree tree([](const std::string& path) {
    const int fd = open((path + "/mapped").c_str(), O_RDWR);
    if (open((path + "/file").c_str(), O_RDWR) < 0 ||
        open((path + "/read").c_str(), O_RDONLY) < 0 ||
        mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED) {
      _exit(1);
    }
    close(fd);
  });
  const absl::Status status = Sync(TargetsOf(tree));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tree.Requests(FUSE_FSYNC), 2u);
}

TEST(SyncFileSystems, FileOnFuseThatCannotBeSyncedIsLost) {
  const FuseTree tree([](const std::string& path) {
    if (open((path + "/broken").c_str(), O_RDWR) < 0 ||
        open((path + "/file").c_str(), O_RDWR) < 0) {
      _exit(1);
    }
  });
  const Cancellation never;
  const SyncOutcome outcome =
      SyncFileSystems(TargetsOf(tree), absl::Minutes(5), never);
  EXPECT_EQ(ErrorReasonOf(outcome.status), reason::kSyncFailed);
  EXPECT_EQ(ErrorMetadataOf(outcome.status)["path"], tree.path());
  ASSERT_EQ(outcome.lost.size(), 1u);
  EXPECT_EQ(outcome.lost[0].mount_point, tree.path());
  EXPECT_EQ(tree.Requests(FUSE_FSYNC), 2u)
      << "the other is synced all the same";
}

TEST(SyncFileSystems, WhatIsOnlyMemoryIsLeftAlone) {
  std::vector<SyncTarget> targets;
  // There is no directory by which these could be reached.
  targets.push_back(Target("/dev/zero"));
  targets.push_back(Target("/proc/self/status"));
  targets.push_back(Target("/sys/kernel/uevent_seqnum"));
  const absl::Status status = Sync(targets);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(SyncFileSystems, ServerThatStandsStillIsNamedInTime) {
  const FuseTree tree([](const std::string& path) {
    if (open((path + "/file").c_str(), O_RDWR) < 0) _exit(1);
  });
  tree.Stop();
  const Cancellation never;
  const absl::Status late =
      SyncFileSystems(TargetsOf(tree), absl::Milliseconds(200), never).status;
  EXPECT_EQ(ErrorReasonOf(late), reason::kSyncTimeout) << late;
  EXPECT_EQ(ErrorMetadataOf(late)["path"], tree.path());
}

TEST(SyncFileSystems, CancellationEndsIt) {
  std::vector<SyncTarget> targets;
  targets.push_back(Target("/dev/shm"));
  Cancellation cancelled;
  cancelled.Cancel();
  EXPECT_TRUE(absl::IsCancelled(
      SyncFileSystems(targets, absl::Minutes(5), cancelled).status));
}

}  // namespace
}  // namespace daxsnap
