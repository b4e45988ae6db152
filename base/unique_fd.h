// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_UNIQUE_FD_H_
#define DAXSNAP_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace daxsnap {

// Owns a file descriptor, or none (-1), and closes it. Not thread-safe.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives the descriptor to the caller, who must close it.
  int release() { return std::exchange(fd_, -1); }

  // Closes the descriptor that is owned and owns `fd` from now on.
  void reset(int fd = -1) {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_UNIQUE_FD_H_
