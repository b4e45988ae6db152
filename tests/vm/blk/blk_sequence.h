// SPDX-License-Identifier: Apache-2.0
//
// Operations on a block device that follow from a seed: whoever does them and
// whoever looks at the device count the same.
#ifndef DAXSNAP_TESTS_VM_BLK_BLK_SEQUENCE_H_
#define DAXSNAP_TESTS_VM_BLK_BLK_SEQUENCE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <random>

namespace daxsnap::blktest {

inline constexpr uint64_t kBlock = 4096;
inline constexpr uint64_t kSector = 512;
inline constexpr uint64_t kSectorsPerBlock = kBlock / kSector;
inline constexpr uint64_t kBlocks = 256;
inline constexpr uint64_t kBytes = kBlocks * kBlock;
inline constexpr uint64_t kSectors = kBytes / kSector;
inline constexpr uint64_t kMaxDiscard = 16;  // blocks

struct Operation {
  bool discard = false;
  uint64_t first = 0;  // sector
  uint64_t count = 0;
};

class Sequence {
 public:
  explicit Sequence(uint64_t seed) : random_(seed) {}

  Operation Next() {
    const uint64_t block = Below(kBlocks);
    const uint64_t first = Below(kSectorsPerBlock);
    const uint64_t at = block * kSectorsPerBlock;
    switch (Below(8)) {
      case 0: {
        const uint64_t most = std::min(kBlocks - block, kMaxDiscard);
        return {true, at, (1 + Below(most)) * kSectorsPerBlock};
      }
      case 1:
      case 2:
        return {false, at + first, 1 + Below(kSectorsPerBlock - first)};
      default:
        return {false, at, kSectorsPerBlock};
    }
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }
  std::mt19937_64 random_;
};

// What operation `number` writes to `sector`; number 0: nothing was written.
inline void FillSector(uint64_t seed, uint64_t number, uint64_t sector,
                       void* to) {
  std::array<uint64_t, kSector / sizeof(uint64_t)> words = {};
  if (number != 0) {
    uint64_t state = seed ^ (number << 20) ^ sector;
    for (uint64_t& word : words) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      word = state ^ (state >> 29);
    }
  }
  std::memcpy(to, words.data(), kSector);
}

}  // namespace daxsnap::blktest

#endif  // DAXSNAP_TESTS_VM_BLK_BLK_SEQUENCE_H_
