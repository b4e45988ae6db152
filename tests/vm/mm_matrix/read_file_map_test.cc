// SPDX-License-Identifier: Apache-2.0
// read(2) into private mappings of files: written libraries come back this way.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kStored = 71, kMapped = 72, kNew = 73;
constexpr size_t kPages = 64;
constexpr size_t kBytes = kPages * kPage;

class ReadFileMap : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    stored_ = NewCapture(kBytes, kStored);
    Mapping memory(kBytes, 0);
    char name[] = "/var/tmp/mm_matrix.XXXXXX";
    library_ = UniqueFd(mkstemp(name));
    ASSERT_TRUE(library_.valid());
    unlink(name);
    Fill(memory.data(), kBytes, kMapped);
    ASSERT_EQ(write(library_.get(), memory.data(), kBytes),
              static_cast<ssize_t>(kBytes));
    map_ = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE, library_.get(), 0));
    ASSERT_NE(map_, MAP_FAILED);
  }
  void TearDown() override {
    if (map_ != MAP_FAILED) munmap(map_, kBytes);
    PoolTest::TearDown();
  }

  int stored() const { return stored_.get(); }
  // The mapped file.
  int library() const { return library_.get(); }
  // All of it, untouched.
  char* map() const { return map_; }
  ssize_t ReadAll() const { return pread(stored(), map(), kBytes, 0); }

 private:
  UniqueFd stored_, library_;
  char* map_ = static_cast<char*>(MAP_FAILED);
};

TEST_F(ReadFileMap, InstallsAndLeavesTheMappedFileAlone) {
  EXPECT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages);
  EXPECT_EQ(CountBad(map(), kBytes, kStored), 0);
  EXPECT_EQ(CountBadInFile(library(), kBytes, kMapped), 0);
  Fill(map(), kBytes, kNew);
  EXPECT_EQ(CountBad(map(), kBytes, kNew), 0);
  EXPECT_EQ(CountBadInFile(stored(), kBytes, kStored), 0);
  EXPECT_EQ(CountBadInFile(library(), kBytes, kMapped), 0);
}

TEST_F(ReadFileMap, InstalledPagesAreThoseOfTheFileWhenCapturedAgain) {
  EXPECT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages);
  UniqueFd self = SelfPidFd(), again = NewFile("again");
  const auto c = PoolTest::Capture(again.get(), self.get(), map(), kBytes);
  EXPECT_EQ(c.pages_shared, kPages);
  EXPECT_EQ(c.pages_copied, 0U);
  EXPECT_EQ(CountBadInFile(again.get(), kBytes, kStored), 0);
}

TEST_F(ReadFileMap, DontneedGivesTheMappedFileBack) {
  ASSERT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages);
  ASSERT_EQ(madvise(map(), kBytes, MADV_DONTNEED), 0);
  EXPECT_EQ(CountBad(map(), kBytes, kMapped), 0);
}

// What the file does not hold is zero, and not what the mapped file holds.
TEST_F(ReadFileMap, HolesBecomeZeroes) {
  ASSERT_EQ(fallocate(stored(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      8 * kPage, 8 * kPage),
            0);
  EXPECT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages - 8);
  EXPECT_EQ(CountBad(map(), 8 * kPage, kStored), 0);
  EXPECT_EQ(CountNonZero(map() + 8 * kPage, 8 * kPage), 0);
  EXPECT_EQ(CountBad(map() + 16 * kPage, kBytes - 16 * kPage, kStored, 16), 0);
}

TEST_F(ReadFileMap, OverPresentPagesCopiesOnlyThose) {
  map()[0] = 1;
  const volatile char touched = map()[20 * kPage];
  EXPECT_EQ(touched, map()[20 * kPage]);
  // A read fault maps the pages around it as well.
  const auto frames = PageFrames(getpid(), map(), kBytes);
  const auto present = static_cast<uint64_t>(std::count_if(
      frames.begin(), frames.end(), [](uint64_t pfn) { return pfn != 0; }));
  EXPECT_GE(present, 2U);
  EXPECT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages - present);
  EXPECT_EQ(CountBad(map(), kBytes, kStored), 0);
  EXPECT_EQ(CountBadInFile(library(), kBytes, kMapped), 0);
}

TEST_F(ReadFileMap, StopsAtTheEndOfTheMappedFile) {
  ASSERT_EQ(ftruncate(library(), 4 * kPage - 100), 0);
  const uint64_t before = Info().read_installed;
  EXPECT_EQ(ReadAll(), static_cast<ssize_t>(4 * kPage));
  EXPECT_EQ(Info().read_installed - before, 4U);
  EXPECT_EQ(CountBad(map(), 4 * kPage, kStored), 0);
  EXPECT_EQ(pread(stored(), map() + 8 * kPage, 8 * kPage, 0), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(ReadFileMap, InAMappingThatStartsWithinTheFile) {
  char* tail =
      static_cast<char*>(mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE, library(), (kPages - 4) * kPage));
  ASSERT_NE(tail, MAP_FAILED);
  const uint64_t before = Info().read_installed;
  EXPECT_EQ(pread(stored(), tail, 16 * kPage, 0),
            static_cast<ssize_t>(4 * kPage));
  EXPECT_EQ(Info().read_installed - before, 4U);
  EXPECT_EQ(CountBad(tail, 4 * kPage, kStored), 0);
  munmap(tail, 16 * kPage);
}

TEST_F(ReadFileMap, TruncateTakesTheInstalledPagesAway) {
  ASSERT_EQ(PoolTest::Install(stored(), map(), kBytes), kPages);
  Child reader({{"first", [&] { return CountBad(map(), kPage, kStored); }},
                {"last", [&] {
                   return CountBad(map() + kBytes - kPage, kPage, kStored,
                                   kPages - 1);
                 }}});
  EXPECT_EQ(reader.Do("last"), 0);
  ASSERT_EQ(ftruncate(library(), kPage), 0);
  EXPECT_EQ(reader.Do("first"), 0);
  EXPECT_TRUE(reader.DiesIn("last", SIGBUS));
}

// No page may stay behind a file's end, whoever comes first.
TEST_F(ReadFileMap, RacesWithTruncateLeaveNothingBeyondTheEnd) {
  constexpr int kRounds = 300;
  int full = 0;
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_EQ(ftruncate(library(), kBytes), 0);
    std::atomic<bool> go = false;
    std::thread cutter([&] {
      while (!go) {
      }
      if (ftruncate(library(), kPage) != 0) ADD_FAILURE();
    });
    go = true;
    const ssize_t n = ReadAll();
    cutter.join();
    ASSERT_TRUE(n == -1 || n % kPage == 0) << n;
    if (n == static_cast<ssize_t>(kBytes)) ++full;
    const auto frames = PageFrames(getpid(), map(), kBytes);
    ASSERT_EQ(std::count(frames.begin() + 1, frames.end(), 0U),
              static_cast<long>(kPages) - 1)
        << "round " << round;
    ASSERT_EQ(madvise(map(), kBytes, MADV_DONTNEED), 0);
  }
  RecordProperty("reads_that_came_first", full);
}

// The same with a file of the pool, which has many pages to let go of.
TEST_F(ReadFileMap, RacesWithTruncateOfAPoolFileLeaveNothingBeyondTheEnd) {
  constexpr int kRounds = 5;
  constexpr off_t kLong = off_t{64} << 20;
  UniqueFd other = NewFile("other");
  char* map = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE, other.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_EQ(fallocate(other.get(), 0, 0, kLong), 0) << std::strerror(errno);
    std::atomic<bool> cut = false;
    std::thread cutter([&] {
      if (ftruncate(other.get(), kPage) != 0) ADD_FAILURE();
      cut = true;
    });
    while (!cut) {
      const ssize_t n = pread(stored(), map, kBytes, 0);
      EXPECT_TRUE(n > 0 || errno == EFAULT) << std::strerror(errno);
    }
    cutter.join();
    const auto frames = PageFrames(getpid(), map, kBytes);
    ASSERT_EQ(std::count(frames.begin() + 1, frames.end(), 0U),
              static_cast<long>(kPages) - 1)
        << "round " << round;
  }
  munmap(map, kBytes);
}

TEST_F(ReadFileMap, ReadOnlyMappingsFault) {
  ASSERT_EQ(mprotect(map(), kBytes, PROT_READ), 0);
  EXPECT_EQ(ReadAll(), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(CountBad(map(), kBytes, kMapped), 0);
}

TEST_F(ReadFileMap, SharedMappingsAreCopied) {
  char* shared = static_cast<char*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, library(), 0));
  ASSERT_NE(shared, MAP_FAILED);
  EXPECT_EQ(PoolTest::Install(stored(), shared, kBytes), 0U);
  EXPECT_EQ(CountBadInFile(library(), kBytes, kStored), 0);
  munmap(shared, kBytes);
}

TEST_F(ReadFileMap, OfThePoolItself) {
  UniqueFd other = NewFile("other");
  ASSERT_EQ(ftruncate(other.get(), kBytes), 0);
  char* map = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE, other.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(PoolTest::Install(stored(), map, kBytes), kPages);
  EXPECT_EQ(CountBad(map, kBytes, kStored), 0);
  char zero[kPage] = {}, page[kPage];
  ASSERT_EQ(pread(other.get(), page, kPage, 3 * kPage),
            static_cast<ssize_t>(kPage));
  EXPECT_EQ(std::memcmp(page, zero, kPage), 0) << "the other file was written";
  munmap(map, kBytes);
}

}  // namespace
}  // namespace daxsnap::vmtest
