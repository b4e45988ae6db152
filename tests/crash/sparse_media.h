// SPDX-License-Identifier: Apache-2.0
//
// The media of a large device, of which little is in use.
#ifndef DAXSNAP_TESTS_CRASH_SPARSE_MEDIA_H_
#define DAXSNAP_TESTS_CRASH_SPARSE_MEDIA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "format.h"
#include "tests/crash/device.h"

namespace daxsnap::crash {

// What is known of the pages of a device; all others hold anything. Copies
// share pages that neither has changed since.
class SparseMedia {
 public:
  static constexpr size_t kPage = KMEMFS_PAGE_SIZE;

  const std::byte* Page(uint64_t page) const;
  Line LineAt(size_t index) const;

  void Write(uint64_t at, const std::byte* bytes, size_t length);
  // It may hold anything from here on.
  void Forget(uint64_t page) { pages_.erase(page); }
  template <typename Keep>
  void ForgetUnless(Keep keep) {
    std::erase_if(pages_,
                  [&keep](const auto& entry) { return !keep(entry.first); });
  }

  // The seed of a page as daxsnap::vmtest::FillPage() fills it; nullopt if it
  // is no such page.
  std::optional<uint64_t> SeedOf(uint64_t page) const;

  // Of all that is known.
  std::vector<uint64_t> Pages() const;

 private:
  struct Contents {
    std::array<std::byte, kPage> bytes;
    mutable bool looked = false;
    mutable std::optional<uint64_t> seed;
  };

  std::unordered_map<uint64_t, std::shared_ptr<Contents>> pages_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_SPARSE_MEDIA_H_
