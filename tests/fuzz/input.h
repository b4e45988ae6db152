// SPDX-License-Identifier: Apache-2.0
// What the fuzzers share.
#ifndef DAXSNAP_TESTS_FUZZ_INPUT_H_
#define DAXSNAP_TESTS_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

namespace daxsnap::fuzz {

// Takes numbers from an input until it ends, then zeros.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  uint64_t Take(size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && size_ > 0; i++, size_--)
      value |= static_cast<uint64_t>(*data_++) << (8 * i);
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

// Changes a number of a page, or all from there on to its end.
inline void EditPage(Input* input, size_t page_size, uint8_t* page) {
  const uint64_t how = input->Take(1);
  const size_t len = size_t{1} << (how % 4);
  const uint64_t at = input->Take(2) % (page_size / len) * len;
  const uint64_t value = input->Take(len);
  uint64_t old = 0;
  std::memcpy(&old, page + at, len);
  const uint64_t changed = (how & 16) ? old + value : value;
  if (how & 32) {
    std::memset(page + at, static_cast<int>(value & 0xff), page_size - at);
  } else {
    std::memcpy(page + at, &changed, len);
  }
}

// What a fuzzer finds if it does not hold.
inline void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::cerr << "broken: " << what << "\n";
  std::abort();
}

}  // namespace daxsnap::fuzz

#endif  // DAXSNAP_TESTS_FUZZ_INPUT_H_
