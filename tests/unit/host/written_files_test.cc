// SPDX-License-Identifier: Apache-2.0
#include "host/task/written_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <functional>

#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/host/fake_proc.h"
#include "tests/unit/host/fuse_tree.h"

namespace daxsnap {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

class WrittenFilesTest : public testing::Test {
 protected:
  WrittenFilesTest() {
    for (const char* name : {"a", "b"}) {
      EXPECT_TRUE(ReplaceFileAt(AT_FDCWD, Path(name), "12345").ok());
    }
  }

  std::string Path(const std::string& name) const {
    return temp_.path() + "/" + name;
  }

  void Open(const std::string& name, int flags) const {
    if (open(Path(name).c_str(), flags) < 0) _exit(1);
  }

  static void Map(const std::string& path, int open_flags, int protection,
                  int flags) {
    const int fd = open(path.c_str(), open_flags);
    void* at = mmap(nullptr, 5, protection, flags, fd, 0);
    if (fd < 0 || at == MAP_FAILED) _exit(1);
    close(fd);
  }

  // Those in the test's directory.
  absl::StatusOr<std::map<std::string, WrittenFile>> Read(
      const std::function<void()>& prepare) {
    const ForkedTask task(prepare);
    auto tree = ProcFs().ReadTree(task.pid());
    if (!tree.ok()) return tree.status();
    auto files = ReadWrittenFiles(ProcFs(), *tree);
    if (!files.ok()) return files.status();
    std::erase_if(*files, [this](const auto& file) {
      return file.first.rfind(temp_.path(), 0) != 0;
    });
    return files;
  }

  std::vector<std::string> Names(const std::function<void()>& prepare) {
    auto files = Read(prepare);
    EXPECT_TRUE(files.ok()) << files.status();
    std::vector<std::string> names;
    for (const auto& [path, file] : *files) {
      names.push_back(path.substr(temp_.path().size() + 1));
    }
    return names;
  }

  bool IsAppendOnly(const std::function<void()>& prepare) {
    auto files = Read(prepare);
    EXPECT_EQ(files->count(Path("a")), 1u);
    return (*files)[Path("a")].append_only;
  }

  TempDirectory temp_;
};

TEST_F(WrittenFilesTest, AreThoseOpenForWriting) {
  EXPECT_THAT(Names([this] {
                Open("a", O_RDWR);
                Open("b", O_RDONLY);
              }),
              ElementsAre("a"));
  EXPECT_THAT(Names([this] { Open("b", O_WRONLY); }), ElementsAre("b"));
  EXPECT_THAT(Names([this] { Open("a", O_PATH | O_RDWR); }), IsEmpty());
}

TEST_F(WrittenFilesTest, OfEveryTaskOfTheTree) {
  EXPECT_THAT(Names([this] {
                Open("a", O_WRONLY);
                int ready[2];
                if (pipe(ready) != 0) _exit(1);
                if (fork() == 0) {
                  Open("b", O_WRONLY);
                  (void)!write(ready[1], "r", 1);
                  // With its parent, which is killed.
                  while (getppid() != 1) usleep(1000);
                  _exit(0);
                }
                char byte = 0;
                (void)!read(ready[0], &byte, 1);
              }),
              ElementsAre("a", "b"));
}

TEST_F(WrittenFilesTest, AndThoseMappedSharedThatCanBeWritten) {
  EXPECT_THAT(Names([this] {
                Map(Path("a"), O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED);
                Map(Path("b"), O_RDONLY, PROT_READ, MAP_SHARED);
              }),
              ElementsAre("a"));
  // mprotect(2) can make it writable.
  EXPECT_THAT(Names([this] { Map(Path("a"), O_RDWR, PROT_READ, MAP_SHARED); }),
              ElementsAre("a"));
  EXPECT_THAT(Names([this] {
                Map(Path("a"), O_RDWR, PROT_READ | PROT_WRITE, MAP_PRIVATE);
              }),
              IsEmpty());
}

TEST_F(WrittenFilesTest, TellThoseThatAreOnlyAppendedTo) {
  EXPECT_TRUE(IsAppendOnly([this] { Open("a", O_WRONLY | O_APPEND); }));
  EXPECT_FALSE(IsAppendOnly([this] { Open("a", O_RDWR | O_APPEND); }));
  EXPECT_FALSE(IsAppendOnly([this] {
    Open("a", O_WRONLY | O_APPEND);
    Open("a", O_WRONLY);
  }));
  EXPECT_FALSE(IsAppendOnly([this] {
    Open("a", O_WRONLY | O_APPEND);
    Map(Path("a"), O_RDWR, PROT_READ, MAP_SHARED);
  }));
}

TEST_F(WrittenFilesTest, HaveTheStateOfTheFile) {
  auto files = Read([this] { Open("a", O_RDWR); });
  ASSERT_TRUE(files.ok()) << files.status();
  const FileState& state = (*files)[Path("a")].state;
  struct stat info;
  ASSERT_EQ(stat(Path("a").c_str(), &info), 0);
  EXPECT_EQ(state.size, 5u);
  EXPECT_EQ(state.inode, info.st_ino);
  EXPECT_EQ(state.modify_time, absl::TimeFromTimespec(info.st_mtim));
}

// A restore could not find them by that path either.
TEST_F(WrittenFilesTest, AreFoundByTheirPath) {
  EXPECT_THAT(Names([this] {
                Open("a", O_RDWR);
                unlink(Path("a").c_str());
              }),
              IsEmpty());
  EXPECT_THAT(Names([this] {
                Open("b", O_RDWR);
                rename(Path("b").c_str(), Path("c").c_str());
              }),
              ElementsAre("c"));
  // A name like that of a deleted one, which is not the one that was deleted.
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, Path("d"), "1").ok());
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, Path("d (deleted)"), "1").ok());
  EXPECT_THAT(Names([this] {
                Open("d", O_RDWR);
                unlink(Path("d").c_str());
              }),
              IsEmpty());
}

TEST_F(WrittenFilesTest, AreNotLeftOutWhenTheyCannotBeRead) {
  for (const auto& [call, name] :
       {std::pair{"read", "maps"}, std::pair{"read", "mountinfo"},
        std::pair{"stat", "/a"}, std::pair{"open", "fd"}}) {
    const ScopedFileFault fault(FailWith(EIO, call, name));
    const absl::Status status = Read([this] { Open("a", O_RDWR); }).status();
    EXPECT_EQ(ErrnoNameOf(status), "EIO") << name << ": " << status;
  }
}

// A child that stores to a shared mapping of "a" when it is told to.
TEST_F(WrittenFilesTest, StoresAfterTheWriteBackChangeTheTime) {
  struct statfs fs;
  ASSERT_EQ(statfs(temp_.path().c_str(), &fs), 0);
  if (fs.f_type == TMPFS_MAGIC) GTEST_SKIP() << "tmpfs never changes the time";
  int tell[2];
  int done[2];
  ASSERT_EQ(pipe2(tell, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(done, O_CLOEXEC), 0);
  const ForkedTask task([&] {
    const int fd = open(Path("a").c_str(), O_RDWR);
    auto* at = static_cast<volatile char*>(
        mmap(nullptr, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    at[0] = 'x';
    if (fork() != 0) return;
    close(tell[1]);
    char byte = 0;
    while (read(tell[0], &byte, 1) == 1) {
      at[0] = byte;
      (void)!write(done[1], "d", 1);
    }
    _exit(0);
  });
  close(tell[0]);
  auto tree = ProcFs().ReadTree(task.pid());
  ASSERT_TRUE(tree.ok());
  const auto store = [&] {
    char byte = 'y';
    EXPECT_EQ(write(tell[1], &byte, 1), 1);
    EXPECT_EQ(read(done[0], &byte, 1), 1);
  };
  store();
  const absl::Status clean = WriteBackMappings(ProcFs(), *tree);
  ASSERT_TRUE(clean.ok()) << clean;
  auto before = ReadWrittenFiles(ProcFs(), *tree);
  ASSERT_TRUE(before.ok()) << before.status();
  // At least one tick of the clock that files get their times from.
  timespec now = {};
  do {
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
  } while (absl::TimeFromTimespec(now) <=
           (*before)[Path("a")].state.modify_time + absl::Milliseconds(10));
  store();
  auto after = ReadFileState(Path("a"));
  ASSERT_TRUE(after.ok());
  EXPECT_GT(after->modify_time, (*before)[Path("a")].state.modify_time);
  close(tell[1]);
  close(done[0]);
  close(done[1]);
}

TEST_F(WrittenFilesTest, WriteBackHasAnEnd) {
  const ForkedTask task(
      [this] { Map(Path("a"), O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED); });
  auto tree = ProcFs().ReadTree(task.pid());
  ASSERT_TRUE(tree.ok());
  const absl::Status late =
      WriteBackMappings(ProcFs(), *tree, absl::ZeroDuration());
  EXPECT_TRUE(absl::IsUnavailable(late)) << late;
  EXPECT_EQ(ErrorReasonOf(late), reason::kOverloaded);
}

// After a write the kernel has the time of before.
TEST_F(WrittenFilesTest, OnFuseAreAskedOfTheServer) {
  const FuseTree tree([](const std::string& path) {
    const int fd = open((path + "/mapped").c_str(), O_RDWR);
    if (open((path + "/file").c_str(), O_RDWR) < 0 ||
        mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED) {
      _exit(1);
    }
    close(fd);
  });
  const std::vector<TaskInfo> tasks = tree.tasks();
  const uint64_t asked = tree.Requests(FUSE_GETATTR);
  auto files = ReadWrittenFiles(ProcFs(), tasks);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->count(tree.path() + "/file"), 1u);
  EXPECT_EQ(files->count(tree.path() + "/mapped"), 1u);
  EXPECT_GE(tree.Requests(FUSE_GETATTR), asked + 2);
  const absl::Status written = WriteBackMappings(ProcFs(), tasks);
  EXPECT_TRUE(written.ok()) << written;
  tree.Stop();
  const absl::Status late =
      ReadWrittenFiles(ProcFs(), tasks, absl::Milliseconds(300)).status();
  EXPECT_EQ(ErrorReasonOf(late), reason::kOverloaded) << late;
  const absl::Status now =
      ReadFileStates({tree.path() + "/file"}, absl::Milliseconds(300)).status();
  EXPECT_EQ(ErrorReasonOf(now), reason::kOverloaded) << now;
}

TEST_F(WrittenFilesTest, ServerThatStandsStillWithTheTreeIsNamedInTime) {
  // Of another file system, whose path leads over the server's.
  const FuseTree tree([](const std::string& path) {
    const std::string directory = path + "/dir";
    if (mount("test", directory.c_str(), "tmpfs", 0, nullptr) != 0 ||
        open((directory + "/x").c_str(), O_CREAT | O_RDWR, 0600) < 0) {
      _exit(1);
    }
  });
  const std::vector<TaskInfo> tasks = tree.tasks();
  const std::string path = tree.path() + "/dir/x";
  auto files = ReadWrittenFiles(ProcFs(), tasks);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->count(path), 1u);
  tree.Stop();
  const absl::Status late =
      ReadWrittenFiles(ProcFs(), tasks, absl::Milliseconds(300)).status();
  EXPECT_EQ(ErrorReasonOf(late), reason::kOverloaded) << late;
  EXPECT_EQ(ErrorMetadataOf(late)["path"], path);
}

// ramfs: its times have the steps of the clock's ticks whatever the kernel, and
// it keeps nothing that could be slow.
class TicksTest : public WrittenFilesTest {
 protected:
  TicksTest() {
    EXPECT_EQ(mount("test", ram_.path().c_str(), "ramfs", 0, nullptr), 0);
    fd_.reset(open(path().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    EXPECT_TRUE(fd_.valid());
  }
  ~TicksTest() override {
    fd_.reset();
    EXPECT_EQ(umount2(ram_.path().c_str(), MNT_DETACH), 0);
  }

  std::string path() const { return ram_.path() + "/x"; }
  void Write() const { EXPECT_EQ(pwrite(fd_.get(), "x", 1, 0), 1); }
  // Of this process.
  FileState Take(absl::Duration patience = absl::Seconds(3)) const {
    auto files = ReadWrittenFiles(ProcFs(), {*ProcFs().ReadTask(getpid())},
                                  kAnswerTimeout, patience);
    EXPECT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->count(path()), 1u);
    return (*files)[path()].state;
  }

  TempDirectory ram_;
  UniqueFd fd_;
};

TEST_F(TicksTest, WhatIsWrittenNextChangesTheTimeHoweverSoonItIs) {
  // Each time at another place within a tick.
  for (int i = 0; i < 100; ++i) {
    Write();
    const FileState taken = Take();
    Write();
    auto now = ReadFileState(path());
    ASSERT_TRUE(now.ok()) << now.status();
    ASSERT_NE(now->modify_time, taken.modify_time) << "in round " << i;
    EXPECT_FALSE(taken.unsettled);
  }
}

TEST_F(TicksTest, TimesOfWholeSecondsAreWaitedForToo) {
  // As on a file system that keeps no fractions.
  const absl::Time second =
      absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  const timespec times[2] = {absl::ToTimespec(second),
                             absl::ToTimespec(second)};
  ASSERT_EQ(futimens(fd_.get(), times), 0);
  EXPECT_FALSE(Take().unsettled);
  EXPECT_GE(absl::Now(), second + absl::Seconds(1));
}

TEST_F(TicksTest, TimesSetByHandAreNotWaitedFor) {
  const absl::Time now =
      absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  for (const absl::Duration from_now : {absl::Hours(-24), absl::Hours(24)}) {
    const timespec time = absl::ToTimespec(now + from_now);
    const timespec times[2] = {time, time};
    ASSERT_EQ(futimens(fd_.get(), times), 0);
    EXPECT_FALSE(Take().unsettled);
  }
}

// As of a file that others write all the time.
TEST_F(TicksTest, WhatDoesNotSettleInTimeIsSaid) {
  // There is at least a second left until it would.
  int64_t second = 0;
  do {
    second = absl::ToUnixSeconds(absl::Now());
  } while (second % 2 != 0);
  const timespec time = {.tv_sec = second, .tv_nsec = 0};
  const timespec times[2] = {time, time};
  ASSERT_EQ(futimens(fd_.get(), times), 0);
  EXPECT_TRUE(Take(absl::ZeroDuration()).unsettled);
  EXPECT_FALSE(Take().unsettled);
}

}  // namespace
}  // namespace daxsnap
