// SPDX-License-Identifier: Apache-2.0
// Shared, writable mappings: one content, whichever way it is looked at.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

class Map {
 public:
  Map(int fd, size_t bytes) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT_NE(p, MAP_FAILED) << std::strerror(errno);
    data_ = static_cast<char*>(p);
  }
  Map(Map&&) = delete;
  ~Map() { munmap(data_, bytes_); }

  char* data() const { return data_; }
  std::vector<char> Content() const { return {data_, data_ + bytes_}; }

 private:
  char* data_;
  size_t bytes_;
};

class SharedMap : public FsTest {
 protected:
  kmemfs_info Info() {
    kmemfs_info info = {};
    UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(ioctl(fd.get(), KMEMFS_IOC_INFO, &info), 0);
    return info;
  }
  // What a file of this content is when read, not mapped.
  void ExpectFile(int fd, const std::vector<char>& expected) {
    EXPECT_EQ(Size(fd), static_cast<int64_t>(expected.size()));
    EXPECT_EQ(Read(fd, expected.size() + 1), expected);
  }
};

TEST_F(SharedMap, StoresAreReadAndWritesAreSeen) {
  UniqueFd fd = Open("a");
  std::vector<char> expected = Bytes(3 * kPage);
  Write(fd.get(), expected);
  Map map(fd.get(), 3 * kPage);
  for (int round = 0; round < 3; ++round) {
    const auto at = static_cast<size_t>(100 * (round + 1));
    expected[at] = map.data()[at] = static_cast<char>('a' + round);
    expected[kPage + at] = map.data()[kPage + at] = 'm';
    ExpectFile(fd.get(), expected);
    Write(fd.get(), {'w', 'r'}, static_cast<off_t>(kPage - 1));
    expected[kPage - 1] = 'w';
    expected[kPage] = 'r';
    EXPECT_EQ(map.Content(), expected) << "stores beside a write are kept";
    const std::vector<char> page =
        Bytes(kPage, 7 + static_cast<uint64_t>(round));
    Write(fd.get(), page, 2 * kPage);
    std::copy(page.begin(), page.end(), expected.begin() + 2 * kPage);
    EXPECT_EQ(map.Content(), expected);
    if (round == 1) {
      ASSERT_EQ(fsync(fd.get()), 0);
    }
  }
  Map other(fd.get(), 3 * kPage);
  other.data()[5] = 'o';
  EXPECT_EQ(map.data()[5], 'o');
}

TEST_F(SharedMap, MsyncCommits) {
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(2 * kPage));
  ASSERT_EQ(fsync(fd.get()), 0);
  Map map(fd.get(), 2 * kPage);
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(ioctl(fd.get(), KMEMFS_IOC_SUM, 0), 0) << std::strerror(errno);
    const auto generation = Info().generation;
    map.data()[kPage + 1] = static_cast<char>(round);
    const kmemfs_info stored = Info();
    // The interval's commit may have been there.
    EXPECT_TRUE(stored.dirty != 0 || stored.generation > generation);
    ASSERT_EQ(msync(map.data(), 2 * kPage, MS_SYNC), 0) << std::strerror(errno);
    EXPECT_EQ(Info().dirty, 0u);
    EXPECT_GT(Info().generation, generation);
  }
  map.data()[0] = 's';
  UniqueFd root(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_EQ(syncfs(root.get()), 0);
  EXPECT_EQ(Info().dirty, 0u);
}

TEST_F(SharedMap, StoresDoNotReachClonesNorTheOtherWayRound) {
  UniqueFd a = Open("a"), b = Open("b");
  const std::vector<char> old = Bytes(4 * kPage);
  Write(a.get(), old);
  ASSERT_EQ(fsync(a.get()), 0);
  Map map(a.get(), 4 * kPage);
  map.data()[0] = map.data()[kPage] = 'x';
  std::vector<char> expected = map.Content();
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  ExpectFile(b.get(), expected);
  map.data()[0] = map.data()[2 * kPage] = 'y';
  ExpectFile(b.get(), expected);
  expected[0] = expected[2 * kPage] = 'y';
  ExpectFile(a.get(), expected);
  // The map of the destination shows what the clone brings.
  Map target(b.get(), 4 * kPage);
  target.data()[3 * kPage] = 'z';
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  EXPECT_EQ(target.Content(), expected);
  target.data()[3 * kPage] = 'z';
  ExpectFile(a.get(), expected);
}

TEST_F(SharedMap, WhatIsStoredBeyondTheEndNeverAppears) {
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(100));
  Map map(fd.get(), kPage);
  const auto store = [&](size_t at) {
    ASSERT_LT(Size(fd.get()), static_cast<int64_t>(at));
    map.data()[at] = 'X';
  };
  std::vector<char> expected = Bytes(100);
  store(200);
  ASSERT_EQ(ftruncate(fd.get(), 300), 0);
  expected.resize(300);
  ExpectFile(fd.get(), expected);
  store(350);
  Write(fd.get(), {'w'}, 399);
  expected.resize(399);
  expected.push_back('w');
  ExpectFile(fd.get(), expected);
  store(450);
  ASSERT_EQ(fallocate(fd.get(), 0, 0, 500), 0);
  expected.resize(500);
  ExpectFile(fd.get(), expected);
  EXPECT_EQ(map.data()[450], 0);
  store(600);
  ASSERT_EQ(fsync(fd.get()), 0);
  store(601);
  Write(fd.get(), {'e'}, 2 * kPage);
  expected.resize(2 * kPage);
  expected.push_back('e');
  ExpectFile(fd.get(), expected);
  ASSERT_EQ(ftruncate(fd.get(), 50), 0);
  expected.resize(50);
  store(60);
  ASSERT_EQ(ftruncate(fd.get(), kPage), 0);
  expected.resize(kPage);
  ExpectFile(fd.get(), expected);
}

TEST_F(SharedMap, PunchTruncateAndCollapseTakeStoresAlong) {
  UniqueFd fd = Open("a");
  std::vector<char> expected = Bytes(8 * kPage);
  Write(fd.get(), expected);
  Map map(fd.get(), 8 * kPage);
  for (size_t i = 0; i < 8; ++i)
    expected[i * kPage] = map.data()[i * kPage] = 'q';
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      kPage + 10, 2 * kPage),
            0);
  std::memset(&expected[kPage + 10], 0, 2 * kPage);
  EXPECT_EQ(map.Content(), expected);
  ExpectFile(fd.get(), expected);
  map.data()[2 * kPage] = expected[2 * kPage] = 'n';
  ExpectFile(fd.get(), expected);
  map.data()[7 * kPage + 1] = 'L';
  ASSERT_EQ(ftruncate(fd.get(), 7 * kPage), 0);
  ASSERT_EQ(ftruncate(fd.get(), 8 * kPage), 0);
  std::memset(&expected[7 * kPage], 0, kPage);
  EXPECT_EQ(map.Content(), expected);
  map.data()[5 * kPage] = expected[5 * kPage] = 'c';
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_COLLAPSE_RANGE, 4 * kPage, kPage), 0)
      << std::strerror(errno);
  expected.erase(expected.begin() + 4 * kPage, expected.begin() + 5 * kPage);
  ExpectFile(fd.get(), expected);
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_INSERT_RANGE, kPage, kPage), 0)
      << std::strerror(errno);
  expected.insert(expected.begin() + kPage, kPage, 0);
  ExpectFile(fd.get(), expected);
  EXPECT_EQ(map.Content(), expected);
}

TEST_F(SharedMap, CaptureReplacesWhatIsMapped) {
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(2 * kPage));
  Map map(fd.get(), 2 * kPage);
  map.data()[0] = 'x';
  char* source =
      static_cast<char*>(mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(source, MAP_FAILED);
  std::memset(source, 'c', 2 * kPage);
  UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  kmemfs_capture c = {};
  c.pidfd = self.get();
  c.addr = reinterpret_cast<uintptr_t>(source);
  c.len = 2 * kPage;
  ASSERT_EQ(ioctl(fd.get(), KMEMFS_IOC_CAPTURE, &c), 0) << std::strerror(errno);
  EXPECT_EQ(map.Content(), std::vector<char>(2 * kPage, 'c'));
  // A file captured into itself: its own mapping is the source.
  map.data()[1] = 'd';
  c.addr = reinterpret_cast<uintptr_t>(map.data());
  c.len = kPage;
  c.offset = kPage;
  ASSERT_EQ(ioctl(fd.get(), KMEMFS_IOC_CAPTURE, &c), 0) << std::strerror(errno);
  EXPECT_EQ(map.data()[kPage + 1], 'd');
  munmap(source, 2 * kPage);
}

TEST_F(SharedMap, StoreWithoutSpaceGetsSigbus) {
  constexpr size_t kPages = 4096;
  UniqueFd sparse = Open("sparse");
  ASSERT_EQ(ftruncate(sparse.get(), kPages * kPage), 0);
  UniqueFd ballast = Open("ballast");
  FillUp(ballast.get());
  Map map(sparse.get(), kPages * kPage);
  EXPECT_EQ(map.data()[0], 0) << "reading needs no space";
  const pid_t child = fork();
  if (child == 0) {
    // A few more find space: this file needs less for its commit than the
    // other.
    for (size_t i = 0; i < kPages; ++i) map.data()[i * kPage] = 'x';
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  ASSERT_EQ(ftruncate(ballast.get(), 0), 0);
  const size_t last = (kPages - 1) * kPage;
  map.data()[last] = 'y';
  EXPECT_EQ(Read(sparse.get(), 1, static_cast<off_t>(last)),
            std::vector<char>{'y'});
}

// Stores and writes to different bytes of the same pages.
TEST_F(SharedMap, StoresAndWritesAtOnceLoseNothing) {
  constexpr size_t kPages = 4;
  constexpr int kRounds = 300;
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(kPages * kPage));
  Map map(fd.get(), kPages * kPage);
  std::atomic<bool> done = false;
  std::thread syncer([&] {
    while (!done) {
      msync(map.data(), kPages * kPage, MS_SYNC);
      Read(fd.get(), kPages * kPage);
    }
  });
  std::thread storer([&] {
    for (int round = 1; round <= kRounds; ++round) {
      for (size_t at = 0; at < kPages * kPage; at += 512) {
        reinterpret_cast<volatile int&>(map.data()[at]) = round;
      }
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    for (size_t at = 256; at < kPages * kPage; at += 512) {
      ASSERT_EQ(pwrite(fd.get(), &round, sizeof(round), static_cast<off_t>(at)),
                static_cast<ssize_t>(sizeof(round)));
    }
  }
  storer.join();
  done = true;
  syncer.join();
  const std::vector<char> bytes = Read(fd.get(), kPages * kPage);
  EXPECT_EQ(map.Content(), bytes);
  for (size_t at = 0; at < kPages * kPage; at += 256) {
    int value = 0;
    std::memcpy(&value, &bytes[at], sizeof(value));
    EXPECT_EQ(value, kRounds) << at;
  }
}

}  // namespace
}  // namespace daxsnap::vmtest
