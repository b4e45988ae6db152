// SPDX-License-Identifier: Apache-2.0
// Splice: pages that come through a pipe become a file's by reference.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/splice.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 61, kNew = 62;

class Splice : public SpliceTest {};

TEST_F(Splice, TakesEveryPageByReferenceAndCopiesNone) {
  Mapping memory(8 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  const auto frames = PageFrames(getpid(), memory.data(), memory.bytes());
  UniqueFd file = NewFile();
  const long free_before = FreePagesWithLists(node());
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  EXPECT_EQ(PageFrames(getpid(), memory.data(), memory.bytes()), frames)
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

TEST_F(Splice, SourceKeepsWriting) {
  Mapping memory(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  Store(file.get(), memory.data(), memory.bytes());
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kNew), 0);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0)
      << "the source's writes reached the file";
}

TEST_F(Splice, WritesToTheFileDoNotReachTheSource) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  Store(file.get(), memory.data(), memory.bytes());
  const std::vector<char> other(memory.bytes(), 7);
  ASSERT_EQ(pwrite(file.get(), other.data(), other.size(), 0),
            static_cast<ssize_t>(other.size()));
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
}

TEST_F(Splice, SecondTimeSharesUnmodifiedPages) {
  Mapping memory(8 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd first = NewFile("first"), second = NewFile("second");
  Store(first.get(), memory.data(), memory.bytes());
  size_t modified = 0;
  for (size_t i = 0; i < memory.pages(); i += 16, ++modified) {
    memory.page(i)[100]++;
  }
  EXPECT_EQ(
      Store(second.get(), memory.data(), memory.bytes()),
      (Spliced{.by_reference = modified, .shared = memory.pages() - modified}));
  EXPECT_EQ(CountBadInFile(first.get(), memory.bytes(), kOld), 0);
}

// Writers never lose a write, and what was spliced never changes.
TEST_F(Splice, RacesWithWritersLoseNothing) {
  constexpr size_t kThreads = 2, kRounds = 40;
  Mapping memory(kMiB, node());
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
  UniqueFd files[2] = {NewFile("a"), NewFile("b")};
  uint64_t taken = 0;
  for (size_t round = 0; round < kRounds; ++round) {
    const int file = files[round % 2].get();
    const Spliced s = Store(file, memory.data(), memory.bytes());
    // Shared is what no writer came to since the round before.
    taken += s.by_reference + s.shared;
    const uint64_t hash = HashFile(file, memory.bytes());
    if (HashFile(file, memory.bytes()) != hash) {
      ADD_FAILURE() << "the file of round " << round << " changed";
      break;
    }
  }
  stop = true;
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(lost, 0);
  EXPECT_GT(passes, 2) << "the writers did not run";
  EXPECT_GT(taken, kRounds * memory.pages() / 2);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
}

// fork() write-protects pages long before it flushes the parent's TLB.
TEST_F(Splice, RacesWithForkKeepTheFileConstant) {
  constexpr size_t kRounds = 25;
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  std::atomic<bool> stop = false;
  std::atomic<long> passes = 0;
  std::thread writer([&] {
    for (uint64_t pass = 1; !stop; ++pass, ++passes) {
      for (size_t i = 0; i < memory.pages(); ++i) {
        reinterpret_cast<volatile uint64_t*>(memory.page(i))[64] = pass;
      }
    }
  });
  std::thread forker([&] {
    while (!stop) {
      const pid_t child = fork();
      if (child == 0) _exit(0);
      ASSERT_GT(child, 0);
      ASSERT_EQ(waitpid(child, nullptr, 0), child);
    }
  });
  UniqueFd file = NewFile();
  for (size_t round = 0; round < kRounds; ++round) {
    Store(file.get(), memory.data(), memory.bytes());
    const uint64_t hash = HashFile(file.get(), memory.bytes());
    if (HashFile(file.get(), memory.bytes()) != hash) {
      ADD_FAILURE() << "the file of round " << round << " changed";
      break;
    }
  }
  stop = true;
  writer.join();
  forker.join();
  EXPECT_GT(passes, 2) << "the writer did not run";
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
}

TEST_F(Splice, TwoAtOnceOfOneMemoryAgree) {
  Mapping memory(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd files[2] = {NewFile("a"), NewFile("b")};
  for (int round = 0; round < 8; ++round) {
    std::vector<std::thread> splicers;
    for (const UniqueFd& file : files) {
      splicers.emplace_back([&] {
        Pipe pipe;
        for (size_t at = 0; at < memory.bytes(); at += pipe.bytes()) {
          auto offset = static_cast<off_t>(at);
          pipe.Put(memory.data() + at, pipe.bytes());
          while (static_cast<size_t>(offset) < at + pipe.bytes() &&
                 pipe.Take(file.get(), &offset,
                           at + pipe.bytes() - static_cast<size_t>(offset)) >
                     0) {
          }
        }
      });
    }
    for (auto& splicer : splicers) splicer.join();
    for (const UniqueFd& file : files) {
      ASSERT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
    }
    Fill(memory.data(), memory.bytes(), kOld);
  }
}

TEST_F(Splice, OfForkSharedPagesTakesThemOnce) {
  Mapping memory(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Child child(
      {{"bad", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }},
       {"write", [&] {
          Fill(memory.data(), memory.bytes() / 2, kNew);
          return 0L;
        }}});
  Child other(
      {{"bad", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }}});
  UniqueFd file = NewFile(), again = NewFile("again");
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  EXPECT_EQ(Store(again.get(), memory.data(), memory.bytes()),
            (Spliced{.shared = memory.pages()}));
  child.Do("write");
  Fill(memory.data() + memory.bytes() / 2, memory.bytes() / 2, kNew);
  EXPECT_EQ(other.Do("bad"), 0) << "the forks are not isolated any more";
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(CountBadInFile(again.get(), memory.bytes(), kOld), 0);
}

// Written again by one after fork(): some pages are exclusive, some shared.
TEST_F(Splice, OfPartlySharedMemory) {
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Child child(
      {{"bad", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }}});
  for (size_t i = 0; i < memory.pages(); i += 3) {
    Fill(memory.page(i), kPage, kNew, i);
  }
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  const uint64_t hash = HashFile(file.get(), memory.bytes());
  EXPECT_EQ(child.Do("bad"), 0);
  std::memset(memory.data(), 0, memory.bytes());
  EXPECT_EQ(HashFile(file.get(), memory.bytes()), hash);
}

TEST_F(Splice, TakesPagesThatAreUnmappedMeanwhile) {
  UniqueFd file = NewFile();
  Pipe pipe;
  {
    Mapping memory(pipe.bytes(), node());
    Fill(memory.data(), memory.bytes(), kOld);
    pipe.Put(memory.data(), memory.bytes());
  }
  EXPECT_EQ(TakeAll(pipe, file.get(), pipe.bytes()),
            (Spliced{.by_reference = pipe.bytes() / kPage}));
  EXPECT_EQ(CountBadInFile(file.get(), pipe.bytes(), kOld), 0);
}

TEST_F(Splice, TakesPagesWhoseMappingMovesMeanwhile) {
  UniqueFd file = NewFile();
  Pipe pipe;
  Mapping memory(pipe.bytes(), node()), space(pipe.bytes(), node());
  Fill(memory.data(), memory.bytes(), kOld);
  pipe.Put(memory.data(), memory.bytes());
  void* moved = mremap(memory.data(), memory.bytes(), memory.bytes(),
                       MREMAP_MAYMOVE | MREMAP_FIXED, space.data());
  ASSERT_EQ(moved, space.data());
  EXPECT_EQ(TakeAll(pipe, file.get(), pipe.bytes()),
            (Spliced{.by_reference = pipe.bytes() / kPage}));
  Fill(space.data(), space.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), pipe.bytes(), kOld), 0);
}

TEST_F(Splice, TakesPagesOfAProcessThatIsGone) {
  UniqueFd file = NewFile();
  Pipe pipe;
  Mapping memory(pipe.bytes(), node());
  {
    Child source({{"put", [&] {
                     Fill(memory.data(), memory.bytes(), kOld);
                     pipe.Put(memory.data(), memory.bytes());
                     return 0L;
                   }}});
    source.Do("put");
    ASSERT_TRUE(source.Finish());
  }
  EXPECT_EQ(TakeAll(pipe, file.get(), pipe.bytes()),
            (Spliced{.by_reference = pipe.bytes() / kPage}));
  EXPECT_EQ(CountBadInFile(file.get(), pipe.bytes(), kOld), 0);
}

TEST_F(Splice, TakesPagesThatAreGivenUpMeanwhile) {
  UniqueFd file = NewFile();
  Pipe pipe;
  Mapping memory(pipe.bytes(), node());
  Fill(memory.data(), memory.bytes(), kOld);
  pipe.Put(memory.data(), memory.bytes());
  ASSERT_EQ(madvise(memory.data(), memory.bytes() / 2, MADV_DONTNEED), 0);
  ASSERT_EQ(
      madvise(memory.page(memory.pages() / 2), memory.bytes() / 2, MADV_FREE),
      0);
  EXPECT_EQ(TakeAll(pipe, file.get(), pipe.bytes()),
            (Spliced{.by_reference = pipe.bytes() / kPage}));
  EXPECT_EQ(CountNonZero(memory.data(), memory.bytes() / 2), 0);
  EXPECT_EQ(CountBadInFile(file.get(), pipe.bytes(), kOld), 0);
}

TEST_F(Splice, TakesReadOnlyAndMlockedPages) {
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  ASSERT_EQ(mprotect(memory.data(), memory.bytes() / 4, PROT_READ), 0);
  ASSERT_EQ(mlock(memory.page(memory.pages() / 2), memory.bytes() / 2), 0)
      << std::strerror(errno);
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  ASSERT_EQ(mprotect(memory.data(), memory.bytes(), PROT_READ | PROT_WRITE), 0);
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(munlock(memory.data(), memory.bytes()), 0);
}

TEST_F(Splice, ReplacesWhatTheFileHeld) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  Store(file.get(), memory.data(), memory.bytes());
  Commit();
  const char* map = static_cast<const char*>(
      mmap(nullptr, memory.bytes(), PROT_READ, MAP_SHARED, file.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(CountBad(map, memory.bytes(), kOld), 0);
  Fill(memory.data(), memory.bytes(), kNew);
  Store(file.get(), memory.data(), memory.bytes());
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kNew), 0);
  EXPECT_EQ(CountBad(map, memory.bytes(), kNew), 0) << "the map is stale";
  munmap(const_cast<char*>(map), memory.bytes());
}

TEST_F(Splice, NoLeakOver1000Rounds) {
  constexpr size_t kBytes = 32 * kPage;
  Mapping memory(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  WarmUp();
  const kmemfs_info before = Info();
  const long free_before = FreePagesWithLists(node());
  Pipe pipe(32);
  for (int round = 0; round < 1000; ++round) {
    UniqueFd file = NewFile();
    pipe.Put(memory.data(), kBytes);
    // Some rounds give the source's pages up while they are in the pipe.
    if (round % 10 == 0) {
      ASSERT_EQ(madvise(memory.data(), kBytes, MADV_DONTNEED), 0);
      Fill(memory.data(), kBytes, kOld);
    }
    off_t offset = 0;
    ASSERT_EQ(pipe.Take(file.get(), &offset, kBytes),
              static_cast<ssize_t>(kBytes));
    if (round % 2 == 0) Fill(memory.data(), kBytes / 2, kOld);
    if (round % 50 == 0) Commit();
    ASSERT_EQ(unlink(Path("file").c_str()), 0);
    if (round % 50 == 49) Commit();
  }
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  EXPECT_LE(PagesLost(free_before), kNoise);
  EXPECT_EQ(Info().file_pages, before.file_pages);
}

}  // namespace
}  // namespace daxsnap::vmtest
