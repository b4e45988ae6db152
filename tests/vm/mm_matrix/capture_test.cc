// SPDX-License-Identifier: Apache-2.0
// Capture: a file becomes the content of a process's memory, by reference.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 11, kNew = 12;

class Capture : public PoolTest {};

TEST_F(Capture, TakesEveryPageByReferenceAndCopiesNone) {
  Mapping memory(8 * kMiB, node());
  Child source({{"fill", [&] {
                   Fill(memory.data(), memory.bytes(), kOld);
                   return 0L;
                 }}});
  source.Do("fill");
  const auto frames = PageFrames(source.pid(), memory.data(), memory.bytes());
  UniqueFd file = NewFile();
  const long free_before = FreePagesWithLists(node());
  const auto c = PoolTest::Capture(file.get(), source.pidfd(), memory.data(),
                                   memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  EXPECT_EQ(PageFrames(source.pid(), memory.data(), memory.bytes()), frames)
      << "the source's pages moved";
  EXPECT_GT(FreePagesWithLists(node()),
            free_before - static_cast<long>(memory.pages() / 10))
      << "memory was used as if pages had been copied";

  Mapping reader(memory.bytes(), node());
  EXPECT_EQ(Install(file.get(), reader.data(), reader.bytes()), reader.pages());
  EXPECT_EQ(PageFrames(getpid(), reader.data(), reader.bytes()), frames)
      << "the reader has other pages than the source";
  EXPECT_EQ(CountBad(reader.data(), reader.bytes(), kOld), 0);
}

TEST_F(Capture, SourceKeepsWriting) {
  Mapping memory(8 * kMiB, node());
  Child source(
      {{"old",
        [&] {
          Fill(memory.data(), memory.bytes(), kOld);
          return 0L;
        }},
       {"new",
        [&] {
          Fill(memory.data(), memory.bytes(), kNew);
          return 0L;
        }},
       {"bad", [&] { return CountBad(memory.data(), memory.bytes(), kNew); }}});
  source.Do("old");
  UniqueFd file = NewFile();
  PoolTest::Capture(file.get(), source.pidfd(), memory.data(), memory.bytes());
  source.Do("new");
  EXPECT_EQ(source.Do("bad"), 0);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0)
      << "the source's writes reached the snapshot";
}

// Writers never lose a write and a snapshot, once taken, never changes.
TEST_F(Capture, RacesWithWritersLoseNothing) {
  constexpr size_t kThreads = 2, kRounds = 60;
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  std::atomic<bool> stop = false;
  std::atomic<long> lost = 0, passes = 0;
  std::vector<std::thread> writers;
  for (size_t t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      for (uint64_t pass = 1; !stop; ++pass) {
        for (size_t i = 0; i < memory.pages(); ++i) {
          volatile uint64_t* word =
              reinterpret_cast<uint64_t*>(memory.page(i)) + 64 + 64 * t;
          if (pass > 1 && *word != pass - 1) ++lost;
          *word = pass;
        }
        ++passes;
      }
    });
  }
  UniqueFd self = SelfPidFd();
  UniqueFd files[2] = {NewFile("a"), NewFile("b")};
  for (size_t round = 0; round < kRounds; ++round) {
    const int file = files[round % 2].get();
    PoolTest::Capture(file, self.get(), memory.data(), memory.bytes());
    const uint64_t hash = HashFile(file, memory.bytes());
    if (HashFile(file, memory.bytes()) != hash) {
      ADD_FAILURE() << "the snapshot of round " << round << " changed";
      break;
    }
  }
  stop = true;
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(lost, 0);
  EXPECT_GT(passes, 2) << "the writers did not run";
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, SecondSnapshotSharesUnmodifiedPages) {
  constexpr size_t kModified = 100;
  Mapping memory(8 * kMiB, node());
  Child source({{"fill",
                 [&] {
                   Fill(memory.data(), memory.bytes(), kOld);
                   return 0L;
                 }},
                {"modify", [&] {
                   for (size_t i = 0; i < kModified; ++i) {
                     memory.page(i * 7)[100]++;
                   }
                   return 0L;
                 }}});
  source.Do("fill");
  UniqueFd first = NewFile("first"), second = NewFile("second");
  PoolTest::Capture(first.get(), source.pidfd(), memory.data(), memory.bytes());
  const uint64_t hash = HashFile(first.get(), memory.bytes());
  source.Do("modify");
  const auto c = PoolTest::Capture(second.get(), source.pidfd(), memory.data(),
                                   memory.bytes());
  EXPECT_EQ(c.pages_by_reference, kModified);
  EXPECT_EQ(c.pages_shared, memory.pages() - kModified);
  EXPECT_EQ(HashFile(first.get(), memory.bytes()), hash);
  EXPECT_NE(HashFile(second.get(), memory.bytes()), hash);
}

TEST_F(Capture, OfInstalledPagesShares) {
  Mapping memory(4 * kMiB, node()), reader(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), first = NewFile("first"),
           second = NewFile("second");
  PoolTest::Capture(first.get(), self.get(), memory.data(), memory.bytes());
  Install(first.get(), reader.data(), reader.bytes());
  Fill(reader.data(), reader.bytes() / 2, kNew);
  const auto c = PoolTest::Capture(second.get(), self.get(), reader.data(),
                                   reader.bytes());
  EXPECT_EQ(c.pages_shared, reader.pages() / 2);
  EXPECT_EQ(c.pages_by_reference, reader.pages() / 2);
  EXPECT_EQ(CountBadInFile(second.get(), reader.bytes() / 2, kNew), 0);
  EXPECT_EQ(CountBadInFile(first.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, OfForkSharedPagesTakesThemOnce) {
  Mapping memory(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Child fork(
      {{"old", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }},
       {"write", [&] {
          Fill(memory.data(), memory.bytes(), kNew);
          return CountBad(memory.data(), memory.bytes(), kNew);
        }}});
  UniqueFd self = SelfPidFd(), of_parent = NewFile("parent"),
           of_child = NewFile("child");
  auto c = PoolTest::Capture(of_parent.get(), self.get(), memory.data(),
                             memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  c = PoolTest::Capture(of_child.get(), fork.pidfd(), memory.data(),
                        memory.bytes());
  EXPECT_EQ(c.pages_shared, memory.pages());
  Fill(memory.data(), memory.bytes() / 2, kNew);
  EXPECT_EQ(fork.Do("old"), 0) << "the parent's writes reached the child";
  EXPECT_EQ(fork.Do("write"), 0);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes() / 2, kNew), 0);
  EXPECT_EQ(CountBadInFile(of_parent.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(CountBadInFile(of_child.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, OutlivesTheSource) {
  Mapping memory(4 * kMiB, node());
  UniqueFd file = NewFile();
  {
    Child source({{"fill", [&] {
                     Fill(memory.data(), memory.bytes(), kOld);
                     return 0L;
                   }}});
    source.Do("fill");
    PoolTest::Capture(file.get(), source.pidfd(), memory.data(),
                      memory.bytes());
    EXPECT_TRUE(source.Finish());
  }
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, LeavesHolesWhereNothingWasTouched) {
  Mapping memory(2 * kMiB, node());
  for (size_t i = 0; i < memory.pages(); i += 2) {
    Fill(memory.page(i), kPage, kOld, i);
  }
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c =
      PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages() / 2);
  EXPECT_EQ(c.pages_hole, memory.pages() / 2);
  struct stat stat;
  ASSERT_EQ(fstat(file.get(), &stat), 0);
  EXPECT_EQ(static_cast<size_t>(stat.st_size), memory.bytes());
  Mapping reader(memory.bytes(), node());
  Install(file.get(), reader.data(), reader.bytes());
  for (size_t i = 0; i < memory.pages(); i += 2) {
    ASSERT_EQ(CountBad(reader.page(i), kPage, kOld, i), 0) << i;
    ASSERT_EQ(CountNonZero(reader.page(i + 1), kPage), 0) << i + 1;
  }
}

TEST_F(Capture, OfPagesOnlyReadGivesZeroes) {
  Mapping memory(kMiB, node());
  volatile char sum = 0;
  for (size_t i = 0; i < memory.pages(); ++i) sum = sum + *memory.page(i);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c =
      PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference, 0u) << "the zero page was taken";
  EXPECT_EQ(c.pages_shared, 0u);
  std::vector<char> content(memory.bytes(), 1);
  ASSERT_EQ(pread(file.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));
  EXPECT_EQ(CountNonZero(content.data(), content.size()), 0);
}

TEST_F(Capture, SplitsHugePagesAndTakesThem) {
  Mapping memory(8 * kMiB, node(), Mapping::Pages::kHuge);
  Child source(
      {{"fill",
        [&] {
          Fill(memory.data(), memory.bytes(), kOld);
          return MemInfo("AnonHugePages");
        }},
       {"bad", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }},
       {"write", [&] {
          Fill(memory.data(), memory.bytes(), kNew);
          return 0L;
        }}});
  EXPECT_GE(source.Do("fill"), static_cast<long>(memory.bytes() >> 10) / 2)
      << "the memory did not come as huge pages";
  UniqueFd file = NewFile();
  const auto c = PoolTest::Capture(file.get(), source.pidfd(), memory.data(),
                                   memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  EXPECT_EQ(source.Do("bad"), 0);
  source.Do("write");
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, TakesMlockedPages) {
  const long locked_before = MlockedNow();
  Mapping memory(4 * kMiB, node());
  UniqueFd file = NewFile();
  {
    Child source({{"fill",
                   [&] {
                     Fill(memory.data(), memory.bytes(), kOld);
                     return static_cast<long>(
                         mlockall(MCL_CURRENT | MCL_FUTURE));
                   }},
                  {"write", [&] {
                     Fill(memory.data(), memory.bytes(), kNew);
                     return CountBad(memory.data(), memory.bytes(), kNew);
                   }}});
    ASSERT_EQ(source.Do("fill"), 0);
    const auto c = PoolTest::Capture(file.get(), source.pidfd(), memory.data(),
                                     memory.bytes());
    EXPECT_EQ(c.pages_by_reference, memory.pages());
    EXPECT_EQ(source.Do("write"), 0);
  }
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  // The task's page tables go a moment after its parent knows of its end.
  EXPECT_TRUE(WaitFor([&] { return MlockedNow() <= locked_before; }))
      << "Mlocked " << MlockedNow() << " KiB, before " << locked_before;
}

TEST_F(Capture, TakesWrittenPagesOfPrivateFileMaps) {
  const size_t bytes = 2 * kMiB;
  Mapping original(bytes, 0);
  Fill(original.data(), bytes, kOld);
  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd source(mkstemp(name));
  ASSERT_TRUE(source.valid());
  unlink(name);
  ASSERT_EQ(write(source.get(), original.data(), bytes),
            static_cast<ssize_t>(bytes));
  char* map = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE, source.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  const unsigned long mask = 1UL << node();
  ASSERT_EQ(
      syscall(237 /* mbind */, map, bytes, 2 /* MPOL_BIND */, &mask, 64UL, 0U),
      0);
  for (size_t i = 0; i < bytes / kPage; i += 2) {
    Fill(map + i * kPage, kPage, kNew, i);
  }
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = PoolTest::Capture(file.get(), self.get(), map, bytes);
  EXPECT_EQ(c.pages_by_reference, bytes / kPage / 2);
  Fill(map, bytes, 99);
  for (size_t i = 0; i < bytes / kPage; i += 2) {
    char page[kPage];
    ASSERT_EQ(pread(file.get(), page, kPage, static_cast<off_t>(i * kPage)),
              static_cast<ssize_t>(kPage));
    ASSERT_EQ(CountBad(page, kPage, kNew, i), 0) << "written page " << i;
  }
  EXPECT_EQ(CountBadInFile(source.get(), bytes, kOld), 0);
  munmap(map, bytes);
}

TEST_F(Capture, TakesReadOnlyAndInaccessibleMemory) {
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  mprotect(memory.data(), memory.bytes() / 2, PROT_READ);
  mprotect(memory.data() + memory.bytes() / 2, memory.bytes() / 2, PROT_NONE);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c =
      PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  mprotect(memory.data(), memory.bytes(), PROT_READ | PROT_WRITE);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, BeyondTheEndGrowsTheFile) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const off_t offset = 3 * kMiB;
  PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes(),
                    offset);
  struct stat stat;
  ASSERT_EQ(fstat(file.get(), &stat), 0);
  EXPECT_EQ(static_cast<size_t>(stat.st_size), 4 * kMiB);
  EXPECT_EQ(stat.st_blocks * 512, static_cast<long>(memory.bytes()));
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 0) << "the file position moved";
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld, offset), 0);
}

TEST_F(Capture, ReplacesWhatTheFileHeld) {
  Mapping memory(2 * kMiB, node());
  UniqueFd self = SelfPidFd(), file = NewFile();
  Fill(memory.data(), memory.bytes(), kOld);
  PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  Fill(memory.data(), memory.bytes(), kNew);
  PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes() / 2);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes() / 2, kNew), 0);
  char page[kPage];
  const size_t last = memory.pages() - 1;
  ASSERT_EQ(pread(file.get(), page, kPage, static_cast<off_t>(last * kPage)),
            static_cast<ssize_t>(kPage));
  EXPECT_EQ(CountBad(page, kPage, kOld, last), 0);
}

TEST_F(Capture, WritesToTheFileDoNotReachTheSource) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  ASSERT_EQ(pwrite(file.get(), "changed", 7, kPage + 100), 7);
  std::vector<char> ones(8 * kPage, 1);
  ASSERT_EQ(pwrite(file.get(), ones.data(), ones.size(), 16 * kPage),
            static_cast<ssize_t>(ones.size()));
  ASSERT_EQ(fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      64 * kPage, 8 * kPage),
            0);
  ASSERT_EQ(ftruncate(file.get(), 100 * kPage + 5), 0);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
  char byte;
  ASSERT_EQ(pread(file.get(), &byte, 1, kPage + 100), 1);
  EXPECT_EQ(byte, 'c');
}

TEST_F(Capture, SourceMayMoveAndUnmapCapturedMemory) {
  Mapping memory(4 * kMiB, node()), target(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  const size_t half = memory.bytes() / 2;
  void* moved = mremap(memory.data() + half, half, half,
                       MREMAP_MAYMOVE | MREMAP_FIXED, target.data());
  ASSERT_EQ(moved, target.data());
  EXPECT_EQ(CountBad(target.data(), half, kOld, half / kPage), 0);
  Fill(target.data(), half, kNew);
  ASSERT_EQ(munmap(memory.data(), half / 2), 0);
  ASSERT_EQ(madvise(memory.data() + half / 2, half / 2, MADV_DONTNEED), 0);
  EXPECT_EQ(CountNonZero(memory.data() + half / 2, half / 2), 0);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Capture, SourceMayBeStoppedOrRunning) {
  Mapping memory(4 * kMiB, node());
  Child source({{"fill", [&] {
                   Fill(memory.data(), memory.bytes(), kOld);
                   return 0L;
                 }}});
  source.Do("fill");
  kill(source.pid(), SIGSTOP);
  int status;
  ASSERT_EQ(waitpid(source.pid(), &status, WUNTRACED), source.pid());
  UniqueFd file = NewFile();
  const auto c = PoolTest::Capture(file.get(), source.pidfd(), memory.data(),
                                   memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  kill(source.pid(), SIGCONT);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(source.Do("fill"), 0);
}

// Memory that a restored process would have: several small maps side by side.
TEST_F(Capture, SpansNeighbouringMaps) {
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  for (size_t i = 3; i < memory.pages(); i += 9) {
    mprotect(memory.page(i), kPage, PROT_READ);
  }
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c =
      PoolTest::Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference, memory.pages());
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
