// SPDX-License-Identifier: Apache-2.0
// What a process does to its mapping.
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/vm/mm_matrix/deeds.h"
#include "tests/vm/mm_matrix/support.h"
#include "tests/vm/mm_matrix/swap.h"

namespace daxsnap::vmtest {
namespace {

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
constexpr long kSysMseal = 462;

void Advise(const Memory& memory, int advice) {
  EXPECT_EQ(madvise(memory.data, memory.bytes, advice), 0)
      << std::strerror(errno);
}

std::function<void(Memory&)> Advised(int advice) {
  return [advice](Memory& memory) { Advise(memory, advice); };
}

void Protect(const Memory& memory, int protection) {
  EXPECT_EQ(mprotect(memory.data, memory.bytes, protection), 0)
      << std::strerror(errno);
}

// Somewhere else to put it.
char* Reserve(size_t bytes) {
  void* place =
      mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(place, MAP_FAILED);
  return static_cast<char*>(place);
}

void Move(Memory& memory, int flags) {
  char* place = Reserve(memory.bytes);
  EXPECT_EQ(mremap(memory.data, memory.bytes, memory.bytes,
                   MREMAP_MAYMOVE | MREMAP_FIXED | flags, place),
            place)
      << std::strerror(errno);
  memory.data = place;
}

void MoveAndLeaveTheOldMapping(Memory& memory) {
  const Memory left = memory;
  Move(memory, MREMAP_DONTUNMAP);
  ExpectHolds(left, After::kZeroes);
  Fill(left.data, left.bytes, kNewSeed);
  ExpectHolds(left, After::kNew);
  EXPECT_EQ(munmap(left.data, left.bytes), 0);
}

// A child that sees what `seen` says, writes it all, and is gone.
void Fork(Memory& memory, After seen) {
  const pid_t child = fork();
  ASSERT_GE(child, 0) << std::strerror(errno);
  if (child == 0) {
    if (seen != After::kNoMemory) {
      ExpectHolds(memory, seen);
      Fill(memory.data, memory.bytes, kNewSeed);
      ExpectHolds(memory, After::kNew);
    } else {
      EXPECT_EQ(msync(memory.data, memory.bytes, MS_ASYNC), -1);
    }
    std::fflush(nullptr);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "in the child";
}

void Seal(Memory& memory) {
  Protect(memory, PROT_READ);
  if (syscall(kSysMseal, memory.data, memory.bytes, 0UL) != 0) {
    ADD_FAILURE() << "mseal: " << std::strerror(errno);
    return;
  }
  EXPECT_EQ(mprotect(memory.data, memory.bytes, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(madvise(memory.data, memory.bytes, MADV_DONTNEED), -1);
  EXPECT_EQ(munmap(memory.data, memory.bytes), -1);
  ExpectHolds(memory, After::kOld);
}

void MapOver(Memory& memory, int descriptor) {
  const int flags = MAP_PRIVATE | MAP_FIXED |
                    (descriptor < 0 ? MAP_ANONYMOUS : MAP_NORESERVE);
  EXPECT_EQ(mmap(memory.data, memory.bytes, PROT_READ | PROT_WRITE, flags,
                 descriptor, 0),
            memory.data)
      << std::strerror(errno);
}

constexpr int kRw = PROT_READ | PROT_WRITE;

const Deed kDeeds[] = {
    {"reads", After::kOld, [](Memory& m) { ExpectHolds(m, After::kOld); }},
    {"writes", After::kNew, [](Memory& m) { Fill(m.data, m.bytes, kNewSeed); }},
    {"writes after mprotect none", After::kNew,
     [](Memory& m) {
       Protect(m, PROT_NONE);
       Protect(m, kRw);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"writes after mprotect read-only, page by page", After::kNew,
     [](Memory& m) {
       for (size_t i = 0; i < m.bytes; i += 2 * kPage) {
         EXPECT_EQ(mprotect(m.data + i, kPage, PROT_READ), 0);
       }
       Protect(m, kRw);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"madvise cold", After::kOld, Advised(MADV_COLD)},
    {"madvise free", After::kOldOrZeroes, Advised(MADV_FREE)},
    {"madvise free, then writes", After::kNew,
     [](Memory& m) {
       Advise(m, MADV_FREE);
       Fill(m.data, m.bytes, kNewSeed);
       Advise(m, MADV_COLD);
     }},
    {"madvise free, pageout", After::kOldOrZeroes,
     [](Memory& m) {
       Advise(m, MADV_FREE);
       Advise(m, MADV_PAGEOUT);
     }},
    {"madvise pageout, with swap", After::kOld,
     [](Memory& m) {
       Swap swap(8 * kMiB);
       Advise(m, MADV_PAGEOUT);
       ExpectHolds(m, After::kOld);
     }},
    {"writes, madvise pageout, swapoff", After::kNew,
     [](Memory& m) {
       Swap swap(8 * kMiB);
       Fill(m.data, m.bytes, kNewSeed);
       Advise(m, MADV_PAGEOUT);
     }},
    {"madvise collapse", After::kOld,
     [](Memory& m) {
       Advise(m, MADV_HUGEPAGE);
       madvise(m.data, m.bytes, MADV_COLLAPSE);  // may refuse
     }},
    {"madvise populate for reading", After::kOld, Advised(MADV_POPULATE_READ)},
    {"madvise populate for writing", After::kOld, Advised(MADV_POPULATE_WRITE)},
    {"madvise dontneed", After::kZeroes, Advised(MADV_DONTNEED)},
    {"madvise dontneed, then writes", After::kNew,
     [](Memory& m) {
       Advise(m, MADV_DONTNEED);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"madvise dontneed while locked", After::kZeroes,
     [](Memory& m) {
       EXPECT_EQ(mlock(m.data, m.bytes), 0);
       Advise(m, MADV_DONTNEED_LOCKED);
       EXPECT_EQ(munlock(m.data, m.bytes), 0);
     }},
    {"mlock", After::kOld,
     [](Memory& m) { EXPECT_EQ(mlock(m.data, m.bytes), 0); }},
    {"mlock, writes, munlock", After::kNew,
     [](Memory& m) {
       EXPECT_EQ(mlock(m.data, m.bytes), 0);
       Fill(m.data, m.bytes, kNewSeed);
       EXPECT_EQ(munlock(m.data, m.bytes), 0);
     }},
    {"mlock on fault, munlock, writes", After::kNew,
     [](Memory& m) {
       EXPECT_EQ(mlock2(m.data, m.bytes, MLOCK_ONFAULT), 0);
       EXPECT_EQ(munlock(m.data, m.bytes), 0);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"mremap", After::kOld, [](Memory& m) { Move(m, 0); }},
    {"mremap, then writes", After::kNew,
     [](Memory& m) {
       Move(m, 0);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"mremap that leaves the old mapping", After::kOld,
     MoveAndLeaveTheOldMapping},
    {"mremap that turns halves round", After::kOld,
     [](Memory& m) {
       char* place = Reserve(m.bytes);
       const size_t half = m.bytes / 2;
       for (const size_t part : {half, size_t{0}}) {
         EXPECT_EQ(mremap(m.data + part, half, half,
                          MREMAP_MAYMOVE | MREMAP_FIXED, place + part),
                   place + part);
       }
       m.data = place;
     }},
    {"a child", After::kOld, [](Memory& m) { Fork(m, After::kOld); }},
    {"a child, then writes", After::kNew,
     [](Memory& m) {
       Fork(m, After::kOld);
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"a child that gets zeroes", After::kOld,
     [](Memory& m) {
       Advise(m, MADV_WIPEONFORK);
       Fork(m, After::kZeroes);
       Advise(m, MADV_KEEPONFORK);
     }},
    {"a child that does not get it", After::kOld,
     [](Memory& m) {
       Advise(m, MADV_DONTFORK);
       Fork(m, After::kNoMemory);
       Advise(m, MADV_DOFORK);
     }},
    {"another mapping over it", After::kZeroes,
     [](Memory& m) { MapOver(m, -1); }},
    {"a file over it, then writes", After::kNew,
     [](Memory& m) {
       UniqueFd file(memfd_create("over", MFD_CLOEXEC));
       EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(m.bytes)), 0);
       MapOver(m, file.get());
       Fill(m.data, m.bytes, kNewSeed);
     }},
    {"munmap", After::kNoMemory,
     [](Memory& m) { EXPECT_EQ(munmap(m.data, m.bytes), 0); }},
    {"munmap of every other page", After::kNoMemory,
     [](Memory& m) {
       for (size_t i = 0; i < m.bytes; i += 2 * kPage) {
         EXPECT_EQ(munmap(m.data + i, kPage), 0);
       }
     }},
    {"mseal", After::kNoMemory, Seal},
    {"mbind to another node, moving", After::kOld,
     [](Memory& m) {
       const unsigned long mask = 1;
       // EIO says that not all could be moved.
       if (syscall(SYS_mbind, m.data, m.bytes, MPOL_BIND, &mask, 64UL,
                   MPOL_MF_MOVE | MPOL_MF_STRICT) != 0) {
         EXPECT_EQ(errno, EIO);
       }
     }},
    {"mbind to another node, then writes", After::kNew,
     [](Memory& m) {
       const unsigned long mask = 1;
       EXPECT_EQ(syscall(SYS_mbind, m.data, m.bytes, MPOL_BIND, &mask, 64UL,
                         MPOL_MF_MOVE_ALL),
                 0)
           << std::strerror(errno);
       Fill(m.data, m.bytes, kNewSeed);
     }},
};

}  // namespace

std::span<const Deed> DeedsOfMapping() { return kDeeds; }

}  // namespace daxsnap::vmtest
