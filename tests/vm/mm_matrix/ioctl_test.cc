// SPDX-License-Identifier: Apache-2.0
// KMEMFS_IOC_CAPTURE with bad input: refused, with the right error, and with
// nothing changed.
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 61;
constexpr size_t kBytes = 64 * kPage;
constexpr unsigned kNobody = 65534;

class Ioctl : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    memory_ = std::make_unique<Mapping>(kBytes, node());
    Fill(memory_->data(), kBytes, kOld);
    file_ = NewFile();
    self_ = SelfPidFd();
    good_.pidfd = self_.get();
    good_.addr = reinterpret_cast<uintptr_t>(memory_->data());
    good_.len = kBytes;
  }
  void TearDown() override {
    if (memory_) {
      EXPECT_EQ(CountBad(memory_->data(), kBytes, kOld), 0);
    }
    memory_.reset();
    PoolTest::TearDown();
  }

  // Fails with one of the errors and leaves the file empty.
  void ExpectRefused(kmemfs_capture c, const std::set<int>& errors) {
    ExpectRefusedOn(file(), c, errors);
    struct stat stat;
    ASSERT_EQ(fstat(file(), &stat), 0);
    EXPECT_EQ(stat.st_size, 0) << "a refused capture changed the file";
    EXPECT_EQ(stat.st_blocks, 0);
  }
  static void ExpectRefusedOn(int fd, kmemfs_capture c,
                              const std::set<int>& errors) {
    errno = 0;
    EXPECT_EQ(ioctl(fd, KMEMFS_IOC_CAPTURE, &c), -1);
    EXPECT_TRUE(errors.count(errno)) << "errno " << std::strerror(errno);
  }
  int file() const { return file_.get(); }
  char* memory() const { return memory_->data(); }
  kmemfs_capture good() const { return good_; }

 private:
  std::unique_ptr<Mapping> memory_;
  UniqueFd file_, self_;
  kmemfs_capture good_ = {};
};

TEST_F(Ioctl, TheGoodRequestIsGood) {
  kmemfs_capture c = good();
  ASSERT_EQ(ioctl(file(), KMEMFS_IOC_CAPTURE, &c), 0) << std::strerror(errno);
  EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
  EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0);
}

TEST_F(Ioctl, UnalignedFieldsAreRefused) {
  kmemfs_capture c = good();
  c.addr += 1;
  ExpectRefused(c, {EINVAL});
  c = good();
  c.addr += 512;
  ExpectRefused(c, {EINVAL});
  c = good();
  c.len -= 1;
  ExpectRefused(c, {EINVAL});
  c = good();
  c.len = 1;
  ExpectRefused(c, {EINVAL});
  c = good();
  c.offset = 8;
  ExpectRefused(c, {EINVAL});
}

TEST_F(Ioctl, EmptyRangeIsRefused) {
  kmemfs_capture c = good();
  c.len = 0;
  ExpectRefused(c, {EINVAL});
}

TEST_F(Ioctl, OverflowsAreRefused) {
  kmemfs_capture c = good();
  c.addr = ~uint64_t{0} - kPage + 1;
  c.len = 2 * kPage;
  ExpectRefused(c, {EINVAL, EFAULT, ENOMEM});
  c = good();
  c.len = ~uint64_t{0} - kPage + 1;
  ExpectRefused(c, {EINVAL, EFAULT, ENOMEM, EFBIG});
  c = good();
  c.offset = ~uint64_t{0} - kPage + 1;
  ExpectRefused(c, {EINVAL, EFBIG, EOVERFLOW});
  c = good();
  c.offset = uint64_t{1} << 63;
  ExpectRefused(c, {EINVAL, EFBIG, EOVERFLOW});
  c = good();
  c.offset = (uint64_t{1} << 63) - kPage;
  ExpectRefused(c, {EINVAL, EFBIG, EOVERFLOW});
}

TEST_F(Ioctl, KernelAddressesAreRefused) {
  kmemfs_capture c = good();
  c.addr = 0xffff888000000000;
  ExpectRefused(c, {EINVAL, EFAULT, ENOMEM});
  c.addr = 0xffffffff81000000;
  ExpectRefused(c, {EINVAL, EFAULT, ENOMEM});
}

TEST_F(Ioctl, UnknownFlagsAreRefused) {
  for (unsigned bit = 0; bit < 32; ++bit) {
    kmemfs_capture c = good();
    c.flags = 1u << bit;
    ExpectRefused(c, {EINVAL});
  }
}

TEST_F(Ioctl, BadPidfdsAreRefused) {
  kmemfs_capture c = good();
  c.pidfd = -1;
  ExpectRefused(c, {EBADF});
  c.pidfd = 12345;
  ExpectRefused(c, {EBADF});
  c.pidfd = file();
  ExpectRefused(c, {EBADF, EINVAL});
}

TEST_F(Ioctl, DeadTasksAreRefused) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  UniqueFd pidfd = PidFd(child);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT),
            0);
  kmemfs_capture c = good();
  c.pidfd = pidfd.get();
  ExpectRefused(c, {ESRCH});  // a zombie
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  ExpectRefused(c, {ESRCH});  // gone
}

// Of a process that is killed because memory is short the kernel takes it
// before the process ends. What is gone must not look like memory never
// touched.
TEST_F(Ioctl, ReapedMemoryIsRefused) {
  Child victim({});
  ASSERT_EQ(ptrace(PTRACE_SEIZE, victim.pid(), nullptr, PTRACE_O_TRACEEXIT), 0)
      << std::strerror(errno);
  kill(victim.pid(), SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(victim.pid(), &status, 0), victim.pid());
  ASSERT_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
  EXPECT_EQ(syscall(SYS_process_mrelease, victim.pidfd(), 0U), 0)
      << std::strerror(errno);
  kmemfs_capture c = good();
  c.pidfd = victim.pidfd();
  ExpectRefused(c, {EFAULT});
  ptrace(PTRACE_CONT, victim.pid(), nullptr, nullptr);
}

TEST_F(Ioctl, KernelThreadsAreRefused) {
  UniqueFd kthreadd = PidFd(2);
  ASSERT_TRUE(kthreadd.valid());
  kmemfs_capture c = good();
  c.pidfd = kthreadd.get();
  ExpectRefused(c, {EINVAL, ESRCH, EPERM});
}

TEST_F(Ioctl, ReadOnlyDescriptorsAreRefused) {
  UniqueFd reader(open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(reader.valid());
  ExpectRefusedOn(reader.get(), good(), {EBADF, EPERM});
  UniqueFd path(open(Path("file").c_str(), O_PATH | O_CLOEXEC));
  ExpectRefusedOn(path.get(), good(), {EBADF});
}

// It would write where the caller says, and so over what is there.
TEST_F(Ioctl, DescriptorsForAppendingAreRefused) {
  UniqueFd append(open(Path("file").c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
  ASSERT_TRUE(append.valid());
  ASSERT_EQ(write(append.get(), "kept", 4), 4);
  ExpectRefusedOn(append.get(), good(), {EBADF});
  char bytes[5] = {};
  EXPECT_EQ(pread(file(), bytes, sizeof(bytes), 0), 4);
  EXPECT_STREQ(bytes, "kept");
}

TEST_F(Ioctl, WhoWatchesTheFileIsTold) {
  UniqueFd watch(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(inotify_add_watch(watch.get(), Path("file").c_str(), IN_MODIFY), 0);
  kmemfs_capture c = good();
  ASSERT_EQ(ioctl(file(), KMEMFS_IOC_CAPTURE, &c), 0) << std::strerror(errno);
  inotify_event event = {};
  EXPECT_EQ(read(watch.get(), &event, sizeof(event)),
            static_cast<ssize_t>(sizeof(event)))
      << std::strerror(errno);
  EXPECT_EQ(event.mask, static_cast<uint32_t>(IN_MODIFY));
}

TEST_F(Ioctl, WithOSyncItIsDurable) {
  UniqueFd sync(open(Path("file").c_str(), O_RDWR | O_SYNC | O_CLOEXEC));
  ASSERT_TRUE(sync.valid());
  Settle();
  const uint64_t generation = Info().generation;
  kmemfs_capture c = good();
  ASSERT_EQ(ioctl(sync.get(), KMEMFS_IOC_CAPTURE, &c), 0)
      << std::strerror(errno);
  EXPECT_GT(Info().generation, generation);
  EXPECT_EQ(Info().dirty, 0U);
}

TEST_F(Ioctl, DirectoriesAreRefused) {
  UniqueFd dir(open(MountPoint().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ExpectRefusedOn(dir.get(), good(), {EISDIR, EBADF, EINVAL, ENOTTY});
}

TEST_F(Ioctl, OtherFilesystemsDoNotKnowIt) {
  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd other(mkstemp(name));
  unlink(name);
  ExpectRefusedOn(other.get(), good(), {ENOTTY});
}

TEST_F(Ioctl, UnknownCommandsAreRefused) {
  char argument[256] = {};
  EXPECT_EQ(ioctl(file(), _IOWR(0xdb, 0x7f, char[64]), argument), -1);
  EXPECT_EQ(errno, ENOTTY);
  // The right number with another size is another command.
  EXPECT_EQ(ioctl(file(), _IOWR(0xdb, 0x40, char[128]), argument), -1);
  EXPECT_EQ(errno, ENOTTY);
}

TEST_F(Ioctl, BadArgumentPointersFault) {
  for (const uintptr_t address :
       {uintptr_t{0}, uintptr_t{1}, uintptr_t{0xffff888000000000}}) {
    EXPECT_EQ(ioctl(file(), KMEMFS_IOC_CAPTURE, address), -1);
    EXPECT_EQ(errno, EFAULT) << std::hex << address;
    EXPECT_EQ(ioctl(file(), KMEMFS_IOC_INFO, address), -1);
    EXPECT_EQ(errno, EFAULT) << std::hex << address;
  }
}

TEST_F(Ioctl, UnmappedMemoryIsHolesOrRefused) {
  Mapping gap(kBytes, node());
  Fill(gap.data(), kBytes, kOld);
  munmap(gap.page(8), 8 * kPage);
  kmemfs_capture c = good();
  c.addr = reinterpret_cast<uintptr_t>(gap.data());
  if (ioctl(file(), KMEMFS_IOC_CAPTURE, &c) == 0) {
    EXPECT_EQ(c.pages_hole, 8u);
    char page[kPage];
    ASSERT_EQ(pread(file(), page, kPage, 9 * kPage),
              static_cast<ssize_t>(kPage));
    EXPECT_EQ(CountNonZero(page, kPage), 0);
  } else {
    EXPECT_TRUE(errno == EFAULT || errno == ENOMEM) << std::strerror(errno);
    EXPECT_LE(c.pages_by_reference, 8u) << "more than the prefix";
  }
  EXPECT_EQ(CountBad(gap.data(), 8 * kPage, kOld), 0);
}

// Runs `capture` in a child without root's rights; its errno, 0 for success.
long CaptureAs(unsigned uid, bool checkpoint_capability, int fd,
               kmemfs_capture c, bool of_itself) {
  Child child(
      {{"capture", [&] {
          prctl(PR_SET_KEEPCAPS, 1);
          if (setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0) {
            return -1L;
          }
          __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
          __user_cap_data_struct data[2] = {};
          if (checkpoint_capability) {
            data[1].effective = data[1].permitted =
                1u << (CAP_CHECKPOINT_RESTORE - 32);
          }
          if (syscall(SYS_capset, &header, data) != 0) return -2L;
          UniqueFd self = SelfPidFd();
          if (of_itself) c.pidfd = self.get();
          return ioctl(fd, KMEMFS_IOC_CAPTURE, &c) == 0
                     ? 0L
                     : static_cast<long>(errno);
        }}});
  return child.Do("capture");
}

TEST_F(Ioctl, NeedsTheCheckpointCapability) {
  EXPECT_EQ(CaptureAs(kNobody, false, file(), good(), true), EPERM);
  EXPECT_EQ(CaptureAs(kNobody, true, file(), good(), true), 0);
}

TEST_F(Ioctl, NeedsPtraceAccessToTheTarget) {
  const long error = CaptureAs(kNobody, true, file(), good(), false);
  EXPECT_TRUE(error == EPERM || error == EACCES)
      << std::strerror(static_cast<int>(error));
  struct stat stat;
  ASSERT_EQ(fstat(file(), &stat), 0);
  EXPECT_EQ(stat.st_size, 0);
}

TEST_F(Ioctl, FullPoolGivesNoSpaceAndLeaksNothing) {
  const long free_before = FreePagesWithLists(node());
  const kmemfs_info before = Info();
  {
    UniqueFd filler = NewFile("filler");
    std::vector<char> chunk(kMiB, 1);
    ssize_t n;
    while ((n = write(filler.get(), chunk.data(), chunk.size())) > 0) {
    }
    ASSERT_EQ(n, -1);
    EXPECT_EQ(errno, ENOSPC);
  }
  Mapping off_node(32 * kMiB, 0);
  Fill(off_node.data(), off_node.bytes(), kOld);
  kmemfs_capture c = good();
  c.addr = reinterpret_cast<uintptr_t>(off_node.data());
  c.len = off_node.bytes();
  EXPECT_EQ(ioctl(file(), KMEMFS_IOC_CAPTURE, &c), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(CountBad(off_node.data(), off_node.bytes(), kOld), 0);
  // What needs no space still works, and so does giving space back.
  ASSERT_EQ(ftruncate(file(), 0), 0);
  c = good();
  EXPECT_EQ(ioctl(file(), KMEMFS_IOC_CAPTURE, &c), 0) << std::strerror(errno);
  EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
  ASSERT_EQ(ftruncate(file(), 0), 0);
  Delete("filler");
  EXPECT_EQ(Info().file_pages, before.file_pages);
  EXPECT_TRUE(WaitFor([&] {
    Commit();
    return FreePagesWithLists(node()) >= free_before - 64;
  })) << "pages lost: "
      << free_before - FreePagesWithLists(node());
}

TEST_F(Ioctl, InfoDescribesThePool) {
  const kmemfs_info info = Info();
  EXPECT_EQ(info.page_size, kPage);
  EXPECT_GT(info.total_pages, 0u);
  EXPECT_LE(info.free_pages, info.total_pages);
  EXPECT_EQ(strnlen(reinterpret_cast<const char*>(info.label),
                    sizeof(info.label)) < sizeof(info.label),
            true);
  const __u8 none[16] = {};
  EXPECT_NE(std::memcmp(info.uuid, none, sizeof(none)), 0);
  EXPECT_EQ(info.flags, 0u);
  for (const __u32 word : info.reserved) EXPECT_EQ(word, 0u);
}

}  // namespace
}  // namespace daxsnap::vmtest
