// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_

#include <linux/io_uring.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {

// Fixed buffers of io_uring: pinned for as long as they are registered. The
// kernel may first move them out of the pool's zone; either way they are
// copied.
class FixedBuffers {
 public:
  FixedBuffers();
  FixedBuffers(FixedBuffers&&) = delete;
  ~FixedBuffers();

  // 0 or an errno.
  int Register(char* data, size_t bytes);
  int Unregister();
  // Between the registered memory and the start of a file; the bytes
  // transferred, or -errno.
  long Read(int fd, char* data, size_t bytes) {
    return Transfer(IORING_OP_READ_FIXED, fd, data, bytes);
  }
  long Write(int fd, char* data, size_t bytes) {
    return Transfer(IORING_OP_WRITE_FIXED, fd, data, bytes);
  }

 private:
  int Call(unsigned what, const void* argument, unsigned count);
  long Transfer(uint8_t operation, int fd, char* data, size_t bytes);
  void* Map(size_t bytes, off_t offset);
  uint32_t* At(uint32_t offset) const;

  io_uring_params params_ = {};
  UniqueFd ring_;
  size_t ring_bytes_ = 0, entries_bytes_ = 0;
  char* rings_ = nullptr;  // both queues' heads and tails, and completions
  io_uring_sqe* entries_ = nullptr;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_
