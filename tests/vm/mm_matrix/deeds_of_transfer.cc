// SPDX-License-Identifier: Apache-2.0
// What a process reads into its memory and writes from it.
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/vm/mm_matrix/deeds.h"
#include "tests/vm/mm_matrix/fixed_buffers.h"
#include "tests/vm/mm_matrix/splice.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

// Page-aligned, for O_DIRECT.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : data_(static_cast<char*>(std::aligned_alloc(kPage, bytes))),
        bytes_(bytes) {
    std::memset(data_, 0, bytes);
  }
  Buffer(size_t bytes, uint64_t seed) : Buffer(bytes) {
    Fill(data_, bytes, seed);
  }
  Buffer(Buffer&&) = delete;
  ~Buffer() { std::free(data_); }
  char* data() const { return data_; }
  void ExpectHolds(uint64_t seed) const {
    EXPECT_EQ(CountBad(data_, bytes_, seed), 0) << "something else was written";
  }

 private:
  char* data_;
  size_t bytes_;
};

// On the root disk, with the new content.
UniqueFd Disk(size_t bytes, int flags) {
  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd file(mkostemp(name, flags | O_CLOEXEC));
  unlink(name);
  const Buffer content(bytes, kNewSeed);
  EXPECT_EQ(pwrite(file.get(), content.data(), bytes, 0),
            static_cast<ssize_t>(bytes))
      << std::strerror(errno);
  return file;
}

void ReadFrom(const Memory& m, int flags) {
  UniqueFd file = Disk(m.bytes, flags);
  EXPECT_EQ(pread(file.get(), m.data, m.bytes, 0),
            static_cast<ssize_t>(m.bytes))
      << std::strerror(errno);
}

void WriteTo(const Memory& m, int flags) {
  UniqueFd file = Disk(m.bytes, flags);
  EXPECT_EQ(pwrite(file.get(), m.data, m.bytes, 0),
            static_cast<ssize_t>(m.bytes))
      << std::strerror(errno);
  const Buffer back(m.bytes);
  EXPECT_EQ(pread(file.get(), back.data(), m.bytes, 0),
            static_cast<ssize_t>(m.bytes));
  back.ExpectHolds(kOldSeed);
}

void ReadIntoFixedBuffer(Memory& m) {
  UniqueFd file = Disk(m.bytes, O_DIRECT);
  FixedBuffers buffers;
  EXPECT_EQ(buffers.Register(m.data, m.bytes), 0);
  EXPECT_EQ(buffers.Read(file.get(), m.data, m.bytes),
            static_cast<long>(m.bytes));
}

// What was registered is the process's memory, whatever it does to it later.
void WriteFixedBuffer(Memory& m) {
  UniqueFd file = Disk(m.bytes, O_DIRECT);
  FixedBuffers buffers;
  EXPECT_EQ(buffers.Register(m.data, m.bytes), 0);
  ExpectHolds(m, After::kOld);
  Fill(m.data, m.bytes, 113);
  EXPECT_EQ(buffers.Write(file.get(), m.data, m.bytes),
            static_cast<long>(m.bytes));
  const Buffer back(m.bytes);
  EXPECT_EQ(pread(file.get(), back.data(), m.bytes, 0),
            static_cast<ssize_t>(m.bytes));
  back.ExpectHolds(113);
  Fill(m.data, m.bytes, kNewSeed);
  EXPECT_EQ(buffers.Unregister(), 0);
}

// A pipe holds pages. If they are the pool's, writes went elsewhere.
void ReceiveOld(const Pipe& pipe, const Memory& m) {
  const Buffer content(m.bytes);
  for (size_t got = 0; got < m.bytes;) {
    const ssize_t n = read(pipe.out(), content.data() + got, m.bytes - got);
    ASSERT_GT(n, 0) << std::strerror(errno);
    got += static_cast<size_t>(n);
  }
  if (m.pool_pages) content.ExpectHolds(kOldSeed);
}

void Vmsplice(const Memory& m, const Pipe& pipe, unsigned flags) {
  const iovec piece = {m.data, m.bytes};
  EXPECT_EQ(vmsplice(pipe.in(), &piece, 1, flags),
            static_cast<ssize_t>(m.bytes))
      << std::strerror(errno);
}

void VmspliceThenWrite(Memory& m, unsigned flags) {
  Pipe pipe(m.bytes / kPage);
  Vmsplice(m, pipe, flags);
  Fill(m.data, m.bytes, kNewSeed);
  ReceiveOld(pipe, m);
}

void Tee(Memory& m) {
  Pipe pipe(m.bytes / kPage), other(m.bytes / kPage);
  Vmsplice(m, pipe, SPLICE_F_GIFT);
  EXPECT_EQ(tee(pipe.out(), other.in(), m.bytes, 0),
            static_cast<ssize_t>(m.bytes))
      << std::strerror(errno);
  Fill(m.data, m.bytes / 2, kNewSeed);
  ReceiveOld(pipe, m);
  Fill(m.data, m.bytes, kNewSeed);
  ReceiveOld(other, m);
}

// Gives the pages to the page cache, which takes a copy.
void GiveToAFile(Memory& m) {
  Pipe pipe(m.bytes / kPage);
  Vmsplice(m, pipe, SPLICE_F_GIFT);
  UniqueFd file = Disk(m.bytes, 0);
  loff_t at = 0;
  while (static_cast<size_t>(at) < m.bytes) {
    ASSERT_GT(splice(pipe.out(), nullptr, file.get(), &at,
                     m.bytes - static_cast<size_t>(at), SPLICE_F_MOVE),
              0)
        << std::strerror(errno);
  }
  const Buffer over(m.bytes, kNewSeed), back(m.bytes);
  EXPECT_EQ(pread(file.get(), back.data(), m.bytes, 0),
            static_cast<ssize_t>(m.bytes));
  back.ExpectHolds(kOldSeed);
  EXPECT_EQ(pwrite(file.get(), over.data(), m.bytes, 0),
            static_cast<ssize_t>(m.bytes));
}

void ReadFromAPipe(Memory& m) {
  Pipe pipe(m.bytes / kPage);
  const Buffer content(m.bytes, kNewSeed);
  EXPECT_EQ(write(pipe.in(), content.data(), m.bytes),
            static_cast<ssize_t>(m.bytes));
  const iovec piece = {m.data, m.bytes};
  EXPECT_EQ(vmsplice(pipe.out(), &piece, 1, 0), static_cast<ssize_t>(m.bytes));
}

void OwnMem(const Memory& m, bool write) {
  UniqueFd mem(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  const Buffer content(m.bytes, write ? kNewSeed : kOldSeed);
  const auto at = static_cast<off_t>(reinterpret_cast<uintptr_t>(m.data));
  const ssize_t done = write ? pwrite(mem.get(), content.data(), m.bytes, at)
                             : pread(mem.get(), content.data(), m.bytes, at);
  EXPECT_EQ(done, static_cast<ssize_t>(m.bytes)) << std::strerror(errno);
  content.ExpectHolds(write ? kNewSeed : kOldSeed);
}

void ForceWrite(Memory& m, int protection) {
  EXPECT_EQ(mprotect(m.data, m.bytes, protection), 0);
  OwnMem(m, true);
  EXPECT_EQ(mprotect(m.data, m.bytes, PROT_READ | PROT_WRITE), 0);
}

void WakeNobody(Memory& m) {
  for (size_t i = 0; i < m.bytes; i += kPage) {
    for (const int private_flag : {0, FUTEX_PRIVATE_FLAG}) {
      EXPECT_EQ(syscall(SYS_futex, m.data + i, FUTEX_WAKE | private_flag, 1,
                        nullptr, nullptr, 0),
                0);
    }
  }
}

const Deed kDeeds[] = {
    {"read of a file", After::kNew, [](Memory& m) { ReadFrom(m, 0); }},
    {"read with O_DIRECT", After::kNew,
     [](Memory& m) { ReadFrom(m, O_DIRECT); }},
    {"write to a file", After::kOld, [](Memory& m) { WriteTo(m, 0); }},
    {"write with O_DIRECT", After::kOld,
     [](Memory& m) { WriteTo(m, O_DIRECT); }},
    {"read into a fixed buffer of io_uring", After::kNew, ReadIntoFixedBuffer},
    {"write from a fixed buffer of io_uring", After::kNew, WriteFixedBuffer},
    {"vmsplice, then writes", After::kNew,
     [](Memory& m) { VmspliceThenWrite(m, 0); }},
    {"vmsplice as a gift, then writes", After::kNew,
     [](Memory& m) { VmspliceThenWrite(m, SPLICE_F_GIFT); }},
    {"vmsplice and tee", After::kNew, Tee},
    {"vmsplice as a gift, which a file takes", After::kOld, GiveToAFile},
    {"vmsplice out of a pipe", After::kNew, ReadFromAPipe},
    {"read of /proc/self/mem", After::kOld,
     [](Memory& m) { OwnMem(m, false); }},
    {"write to /proc/self/mem", After::kNew,
     [](Memory& m) { OwnMem(m, true); }},
    {"write to /proc/self/mem where it is read-only", After::kNew,
     [](Memory& m) { ForceWrite(m, PROT_READ); }},
    {"write to /proc/self/mem where it is inaccessible", After::kNew,
     [](Memory& m) { ForceWrite(m, PROT_NONE); }},
    {"futex", After::kOld, WakeNobody},
};

}  // namespace

std::span<const Deed> DeedsOfTransfer() { return kDeeds; }

}  // namespace daxsnap::vmtest
