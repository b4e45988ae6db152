// SPDX-License-Identifier: Apache-2.0
//
// No content of a device of type BLK may crash or hang the reader; what it
// takes keeps the rules, and can be looked up, written and cleared.
//
// An input is a list of edits of a device with some blocks stored. Without the
// first bit of the input, the superblock's crc is made right after the edits;
// some edits of the map have right check bits.
#include <endian.h>
#include <linux/kmem_blk_format.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "tests/fuzz/input.h"

namespace daxsnap::format {
namespace {

using fuzz::Input;
using fuzz::Require;

constexpr uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr uint64_t kPages = 1200;
constexpr uint64_t kBlocks = 1000;
constexpr size_t kMaxEdits = 64;
constexpr uint8_t kUuid[16] = {0xf, 0x5, 1, 2, 3, 4, 5, 6,
                               7,   8,   9, 8, 7, 6, 5, 4};

class Device {
 public:
  Device() : bytes_(kPages * kPage) {
    kmem_persist_header_init(reinterpret_cast<kmem_persist_header*>(Page(0)),
                             KMEM_PERSIST_BLK, kUuid, nullptr, kPages * kPage);
    kmem_blk_mkfs(Page(KMEM_BLK_SUPER_PAGE), kUuid, kBlocks);
    Require(kmem_blk_layout_read(Page(0), kPages, &layout_, nullptr) == 0,
            "a fresh device is refused");
    for (uint64_t block = 0; block < kBlocks; block += 3)
      map()[block] = Entry(block, layout_.first + block);
  }

  uint8_t* Page(uint64_t page) { return &bytes_[page * kPage]; }
  __le64* map() { return reinterpret_cast<__le64*>(Page(KMEM_BLK_MAP_PAGE)); }
  // With right check bits, as of the device before any edit.
  __le64 Entry(uint64_t block, uint64_t page) const {
    return kmem_blk_entry(&layout_, block, static_cast<__u32>(page));
  }
  uint64_t first() const { return layout_.first; }
  void Seal() {
    auto* super = reinterpret_cast<kmem_blk_super*>(Page(KMEM_BLK_SUPER_PAGE));
    super->crc =
        htole32(kmem_persist_page_crc(super, offsetof(kmem_blk_super, crc)));
  }

 private:
  std::vector<uint8_t> bytes_;
  kmem_blk_layout layout_ = {};
};

void Edit(Input* input, Device* device, std::set<uint64_t>* edited) {
  const uint64_t where = input->Take(1);
  if (where & 128) {
    const uint64_t block = input->Take(2) % kBlocks;
    device->map()[block] = device->Entry(block, input->Take(2));
    edited->insert(KMEM_BLK_MAP_PAGE + block / KMEM_BLK_MAP_ENTRIES);
    return;
  }
  const uint64_t page = where % device->first();
  EditPage(input, kPage, device->Page(page));
  edited->insert(page);
}

// What verification said of the map, found in another way.
std::set<uint64_t> StoredPages(const kmem_blk_layout& layout,
                               const kmem_blk_media& media) {
  std::set<uint64_t> pages;
  for (uint64_t block = 0; block < layout.nr_blocks; block++) {
    const __s64 page = kmem_blk_lookup(&media, block);
    Require(page >= 0, "a block cannot be looked up");
    if (page == 0) continue;
    Require(static_cast<uint64_t>(page) >= layout.first &&
                static_cast<uint64_t>(page) < layout.end,
            "a block outside of the device");
    Require(pages.insert(static_cast<uint64_t>(page)).second,
            "two blocks in one page");
  }
  return pages;
}

void Use(const kmem_blk_layout& layout, uint64_t block,
         const std::set<uint64_t>& stored, Device* device) {
  kmem_blk_media media = {
      .layout = layout,
      .map = device->map(),
      .flush = [](const kmem_blk_media*, kmem_persist_step, const void*,
                  size_t) {},
      .fence = [](const kmem_blk_media*, kmem_persist_step) {},
      .ctx = nullptr};
  uint64_t free_page = layout.first;
  while (stored.contains(free_page)) free_page++;
  if (free_page < layout.end) {
    kmem_blk_store(&media, block, static_cast<__u32>(free_page),
                   device->Page(free_page));
    Require(kmem_blk_lookup(&media, block) == static_cast<__s64>(free_page),
            "a stored block is elsewhere");
  }
  kmem_blk_clear(&media, 0, layout.nr_blocks);
  Require(StoredPages(layout, media).empty(), "a cleared block is stored");
}

// True if the map was changed.
bool CheckReader(uint64_t block, Device* device) {
  kmem_persist_why why = {};
  kmem_blk_layout layout = {};
  if (kmem_blk_layout_read(device->Page(0), kPages, &layout, &why) != 0) {
    Require(why.text[0] != '\0', "a superblock refused without a reason");
    return false;
  }
  Require(layout.nr_blocks > 0 && layout.first > KMEM_BLK_MAP_PAGE &&
              layout.first < layout.end && layout.end == kPages &&
              layout.nr_blocks <= layout.end - layout.first,
          "a layout that cannot be");
  std::vector<unsigned long> used(kPages);
  __u64 nr_used = 0;
  if (kmem_blk_map_verify(&layout, device->map(), used.data(), &nr_used,
                          &why) != 0) {
    Require(why.text[0] != '\0', "a map refused without a reason");
    return false;
  }
  const kmem_blk_media media = {.layout = layout,
                                .map = device->map(),
                                .flush = nullptr,
                                .fence = nullptr,
                                .ctx = nullptr};
  const std::set<uint64_t> stored = StoredPages(layout, media);
  Require(stored.size() == nr_used, "a wrong number of blocks");
  Use(layout, block % layout.nr_blocks, stored, device);
  return true;
}

void FuzzOne(const uint8_t* data, size_t size) {
  static Device base;
  static Device device;
  Input input(data, size);
  std::set<uint64_t> edited;
  const uint64_t flags = input.Take(1);

  for (size_t i = 0; i < kMaxEdits && !input.empty(); i++)
    Edit(&input, &device, &edited);
  if (!(flags & 1)) device.Seal();
  edited.insert(KMEM_BLK_SUPER_PAGE);
  if (CheckReader(flags >> 1, &device))
    for (uint64_t page = KMEM_BLK_MAP_PAGE; page < device.first() + 2; page++)
      edited.insert(page);
  for (const uint64_t page : edited)
    std::memcpy(device.Page(page), base.Page(page), kPage);
}

}  // namespace
}  // namespace daxsnap::format

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  daxsnap::format::FuzzOne(data, size);
  return 0;
}
