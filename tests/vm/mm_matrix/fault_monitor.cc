// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/fault_monitor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {

FaultMonitor::FaultMonitor(char* data, size_t bytes, uint64_t mode,
                           uint64_t features, Answer answer)
    : uffd_(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))),
      range_{reinterpret_cast<uintptr_t>(data), bytes},
      answer_(std::move(answer)) {
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = features;
  uffdio_register registration = {};
  registration.range = range_;
  registration.mode = mode;
  if (!uffd_.valid() || ioctl(uffd_.get(), UFFDIO_API, &api) != 0 ||
      ioctl(uffd_.get(), UFFDIO_REGISTER, &registration) != 0) {
    ADD_FAILURE() << "userfaultfd: " << std::strerror(errno);
    return;
  }
  thread_ = std::thread([this] { Serve(); });
}

void FaultMonitor::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void FaultMonitor::Serve() {
  while (!stop_) {
    pollfd wait = {uffd_.get(), POLLIN, 0};
    if (poll(&wait, 1, 50) <= 0) continue;
    uffd_msg message;
    if (read(uffd_.get(), &message, sizeof(message)) !=
        static_cast<ssize_t>(sizeof(message))) {
      continue;
    }
    ++faults_;
    answer_(uffd_.get(), {message.arg.pagefault.address & ~(kPage - 1), kPage});
  }
}

}  // namespace daxsnap::vmtest
