// SPDX-License-Identifier: Apache-2.0
// A page that no store has any more is its process's own again.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/vm/mm_matrix/memory_group.h"
#include "tests/vm/mm_matrix/support.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 71, kNew = 72;
constexpr size_t kBytes = 4 * kMiB;

class Reuse : public PoolTest {};

TEST_F(Reuse, WriteAfterTheLastDeleteCopiesNothingAndMemoryIsOrdinaryAgain) {
  Mapping memory(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  const auto frames = PageFrames(getpid(), memory.data(), kBytes);
  UniqueFd self = SelfPidFd();
  for (const char* name : {"one", "two"}) {
    UniqueFd file = NewFile(name);
    Capture(file.get(), self.get(), memory.data(), kBytes);
  }
  Commit();
  Delete("one");
  const size_t half = kBytes / 2;
  Fill(memory.data(), half, kNew);
  const auto written = PageFrames(getpid(), memory.data(), kBytes);
  for (size_t i = 0; i < half / kPage; ++i) {
    ASSERT_NE(written[i], frames[i]) << "page " << i << " is stored still";
  }
  Delete("two");
  Fill(memory.data(), kBytes, kNew);
  EXPECT_EQ(PageFrames(getpid(), memory.data(), kBytes), written)
      << "nobody has the pages, and they were copied";
  EXPECT_EQ(CountBad(memory.data(), kBytes, kNew), 0);
  {
    Swap swap(64 * kMiB);
    char* reused = memory.data() + half;
    EXPECT_EQ(madvise(reused, half, MADV_PAGEOUT), 0);
    EXPECT_GT(SwappedPages(getpid(), reused, half), half / kPage / 2)
        << "pages that left the pool do not swap";
    EXPECT_EQ(CountBad(reused, half, kNew, half / kPage), 0);
  }
  UniqueFd again = NewFile("again");
  Fill(memory.data(), kBytes, kOld);
  const auto c = Capture(again.get(), self.get(), memory.data(), kBytes);
  EXPECT_EQ(c.pages_shared, 0u);
  EXPECT_EQ(CountBadInFile(again.get(), kBytes, kOld), 0);
}

// The pages are pool pages then, which a later capture shares. What of them was
// written back is what they had before.
TEST_F(Reuse, WhatAFailedCaptureGaveBackIsWrittenBackByTheNext) {
  Mapping memory(kBytes + kPage, node());
  UniqueFd self = SelfPidFd();
  ASSERT_EQ(munmap(memory.data() + kBytes, kPage), 0);
  Fill(memory.data(), kBytes, kOld);
  {
    UniqueFd file = NewFile("one");
    Capture(file.get(), self.get(), memory.data(), kBytes);
  }
  Commit();
  Settle();
  Delete("one");
  Fill(memory.data(), kBytes, kNew);

  UniqueFd file = NewFile("two");
  kmemfs_capture too_much = {};
  too_much.pidfd = self.get();
  too_much.addr = reinterpret_cast<uintptr_t>(memory.data());
  too_much.len = kBytes + kPage;
  ASSERT_EQ(ioctl(file.get(), KMEMFS_IOC_CAPTURE, &too_much), -1);
  ASSERT_EQ(errno, EFAULT);
  Commit();
  const auto before = Info().flushed_pages;
  Capture(file.get(), self.get(), memory.data(), kBytes);
  Commit();
  EXPECT_GE(Info().flushed_pages - before, kBytes / kPage);
  // Nor do checksums of what the pages held before count.
  kmemfs_verify_range all = {};
  all.len = kBytes;
  EXPECT_EQ(ioctl(file.get(), KMEMFS_IOC_VERIFY, &all), 0)
      << std::strerror(errno) << " at " << all.first_bad;
}

// Copies and pages from before a reboot are charged to who maps them, and stay
// so.
TEST_F(Reuse, PagesThatWereNobodysAreChargedOnceToTheirReaderAndWriter) {
  Mapping memory(kBytes, node());
  UniqueFd self = SelfPidFd();
  {
    Mapping off_node(kBytes, 0);
    Fill(off_node.data(), kBytes, kOld);
    UniqueFd file = NewFile();
    const auto c = Capture(file.get(), self.get(), off_node.data(), kBytes);
    EXPECT_EQ(c.pages_copied, kBytes / kPage);
  }
  MemoryGroup group;
  {
    Child reader({{"read",
                   [&] {
                     UniqueFd file(
                         open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
                     return static_cast<long>(
                         pread(file.get(), memory.data(), kBytes, 0));
                   }},
                  {"write", [&] {
                     Fill(memory.data(), kBytes, kNew);
                     return CountBad(memory.data(), kBytes, kNew);
                   }}});
    group.Add(reader.pid());
    EXPECT_EQ(reader.Do("read"), static_cast<long>(kBytes));
    const auto frames = PageFrames(reader.pid(), memory.data(), kBytes);
    const long before = group.Current();
    Delete();
    EXPECT_EQ(reader.Do("write"), 0);
    EXPECT_EQ(PageFrames(reader.pid(), memory.data(), kBytes), frames);
    EXPECT_NEAR(static_cast<double>(before), static_cast<double>(kBytes),
                static_cast<double>(kMiB));
    EXPECT_NEAR(static_cast<double>(group.Current()),
                static_cast<double>(kBytes), static_cast<double>(kMiB));
    EXPECT_TRUE(reader.Finish());
  }
  EXPECT_TRUE(
      WaitFor([&] { return group.Current() < static_cast<long>(kMiB); }));
}

// Of two processes that map it, the first one to write gets a copy.
TEST_F(Reuse, SharedPagesAreReusedByTheLastOne) {
  Mapping memory(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  UniqueFd self = SelfPidFd();
  {
    UniqueFd file = NewFile();
    Capture(file.get(), self.get(), memory.data(), kBytes);
  }
  Child other({{"write", [&] {
                  Fill(memory.data(), kBytes, kNew);
                  return CountBad(memory.data(), kBytes, kNew);
                }}});
  Delete();
  const auto frames = PageFrames(getpid(), memory.data(), kBytes);
  EXPECT_EQ(other.Do("write"), 0);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  Fill(memory.data(), kBytes, kNew);
  EXPECT_EQ(PageFrames(getpid(), memory.data(), kBytes), frames);
}

}  // namespace
}  // namespace daxsnap::vmtest
