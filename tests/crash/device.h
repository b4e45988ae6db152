// SPDX-License-Identifier: Apache-2.0
//
// Memory behind a volatile cache, as a crash sees it.
#ifndef DAXSNAP_TESTS_CRASH_DEVICE_H_
#define DAXSNAP_TESTS_CRASH_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "format.h"

namespace daxsnap::crash {

inline constexpr size_t kLineSize = 64;
inline constexpr size_t kWordsPerLine = kLineSize / sizeof(uint64_t);

using Line = std::array<uint64_t, kWordsPerLine>;
using Bytes = std::vector<std::byte>;

// A line that may have reached the media or not.
struct DirtyLine {
  size_t index = 0;   // of the line on the device
  Line media = {};    // what is there for certain
  Line cache = {};    // what the program wrote last
  Line flushed = {};  // what a flush that no fence followed has seen; or media
};

// What the program stores is in the cache at once. A line may be written back
// at any moment, in units of 8 bytes, so until a fence each of its words is old
// or new on its own. flush() and then fence() make certain what a line held at
// the flush. Not thread safe.
class Device {
 public:
  explicit Device(uint64_t nr_pages);

  uint64_t nr_pages() const { return nr_pages_; }
  // Where the program reads and writes.
  void* Page(uint64_t page);
  const void* Page(uint64_t page) const;
  uint64_t PageOf(const void* addr) const;

  void Flush(const void* addr, size_t len);
  void Fence();

  // Called before each flush and fence takes effect.
  void set_observer(std::function<void()> observer) {
    observer_ = std::move(observer);
  }

  const Bytes& media() const { return media_; }
  std::vector<DirtyLine> DirtyLines() const;

  // Power comes back: the media is `image`, the cache is empty.
  void Restart(const Bytes& image);

 private:
  Line CacheLine(size_t index) const;

  uint64_t nr_pages_;
  Bytes cache_;
  Bytes media_;
  std::map<size_t, Line> flushed_;  // since the last fence, by line
  std::function<void()> observer_;
};

// A media over the bytes of an image; `image` must outlive it.
kmemfs_media MediaOf(const Bytes& image, const uint8_t uuid[16]);

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_DEVICE_H_
