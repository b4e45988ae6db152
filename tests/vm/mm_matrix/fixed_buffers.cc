// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/fixed_buffers.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace daxsnap::vmtest {

FixedBuffers::FixedBuffers()
    : ring_(static_cast<int>(syscall(SYS_io_uring_setup, 4, &params_))) {
  EXPECT_TRUE(ring_.valid()) << "io_uring: " << std::strerror(errno);
  EXPECT_TRUE(params_.features & IORING_FEAT_SINGLE_MMAP);
  ring_bytes_ = std::max<size_t>(
      params_.sq_off.array + params_.sq_entries * 4,
      params_.cq_off.cqes + params_.cq_entries * sizeof(io_uring_cqe));
  entries_bytes_ = params_.sq_entries * sizeof(io_uring_sqe);
  rings_ = static_cast<char*>(Map(ring_bytes_, IORING_OFF_SQ_RING));
  entries_ = static_cast<io_uring_sqe*>(Map(entries_bytes_, IORING_OFF_SQES));
}

FixedBuffers::~FixedBuffers() {
  munmap(rings_, ring_bytes_);
  munmap(entries_, entries_bytes_);
}

int FixedBuffers::Register(char* data, size_t bytes) {
  const iovec buffer = {data, bytes};
  return Call(IORING_REGISTER_BUFFERS, &buffer, 1);
}

int FixedBuffers::Unregister() {
  return Call(IORING_UNREGISTER_BUFFERS, nullptr, 0);
}

int FixedBuffers::Call(unsigned what, const void* argument, unsigned count) {
  return syscall(SYS_io_uring_register, ring_.get(), what, argument, count) == 0
             ? 0
             : errno;
}

void* FixedBuffers::Map(size_t bytes, off_t offset) {
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                   ring_.get(), offset);
  EXPECT_NE(map, MAP_FAILED) << std::strerror(errno);
  return map;
}

uint32_t* FixedBuffers::At(uint32_t offset) const {
  return reinterpret_cast<uint32_t*>(rings_ + offset);
}

// One operation at a time, so both queues are empty before and after.
long FixedBuffers::Transfer(uint8_t operation, int fd, char* data,
                            size_t bytes) {
  const uint32_t slot =
      *At(params_.sq_off.tail) & *At(params_.sq_off.ring_mask);
  io_uring_sqe& entry = entries_[slot];
  entry = {};
  entry.opcode = operation;
  entry.fd = fd;
  entry.addr = reinterpret_cast<uintptr_t>(data);
  entry.len = static_cast<uint32_t>(bytes);
  At(params_.sq_off.array)[slot] = slot;
  std::atomic_ref(*At(params_.sq_off.tail)).fetch_add(1);
  if (syscall(SYS_io_uring_enter, ring_.get(), 1, 1, IORING_ENTER_GETEVENTS,
              nullptr, 0) != 1) {
    return -errno;
  }
  const uint32_t head = *At(params_.cq_off.head);
  if (std::atomic_ref(*At(params_.cq_off.tail)).load() == head) return -EAGAIN;
  const auto* completions =
      reinterpret_cast<io_uring_cqe*>(rings_ + params_.cq_off.cqes);
  const int32_t result = completions[head & *At(params_.cq_off.ring_mask)].res;
  std::atomic_ref(*At(params_.cq_off.head)).fetch_add(1);
  return result;
}

}  // namespace daxsnap::vmtest
