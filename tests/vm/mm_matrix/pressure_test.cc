// SPDX-License-Identifier: Apache-2.0
// What the kernel does to memory by itself leaves pool pages where they are.
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/support.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 41, kNew = 42;
constexpr size_t kBytes = 8 * kMiB;

// A source, its capture, and a reader that has it installed.
class Pressure : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    source_ = std::make_unique<Mapping>(kBytes, node());
    reader_ = std::make_unique<Mapping>(kBytes, node());
    Fill(source_->data(), kBytes, kOld);
    file_ = NewFile();
    UniqueFd self = SelfPidFd();
    Capture(file_.get(), self.get(), source_->data(), kBytes);
    EXPECT_EQ(Install(file_.get(), reader_->data(), kBytes), kBytes / kPage);
    frames_ = PageFrames(getpid(), reader_->data(), kBytes);
  }
  void TearDown() override {
    source_.reset();
    reader_.reset();
    PoolTest::TearDown();
  }

  char* reader() const { return reader_->data(); }
  char* source() const { return source_->data(); }
  int file() const { return file_.get(); }
  void ExpectContent() {
    EXPECT_EQ(CountBad(reader(), kBytes, kOld), 0);
    EXPECT_EQ(CountBad(source(), kBytes, kOld), 0);
    EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
  }
  void ExpectNothingMoved() {
    EXPECT_EQ(PageFrames(getpid(), reader(), kBytes), frames_)
        << "pool pages were moved or taken away";
  }

 private:
  UniqueFd file_;
  std::unique_ptr<Mapping> source_, reader_;
  std::vector<uint64_t> frames_;
};

TEST_F(Pressure, CompactionLeavesPoolPages) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(WriteFile("/proc/sys/vm/compact_memory", "1"));
    ASSERT_TRUE(WriteFile("/proc/sys/vm/drop_caches", "3"));
    ExpectContent();
  }
  ExpectNothingMoved();
}

TEST_F(Pressure, PageoutLeavesPoolPages) {
  Swap swap(64 * kMiB);
  EXPECT_EQ(madvise(reader(), kBytes, MADV_PAGEOUT), 0);
  EXPECT_EQ(madvise(source(), kBytes, MADV_PAGEOUT), 0);
  EXPECT_EQ(SwappedPages(getpid(), reader(), kBytes), 0u);
  ExpectNothingMoved();
  ExpectContent();
}

// More memory on the node than there is: the rest swaps, pool pages stay.
TEST_F(Pressure, SwapPressureLeavesPoolPages) {
  Swap swap(256 * kMiB);
  // With what is on the lists of the CPUs: the hog gets that, too.
  const size_t free_bytes =
      static_cast<size_t>(FreePagesWithLists(node())) * kPage;
  const size_t hog_bytes = (free_bytes + 64 * kMiB) / kMiB / 2 * 2 * kMiB;
  Child hog({{"fill", [&] {
                WriteFile("/proc/self/oom_score_adj", "1000");
                Mapping memory(hog_bytes, node(), Mapping::Pages::kHuge);
                memory.Bind(node());
                for (size_t i = 0; i < memory.pages(); ++i) {
                  *reinterpret_cast<size_t*>(memory.page(i)) = i + 1;
                }
                long bad = 0;
                for (size_t i = 0; i < memory.pages(); i += 97) {
                  bad += *reinterpret_cast<size_t*>(memory.page(i)) != i + 1;
                }
                return bad;
              }}});
  std::atomic<bool> stop = false;
  std::atomic<long> bad = 0;
  std::thread checker([&] {
    while (!stop) bad += CountBad(reader(), kBytes, kOld);
  });
  const long swap_free = MemInfo("SwapFree");
  EXPECT_EQ(hog.Do("fill"), 0);
  EXPECT_LT(MemInfo("SwapFree"), swap_free) << "there was no pressure";
  EXPECT_TRUE(hog.Finish());
  stop = true;
  checker.join();
  EXPECT_EQ(bad, 0);
  ExpectNothingMoved();
  ExpectContent();
}

TEST_F(Pressure, KsmOnTheSameMapLeavesPoolPages) {
  ASSERT_EQ(madvise(reader(), kBytes, MADV_MERGEABLE), 0);
  ASSERT_EQ(madvise(source(), kBytes, MADV_MERGEABLE), 0);
  ASSERT_TRUE(StartKsm());
  const long scans =
      std::atol(ReadFile("/sys/kernel/mm/ksm/full_scans").c_str());
  const bool scanned = WaitFor([&] {
    return std::atol(ReadFile("/sys/kernel/mm/ksm/full_scans").c_str()) >=
           scans + 3;
  });
  ExpectContent();
  // Pages written since are ordinary ones again, which KSM may merge.
  Fill(reader(), kBytes / 2, kNew);
  EXPECT_EQ(madvise(reader(), kBytes, MADV_UNMERGEABLE), 0);
  EXPECT_EQ(CountBad(reader(), kBytes / 2, kNew), 0);
  EXPECT_EQ(
      CountBad(reader() + kBytes / 2, kBytes / 2, kOld, kBytes / 2 / kPage), 0);
  UnmergeKsm();
  EXPECT_TRUE(scanned) << "KSM did not run";
  EXPECT_EQ(CountBad(source(), kBytes, kOld), 0);
  EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
}

// Asking for another node may fail, and may copy, but never loses content nor
// takes the store's page away.
TEST_F(Pressure, MovingToAnotherNodeKeepsContent) {
  const unsigned long mask = 1;
  syscall(SYS_mbind, reader(), kBytes, MPOL_BIND, &mask, 64UL,
          static_cast<unsigned>(MPOL_MF_MOVE));
  ExpectContent();
  void* pages[] = {source(), source() + kPage};
  const int nodes[] = {0, 0};
  int status[] = {0, 0};
  syscall(SYS_move_pages, 0, 2UL, pages, nodes, status, MPOL_MF_MOVE);
  ExpectContent();
  Fill(reader(), kBytes, kNew);
  EXPECT_EQ(CountBad(reader(), kBytes, kNew), 0);
  EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
