// SPDX-License-Identifier: Apache-2.0
// The books: free memory, free space and counters agree, and nothing leaks.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 51, kNew = 52;

class Accounting : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    WarmUp();
  }
};

TEST_F(Accounting, DeleteGivesEveryPageBack) {
  const kmemfs_info before = Info();
  const long free_before = FreePagesWithLists(node());
  constexpr size_t kBytes = 16 * kMiB;
  {
    Mapping memory(kBytes, node()), reader(kBytes, node());
    Fill(memory.data(), kBytes, kOld);
    UniqueFd self = SelfPidFd();
    {
      UniqueFd file = NewFile();
      Capture(file.get(), self.get(), memory.data(), kBytes);
      Install(file.get(), reader.data(), kBytes);
      Commit();
      EXPECT_EQ(Info().file_pages - before.file_pages, kBytes / kPage);
    }
    Fill(reader.data(), kBytes / 2, kNew);
    Delete();
    EXPECT_EQ(Info().file_pages, before.file_pages);
  }
  EXPECT_LE(PagesLost(free_before), kNoise);
}

TEST_F(Accounting, NoLeakOver1000Rounds) {
  constexpr size_t kBytes = 32 * kPage;
  UniqueFd self = SelfPidFd();
  Mapping memory(kBytes, node()), reader(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  Fill(reader.data(), kBytes, kOld);
  const kmemfs_info before = Info();
  const long free_before = FreePagesWithLists(node());
  for (int round = 0; round < 1000; ++round) {
    UniqueFd file = NewFile();
    ASSERT_NO_FATAL_FAILURE(
        Capture(file.get(), self.get(), memory.data(), kBytes));
    ASSERT_EQ(madvise(reader.data(), kBytes, MADV_DONTNEED), 0);
    ASSERT_EQ(pread(file.get(), reader.data(), kBytes, 0),
              static_cast<ssize_t>(kBytes));
    // Some rounds modify, some commit what the next one deletes.
    if (round % 2 == 0) Fill(memory.data(), kBytes / 2, kOld);
    if (round % 50 == 0) Commit();
    ASSERT_EQ(unlink(Path("file").c_str()), 0);
    if (round % 50 == 49) Commit();
  }
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  EXPECT_EQ(CountBad(reader.data(), kBytes, kOld), 0);
  EXPECT_LE(PagesLost(free_before), kNoise);
  const kmemfs_info after = Info();
  EXPECT_EQ(after.file_pages, before.file_pages);
  EXPECT_LE(after.meta_pages - after.sums_pages,
            before.meta_pages - before.sums_pages + 8);
}

TEST_F(Accounting, NoLeakWhenSourceAndReaderDie) {
  constexpr size_t kBytes = kMiB;
  Mapping memory(kBytes, node());
  const long free_before = FreePagesWithLists(node());
  for (int round = 0; round < 30; ++round) {
    UniqueFd file = NewFile();
    Child source({{"fill", [&] {
                     Fill(memory.data(), kBytes, kOld);
                     return 0L;
                   }}});
    source.Do("fill");
    Capture(file.get(), source.pidfd(), memory.data(), kBytes);
    Child reader({{"read", [&] {
                     return static_cast<long>(
                         pread(file.get(), memory.data(), kBytes, 0));
                   }}});
    ASSERT_EQ(reader.Do("read"), static_cast<long>(kBytes));
    ASSERT_EQ(unlink(Path("file").c_str()), 0);
  }
  EXPECT_LE(PagesLost(free_before), kNoise);
}

// Below 1 % of the process, over the whole of the capture and its commit.
TEST_F(Accounting, CaptureNeedsLittleExtraMemory) {
  constexpr size_t kBytes = 64 * kMiB;
  Mapping memory(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  UniqueFd self = SelfPidFd(), file = NewFile();
  Commit();
  const long pool_before = FreePagesWithLists(node());
  const long other_before = FreePagesWithLists(0);
  Capture(file.get(), self.get(), memory.data(), kBytes);
  const long pool_captured = FreePagesWithLists(node());
  Commit();
  const long pool_committed = FreePagesWithLists(node());
  const long other_after = FreePagesWithLists(0);
  const long limit = static_cast<long>(memory.pages() / 100);
  EXPECT_LT(pool_before - pool_captured, limit);
  EXPECT_LT(pool_before - pool_committed, limit);
  EXPECT_LT(other_before - other_after, 2 * limit)
      << "the books of a capture are too large";
}

TEST_F(Accounting, StatfsAddsUp) {
  struct statvfs before, after;
  ASSERT_EQ(statvfs(MountPoint().c_str(), &before), 0);
  constexpr size_t kBytes = 8 * kMiB;
  const kmemfs_info info = Info();
  EXPECT_EQ(before.f_bsize, kPage);
  EXPECT_LE(before.f_blocks, info.total_pages);
  EXPECT_LE(before.f_bfree, before.f_blocks);
  // Node free memory and free space are one.
  EXPECT_NEAR(static_cast<double>(before.f_bfree),
              static_cast<double>(FreePagesWithLists(node())), 2048);
  UniqueFd file = NewFile();
  std::vector<char> data(kBytes, 3);
  ASSERT_EQ(write(file.get(), data.data(), kBytes),
            static_cast<ssize_t>(kBytes));
  ASSERT_EQ(statvfs(MountPoint().c_str(), &after), 0);
  EXPECT_NEAR(static_cast<double>(before.f_bfree - after.f_bfree),
              static_cast<double>(kBytes / kPage), 2 * kNoise);
}

TEST_F(Accounting, CountersSayWhatHappened) {
  constexpr size_t kBytes = 2 * kMiB;
  Mapping memory(kBytes, node()), off_node(kBytes, 0), reader(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  Fill(off_node.data(), kBytes, kOld);
  UniqueFd self = SelfPidFd(), a = NewFile("a"), b = NewFile("b"),
           c = NewFile("c");
  Settle();
  const kmemfs_info before = Info();
  Capture(a.get(), self.get(), memory.data(), kBytes);
  Capture(b.get(), self.get(), memory.data(), kBytes);
  Capture(c.get(), self.get(), off_node.data(), kBytes);
  ASSERT_EQ(pread(a.get(), reader.data(), kBytes, 0),
            static_cast<ssize_t>(kBytes));
  ASSERT_EQ(pread(b.get(), reader.data(), kBytes, 0),
            static_cast<ssize_t>(kBytes));
  const kmemfs_info after = Info();
  EXPECT_EQ(after.captured_by_reference - before.captured_by_reference,
            kBytes / kPage);
  EXPECT_EQ(after.captured_shared - before.captured_shared, kBytes / kPage);
  EXPECT_EQ(after.captured_copied - before.captured_copied, kBytes / kPage);
  EXPECT_EQ(after.read_installed - before.read_installed, kBytes / kPage);
  EXPECT_EQ(after.read_copied - before.read_copied, kBytes / kPage);
  // The interval's commit may have been there.
  EXPECT_TRUE(after.dirty != 0 || after.generation > before.generation)
      << "a capture is no change";
  Commit();
  const kmemfs_info committed = Info();
  EXPECT_EQ(committed.dirty, 0u);
  EXPECT_GT(committed.generation, before.generation);
  EXPECT_GE(committed.flushed_pages - before.flushed_pages, 2 * kBytes / kPage);
}

}  // namespace
}  // namespace daxsnap::vmtest
