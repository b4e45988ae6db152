// SPDX-License-Identifier: Apache-2.0
// Memory that goes into a file through a pipe, as stock CRIU sends it.
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_SPLICE_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_SPLICE_H_

#include <cstddef>
#include <cstdint>
#include <ostream>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {

// A pipe that holds `pages` pages.
class Pipe {
 public:
  explicit Pipe(size_t pages = 256);
  // vmsplice(2) of all of it, which must fit.
  void Put(const char* data, size_t bytes);
  // splice(2) into the file at *offset, which moves on; the call's result.
  ssize_t Take(int file, off_t* offset, size_t bytes);
  int in() const { return in_.get(); }
  int out() const { return out_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  UniqueFd out_, in_;
  size_t bytes_;
};

// What kmemfs says of spliced pages.
struct Spliced {
  uint64_t by_reference = 0, shared = 0, copied = 0;
  bool operator==(const Spliced&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Spliced& s);

class SpliceTest : public PoolTest {
 protected:
  Spliced Counts() const;
  // What was counted since.
  Spliced Since(const Spliced& before) const;
  // Memory into the file by way of a pipe; what was counted meanwhile.
  Spliced Store(int file, const char* data, size_t bytes, off_t offset = 0);
  // Takes all that the pipe has into the file's start; what was counted.
  Spliced TakeAll(Pipe& pipe, int file, size_t bytes);
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_SPLICE_H_
