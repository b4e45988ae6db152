// SPDX-License-Identifier: Apache-2.0
// What cannot be taken by reference is copied and counted: a capture is always
// complete.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/fixed_buffers.h"
#include "tests/vm/mm_matrix/support.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 31, kNew = 32;

class Copied : public PoolTest {};

constexpr char kMaxReferences[] = "/sys/module/pool_pages/parameters/max_refs";

// One page can have so many references only; what it lacks is made by copying.
TEST_F(Copied, PagesWithAsManyReferencesAsThereMayBe) {
  Mapping memory(kMiB, node()), reader(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), first = NewFile("first"),
           second = NewFile("second");
  Capture(first.get(), self.get(), memory.data(), memory.bytes());
  const std::string old = ReadFile(kMaxReferences);
  ASSERT_TRUE(WriteFile(kMaxReferences, "2"));
  const auto c =
      Capture(second.get(), self.get(), memory.data(), memory.bytes());
  const uint64_t installed = Install(first.get(), reader.data(), kMiB);
  EXPECT_TRUE(WriteFile(kMaxReferences, old));
  EXPECT_EQ(c.pages_copied, memory.pages());
  EXPECT_EQ(installed, 0u);
  EXPECT_EQ(CountBad(reader.data(), kMiB, kOld), 0);
  EXPECT_EQ(CountBadInFile(second.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(Install(first.get(), reader.data() + kMiB, kMiB), memory.pages());
}

TEST_F(Copied, PagesWithAsManyReferencesAsThereMayBeByFork) {
  Mapping memory(kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  Capture(file.get(), self.get(), memory.data(), memory.bytes());
  const auto frames = PageFrames(getpid(), memory.data(), memory.bytes());
  const Child::Steps steps = {
      {"bad", [&] { return CountBad(memory.data(), memory.bytes(), kOld); }}};
  const std::string old = ReadFile(kMaxReferences);
  ASSERT_TRUE(WriteFile(kMaxReferences, "3"));
  Child third(steps), fourth(steps);
  EXPECT_TRUE(WriteFile(kMaxReferences, old));
  EXPECT_EQ(third.Do("bad"), 0);
  EXPECT_EQ(fourth.Do("bad"), 0);
  EXPECT_EQ(PageFrames(third.pid(), memory.data(), memory.bytes()), frames);
  const auto others = PageFrames(fourth.pid(), memory.data(), memory.bytes());
  for (size_t i = 0; i < memory.pages(); ++i) {
    ASSERT_NE(others[i], frames[i]) << "page " << i << " has too many";
  }
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(fourth.Do("bad"), 0);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Copied, PagesInAPipe) {
  constexpr size_t kPinned = 8;
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), first = NewFile("first"),
           second = NewFile("second");
  {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    UniqueFd out(pipe[0]), in(pipe[1]);
    iovec piece = {memory.data(), kPinned * kPage};
    ASSERT_EQ(vmsplice(in.get(), &piece, 1, 0),
              static_cast<ssize_t>(kPinned * kPage));
    const auto c =
        Capture(first.get(), self.get(), memory.data(), memory.bytes());
    EXPECT_EQ(c.pages_copied, kPinned);
    EXPECT_EQ(c.pages_by_reference, memory.pages() - kPinned);
  }
  const auto c =
      Capture(second.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference, kPinned) << "free again, so taken";
  EXPECT_EQ(c.pages_shared, memory.pages() - kPinned);
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(first.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(CountBadInFile(second.get(), memory.bytes(), kOld), 0);
}

TEST_F(Copied, PagesPinnedByIoUring) {
  constexpr size_t kPinned = 16;
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  FixedBuffers buffers;
  ASSERT_EQ(buffers.Register(memory.data(), kPinned * kPage), 0);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_copied, kPinned);
  EXPECT_EQ(c.pages_by_reference, memory.pages() - kPinned);
  // The pins still reach the process's memory, not the snapshot's.
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(buffers.Unregister(), 0);
}

TEST_F(Copied, PagesPinnedAfterTheirCapture) {
  constexpr size_t kPinned = 16;
  Mapping memory(2 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), first = NewFile("first"),
           second = NewFile("second");
  Capture(first.get(), self.get(), memory.data(), memory.bytes());
  // A pin is a promise to write: it gives the process pages of its own.
  FixedBuffers buffers;
  ASSERT_EQ(buffers.Register(memory.data(), kPinned * kPage), 0);
  const auto c =
      Capture(second.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_copied, kPinned);
  EXPECT_EQ(c.pages_shared, memory.pages() - kPinned);
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(first.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(CountBadInFile(second.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(buffers.Unregister(), 0);
}

TEST_F(Copied, PagesOfAnotherNode) {
  Mapping memory(2 * kMiB, 0);
  ASSERT_NE(node(), 0);
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_copied, memory.pages());
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  Mapping reader(memory.bytes(), node());
  EXPECT_EQ(Install(file.get(), reader.data(), reader.bytes()), reader.pages())
      << "copied pages are pool pages all the same";
  EXPECT_EQ(CountBad(reader.data(), reader.bytes(), kOld), 0);
}

// A page that is copied is write-protected meanwhile. What its owner wrote
// right before is not clean memory, which the kernel may drop.
TEST_F(Copied, WritesMeanwhileAreNotTakenForCleanMemory) {
  constexpr size_t kRounds = 100;
  Mapping memory(32 * kPage, 0);
  Fill(memory.data(), memory.bytes(), kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  std::atomic<bool> stop = false;
  std::atomic<long> captures = 0;
  std::thread capturer([&] {
    for (; !stop; ++captures) {
      Capture(file.get(), self.get(), memory.data(), memory.bytes());
    }
  });
  long lost = 0;
  for (size_t round = 0; round < kRounds || captures < 3; ++round) {
    EXPECT_EQ(madvise(memory.data(), memory.bytes(), MADV_FREE), 0);
    Fill(memory.data(), memory.bytes(), kOld + round);
    // Without swap, only what is clean goes.
    madvise(memory.data(), memory.bytes(), MADV_PAGEOUT);
    lost += CountBad(memory.data(), memory.bytes(), kOld + round);
  }
  stop = true;
  capturer.join();
  EXPECT_EQ(lost, 0);
}

TEST_F(Copied, SharedMemory) {
  const size_t bytes = kMiB;
  char* shared = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  Fill(shared, bytes, kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = Capture(file.get(), self.get(), shared, bytes);
  EXPECT_EQ(c.pages_copied, bytes / kPage);
  Child writer({{"write", [&] {
                   Fill(shared, bytes, kNew);
                   return 0L;
                 }}});
  writer.Do("write");
  EXPECT_EQ(CountBad(shared, bytes, kNew), 0) << "shared memory came apart";
  EXPECT_EQ(CountBadInFile(file.get(), bytes, kOld), 0);
  munmap(shared, bytes);
}

TEST_F(Copied, SwappedPagesComeBackAndAreCounted) {
  Swap swap(128 * kMiB);
  Mapping memory(8 * kMiB, node());
  Fill(memory.data(), memory.bytes(), kOld);
  ASSERT_EQ(madvise(memory.data(), memory.bytes(), MADV_PAGEOUT), 0);
  ASSERT_GT(SwappedPages(getpid(), memory.data(), memory.bytes()),
            memory.pages() / 2)
      << "the memory did not go to swap";
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = Capture(file.get(), self.get(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_hole, 0u) << "swapped pages were lost";
  EXPECT_EQ(c.pages_copied + c.pages_by_reference, memory.pages());
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(CountBadInFile(file.get(), memory.bytes(), kOld), 0);
}

TEST_F(Copied, PagesThatKsmMerged) {
  Mapping memory(2 * kMiB, node());
  std::memset(memory.data(), 0x5a, memory.bytes());
  ASSERT_EQ(madvise(memory.data(), memory.bytes(), MADV_MERGEABLE), 0);
  const bool merged = MergeWithKsm();
  UniqueFd self = SelfPidFd(), file = NewFile();
  const auto c = Capture(file.get(), self.get(), memory.data(), memory.bytes());
  UnmergeKsm();
  ASSERT_TRUE(merged) << "KSM merged nothing";
  EXPECT_GT(c.pages_copied, 100u) << "pages of KSM were taken";
  std::vector<char> content(memory.bytes());
  std::memset(memory.data(), 0x11, memory.bytes());
  ASSERT_EQ(pread(file.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));
  EXPECT_EQ(content, std::vector<char>(memory.bytes(), 0x5a));
}

}  // namespace
}  // namespace daxsnap::vmtest
