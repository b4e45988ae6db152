// SPDX-License-Identifier: Apache-2.0
// What others do to a process's memory: tracers, who migrates it, ksmd, and
// handlers of userfaultfd(2).
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <numeric>
#include <vector>

#include "tests/vm/mm_matrix/deeds.h"
#include "tests/vm/mm_matrix/fault_monitor.h"
#include "tests/vm/mm_matrix/newer_uapi.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

uint64_t Address(const Memory& m) {
  return reinterpret_cast<uintptr_t>(m.data);
}

// The memory's content as deeds write it.
std::vector<char> NewContent(size_t bytes) {
  std::vector<char> content(bytes);
  Fill(content.data(), bytes, kNewSeed);
  return content;
}

// Words where the two differ, by PTRACE_POKEDATA.
bool PokeDifferences(pid_t pid, char* at, const std::vector<char>& from,
                     const std::vector<char>& to) {
  bool poked = true;
  for (size_t i = 0; i < to.size() && poked; i += sizeof(long)) {
    long word;
    std::memcpy(&word, &to[i], sizeof(word));
    if (std::memcmp(&word, &from[i], sizeof(word)) != 0) {
      poked = ptrace(PTRACE_POKEDATA, pid, at + i, word) == 0;
    }
  }
  return poked;
}

void Poke(Memory& m) {
  const std::vector<char> old(m.data, m.data + m.bytes);
  std::vector<char> content = old;
  Fill(content.data(), content.size(), kNewSeed);
  ByAnother(m, [&](pid_t pid) {
    int status;
    return ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0 &&
           ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) == 0 &&
           waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status) &&
           PokeDifferences(pid, m.data, old, content) &&
           ptrace(PTRACE_DETACH, pid, nullptr, nullptr) == 0;
  });
}

void ReadByAnother(Memory& m) {
  ByAnother(m, [&](pid_t pid) {
    std::vector<char> copy(m.bytes);
    const iovec local = {copy.data(), m.bytes}, remote = {m.data, m.bytes};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) ==
               static_cast<ssize_t>(m.bytes) &&
           CountBad(copy.data(), m.bytes, kOldSeed) == 0;
  });
}

void WriteByAnother(Memory& m) {
  std::vector<char> content = NewContent(m.bytes);
  ByAnother(m, [&](pid_t pid) {
    const iovec local = {content.data(), m.bytes}, remote = {m.data, m.bytes};
    return process_vm_writev(pid, &local, 1, &remote, 1, 0) ==
           static_cast<ssize_t>(m.bytes);
  });
}

void ForceWriteByAnother(Memory& m) {
  const std::vector<char> content = NewContent(m.bytes);
  EXPECT_EQ(mprotect(m.data, m.bytes, PROT_READ), 0);
  ByAnother(m, [&](pid_t pid) {
    UniqueFd mem(
        open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDWR));
    return pwrite(mem.get(), content.data(), m.bytes,
                  static_cast<off_t>(Address(m))) ==
           static_cast<ssize_t>(m.bytes);
  });
  EXPECT_EQ(mprotect(m.data, m.bytes, PROT_READ | PROT_WRITE), 0);
}

void AdviseByAnother(Memory& m, int advice) {
  ByAnother(m, [&](pid_t pid) {
    UniqueFd pidfd = PidFd(pid);
    const iovec range = {m.data, m.bytes};
    return syscall(SYS_process_madvise, pidfd.get(), &range, 1UL, advice, 0) ==
           static_cast<long>(m.bytes);
  });
}

// To node 0. What is stored stays where it is, and that is no error.
void MovePages(Memory& m, pid_t pid, int flags) {
  std::vector<void*> pages;
  for (size_t i = 0; i < m.bytes; i += kPage) pages.push_back(m.data + i);
  std::vector<int> nodes(pages.size(), 0), status(pages.size(), -1);
  EXPECT_GE(syscall(SYS_move_pages, pid, pages.size(), pages.data(),
                    nodes.data(), status.data(), flags),
            0)
      << std::strerror(errno);
}

bool MigrateAll(const Memory& m, pid_t pid) {
  const unsigned long from = 1UL << m.node, to = 1;
  return syscall(SYS_migrate_pages, pid, 64UL, &from, &to) >= 0;
}

bool Scan() {
  const auto scans = [] {
    return std::atol(ReadFile("/sys/kernel/mm/ksm/full_scans").c_str());
  };
  const long before = scans();
  return StartKsm() && WaitFor([&] { return scans() >= before + 3; });
}

// Pages of the pool are merged with no page, and none with them, not even with
// those that hold the same.
void Ksm(Memory& m, const std::function<void()>& undo) {
  const size_t bytes = m.bytes;
  Mapping same(bytes, m.node);
  std::memcpy(same.data(), m.data, bytes);
  for (char* data : {m.data, same.data()}) {
    EXPECT_EQ(madvise(data, bytes, MADV_MERGEABLE), 0);
  }
  EXPECT_TRUE(Scan()) << "ksmd does not run";
  ExpectHolds(m, After::kOld);
  undo();
  EXPECT_TRUE(WriteFile("/sys/kernel/mm/ksm/run", "0"));
  EXPECT_EQ(CountBad(same.data(), bytes, kOldSeed), 0);
}

void MergeProcess(Memory& m) {
  EXPECT_EQ(prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0), 0) << std::strerror(errno);
  EXPECT_TRUE(Scan()) << "ksmd does not run";
  ExpectHolds(m, After::kOld);
  EXPECT_EQ(prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0), 0) << std::strerror(errno);
  EXPECT_TRUE(WriteFile("/sys/kernel/mm/ksm/run", "0"));
}

void ClearReferences(const char* what) {
  EXPECT_TRUE(WriteFile("/proc/self/clear_refs", what));
}

void OfflineSoftly(Memory& m) {
  // Pool pages cannot be moved: an error, and the page stays in use.
  EXPECT_TRUE(madvise(m.data, kPage, MADV_SOFT_OFFLINE) == 0 || errno == EIO ||
              errno == EBUSY)
      << std::strerror(errno);
}

FaultMonitor::Answer Nothing() {
  return [](int, const uffdio_range&) {};
}

bool WriteProtect(int uffd, const uffdio_range& range, bool protect) {
  uffdio_writeprotect argument = {};
  argument.range = range;
  argument.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  return ioctl(uffd, UFFDIO_WRITEPROTECT, &argument) == 0;
}

void WriteProtected(Memory& m) {
  FaultMonitor monitor(m.data, m.bytes, UFFDIO_REGISTER_MODE_WP,
                       UFFD_FEATURE_PAGEFAULT_FLAG_WP,
                       [](int uffd, const uffdio_range& page) {
                         WriteProtect(uffd, page, false);
                       });
  EXPECT_TRUE(WriteProtect(monitor.uffd(), monitor.range(), true));
  ExpectHolds(m, After::kOld);
  EXPECT_EQ(monitor.faults(), 0u);
  Fill(m.data, m.bytes, kNewSeed);
  EXPECT_EQ(monitor.faults(), m.bytes / kPage) << "writes nobody was told of";
}

void WriteProtectedAndFree(Memory& m) {
  FaultMonitor monitor(m.data, m.bytes, UFFDIO_REGISTER_MODE_WP,
                       UFFD_FEATURE_PAGEFAULT_FLAG_WP, Nothing());
  EXPECT_TRUE(WriteProtect(monitor.uffd(), monitor.range(), true));
  EXPECT_TRUE(WriteProtect(monitor.uffd(), monitor.range(), false));
  Fill(m.data, m.bytes, kNewSeed);
  EXPECT_EQ(monitor.faults(), 0u);
}

// As CRIU and databases track writes: PAGEMAP_SCAN protects, and then tells.
void Tracked(Memory& m) {
  FaultMonitor monitor(m.data, m.bytes, UFFDIO_REGISTER_MODE_WP,
                       kUffdFeatureWpUnpopulated | kUffdFeatureWpAsync,
                       Nothing());
  UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::vector<PageRegion> regions(m.bytes / kPage);
  const auto written = [&] {
    PmScanArg scan = {};
    scan.size = sizeof(scan);
    scan.flags = kPmScanWpMatching | kPmScanCheckWpAsync;
    scan.start = Address(m);
    scan.end = scan.start + m.bytes;
    scan.vec = reinterpret_cast<uintptr_t>(regions.data());
    scan.vec_len = regions.size();
    scan.category_mask = scan.return_mask = kPageIsWritten;
    const int n = ioctl(pagemap.get(), kPagemapScan, &scan);
    EXPECT_GE(n, 0) << "PAGEMAP_SCAN: " << std::strerror(errno);
    return std::accumulate(regions.begin(), regions.begin() + std::max(n, 0),
                           uint64_t{0}, [](uint64_t sum, const PageRegion& r) {
                             return sum + (r.end - r.start) / kPage;
                           });
  };
  EXPECT_EQ(written(), m.bytes / kPage);
  EXPECT_EQ(written(), 0u) << "protected, and nothing was written";
  Fill(m.data, m.bytes / 2, kNewSeed);
  EXPECT_EQ(written(), m.bytes / kPage / 2);
  Fill(m.data, m.bytes, kNewSeed);
  EXPECT_EQ(written(), m.bytes / kPage);
}

// Page by page to another place and back. A page that others share is not
// moved, which the kernel says (EBUSY).
void MoveByHandler(Memory& m) {
  Mapping other(m.bytes, m.node);
  FaultMonitor here(m.data, m.bytes, UFFDIO_REGISTER_MODE_MISSING,
                    kUffdFeatureMove, Nothing());
  FaultMonitor there(other.data(), m.bytes, UFFDIO_REGISTER_MODE_MISSING,
                     kUffdFeatureMove, Nothing());
  const auto move = [](int uffd, const char* to, const char* from) {
    UffdioMove argument = {};
    argument.dst = reinterpret_cast<uintptr_t>(to);
    argument.src = reinterpret_cast<uintptr_t>(from);
    argument.len = kPage;
    if (ioctl(uffd, kUffdioMove, &argument) == 0) return true;
    EXPECT_TRUE(errno == EBUSY || errno == EAGAIN)
        << "UFFDIO_MOVE: " << std::strerror(errno);
    return false;
  };
  for (size_t i = 0; i < m.bytes; i += kPage) {
    if (move(there.uffd(), other.data() + i, m.data + i)) {
      EXPECT_TRUE(WaitFor(
          [&] { return move(here.uffd(), m.data + i, other.data() + i); }));
    }
  }
}

void FillByHandler(Memory& m, bool present) {
  const std::vector<char> content = NewContent(m.bytes);
  FaultMonitor monitor(m.data, m.bytes, UFFDIO_REGISTER_MODE_MISSING, 0,
                       Nothing());
  uffdio_copy copy = {};
  copy.dst = Address(m);
  copy.src = reinterpret_cast<uintptr_t>(content.data());
  copy.len = m.bytes;
  if (present) {
    EXPECT_EQ(ioctl(monitor.uffd(), UFFDIO_COPY, &copy), -1);
    EXPECT_EQ(errno, EEXIST);
    uffdio_zeropage zero = {};
    zero.range = monitor.range();
    EXPECT_EQ(ioctl(monitor.uffd(), UFFDIO_ZEROPAGE, &zero), -1);
    EXPECT_EQ(errno, EEXIST);
    return;
  }
  EXPECT_EQ(madvise(m.data, m.bytes, MADV_DONTNEED), 0);
  EXPECT_EQ(ioctl(monitor.uffd(), UFFDIO_COPY, &copy), 0)
      << std::strerror(errno);
}

const Deed kDeeds[] = {
    {"a tracer pokes", After::kNew, Poke},
    {"process_vm_readv", After::kOld, ReadByAnother},
    {"process_vm_writev", After::kNew, WriteByAnother},
    {"/proc/PID/mem where it is read-only", After::kNew, ForceWriteByAnother},
    {"process_madvise cold", After::kOld,
     [](Memory& m) { AdviseByAnother(m, MADV_COLD); }},
    {"process_madvise pageout", After::kOld,
     [](Memory& m) { AdviseByAnother(m, MADV_PAGEOUT); }},
    {"move_pages", After::kOld,
     [](Memory& m) { MovePages(m, 0, MPOL_MF_MOVE); }},
    {"move_pages of all who have them, then writes", After::kNew,
     [](Memory& m) {
       MovePages(m, 0, MPOL_MF_MOVE_ALL);
       Fill(m.data, m.bytes, kNewSeed);
       MovePages(m, 0, MPOL_MF_MOVE_ALL);
     }},
    {"migrate_pages", After::kOld,
     [](Memory& m) { EXPECT_TRUE(MigrateAll(m, getpid())); }},
    {"migrate_pages by another", After::kOld,
     [](Memory& m) {
       ByAnother(m, [&](pid_t pid) { return MigrateAll(m, pid); });
     }},
    {"ksmd, madvise unmergeable", After::kOld,
     [](Memory& m) {
       Ksm(m,
           [&] { EXPECT_EQ(madvise(m.data, m.bytes, MADV_UNMERGEABLE), 0); });
     }},
    {"ksmd, then writes", After::kNew,
     [](Memory& m) { Ksm(m, [&] { Fill(m.data, m.bytes, kNewSeed); }); }},
    {"ksmd that takes all apart", After::kOld,
     [](Memory& m) { Ksm(m, UnmergeKsm); }},
    {"ksmd for the whole process", After::kOld, MergeProcess},
    {"clear_refs of references", After::kOld,
     [](Memory&) { ClearReferences("1"); }},
    {"clear_refs of soft-dirty, then writes", After::kNew,
     [](Memory& m) {
       ClearReferences("4");
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"soft offline", After::kOld, OfflineSoftly},
    {"userfaultfd write protection, then writes", After::kNew, WriteProtected},
    {"userfaultfd write protection that is lifted", After::kNew,
     WriteProtectedAndFree},
    {"userfaultfd asynchronous write protection", After::kNew, Tracked},
    {"UFFDIO_MOVE there and back", After::kOld, MoveByHandler},
    {"UFFDIO_COPY over it", After::kOld,
     [](Memory& m) { FillByHandler(m, true); }},
    {"UFFDIO_COPY where it was", After::kNew,
     [](Memory& m) { FillByHandler(m, false); }},
};

}  // namespace

std::span<const Deed> DeedsOfOthers() { return kDeeds; }

}  // namespace daxsnap::vmtest
