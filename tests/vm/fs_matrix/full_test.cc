// SPDX-License-Identifier: Apache-2.0
// A full pool: what was accepted can be made durable, and deletes give space.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

class FullPool : public FsTest {
 protected:
  void SetUp() override {
    FsTest::SetUp();
    root_ = UniqueFd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    // What the test before has deleted.
    ASSERT_EQ(Commit(), "");
  }
  long FreePages() const {
    struct statfs fs;
    EXPECT_EQ(fstatfs(root_.get(), &fs), 0);
    return static_cast<long>(fs.f_bfree);
  }
  // Commits; says why not.
  std::string Commit() const {
    return syncfs(root_.get()) == 0 ? "" : std::strerror(errno);
  }
  // Makes all checksums and commits them; says why not.
  std::string MakeSums() const {
    return ioctl(root_.get(), KMEMFS_IOC_SUM, 0) == 0 ? ""
                                                      : std::strerror(errno);
  }
  kmemfs_info Info() const {
    kmemfs_info info = {};
    EXPECT_EQ(ioctl(root_.get(), KMEMFS_IOC_INFO, &info), 0)
        << std::strerror(errno);
    return info;
  }
  // Of a file that holds: its pages that checksums say so of, and others.
  kmemfs_verify_range Verify(const std::string& name) {
    UniqueFd fd = Open(name, O_RDONLY);
    kmemfs_verify_range range = {};
    range.len = static_cast<uint64_t>(Size(fd.get()));
    EXPECT_EQ(ioctl(fd.get(), KMEMFS_IOC_VERIFY, &range), 0)
        << name << ": " << std::strerror(errno) << " at " << range.first_bad;
    return range;
  }
  void Remount() {
    root_.reset();
    ASSERT_NO_FATAL_FAILURE(MountAgain(dir()));
    root_ = UniqueFd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  }
  // Takes all but so many pages, and commits that.
  void LeavePages(long pages) {
    constexpr size_t kChunk = 256;
    const std::vector<char> chunk = Bytes(kChunk * kPage);
    UniqueFd fd = Open("ballast");
    off_t at = 0;
    while (FreePages() > pages + static_cast<long>(kChunk)) {
      ASSERT_EQ(pwrite(fd.get(), chunk.data(), chunk.size(), at),
                static_cast<ssize_t>(chunk.size()))
          << std::strerror(errno);
      at += static_cast<off_t>(chunk.size());
    }
    ASSERT_EQ(Commit(), "");
  }
  void Remove(const std::string& name) {
    EXPECT_EQ(unlink(Path(name).c_str()), 0) << std::strerror(errno);
  }

 private:
  UniqueFd root_;
};

// In a child on one processor; its exit status.
int OnCpu(int cpu, const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    _exit(sched_setaffinity(0, sizeof(set), &set) == 0 ? body() : 99);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Pages of two files in turn: each is a run of its own, and the extent trees
// of both are as large as they can be.
TEST_F(FullPool, FragmentedFilesCommitAndADeleteGivesSpace) {
  constexpr size_t kKept = 1024;
  Write(Open("kept").get(), Bytes(kKept * kPage));
  ASSERT_EQ(Commit(), "");
  LeavePages(100000);
  UniqueFd a = Open("a"), b = Open("b");
  const std::vector<char> page = Bytes(kPage);
  off_t at = 0;
  while (pwrite(a.get(), page.data(), kPage, at) == kPage &&
         pwrite(b.get(), page.data(), kPage, at) == kPage) {
    at += kPage;
  }
  EXPECT_EQ(errno, ENOSPC) << std::strerror(errno);
  EXPECT_GT(at, static_cast<off_t>(40000 * kPage));
  Remove("kept");
  EXPECT_EQ(fsync(a.get()), 0) << std::strerror(errno);
  Write(Open("new").get(), Bytes(kKept / 2 * kPage));
  EXPECT_EQ(Commit(), "");
  EXPECT_EQ(Read(b.get(), kPage, at - static_cast<off_t>(kPage)), page);
}

// Each page stored has another one put aside until it is written back.
TEST_F(FullPool, MappedFileMayTakeNearlyAllThatIsFree) {
  constexpr size_t kFree = 16384, kPages = kFree * 4 / 5;
  LeavePages(kFree);
  ASSERT_GE(FreePages(), static_cast<long>(kFree));
  UniqueFd fd = Open("mapped");
  ASSERT_EQ(ftruncate(fd.get(), kPages * kPage), 0);
  void* map = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED,
                   fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  // The kernel's stores, which fail instead of killing.
  const std::vector<char> bytes = Bytes(kPages * kPage);
  UniqueFd source(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(pread(source.get(), map, kPages * kPage,
                  reinterpret_cast<off_t>(bytes.data())),
            static_cast<ssize_t>(kPages * kPage))
      << std::strerror(errno);
  EXPECT_EQ(msync(map, kPages * kPage, MS_SYNC), 0) << std::strerror(errno);
  munmap(map, kPages * kPage);
  EXPECT_EQ(Read(fd.get(), kPages * kPage), bytes);
}

// Commits that have no pages for the table of checksums leave the one before:
// what did not change keeps its checksums, and what did has none that are
// wrong.
TEST_F(FullPool, ChecksumsOutliveCommitsWithoutRoomForThem) {
  constexpr uint64_t kKept = 64, kGone = 2048;
  Write(Open("kept").get(), Bytes(kKept * kPage));
  Write(Open("gone").get(), Bytes(kGone * kPage, 2));
  ASSERT_EQ(MakeSums(), "");
  FillUp(Open("rest").get());
  ASSERT_EQ(Commit(), "");
  Remove("gone");
  ASSERT_EQ(Commit(), "");
  // Its pages have checksums on media, but for those that the table took.
  const off_t reused = FillUp(Open("reused").get());
  ASSERT_GT(reused, 0);
  ASSERT_EQ(Commit(), "");
  EXPECT_EQ(MakeSums(), std::strerror(ENOSPC)) << "there was room";
  ASSERT_NO_FATAL_FAILURE(Remount());
  const kmemfs_verify_range kept = Verify("kept"), other = Verify("reused");
  EXPECT_EQ(kept.pages_checked, kKept);
  EXPECT_EQ(kept.pages_without_sum, 0u);
  EXPECT_GT(other.pages_without_sum, 0u);
  Remove("rest");
  ASSERT_EQ(Commit(), "");
  EXPECT_EQ(MakeSums(), "");
  ASSERT_NO_FATAL_FAILURE(Remount());
  EXPECT_EQ(Verify("kept").pages_checked, kKept);
  EXPECT_EQ(Verify("reused").pages_without_sum, 0u);
}

// A commit holds up changes, so it writes no more than a part of the table: 64
// leaves. Besides there are the page above them, and what the file needs.
TEST_F(FullPool, ChecksumsOfMuchDataTakeSeveralCommits) {
  constexpr size_t kPages = 180000, kPagesOfALeaf = 1008;
  constexpr uint64_t kLeaves = 64, kOfFile = 6;
  ASSERT_NO_FATAL_FAILURE(Remount());  // no commit comes by itself
  UniqueFd large = Open("large"), other = Open("other");
  ASSERT_EQ(fallocate(large.get(), 0, 0, kPages * kPage), 0)
      << std::strerror(errno);
  ASSERT_EQ(fsync(large.get()), 0) << std::strerror(errno);
  // They are made, but on media only with the next commits.
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (Verify("large").pages_without_sum > 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "nobody makes them";
  }
  int commits = 0;
  for (kmemfs_info before = Info(), after;; before = after) {
    Write(other.get(), Bytes(kPage));
    ASSERT_EQ(fsync(other.get()), 0) << std::strerror(errno);
    after = Info();
    ASSERT_EQ(after.generation, before.generation + 1);
    if (after.sums_pages == before.sums_pages) break;
    ++commits;
    EXPECT_LE(after.sums_pages, before.sums_pages + kLeaves + 1);
    EXPECT_LE(after.meta_written, before.meta_written + kLeaves + 1 + kOfFile)
        << "commit " << commits;
  }
  EXPECT_GE(Info().sums_pages, kPages / kPagesOfALeaf);
  EXPECT_GE(commits, 3);
  large.reset();
  other.reset();
  ASSERT_NO_FATAL_FAILURE(Remount());
  EXPECT_EQ(Verify("large").pages_checked, kPages);
}

// Each attribute of these takes a page of its own in the next commit, each name
// a record.
TEST_F(FullPool, NamesAndAttributesCommitAndGo) {
  constexpr int kFiles = 4000;
  for (int i = 0; i < kFiles; ++i) Open(std::to_string(i));
  ASSERT_EQ(Commit(), "");
  LeavePages(1500);
  FillUp(Open("rest").get());
  const std::string value(2000, 'v');
  int set = 0, linked = 0;
  while (set < kFiles && setxattr(Path(std::to_string(set)).c_str(), "user.x",
                                  value.data(), value.size(), 0) == 0) {
    ++set;
  }
  EXPECT_LT(set, kFiles);
  EXPECT_EQ(errno, ENOSPC) << std::strerror(errno);
  while (linked < kFiles * 10 &&
         link(Path("0").c_str(), Path("l" + std::to_string(linked)).c_str()) ==
             0) {
    ++linked;
  }
  EXPECT_LT(linked, kFiles * 10);
  EXPECT_EQ(errno, ENOSPC) << std::strerror(errno);
  EXPECT_EQ(Commit(), "");
  for (int i = 0; i < set; ++i) {
    ASSERT_EQ(removexattr(Path(std::to_string(i)).c_str(), "user.x"), 0)
        << i << ": " << std::strerror(errno);
  }
  for (int i = 0; i < linked; ++i) Remove("l" + std::to_string(i));
  EXPECT_EQ(Commit(), "");
  Remove("ballast");
  EXPECT_EQ(Commit(), "");
  EXPECT_EQ(
      setxattr(Path("0").c_str(), "user.x", value.data(), value.size(), 0), 0);
}

// One step of a random load: what it was refused for, or 0.
class Load {
 public:
  Load(std::string dir, uint32_t seed) : dir_(std::move(dir)), random_(seed) {}

  int Step() {
    errno = 0;
    const bool done = Do(Below(12));
    return done ? 0 : errno;
  }
  int files() const { return files_; }
  std::string Name(int i) const { return dir_ + "/f" + std::to_string(i); }

 private:
  int Below(int n) {
    return static_cast<int>(random_() % static_cast<uint32_t>(n));
  }
  off_t Offset() { return static_cast<off_t>(Below(600)) * 4096; }
  UniqueFd Some() {
    return UniqueFd(open(Name(Below(std::max(files_, 1))).c_str(),
                         O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  }
  bool Store(int fd) {
    struct stat stat;
    if (fstat(fd, &stat) != 0) return false;
    const off_t at = std::min(Offset(), stat.st_size) / 4096 * 4096;
    if (at == stat.st_size) return true;
    void* map = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
    if (map == MAP_FAILED) return false;
    // The kernel's store, which fails instead of killing.
    UniqueFd zero(open("/dev/zero", O_RDONLY));
    const bool done = read(zero.get(), map, 64) == 64;
    if (!done) errno = ENOSPC;
    munmap(map, 4096);
    return done;
  }
  bool Clone(int fd) {
    UniqueFd from = Some();
    const bool done =
        from.valid() && (ioctl(fd, FICLONE, from.get()) == 0 ||
                         errno == EINVAL /* an odd end in the middle */);
    return done;
  }
  bool Do(int what) {
    static const std::vector<char> bytes(8 * 4096, 'b');
    if (what < 3) {
      UniqueFd fd(open(Name(files_).c_str(), O_RDWR | O_CREAT, 0600));
      if (!fd.valid()) return false;
      ++files_;
      return pwrite(fd.get(), bytes.data(), 4096, Offset()) == 4096;
    }
    UniqueFd fd = Some();
    if (!fd.valid()) return false;
    switch (what) {
      case 3:
      case 4:
      case 5: {
        const auto size = static_cast<size_t>(1 + Below(8 * 4096));
        return pwrite(fd.get(), bytes.data(), size, Offset() + Below(4096)) ==
               static_cast<ssize_t>(size);
      }
      case 6:
        return Store(fd.get());
      case 7:
        return ftruncate(fd.get(), Offset() + Below(4096)) == 0;
      case 8:
        return fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         Offset(), 3 * 4096 + Below(4096)) == 0;
      case 9:
        return fallocate(
                   fd.get(),
                   Below(2) ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE,
                   Offset(), 4096) == 0 ||
               errno == EINVAL;
      case 10:
        return Clone(fd.get());
      default: {
        const std::string link = dir_ + "/l" + std::to_string(files_);
        return (symlink("somewhere", link.c_str()) == 0 || errno == EEXIST) &&
               rename(link.c_str(), (link + "r").c_str()) == 0;
      }
    }
  }

  std::string dir_;
  std::mt19937 random_;
  int files_ = 0;
};

// Whatever is done until there is no space: it can be committed, and then some
// of it deleted, which commits and gives space.
TEST_F(FullPool, WhateverWasAcceptedCommits) {
  LeavePages(5000);
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const std::string below = "load" + std::to_string(seed);
    ASSERT_EQ(mkdir(Path(below).c_str(), 0700), 0) << std::strerror(errno);
    Load load(Path(below), seed);
    int refused = 0;
    for (int step = 0; refused < 40 && step < 200000; ++step) {
      const int error = load.Step();
      if (error == 0) continue;
      ASSERT_EQ(error, ENOSPC) << "seed " << seed << ", step " << step << ": "
                               << std::strerror(error);
      ++refused;
    }
    ASSERT_EQ(refused, 40) << "the pool was never full";
    ASSERT_EQ(Commit(), "") << "seed " << seed;
    const long before = FreePages();
    for (int i = 0; i < load.files(); i += 2) {
      ASSERT_EQ(unlink(load.Name(i).c_str()), 0) << std::strerror(errno);
    }
    ASSERT_EQ(Commit(), "") << "seed " << seed << ": deletes";
    EXPECT_GT(FreePages() - before, 1000) << "seed " << seed;
    for (int i = 1; i < load.files(); i += 2) {
      ASSERT_EQ(unlink(load.Name(i).c_str()), 0) << std::strerror(errno);
    }
  }
}

// A commit takes the page that a store went to; the next store is in memory
// only, and needs another one.
TEST_F(FullPool, StoresThroughMappingsHaveASpaceOfTheirOwn) {
  constexpr size_t kPages = 500, kSpare = 4 * kPages;
  UniqueFd fd = Open("mapped"), other = Open("other");
  Write(fd.get(), Bytes(kPages * kPage));
  LeavePages(kSpare);
  char* map =
      static_cast<char*>(mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                              MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  for (size_t i = 0; i < kPages; ++i) map[i * kPage] = 'x';
  Write(other.get(), Bytes(kPage));
  // Of this file only, so that the stores are not written back.
  ASSERT_EQ(fsync(other.get()), 0) << std::strerror(errno);
  FillUp(other.get(), kPage);
  // If they have been all the same, another may be refused, but not lost.
  UniqueFd source(open("/dev/zero", O_RDONLY));
  std::vector<size_t> stored;
  for (size_t i = 0; i < kPages; ++i) {
    if (read(source.get(), &map[i * kPage], 1) == 1) stored.push_back(i);
  }
  EXPECT_GT(stored.size(), kPages / 2);
  EXPECT_EQ(msync(map, kPages * kPage, MS_SYNC), 0) << std::strerror(errno);
  ASSERT_EQ(munmap(map, kPages * kPage), 0);
  for (const size_t i : stored) {
    ASSERT_EQ(Read(fd.get(), 1, static_cast<off_t>(i * kPage)),
              std::vector<char>{'\0'});
  }
}

// Truncate and punch free pages but need some for the tree that is left.
TEST_F(FullPool, CutsCommitThoughThereIsNoFreePage) {
  UniqueFd fd = Open("cut"), other = Open("other");
  for (size_t i = 0; i < 20000; ++i) {
    Write(fd.get(), {'x'}, static_cast<off_t>(2 * i * kPage));
  }
  ASSERT_EQ(Commit(), "");
  FillUp(other.get());
  ASSERT_EQ(Commit(), "");
  FillUp(other.get(), Size(other.get()));
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      1000 * kPage, 1000 * kPage),
            0)
      << std::strerror(errno);
  EXPECT_EQ(Commit(), "");
  ASSERT_EQ(ftruncate(fd.get(), 30000 * kPage), 0) << std::strerror(errno);
  EXPECT_EQ(Commit(), "");
  ASSERT_EQ(ftruncate(fd.get(), 0), 0) << std::strerror(errno);
  EXPECT_EQ(Commit(), "");
  EXPECT_GT(FreePages(), 15000);
}

// So many runs that pages for all of the tree are more than what is kept back:
// a commit writes what changes.
TEST_F(FullPool, CutsOfAFileOfManyRunsCommitThoughThereIsNoFreePage) {
  constexpr off_t kOne = kPage, kRuns = 60000, kSize = 2 * kRuns * kOne;
  constexpr off_t kEnd = kSize / 2 - 2 * kOne + 95;
  UniqueFd fd = Open("cut"), other = Open("other");
  for (off_t i = 0; i < kRuns; ++i) {
    ASSERT_EQ(pwrite(fd.get(), "x", 1, 2 * i * kOne), 1)
        << std::strerror(errno);
  }
  ASSERT_EQ(ioctl(Open("clone").get(), FICLONE, fd.get()), 0)
      << std::strerror(errno);
  ASSERT_EQ(Commit(), "");
  FillUp(other.get());
  ASSERT_EQ(Commit(), "");
  FillUp(other.get(), Size(other.get()));
  // The clone has the pages, so nothing becomes free.
  for (off_t at = kSize / 8; at < kSize; at += kSize / 8) {
    ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        at + 1, 3000 * kOne),
              0)
        << at << ": " << std::strerror(errno);
    ASSERT_EQ(Commit(), "") << at;
  }
  ASSERT_EQ(ftruncate(fd.get(), kEnd), 0) << std::strerror(errno);
  EXPECT_EQ(Commit(), "");
  fd.reset();
  other.reset();
  ASSERT_NO_FATAL_FAILURE(Remount());
  fd = Open("cut");
  EXPECT_EQ(Size(fd.get()), kEnd);
  for (off_t i = 0; 2 * i * kOne < Size(fd.get()); ++i) {
    const off_t at = 2 * i * kOne, hole = at % (kSize / 8);
    const bool cut = at >= kSize / 8 && hole > 0 && hole <= 3000 * kOne;
    ASSERT_EQ(Read(fd.get(), 1, at)[0], cut ? '\0' : 'x') << i;
  }
  fd.reset();
  Remove("cut");
  EXPECT_EQ(Commit(), "");
  Remove("clone");
  EXPECT_EQ(Commit(), "");
  EXPECT_GT(FreePages(), kRuns);
}

// Each processor keeps some free pages to itself.
TEST_F(FullPool, PagesThatAnotherProcessorFreedAreFound) {
  constexpr size_t kPages = 40;
  const std::vector<char> some = Bytes((kPages - 8) * kPage);
  ASSERT_GE(sysconf(_SC_NPROCESSORS_ONLN), 2);
  for (const char* name : {"a", "b", "c", "d"}) {
    Write(Open(name).get(), Bytes(kPages * kPage));
  }
  UniqueFd filler = Open("filler");
  // On both, until nothing is left in the lists of either.
  for (int cpu : {0, 1, 0, 1}) {
    OnCpu(cpu, [&] {
      FillUp(filler.get(), Size(filler.get()));
      return 0;
    });
    ASSERT_EQ(Commit(), "");
  }
  for (const char* name : {"a", "b", "c", "d"}) {
    const auto remove = [&] {
      Remove(name);
      return Commit().empty() ? 0 : 1;
    };
    const auto store = [&] {
      UniqueFd fd = Open(std::string(name) + "new");
      const ssize_t n = write(fd.get(), some.data(), some.size());
      return n == static_cast<ssize_t>(some.size()) ? 0 : 1;
    };
    ASSERT_EQ(OnCpu(1, remove), 0);
    const long free = FreePages();
    EXPECT_EQ(OnCpu(0, store), 0) << name << ": " << free << " pages were free";
  }
}

// Files are not memory of the task that writes them: who keeps applications off
// the pool's node by a cpuset does not keep them from storing there.
TEST_F(FullPool, TasksOfOtherCpusetsCanWrite) {
  const std::string group = "/sys/fs/cgroup/fs_matrix";
  const auto put = [](const std::string& path, const std::string& text) {
    UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    return write(fd.get(), text.data(), text.size()) ==
           static_cast<ssize_t>(text.size());
  };
  ASSERT_TRUE(put("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset"))
      << std::strerror(errno);
  ASSERT_TRUE(mkdir(group.c_str(), 0755) == 0 || errno == EEXIST);
  ASSERT_TRUE(put(group + "/cpuset.mems", "0")) << std::strerror(errno);
  const std::vector<char> bytes = Bytes(2048 * kPage);
  const int status = OnCpu(0, [&] {
    if (!put(group + "/cgroup.procs", std::to_string(getpid()))) return 1;
    UniqueFd fd(open(Path("a").c_str(), O_RDWR | O_CREAT, 0600));
    if (!fd.valid()) return 2;
    if (write(fd.get(), bytes.data(), bytes.size()) !=
        static_cast<ssize_t>(bytes.size())) {
      return 3;
    }
    for (int i = 0; i < 3000; ++i) {
      UniqueFd other(
          open(Path("n" + std::to_string(i)).c_str(), O_RDWR | O_CREAT, 0600));
      if (!other.valid()) return 4;
    }
    char* map = static_cast<char*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    if (map == MAP_FAILED) return 5;
    map[0] = 'x';
    return fsync(fd.get()) == 0 ? 0 : 6;
  });
  EXPECT_EQ(status, 0);
  std::vector<char> expected = bytes;
  expected[0] = 'x';
  EXPECT_TRUE(Read(Open("a").get(), bytes.size()) == expected);
  EXPECT_EQ(rmdir(group.c_str()), 0) << std::strerror(errno);
}

}  // namespace
}  // namespace daxsnap::vmtest
