// SPDX-License-Identifier: Apache-2.0
// What moves, merges and ages memory in the background, and who watches writes.
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/vm/mm_matrix/fault_monitor.h"
#include "tests/vm/mm_matrix/memory_group.h"
#include "tests/vm/mm_matrix/support.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 101, kNew = 102;
constexpr size_t kBytes = 4 * kMiB;

// A kernel setting for the time of a test.
class Setting {
 public:
  Setting(std::string path, const std::string& value, std::string back)
      : path_(std::move(path)), back_(std::move(back)) {
    EXPECT_TRUE(WriteFile(path_, value))
        << path_ << ": " << std::strerror(errno);
  }
  Setting(Setting&&) = delete;
  ~Setting() { EXPECT_TRUE(WriteFile(path_, back_)) << path_; }

 private:
  std::string path_, back_;
};

// Memory that is captured, memory that has it installed, and memory that is
// neither.
class Background : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    file_ = NewFile();
    self_ = SelfPidFd();
  }
  // In the process that has the memory.
  void Prepare(int other_node, Mapping::Pages pages = Mapping::Pages::kSmall) {
    self_ = SelfPidFd();
    source_ = std::make_unique<Mapping>(kBytes, node(), pages);
    reader_ = std::make_unique<Mapping>(kBytes, node(), pages);
    other_ = std::make_unique<Mapping>(kBytes, other_node, pages);
    Fill(source(), kBytes, kOld);
    Fill(other(), kBytes, kOld);
    const auto c = Capture(file(), self(), source(), kBytes);
    EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
    EXPECT_EQ(Install(file(), reader(), kBytes), kBytes / kPage);
    frames_ = PageFrames(getpid(), reader(), kBytes);
    other_frames_ = PageFrames(getpid(), other(), kBytes);
  }
  void TearDown() override {
    source_.reset();
    reader_.reset();
    other_.reset();
    file_.reset();
    PoolTest::TearDown();
  }

  char* source() const { return source_->data(); }
  char* reader() const { return reader_->data(); }
  char* other() const { return other_->data(); }
  void LetTheKernelDecide() {
    for (Mapping* memory : {source_.get(), reader_.get(), other_.get()}) {
      memory->Anywhere();
    }
  }
  int file() const { return file_.get(); }
  int self() const { return self_.get(); }
  void DeleteFile() {
    file_.reset();
    Delete();
  }
  bool OtherMoved() {
    return PageFrames(getpid(), other(), kBytes) != other_frames_;
  }
  void ExpectContent() {
    EXPECT_EQ(CountBad(source(), kBytes, kOld), 0);
    EXPECT_EQ(CountBad(reader(), kBytes, kOld), 0);
    EXPECT_EQ(CountBad(other(), kBytes, kOld), 0);
    EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
  }
  void ExpectPoolPagesInPlace() {
    EXPECT_EQ(PageFrames(getpid(), source(), kBytes), frames_);
    EXPECT_EQ(PageFrames(getpid(), reader(), kBytes), frames_);
  }

 private:
  UniqueFd file_, self_;
  std::unique_ptr<Mapping> source_, reader_, other_;
  std::vector<uint64_t> frames_, other_frames_;
};

TEST_F(Background, NumaBalancingLeavesPoolPages) {
  Prepare(node());
  LetTheKernelDecide();
  Setting balancing("/proc/sys/kernel/numa_balancing", "1", "0");
  const long faults = VmStat("numa_hint_faults");
  // The scanner goes by the processor time of who has the memory.
  EXPECT_TRUE(WaitFor(
      [&] {
        ExpectContent();
        return OtherMoved() && VmStat("numa_hint_faults") > faults;
      },
      300))
      << "nothing was balanced";
  ExpectPoolPagesInPlace();
  // What has hint entries now is captured all the same.
  UniqueFd second = NewFile("second");
  Capture(second.get(), self(), other(), kBytes);
  ExpectContent();
  EXPECT_EQ(CountBadInFile(second.get(), kBytes, kOld), 0);
  Fill(source(), kBytes, kNew);
  Fill(other(), kBytes, kNew);
  EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
  EXPECT_EQ(CountBadInFile(second.get(), kBytes, kOld), 0);
}

TEST_F(Background, DemotionLeavesPoolPagesAndWhatItMovesCanBeTaken) {
  Setting demotion("/sys/kernel/mm/numa/demotion_enabled", "1", "0");
  MemoryGroup group;
  Child child({{"prepare",
                [&] {
                  Prepare(0);
                  LetTheKernelDecide();
                  return 0L;
                }},
               {"check", [&] {
                  ExpectContent();
                  ExpectPoolPagesInPlace();
                  EXPECT_TRUE(OtherMoved());
                  UniqueFd second = NewFile("second");
                  const auto c = Capture(second.get(), self(), other(), kBytes);
                  EXPECT_GT(c.pages_by_reference, kBytes / kPage / 2);
                  Fill(other(), kBytes, kNew);
                  EXPECT_EQ(CountBadInFile(second.get(), kBytes, kOld), 0);
                  return static_cast<long>(HasFailure());
                }}});
  group.Add(child.pid());
  child.Do("prepare");
  const long demoted = VmStat("pgdemote_");
  // It says EAGAIN if it is less than asked for.
  group.Set("memory.reclaim", std::to_string(3 * kBytes));
  EXPECT_GT(VmStat("pgdemote_"), demoted) << "nothing was demoted";
  EXPECT_EQ(child.Do("check"), 0);
  EXPECT_TRUE(child.Finish());
}

TEST_F(Background, KhugepagedLeavesPoolPages) {
  const std::string thp = "/sys/kernel/mm/transparent_hugepage/";
  Setting always(thp + "enabled", "always", "madvise");
  Prepare(node(), Mapping::Pages::kHuge);
  // Small pages, so that there is something to collapse.
  madvise(other(), kBytes, MADV_DONTNEED);
  madvise(other(), kBytes, MADV_NOHUGEPAGE);
  Fill(other(), kBytes, kOld);
  madvise(other(), kBytes, MADV_HUGEPAGE);
  const auto small = PageFrames(getpid(), other(), kBytes);
  Setting pages(thp + "khugepaged/pages_to_scan", "16384", "4096");
  Setting pause(thp + "khugepaged/scan_sleep_millisecs", "20", "10000");
  const std::string scans = thp + "khugepaged/full_scans";
  const long before = std::atol(ReadFile(scans).c_str());
  EXPECT_TRUE(WaitFor([&] {
    return std::atol(ReadFile(scans).c_str()) >= before + 2 &&
           PageFrames(getpid(), other(), kBytes) != small;
  })) << "khugepaged collapsed nothing";
  ExpectPoolPagesInPlace();
  ExpectContent();
  // After the file is gone it may collapse them, and content stays.
  Fill(source(), kBytes, kNew);
  EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
  DeleteFile();
  const long deleted = std::atol(ReadFile(scans).c_str());
  EXPECT_TRUE(WaitFor(
      [&] { return std::atol(ReadFile(scans).c_str()) >= deleted + 2; }));
  EXPECT_EQ(CountBad(source(), kBytes, kNew), 0);
  EXPECT_EQ(CountBad(reader(), kBytes, kOld), 0);
}

TEST_F(Background, MultiGenLruGivesAndTakesPages) {
  Setting lru_gen("/sys/kernel/mm/lru_gen/enabled", "y", "n");
  Swap swap(64 * kMiB);
  Prepare(node());
  EXPECT_EQ(madvise(reader(), kBytes, MADV_PAGEOUT), 0);
  EXPECT_EQ(madvise(other(), kBytes / 2, MADV_PAGEOUT), 0);
  EXPECT_GT(SwappedPages(getpid(), other(), kBytes), kBytes / kPage / 4);
  EXPECT_EQ(SwappedPages(getpid(), reader(), kBytes), 0u);
  ExpectPoolPagesInPlace();
  ExpectContent();
  // Active, inactive and just swapped in: all is taken, or copied.
  UniqueFd second = NewFile("second");
  const auto c = Capture(second.get(), self(), other(), kBytes);
  EXPECT_GE(c.pages_by_reference, kBytes / kPage / 2);
  // Reused pages go back to a generation.
  madvise(reader(), kBytes, MADV_DONTNEED);
  DeleteFile();
  const auto frames = PageFrames(getpid(), source(), kBytes);
  Fill(source(), kBytes, kNew);
  EXPECT_EQ(PageFrames(getpid(), source(), kBytes), frames);
  EXPECT_EQ(madvise(source(), kBytes, MADV_PAGEOUT), 0);
  EXPECT_GT(SwappedPages(getpid(), source(), kBytes), kBytes / kPage / 2)
      << "reused pages do not swap";
  EXPECT_EQ(CountBad(source(), kBytes, kNew), 0);
  Fill(other(), kBytes, kNew);
  EXPECT_EQ(CountBadInFile(second.get(), kBytes, kOld), 0);
}

// Who watches writes with userfaultfd sees those after a capture, and no
// others.
TEST_F(Background, UserfaultfdWriteProtectionSurvivesACapture) {
  Mapping memory(kBytes / 4, node());
  Fill(memory.data(), memory.bytes(), kOld);
  FaultMonitor monitor(memory.data(), memory.bytes(), UFFDIO_REGISTER_MODE_WP,
                       UFFD_FEATURE_PAGEFAULT_FLAG_WP,
                       [](int uffd, const uffdio_range& page) {
                         uffdio_writeprotect allow = {};
                         allow.range = page;
                         ioctl(uffd, UFFDIO_WRITEPROTECT, &allow);
                       });
  uffdio_writeprotect protect = {};
  protect.range = monitor.range();
  protect.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  ASSERT_EQ(ioctl(monitor.uffd(), UFFDIO_WRITEPROTECT, &protect), 0);

  const auto c = Capture(file(), self(), memory.data(), memory.bytes());
  EXPECT_EQ(c.pages_by_reference + c.pages_copied, memory.pages());
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kOld), 0);
  EXPECT_EQ(monitor.faults(), 0u) << "a capture is no write";
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(monitor.faults(), memory.pages());
  Fill(memory.data(), memory.bytes(), kNew);
  EXPECT_EQ(monitor.faults(), memory.pages()) << "a page is watched once";
  monitor.Stop();
  EXPECT_EQ(CountBad(memory.data(), memory.bytes(), kNew), 0);
  EXPECT_EQ(CountBadInFile(file(), memory.bytes(), kOld), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
