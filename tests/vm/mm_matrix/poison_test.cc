// SPDX-License-Identifier: Apache-2.0
// Memory failures in stored pages: who has the page gets an error, nobody else.
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/stuck_process.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 81, kNew = 82;
constexpr size_t kPages = 64, kBytes = kPages * kPage;
constexpr size_t kBad = 7;
// Bits of /proc/kpageflags (source: Documentation/admin-guide/mm/pagemap.rst).
constexpr int kBuddy = 10, kHwPoison = 19;

sigjmp_buf jump;
volatile sig_atomic_t told = 0;

// The si_code of the SIGBUS that reading the address means; 0 if there is none.
long SigbusAt(const char* address) {
  struct sigaction action = {}, old;
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    siglongjmp(jump, info->si_code);
  };
  sigaction(SIGBUS, &action, &old);
  const int code = sigsetjmp(jump, 1);
  if (code == 0) static_cast<void>(*static_cast<volatile const char*>(address));
  sigaction(SIGBUS, &old, nullptr);
  return code;
}

// From now on counts the warnings that the kernel sends ahead of an access.
void AskToBeTold() {
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (info->si_code == BUS_MCEERR_AO) told = told + 1;
  };
  sigaction(SIGBUS, &action, nullptr);
  prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
}

bool Fail(uint64_t frame) {
  return WriteFile("/sys/devices/system/memory/hard_offline_page",
                   std::to_string(frame * kPage));
}

bool PageFlag(uint64_t frame, int bit) {
  uint64_t flags = 0;
  UniqueFd fd(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(pread(fd.get(), &flags, sizeof(flags),
                  static_cast<off_t>(frame * sizeof(flags))),
            static_cast<ssize_t>(sizeof(flags)));
  return (flags >> bit & 1) != 0;
}

std::string KernelLog() {
  std::vector<char> log(1 << 20);
  const int n = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, log.data(),
                        static_cast<int>(log.size()));
  return std::string(log.data(), n > 0 ? static_cast<size_t>(n) : 0);
}

long CountBadButOne(const char* data, uint64_t seed) {
  return CountBad(data, kBad * kPage, seed) +
         CountBad(data + (kBad + 1) * kPage, kBytes - (kBad + 1) * kPage, seed,
                  kBad + 1);
}

class MemoryFailure : public PoolTest {
 protected:
  // Of the page's first bytes: what read(2) returns, or -errno.
  long ReadAt(int fd, size_t page, size_t bytes = kPage) {
    std::vector<char> buffer(bytes + 8);
    const ssize_t n =
        pread(fd, buffer.data() + 8, bytes, static_cast<off_t>(page * kPage));
    return n < 0 ? -errno : n;
  }
  void ExpectOnlyOneBadPage(int fd) {
    EXPECT_EQ(ReadAt(fd, kBad), -EIO);
    EXPECT_EQ(ReadAt(fd, kBad, 1), -EIO);
    EXPECT_EQ(ReadAt(fd, 0, kBytes), static_cast<long>(kBad * kPage));
    EXPECT_EQ(ReadAt(fd, kBad + 1, kBytes - (kBad + 1) * kPage),
              static_cast<long>(kBytes - (kBad + 1) * kPage));
  }
};

TEST_F(MemoryFailure, OfAStoredPageIsSeenByItsUsersOnly) {
  Mapping memory(kBytes, node()), other(kBytes, node());
  UniqueFd file = NewFile(), clone = NewFile("clone");
  const Child::Steps steps = {
      {"fill",
       [&] {
         Fill(memory.data(), kBytes, kOld);
         return static_cast<long>(mlock(memory.data(), kBytes));
       }},
      {"read",
       [&] {
         AskToBeTold();
         return static_cast<long>(pread(file.get(), memory.data(), kBytes, 0));
       }},
      {"sigbus", [&] { return SigbusAt(memory.page(kBad)); }},
      {"told", [&] { return static_cast<long>(told); }},
      {"rest", [&] { return CountBadButOne(memory.data(), kOld); }},
      {"fork",
       [&] {
         const pid_t pid = fork();
         if (pid == 0)
           _exit(SigbusAt(memory.page(kBad)) == BUS_MCEERR_AR ? 0 : 1);
         int status = -1;
         waitpid(pid, &status, 0);
         return static_cast<long>(status);
       }},
      {"mend", [&] {
         madvise(memory.page(kBad), kPage, MADV_DONTNEED);
         munlock(memory.data(), kBytes);
         madvise(memory.page(kBad), kPage, MADV_DONTNEED);
         Fill(memory.data(), kBytes, kNew);
         return CountBad(memory.data(), kBytes, kNew);
       }}};
  auto source = std::make_unique<Child>(steps);
  ASSERT_EQ(source->Do("fill"), 0);
  Capture(file.get(), source->pidfd(), memory.data(), kBytes);
  ASSERT_EQ(ioctl(clone.get(), FICLONE, file.get()), 0);
  auto reader = std::make_unique<Child>(steps);
  ASSERT_EQ(reader->Do("read"), static_cast<long>(kBytes));
  Commit();
  const uint64_t frame = PageFrames(source->pid(), memory.data(), kBytes)[kBad];
  ASSERT_EQ(PageFrames(reader->pid(), memory.data(), kBytes)[kBad], frame);
  const kmemfs_info before = Info();

  ASSERT_TRUE(Fail(frame)) << std::strerror(errno);

  // Those who map it.
  EXPECT_EQ(reader->Do("told"), 1) << "who asked for it is not told ahead";
  for (Child* child : {source.get(), reader.get()}) {
    EXPECT_EQ(child->Do("sigbus"), BUS_MCEERR_AR);
    EXPECT_EQ(child->Do("rest"), 0);
    EXPECT_EQ(child->Do("fork"), 0);
  }
  // Those who read it.
  ExpectOnlyOneBadPage(file.get());
  ExpectOnlyOneBadPage(clone.get());
  EXPECT_EQ(Install(file.get(), other.data(), kBad * kPage), kBad);
  errno = 0;
  EXPECT_EQ(pread(file.get(), other.page(kBad), kPage, kBad * kPage), -1);
  EXPECT_EQ(errno, EIO);
  char* map = static_cast<char*>(
      mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE, file.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_NE(SigbusAt(map + kBad * kPage), 0);
  EXPECT_EQ(CountBadButOne(map, kOld), 0);
  munmap(map, kBytes);
  // Those who ask.
  EXPECT_EQ(Info().damaged_pages - before.damaged_pages, 2u);
  for (int fd : {file.get(), clone.get()}) {
    EXPECT_EQ(fsync(fd), -1);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(fsync(fd), 0) << "said once is enough";
  }
  struct stat stat;
  ASSERT_EQ(fstat(clone.get(), &stat), 0);
  EXPECT_NE(KernelLog().find("inode " + std::to_string(stat.st_ino) +
                             " (clone) is damaged: page " +
                             std::to_string(kBad) + " of it is lost"),
            std::string::npos);

  // What one may do with it.
  UniqueFd second = NewFile("second"), third = NewFile("third");
  kmemfs_capture c = {};
  c.pidfd = source->pidfd();
  c.addr = reinterpret_cast<uintptr_t>(memory.data());
  c.len = kBytes;
  EXPECT_EQ(ioctl(second.get(), KMEMFS_IOC_CAPTURE, &c), -1);
  EXPECT_EQ(errno, EHWPOISON);
  Capture(second.get(), source->pidfd(), memory.page(kBad + 1),
          kBytes - (kBad + 1) * kPage);
  ASSERT_EQ(ioctl(third.get(), FICLONE, file.get()), 0);
  ExpectOnlyOneBadPage(third.get());
  Commit();
  EXPECT_EQ(pwrite(file.get(), "part", 4, kBad * kPage + 10), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(ftruncate(third.get(), kBad * kPage + 10), -1);
  EXPECT_EQ(errno, EIO);
  Fill(other.page(kBad), kPage, kNew, kBad);
  EXPECT_EQ(pwrite(file.get(), other.page(kBad), kPage, kBad * kPage),
            static_cast<ssize_t>(kPage))
      << "a file is mended by writing the page";
  EXPECT_EQ(ReadAt(file.get(), 0, kBytes), static_cast<long>(kBytes));
  EXPECT_EQ(fallocate(clone.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      kBad * kPage, kPage),
            0);
  EXPECT_EQ(ReadAt(clone.get(), 0, kBytes), static_cast<long>(kBytes));
  EXPECT_EQ(source->Do("mend"), 0);
  const auto again =
      Capture(third.get(), source->pidfd(), memory.data(), kBytes);
  EXPECT_EQ(again.pages_hole, 0u);
  EXPECT_EQ(CountBadInFile(third.get(), kBytes, kNew), 0);

  // Nobody gets the page again.
  EXPECT_TRUE(source->Finish());
  EXPECT_TRUE(reader->Finish());
  for (UniqueFd* fd : {&file, &clone, &second, &third}) fd->reset();
  for (const char* name : {"file", "clone", "second", "third"}) Delete(name);
  EXPECT_TRUE(PageFlag(frame, kHwPoison));
  EXPECT_FALSE(PageFlag(frame, kBuddy));
}

// Found by a scrubber, or by the program that stumbles on it.
TEST_F(MemoryFailure, WithoutAnybodyWhoMapsItAndInOnesOwnMemory) {
  UniqueFd self = SelfPidFd(), file = NewFile();
  Mapping memory(kBytes, node());
  {
    Mapping content(kBytes, 0);
    Fill(content.data(), kBytes, kOld);
    ASSERT_EQ(write(file.get(), content.data(), kBytes),
              static_cast<ssize_t>(kBytes));
  }
  ASSERT_EQ(Install(file.get(), memory.data(), kBytes), kPages);
  const uint64_t frame = PageFrames(getpid(), memory.data(), kBytes)[kBad];
  ASSERT_EQ(madvise(memory.data(), kBytes, MADV_DONTNEED), 0);
  ASSERT_TRUE(Fail(frame)) << std::strerror(errno);
  ExpectOnlyOneBadPage(file.get());
  errno = 0;
  EXPECT_FALSE(Fail(frame)) << "it is known already";
  ExpectOnlyOneBadPage(file.get());

  Child victim({{"fail", [&] {
                   Fill(memory.data(), kBytes, kNew);
                   UniqueFd of_me = SelfPidFd(), mine = NewFile("mine");
                   Capture(mine.get(), of_me.get(), memory.data(), kBytes);
                   struct sigaction action = {};
                   action.sa_flags = SA_SIGINFO;
                   action.sa_sigaction = [](int, siginfo_t* info, void*) {
                     told = info->si_code;
                   };
                   sigaction(SIGBUS, &action, nullptr);
                   if (madvise(memory.page(kBad), kPage, MADV_HWPOISON) != 0) {
                     return -static_cast<long>(errno);
                   }
                   ExpectOnlyOneBadPage(mine.get());
                   return static_cast<long>(told);
                 }}});
  EXPECT_EQ(victim.Do("fail"), BUS_MCEERR_AR);
}

// The kernel may have unmapped it.
TEST_F(MemoryFailure, IsNotWrittenBack) {
  UniqueFd self = SelfPidFd(), file = NewFile();
  Mapping memory(kBytes, node());
  Fill(memory.data(), kBytes, kOld);
  Commit();
  const auto before = Info().flushed_pages;
  Capture(file.get(), self.get(), memory.data(), kBytes);
  const uint64_t frame = PageFrames(getpid(), memory.data(), kBytes)[kBad];
  ASSERT_TRUE(Fail(frame)) << std::strerror(errno);
  Commit();
  EXPECT_EQ(Info().flushed_pages - before, kPages - 1);
  ExpectOnlyOneBadPage(file.get());
}

// The one whose mmap_lock is taken has the page too, and loses it when it goes
// on.
TEST_F(MemoryFailure, DoesNotWaitForAProcessThatIsStuck) {
  Mapping memory(kBytes, node());
  UniqueFd file = NewCapture(kBytes, kOld);
  const auto read_all = [&] {
    return static_cast<long>(pread(file.get(), memory.data(), kBytes, 0)) -
           static_cast<long>(kBytes);
  };
  const auto sigbus = [&] { return SigbusAt(memory.page(kBad)); };
  Child reader({{"read", read_all}, {"sigbus", sigbus}});
  ASSERT_EQ(reader.Do("read"), 0);
  const uint64_t frame = PageFrames(reader.pid(), memory.data(), kBytes)[kBad];
  Child witness(
      {{"fail", [&] { return Fail(frame) ? 0L : -static_cast<long>(errno); }}});
  StuckProcess stuck("/run", read_all, [&] {
    return WaitFor([&] { return sigbus() == BUS_MCEERR_AR; }) ? 0L : -1L;
  });
  std::atomic<bool> done = false;
  std::thread failing([&] {
    EXPECT_EQ(witness.Do("fail"), -EHWPOISON)
        << "success takes the page from the kernel, which may access it for "
           "the process that is stuck";
    done = true;
  });
  EXPECT_TRUE(WaitFor([&] { return done.load(); }, 30))
      << "a stranger's lock keeps a memory failure from being handled";
  if (done) {
    EXPECT_EQ(reader.Do("sigbus"), BUS_MCEERR_AR);
    ExpectOnlyOneBadPage(file.get());
  }
  EXPECT_EQ(stuck.Release(), 0);
  failing.join();
}

}  // namespace
}  // namespace daxsnap::vmtest
