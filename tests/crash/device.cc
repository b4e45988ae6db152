// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/device.h"

#include <cstring>

namespace daxsnap::crash {

Device::Device(uint64_t nr_pages)
    : nr_pages_(nr_pages),
      cache_(nr_pages * KMEMFS_PAGE_SIZE),
      media_(nr_pages * KMEMFS_PAGE_SIZE) {}

void* Device::Page(uint64_t page) {
  return &cache_.at(page * KMEMFS_PAGE_SIZE);
}

const void* Device::Page(uint64_t page) const {
  return &cache_.at(page * KMEMFS_PAGE_SIZE);
}

uint64_t Device::PageOf(const void* addr) const {
  return static_cast<uint64_t>(static_cast<const std::byte*>(addr) -
                               cache_.data()) /
         KMEMFS_PAGE_SIZE;
}

Line Device::CacheLine(size_t index) const {
  Line line;
  std::memcpy(line.data(), &cache_.at(index * kLineSize), kLineSize);
  return line;
}

void Device::Flush(const void* addr, size_t len) {
  if (observer_) observer_();
  const auto from =
      static_cast<size_t>(static_cast<const std::byte*>(addr) - cache_.data());
  for (size_t index = from / kLineSize; index * kLineSize < from + len; index++)
    flushed_[index] = CacheLine(index);
}

void Device::Fence() {
  if (observer_) observer_();
  for (const auto& [index, line] : flushed_)
    std::memcpy(&media_[index * kLineSize], line.data(), kLineSize);
  flushed_.clear();
}

std::vector<DirtyLine> Device::DirtyLines() const {
  std::vector<DirtyLine> dirty;
  for (size_t page = 0; page < nr_pages_; page++) {
    const size_t at = page * KMEMFS_PAGE_SIZE;
    // A line that is clean now may still be in flight with other contents.
    const auto flight = flushed_.lower_bound(at / kLineSize);
    const bool in_flight = flight != flushed_.end() &&
                           flight->first < (at + KMEMFS_PAGE_SIZE) / kLineSize;
    if (!in_flight &&
        std::memcmp(&cache_[at], &media_[at], KMEMFS_PAGE_SIZE) == 0)
      continue;
    for (size_t index = at / kLineSize;
         index < (at + KMEMFS_PAGE_SIZE) / kLineSize; index++) {
      DirtyLine line = {.index = index, .cache = CacheLine(index)};
      std::memcpy(line.media.data(), &media_[index * kLineSize], kLineSize);
      const auto flushed = flushed_.find(index);
      line.flushed = flushed == flushed_.end() ? line.media : flushed->second;
      if (line.cache != line.media || line.flushed != line.media)
        dirty.push_back(line);
    }
  }
  return dirty;
}

void Device::Restart(const Bytes& image) {
  media_ = image;
  std::memcpy(cache_.data(), image.data(), image.size());
  flushed_.clear();
}

kmemfs_media MediaOf(const Bytes& image, const uint8_t uuid[16]) {
  kmemfs_media media = {
      .page = [](const kmemfs_media* m, __u64 page) -> const void* {
        if (page >= m->nr_pages) return nullptr;
        return static_cast<const std::byte*>(m->ctx) + page * KMEMFS_PAGE_SIZE;
      },
      .ctx = const_cast<std::byte*>(image.data()),
      .nr_pages = image.size() / KMEMFS_PAGE_SIZE,
      .first = KMEM_PERSIST_HEAD_PAGES,
      .end = image.size() / KMEMFS_PAGE_SIZE,
      .uuid = {}};
  std::memcpy(media.uuid, uuid, sizeof(media.uuid));
  return media;
}

}  // namespace daxsnap::crash
