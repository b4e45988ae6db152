// SPDX-License-Identifier: Apache-2.0
// read(2) keeps its meaning to the byte, whatever is mapped instead of copied.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/vm/mm_matrix/fault_monitor.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr size_t kPages = 64;
constexpr size_t kBytes = kPages * kPage;

class Read : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    file_ = NewFile();
    Mapping memory(kBytes, node());
    for (size_t i = 0; i < kBytes / sizeof(uint32_t); ++i) {
      reinterpret_cast<uint32_t*>(memory.data())[i] =
          static_cast<uint32_t>(i) * 2654435761u + 1;
    }
    reference_.assign(memory.data(), memory.data() + kBytes);
    UniqueFd self = SelfPidFd();
    Capture(file_.get(), self.get(), memory.data(), kBytes);
    fresh_ = std::make_unique<Mapping>(kBytes, node());
  }

  int file() const { return file_.get(); }
  // Untouched, writable, anonymous, page aligned; kBytes of it.
  char* fresh() const { return fresh_->data(); }
  bool Same(const char* data, size_t at, size_t bytes) const {
    return std::memcmp(data, reference_.data() + at, bytes) == 0;
  }
  const std::vector<char>& reference() const { return reference_; }

 private:
  UniqueFd file_;
  std::vector<char> reference_;
  std::unique_ptr<Mapping> fresh_;
};

TEST_F(Read, WholeAlignedIsInstalled) {
  EXPECT_EQ(PoolTest::Install(file(), fresh(), kBytes), kPages);
  EXPECT_TRUE(Same(fresh(), 0, kBytes));
}

TEST_F(Read, OverPresentPagesCopies) {
  std::memset(fresh(), 1, kBytes);
  EXPECT_EQ(PoolTest::Install(file(), fresh(), kBytes), 0u);
  EXPECT_TRUE(Same(fresh(), 0, kBytes));
}

TEST_F(Read, OverInstalledPagesIsRight) {
  ASSERT_EQ(pread(file(), fresh(), kBytes, 0), static_cast<ssize_t>(kBytes));
  fresh()[5 * kPage] ^= 1;
  ASSERT_EQ(pread(file(), fresh(), kBytes - kPage, kPage),
            static_cast<ssize_t>(kBytes - kPage));
  EXPECT_TRUE(Same(fresh(), kPage, kBytes - kPage));
}

TEST_F(Read, MixOfPresentAndUntouchedPages) {
  for (size_t i = 0; i < kPages; i += 3) fresh()[i * kPage] = 1;
  EXPECT_EQ(PoolTest::Install(file(), fresh(), kBytes),
            kPages - (kPages + 2) / 3);
  EXPECT_TRUE(Same(fresh(), 0, kBytes));
}

TEST_F(Read, UnalignedDestination) {
  ASSERT_EQ(pread(file(), fresh() + 100, 20 * kPage, 0),
            static_cast<ssize_t>(20 * kPage));
  EXPECT_TRUE(Same(fresh() + 100, 0, 20 * kPage));
  EXPECT_EQ(fresh()[99], 0);
  EXPECT_EQ(fresh()[20 * kPage + 100], 0);
}

TEST_F(Read, UnalignedPosition) {
  ASSERT_EQ(pread(file(), fresh(), 20 * kPage, 123),
            static_cast<ssize_t>(20 * kPage));
  EXPECT_TRUE(Same(fresh(), 123, 20 * kPage));
}

TEST_F(Read, OddLengthLeavesTheRestAlone) {
  ASSERT_EQ(pread(file(), fresh(), 20 * kPage + 77, kPage),
            static_cast<ssize_t>(20 * kPage + 77));
  EXPECT_TRUE(Same(fresh(), kPage, 20 * kPage + 77));
  EXPECT_EQ(fresh()[20 * kPage + 77], 0);
}

TEST_F(Read, SegmentsOfPreadv) {
  const iovec segments[] = {{fresh(), 3 * kPage},
                            {fresh() + 8 * kPage, 0},
                            {fresh() + 10 * kPage, 2 * kPage + 5},
                            {fresh() + 20 * kPage + 5, kPage - 5},
                            {fresh() + 30 * kPage, 8 * kPage},
                            {fresh() + 50 * kPage, 1}};
  ASSERT_EQ(preadv(file(), segments, 6, 2 * kPage),
            static_cast<ssize_t>(14 * kPage + 1));
  EXPECT_TRUE(Same(fresh(), 2 * kPage, 3 * kPage));
  EXPECT_EQ(fresh()[3 * kPage], 0);
  EXPECT_TRUE(Same(fresh() + 10 * kPage, 5 * kPage, 2 * kPage + 5));
  EXPECT_TRUE(Same(fresh() + 20 * kPage + 5, 7 * kPage + 5, kPage - 5));
  EXPECT_TRUE(Same(fresh() + 30 * kPage, 8 * kPage, 8 * kPage));
  EXPECT_TRUE(Same(fresh() + 50 * kPage, 16 * kPage, 1));
  EXPECT_EQ(fresh()[50 * kPage + 1], 0);
}

TEST_F(Read, EverySegmentOfPreadvIsInstalled) {
  std::vector<iovec> segments;
  for (size_t page = 0; page < kPages; page += 2)
    segments.push_back({fresh() + page * kPage, kPage});
  const kmemfs_info before = Info();
  ASSERT_EQ(
      preadv(file(), segments.data(), static_cast<int>(segments.size()), 0),
      static_cast<ssize_t>(kBytes / 2));
  const kmemfs_info after = Info();
  EXPECT_EQ(after.read_installed - before.read_installed, kPages / 2);
  EXPECT_EQ(after.read_copied, before.read_copied);
  for (size_t i = 0; i < kPages / 2; ++i)
    EXPECT_TRUE(Same(fresh() + 2 * i * kPage, i * kPage, kPage));
}

TEST_F(Read, MovesTheFilePosition) {
  ASSERT_EQ(read(file(), fresh(), 4 * kPage), static_cast<ssize_t>(4 * kPage));
  ASSERT_EQ(read(file(), fresh() + 8 * kPage, 4 * kPage),
            static_cast<ssize_t>(4 * kPage));
  EXPECT_TRUE(Same(fresh() + 8 * kPage, 4 * kPage, 4 * kPage));
  EXPECT_EQ(lseek(file(), 0, SEEK_CUR), static_cast<off_t>(8 * kPage));
}

TEST_F(Read, ShortAtAReadOnlyPage) {
  ASSERT_EQ(mprotect(fresh() + 10 * kPage, kPage, PROT_READ), 0);
  EXPECT_EQ(pread(file(), fresh(), 20 * kPage, 0),
            static_cast<ssize_t>(10 * kPage));
  EXPECT_TRUE(Same(fresh(), 0, 10 * kPage));
  EXPECT_EQ(pread(file(), fresh() + 10 * kPage, kPage, 0), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(CountNonZero(fresh() + 10 * kPage, kPage), 0);
}

TEST_F(Read, ShortAtAnUnmappedPage) {
  ASSERT_EQ(munmap(fresh() + 2 * kPage, 2 * kPage), 0);
  EXPECT_EQ(pread(file(), fresh(), 4 * kPage, 0),
            static_cast<ssize_t>(2 * kPage));
  EXPECT_EQ(pread(file(), fresh() + 2 * kPage, kPage, 0), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(Read, FaultsOnBadAddresses) {
  for (const uintptr_t address : {uintptr_t{0}, uintptr_t{0xffff888000000000},
                                  uintptr_t{0x7ffffffff000}}) {
    errno = 0;
    EXPECT_EQ(pread(file(), reinterpret_cast<void*>(address), kPage, 0), -1);
    EXPECT_EQ(errno, EFAULT) << std::hex << address;
  }
  ASSERT_EQ(mprotect(fresh(), kPage, PROT_NONE), 0);
  EXPECT_EQ(pread(file(), fresh(), kPage, 0), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(Read, EndsAtTheEndOfFile) {
  EXPECT_EQ(pread(file(), fresh(), kPage, kBytes), 0);
  EXPECT_EQ(pread(file(), fresh(), 2 * kPage, kBytes - kPage),
            static_cast<ssize_t>(kPage));
  EXPECT_TRUE(Same(fresh(), kBytes - kPage, kPage));
  ASSERT_EQ(ftruncate(file(), kBytes - 100), 0);
  EXPECT_EQ(pread(file(), fresh() + 4 * kPage, 4 * kPage, kBytes - 2 * kPage),
            static_cast<ssize_t>(2 * kPage - 100));
  EXPECT_TRUE(Same(fresh() + 4 * kPage, kBytes - 2 * kPage, 2 * kPage - 100));
  EXPECT_EQ(fresh()[6 * kPage - 100], 0) << "bytes after the end came along";
}

TEST_F(Read, NothingOfNothing) {
  EXPECT_EQ(pread(file(), fresh(), 0, 0), 0);
  EXPECT_EQ(pread(file(), fresh(), kPage, -1), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Read, IntoAHugePage) {
  Mapping huge(2 * kMiB, node(), Mapping::Pages::kHuge);
  huge.data()[0] = 1;
  ASSERT_EQ(pread(file(), huge.data(), kBytes, 0),
            static_cast<ssize_t>(kBytes));
  EXPECT_TRUE(Same(huge.data(), 0, kBytes));
}

TEST_F(Read, IntoSharedAnonymousMemoryStaysShared) {
  char* shared =
      static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  ASSERT_EQ(pread(file(), shared, kBytes, 0), static_cast<ssize_t>(kBytes));
  EXPECT_TRUE(Same(shared, 0, kBytes));
  Child writer({{"write", [&] {
                   shared[1] = 42;
                   return 0L;
                 }}});
  writer.Do("write");
  EXPECT_EQ(shared[1], 42);
  munmap(shared, kBytes);
}

TEST_F(Read, IntoMlockedMemory) {
  ASSERT_EQ(mlock(fresh(), kBytes), 0);
  ASSERT_EQ(pread(file(), fresh(), kBytes, 0), static_cast<ssize_t>(kBytes));
  EXPECT_TRUE(Same(fresh(), 0, kBytes));
}

// The monitor must see every fault: installing behind its back would break it.
TEST_F(Read, IntoUserfaultfdRangesAsksTheMonitor) {
  FaultMonitor monitor(fresh(), kBytes, UFFDIO_REGISTER_MODE_MISSING, 0,
                       [](int uffd, const uffdio_range& page) {
                         uffdio_zeropage zero = {};
                         zero.range = page;
                         ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
                       });
  EXPECT_EQ(pread(file(), fresh(), kBytes, 0), static_cast<ssize_t>(kBytes));
  monitor.Stop();
  EXPECT_EQ(monitor.faults(), kPages);
  EXPECT_TRUE(Same(fresh(), 0, kBytes));
}

TEST_F(Read, ByANestedThreadWhileMapsChange) {
  std::atomic<bool> stop = false;
  std::thread mapper([&] {
    while (!stop) {
      void* p = mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      std::memset(p, 1, 16 * kPage);
      munmap(p, 16 * kPage);
    }
  });
  for (int round = 0; round < 200; ++round) {
    if (pread(file(), fresh(), kBytes, 0) != static_cast<ssize_t>(kBytes) ||
        !Same(fresh(), 0, kBytes)) {
      ADD_FAILURE() << "round " << round;
      break;
    }
    madvise(fresh(), kBytes, MADV_DONTNEED);
  }
  stop = true;
  mapper.join();
}

TEST_F(Read, HolesAreZeroesAndStayUntouched) {
  ASSERT_EQ(fallocate(file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      8 * kPage, 8 * kPage),
            0);
  ASSERT_EQ(pread(file(), fresh(), kBytes, 0), static_cast<ssize_t>(kBytes));
  EXPECT_EQ(CountNonZero(fresh() + 8 * kPage, 8 * kPage), 0);
  EXPECT_TRUE(Same(fresh() + 16 * kPage, 16 * kPage, kBytes - 16 * kPage));
  EXPECT_TRUE(Same(fresh(), 0, 8 * kPage));
}

TEST_F(Read, OfVmsplicedMemoryKeepsItsContent) {
  Mapping source(16 * kPage, node());
  Fill(source.data(), source.bytes(), 5);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  UniqueFd out(pipe[0]), in(pipe[1]), taken = NewFile("spliced");
  ASSERT_GT(fcntl(in.get(), F_SETPIPE_SZ, 1 << 20), 0);
  iovec piece = {source.data(), source.bytes()};
  ASSERT_EQ(vmsplice(in.get(), &piece, 1, 0),
            static_cast<ssize_t>(source.bytes()));
  loff_t at = 0;
  size_t done = 0;
  while (done < source.bytes()) {
    const ssize_t n = splice(out.get(), nullptr, taken.get(), &at,
                             source.bytes() - done, SPLICE_F_MOVE);
    ASSERT_GT(n, 0) << std::strerror(errno);
    done += static_cast<size_t>(n);
  }
  EXPECT_EQ(at, static_cast<loff_t>(source.bytes()));
  Fill(source.data(), source.bytes(), 6);
  EXPECT_EQ(CountBadInFile(taken.get(), source.bytes(), 5), 0);
  EXPECT_EQ(CountBad(source.data(), source.bytes(), 6), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
