// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "client/launch/unique_fd.h"

namespace daxsnap::vmtest {

// Fixed buffers: pinned for as long as they are registered. The kernel may
// first move them out of the pool's zone; either way they are copied.
class FixedBuffers {
 public:
  FixedBuffers() : ring_(Setup()) {}
  // 0 or an errno.
  int Register(char* data, size_t bytes) {
    const iovec buffer = {data, bytes};
    return Call(IORING_REGISTER_BUFFERS, &buffer, 1);
  }
  int Unregister() { return Call(IORING_UNREGISTER_BUFFERS, nullptr, 0); }

 private:
  static int Setup() {
    io_uring_params params = {};
    return static_cast<int>(syscall(SYS_io_uring_setup, 4, &params));
  }
  int Call(unsigned what, const void* argument, unsigned count) {
    return syscall(SYS_io_uring_register, ring_.get(), what, argument, count) ==
                   0
               ? 0
               : errno;
  }
  UniqueFd ring_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_FIXED_BUFFERS_H_
