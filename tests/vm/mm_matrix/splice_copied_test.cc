// SPDX-License-Identifier: Apache-2.0
// Splice: what cannot be taken by reference is copied, counted, and right.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/fixed_buffers.h"
#include "tests/vm/mm_matrix/splice.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 71, kNew = 72;

class SpliceCopied : public SpliceTest {
 protected:
  // The memory in the file is what was Filled with kOld, whatever comes later.
  void ExpectOld(int file, Mapping& memory) {
    Fill(memory.data(), memory.bytes(), kNew);
    EXPECT_EQ(CountBadInFile(file, memory.bytes(), kOld), 0);
  }
};

TEST_F(SpliceCopied, PagesThatAreInAnotherPipeToo) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Pipe other, pipe;
  other.Put(memory.data(), 8 * kPage);
  // And in this pipe twice, by tee(2) from yet another.
  Pipe third, fourth;
  third.Put(memory.page(8), 8 * kPage);
  ASSERT_EQ(tee(third.out(), fourth.in(), 8 * kPage, 0),
            static_cast<ssize_t>(8 * kPage));
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages() - 16, .copied = 16}));
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, APageThatIsInThePipeTwice) {
  Mapping memory(2 * kPage, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Pipe pipe;
  for (int i = 0; i < 3; ++i) pipe.Put(memory.data(), kPage);
  pipe.Put(memory.page(1), kPage);
  UniqueFd file = NewFile();
  EXPECT_EQ(TakeAll(pipe, file.get(), 4 * kPage),
            (Spliced{.by_reference = 1, .copied = 3}));
  Fill(memory.data(), memory.bytes(), kNew);
  std::vector<char> content(4 * kPage);
  ASSERT_EQ(pread(file.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(CountBad(content.data() + i * kPage, kPage, kOld, 0), 0) << i;
  }
  EXPECT_EQ(CountBad(content.data() + 3 * kPage, kPage, kOld, 1), 0);
}

TEST_F(SpliceCopied, PagesPinnedByIoUring) {
  constexpr size_t kPinned = 16;
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  FixedBuffers buffers;
  ASSERT_EQ(buffers.Register(memory.data(), kPinned * kPage), 0);
  UniqueFd file = NewFile();
  EXPECT_EQ(
      Store(file.get(), memory.data(), memory.bytes()),
      (Spliced{.by_reference = memory.pages() - kPinned, .copied = kPinned}));
  ExpectOld(file.get(), memory);
  EXPECT_EQ(buffers.Unregister(), 0);
}

// What a disk writes into memory arrives there, and never in the file.
TEST_F(SpliceCopied, DirectIoIntoTheMemoryLosesNothing) {
  constexpr size_t kPart = 16 * kPage;
  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd disk(mkostemp(name, O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(disk.valid());
  unlink(name);
  Mapping source(2 * kPart, 0), memory(kPart, node());
  Fill(source.data(), kPart, kOld);
  Fill(source.data() + kPart, kPart, kNew);
  ASSERT_EQ(pwrite(disk.get(), source.data(), 2 * kPart, 0),
            static_cast<ssize_t>(2 * kPart));
  std::atomic<bool> stop = false;
  std::atomic<long> lost = 0, reads = 0;
  std::thread reader([&] {
    for (; !stop; ++reads) {
      const bool old = reads % 2 == 0;
      if (pread(disk.get(), memory.data(), kPart, old ? 0 : kPart) !=
              static_cast<ssize_t>(kPart) ||
          CountBad(memory.data(), kPart, old ? kOld : kNew) != 0) {
        ++lost;
      }
    }
  });
  UniqueFd file = NewFile();
  for (int round = 0; round < 60; ++round) {
    Store(file.get(), memory.data(), kPart);
    const uint64_t hash = HashFile(file.get(), kPart);
    if (HashFile(file.get(), kPart) != hash) {
      ADD_FAILURE() << "the file of round " << round << " changed";
      break;
    }
  }
  stop = true;
  reader.join();
  EXPECT_EQ(lost, 0) << "of " << reads << " reads";
  EXPECT_GT(reads, 2);
}

TEST_F(SpliceCopied, PartsOfPages) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  // From the middle of a page to the middle of another.
  EXPECT_EQ(Store(file.get(), memory.data() + 100, 3 * kPage),
            (Spliced{.copied = 4}));
  // Whole pages to an odd place.
  EXPECT_EQ(Store(file.get(), memory.page(8), 2 * kPage, 16 * kPage + 1),
            (Spliced{.copied = 2}));
  // Whole pages, then a part.
  EXPECT_EQ(Store(file.get(), memory.page(32), 4 * kPage + 5, 32 * kPage),
            (Spliced{.by_reference = 4, .copied = 1}));
  std::vector<char> expected(36 * kPage + 5, 0);
  std::memcpy(expected.data(), memory.data() + 100, 3 * kPage);
  std::memcpy(expected.data() + 16 * kPage + 1, memory.page(8), 2 * kPage);
  std::memcpy(expected.data() + 32 * kPage, memory.page(32), 4 * kPage + 5);
  Fill(memory.data(), memory.bytes(), kNew);
  std::vector<char> content(expected.size() + kPage);
  ASSERT_EQ(pread(file.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(expected.size()));
  content.resize(expected.size());
  EXPECT_EQ(content, expected);
}

// A page of which the pipe has only the rest is no whole page any more.
TEST_F(SpliceCopied, TheRestOfAPage) {
  Mapping memory(4 * kPage, node());
  Fill(memory.data(), memory.bytes(), kOld);
  Pipe pipe;
  pipe.Put(memory.data(), memory.bytes());
  UniqueFd file = NewFile();
  off_t offset = 0;
  EXPECT_EQ(pipe.Take(file.get(), &offset, 10), 10);
  EXPECT_EQ(pipe.Take(file.get(), &offset, kPage - 10),
            static_cast<ssize_t>(kPage - 10));
  const Spliced before = Counts();
  EXPECT_EQ(pipe.Take(file.get(), &offset, 4 * kPage),
            static_cast<ssize_t>(3 * kPage));
  EXPECT_EQ(Since(before), (Spliced{.by_reference = 3}));
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, PagesOfAnotherNode) {
  Mapping memory(kMiB, 0);
  ASSERT_NE(node(), 0);
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.copied = memory.pages()}));
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, HugePages) {
  Mapping memory(4 * kMiB, node(), Mapping::Pages::kHuge);
  Fill(memory.data(), memory.bytes(), kOld);
  ASSERT_GE(MemInfo("AnonHugePages"), static_cast<long>(memory.bytes() >> 11))
      << "the memory did not come as huge pages";
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.copied = memory.pages()}));
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, SharedMemory) {
  const size_t bytes = 64 * kPage;
  char* shared = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  Fill(shared, bytes, kOld);
  UniqueFd file = NewFile();
  EXPECT_EQ(Store(file.get(), shared, bytes),
            (Spliced{.copied = bytes / kPage}));
  Fill(shared, bytes, kNew);
  EXPECT_EQ(CountBadInFile(file.get(), bytes, kOld), 0);
  munmap(shared, bytes);
}

// From write(2), from a file by splice(2), and from a file of the pool itself.
TEST_F(SpliceCopied, WhatIsNoMemoryOfAProcess) {
  Mapping memory(64 * kPage, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd written = NewFile("written"), copy = NewFile("copy"),
           from_disk = NewFile("from_disk");
  Pipe pipe;
  ASSERT_EQ(write(pipe.in(), memory.data(), memory.bytes()),
            static_cast<ssize_t>(memory.bytes()));
  EXPECT_EQ(TakeAll(pipe, written.get(), memory.bytes()).by_reference, 0u);
  EXPECT_EQ(CountBadInFile(written.get(), memory.bytes(), kOld), 0);

  ASSERT_EQ(
      splice(written.get(), nullptr, pipe.in(), nullptr, memory.bytes(), 0),
      static_cast<ssize_t>(memory.bytes()));
  EXPECT_EQ(TakeAll(pipe, copy.get(), memory.bytes()).by_reference, 0u);
  EXPECT_EQ(CountBadInFile(copy.get(), memory.bytes(), kOld), 0);

  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd disk(mkostemp(name, O_CLOEXEC));
  ASSERT_TRUE(disk.valid());
  unlink(name);
  ASSERT_EQ(pwrite(disk.get(), memory.data(), memory.bytes(), 0),
            static_cast<ssize_t>(memory.bytes()));
  ASSERT_EQ(splice(disk.get(), nullptr, pipe.in(), nullptr, memory.bytes(), 0),
            static_cast<ssize_t>(memory.bytes()));
  EXPECT_EQ(TakeAll(pipe, from_disk.get(), memory.bytes()).by_reference, 0u);
  EXPECT_EQ(CountBadInFile(from_disk.get(), memory.bytes(), kOld), 0);
}

TEST_F(SpliceCopied, EverythingWithByrefOff) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile();
  ASSERT_EQ(
      mount(nullptr, MountPoint().c_str(), nullptr, MS_REMOUNT, "byref=off"), 0)
      << std::strerror(errno);
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.copied = memory.pages()}));
  ASSERT_EQ(
      mount(nullptr, MountPoint().c_str(), nullptr, MS_REMOUNT, "byref=on"), 0)
      << std::strerror(errno);
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, PagesThatWereSwappedOut) {
  Swap swap(64 * kMiB);
  Mapping memory(4 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  ASSERT_EQ(madvise(memory.data(), memory.bytes(), MADV_PAGEOUT), 0);
  ASSERT_GT(SwappedPages(getpid(), memory.data(), memory.bytes()),
            memory.pages() / 2)
      << "the memory did not go to swap";
  UniqueFd file = NewFile();
  const Spliced s = Store(file.get(), memory.data(), memory.bytes());
  EXPECT_EQ(s.by_reference + s.copied, memory.pages());
  // And pages that somebody tries to swap out while they are in the pipe.
  Fill(memory.data(), memory.bytes(), kOld);
  Pipe pipe;
  pipe.Put(memory.data(), pipe.bytes());
  madvise(memory.data(), pipe.bytes(), MADV_PAGEOUT);
  UniqueFd second = NewFile("second");
  TakeAll(pipe, second.get(), pipe.bytes());
  ExpectOld(file.get(), memory);
  EXPECT_EQ(CountBadInFile(second.get(), pipe.bytes(), kOld), 0);
}

TEST_F(SpliceCopied, PagesThatKsmMerged) {
  Mapping memory(kMiB, node());
  std::memset(memory.data(), 0x5a, memory.bytes());
  ASSERT_EQ(madvise(memory.data(), memory.bytes(), MADV_MERGEABLE), 0);
  const bool merged = MergeWithKsm();
  UniqueFd file = NewFile();
  const Spliced s = Store(file.get(), memory.data(), memory.bytes());
  UnmergeKsm();
  ASSERT_TRUE(merged) << "KSM merged nothing";
  EXPECT_GT(s.copied, 100u) << "pages of KSM were taken";
  std::memset(memory.data(), 0x11, memory.bytes());
  std::vector<char> content(memory.bytes());
  ASSERT_EQ(pread(file.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));
  EXPECT_EQ(content, std::vector<char>(memory.bytes(), 0x5a));
}

TEST_F(SpliceCopied, FullPoolTakesWhatNeedsNoSpace) {
  Mapping memory(kMiB, node()), off_node(32 * kMiB, 0);
  Fill(memory.data(), memory.bytes(), kOld);
  Fill(off_node.data(), off_node.bytes(), kOld);
  UniqueFd file = NewFile(), copies = NewFile("copies");
  // The file's table must be there before the pool is full.
  ASSERT_EQ(pwrite(file.get(), "x", 1, 0), 1);
  {
    UniqueFd filler = NewFile("filler");
    const std::vector<char> chunk(kMiB, 1);
    ssize_t n;
    while ((n = write(filler.get(), chunk.data(), chunk.size())) > 0) {
    }
    ASSERT_EQ(n, -1);
    ASSERT_EQ(errno, ENOSPC);
  }
  EXPECT_EQ(Store(file.get(), memory.data(), memory.bytes()),
            (Spliced{.by_reference = memory.pages()}));
  Pipe pipe;
  off_t offset = 0;
  ssize_t n = 0;
  for (size_t at = 0; at < off_node.bytes(); at += pipe.bytes()) {
    pipe.Put(off_node.data() + at, pipe.bytes());
    n = pipe.Take(copies.get(), &offset, pipe.bytes());
    if (n != static_cast<ssize_t>(pipe.bytes())) break;
  }
  if (n > 0) n = pipe.Take(copies.get(), &offset, pipe.bytes());
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, ENOSPC);
  struct stat stat;
  ASSERT_EQ(fstat(copies.get(), &stat), 0);
  EXPECT_EQ(stat.st_size, offset) << "more was stored than reported";
  EXPECT_EQ(CountBadInFile(copies.get(), static_cast<size_t>(offset), kOld), 0);
  Delete("filler");
  // What is left in the pipe was not lost.
  EXPECT_GT(pipe.Take(copies.get(), &offset, pipe.bytes()), 0);
  ExpectOld(file.get(), memory);
}

TEST_F(SpliceCopied, LimitsOfTheFileHold) {
  Mapping memory(16 * kPage, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd file = NewFile(),
           append(open(Path("file").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  Pipe pipe;
  pipe.Put(memory.data(), memory.bytes());
  off_t offset = 0;
  EXPECT_EQ(splice(pipe.out(), nullptr, append.get(), nullptr, kPage, 0), -1);
  EXPECT_EQ(errno, EINVAL) << "O_APPEND";
  Child limited({{"splice", [&] {
                    std::signal(SIGXFSZ, SIG_IGN);
                    const rlimit limit = {4 * kPage + 10, 4 * kPage + 10};
                    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return -2L;
                    return static_cast<long>(
                        pipe.Take(file.get(), &offset, memory.bytes()));
                  }}});
  EXPECT_EQ(limited.Do("splice"), static_cast<long>(4 * kPage + 10));
  struct stat stat;
  ASSERT_EQ(fstat(file.get(), &stat), 0);
  EXPECT_EQ(stat.st_size, static_cast<off_t>(4 * kPage + 10));
  // Beyond any file's end.
  offset = (off_t{1} << 62) - static_cast<off_t>(kPage);
  EXPECT_EQ(pipe.Take(file.get(), &offset, kPage), -1);
  EXPECT_EQ(errno, EFBIG);
}

}  // namespace
}  // namespace daxsnap::vmtest
