// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/sparse_media.h"

#include <algorithm>
#include <cstring>

namespace daxsnap::crash {
namespace {

// What it may hold is most likely to be seen if it is the content of nothing.
const std::array<std::byte, SparseMedia::kPage>& Anything() {
  static const auto* const bytes = [] {
    auto* filled = new std::array<std::byte, SparseMedia::kPage>;
    filled->fill(std::byte{0xa5});
    return filled;
  }();
  return *bytes;
}

std::optional<uint64_t> SeedOfBytes(const std::byte* bytes) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  uint64_t words[SparseMedia::kPage / sizeof(uint64_t)];
  std::memcpy(words, bytes, sizeof(words));
  const uint64_t step = words[0] == 0 && words[1] == 0 ? 0 : kStep;
  for (size_t i = 1; i < std::size(words); i++)
    if (words[i] != words[0] + i * step) return std::nullopt;
  return words[0];
}

}  // namespace

const std::byte* SparseMedia::Page(uint64_t page) const {
  const auto found = pages_.find(page);
  return found == pages_.end() ? Anything().data()
                               : found->second->bytes.data();
}

Line SparseMedia::LineAt(size_t index) const {
  Line line;
  const size_t at = index * kLineSize;
  std::memcpy(line.data(), Page(at / kPage) + at % kPage, kLineSize);
  return line;
}

void SparseMedia::Write(uint64_t at, const std::byte* bytes, size_t length) {
  while (length > 0) {
    const size_t some = std::min(length, kPage - at % kPage);
    std::shared_ptr<Contents>& contents = pages_[at / kPage];
    if (!contents) {
      contents = std::make_shared<Contents>();
      contents->bytes = Anything();
    } else if (contents.use_count() > 1) {
      contents = std::make_shared<Contents>(*contents);
    }
    contents->looked = false;
    std::memcpy(&contents->bytes[at % kPage], bytes, some);
    at += some;
    bytes += some;
    length -= some;
  }
}

std::optional<uint64_t> SparseMedia::SeedOf(uint64_t page) const {
  const auto found = pages_.find(page);
  if (found == pages_.end()) return std::nullopt;
  const Contents& contents = *found->second;
  if (!contents.looked) {
    contents.seed = SeedOfBytes(contents.bytes.data());
    contents.looked = true;
  }
  return contents.seed;
}

std::vector<uint64_t> SparseMedia::Pages() const {
  std::vector<uint64_t> pages;
  pages.reserve(pages_.size());
  for (const auto& [page, contents] : pages_) pages.push_back(page);
  std::sort(pages.begin(), pages.end());
  return pages;
}

}  // namespace daxsnap::crash
