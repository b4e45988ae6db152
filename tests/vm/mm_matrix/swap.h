// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_SWAP_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_SWAP_H_

#include <cstddef>
#include <string>

namespace daxsnap::vmtest {

// A swap file, in use while the object lives. A failure to make one fails the
// test that wants it.
class Swap {
 public:
  explicit Swap(size_t bytes);
  Swap(Swap&&) = delete;
  ~Swap();

 private:
  std::string path_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_SWAP_H_
