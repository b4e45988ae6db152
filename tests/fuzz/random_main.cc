// SPDX-License-Identifier: Apache-2.0
//
// Runs a libFuzzer target on random inputs where libFuzzer is not there:
//   PROGRAM RUNS SEED
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: " << argv[0] << " RUNS SEED\n";
    return 2;
  }
  const uint64_t runs = std::strtoull(argv[1], nullptr, 10);
  std::mt19937_64 random(std::strtoull(argv[2], nullptr, 10));
  std::vector<uint8_t> input;
  for (uint64_t run = 0; run < runs; run++) {
    input.resize(random() % 65);
    // Many small numbers: page numbers, counts and lengths are small.
    const bool small = random() % 2;
    for (uint8_t& byte : input)
      byte =
          static_cast<uint8_t>(small && random() % 2 ? random() % 8 : random());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::cout << runs << " inputs\n";
  return runs ? 0 : 2;
}
