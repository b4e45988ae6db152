// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/swap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/swap.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {

// What mkswap writes (source: the kernel's union swap_header): a version and
// the last page at byte 1024 and a magic at the end of the first page.
Swap::Swap(size_t bytes) : path_("/var/tmp/mm_matrix.swap") {
  constexpr size_t kPage = 4096;
  unlink(path_.c_str());
  UniqueFd fd(open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  std::vector<char> header(kPage, 0);
  const uint32_t info[] = {1, static_cast<uint32_t>(bytes / kPage - 1), 0};
  std::memcpy(header.data() + 1024, info, sizeof(info));
  std::memcpy(header.data() + kPage - 10, "SWAPSPACE2", 10);
  if (posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)) != 0 ||
      pwrite(fd.get(), header.data(), kPage, 0) !=
          static_cast<ssize_t>(kPage) ||
      fsync(fd.get()) != 0 || swapon(path_.c_str(), 0) != 0) {
    ADD_FAILURE() << "cannot swap to " << path_ << ": " << std::strerror(errno);
  }
}

Swap::~Swap() {
  EXPECT_EQ(swapoff(path_.c_str()), 0) << std::strerror(errno);
  unlink(path_.c_str());
}

}  // namespace daxsnap::vmtest
