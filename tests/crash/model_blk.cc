// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/model_blk.h"

#include <cstring>
#include <utility>

namespace daxsnap::crash {
namespace {

constexpr uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr uint8_t kUuid[16] = {0xb1, 0x0c};

const std::byte* At(const Bytes& image, uint64_t page) {
  return image.data() + page * kPage;
}

}  // namespace

BlkRecovery RecoverBlk(const Bytes& image) {
  BlkRecovery found;
  kmem_persist_why why = {};
  kmem_blk_layout layout;
  std::vector<unsigned long> used(image.size() / kPage);
  __u64 stored = 0;
  const auto* map =
      reinterpret_cast<const __le64*>(At(image, KMEM_BLK_MAP_PAGE));
  if (kmem_blk_layout_read(image.data(), image.size() / kPage, &layout, &why) ||
      kmem_blk_map_verify(&layout, map, used.data(), &stored, &why)) {
    found.why = why.text;
    return found;
  }
  for (uint64_t block = 0; block < layout.nr_blocks; block++) {
    const auto page =
        static_cast<uint64_t>(kmem_blk_entry_page(&layout, block, map[block]));
    if (page) {
      found.blocks.emplace_back(At(image, page), At(image, page + 1));
      found.pages.insert(page);
    } else {
      found.blocks.emplace_back(kPage);
    }
  }
  return found;
}

ModelBlk::ModelBlk(Device* device, uint64_t seed, BlkFault fault)
    : device_(device), random_(seed), fault_(fault) {
  media_.flush = [](const kmem_blk_media* m, kmem_persist_step step,
                    const void* address, size_t length) {
    static_cast<ModelBlk*>(m->ctx)->Flush(step, address, length);
  };
  media_.fence = [](const kmem_blk_media* m, kmem_persist_step step) {
    static_cast<ModelBlk*>(m->ctx)->Fence(step);
  };
  media_.ctx = this;
}

void ModelBlk::Format() {
  auto* header = static_cast<kmem_persist_header*>(device_->Page(0));
  kmem_persist_header_init(header, KMEM_PERSIST_BLK, kUuid, nullptr,
                           device_->nr_pages() * kPage);
  kmem_blk_mkfs(device_->Page(KMEM_BLK_SUPER_PAGE), kUuid, kBlkBlocks);
  device_->Flush(header, device_->nr_pages() * kPage);
  device_->Fence();
  Attach();
}

void ModelBlk::Attach() {
  kmem_blk_layout_read(device_->Page(0), device_->nr_pages(), &media_.layout,
                       nullptr);
  media_.map = static_cast<__le64*>(device_->Page(KMEM_BLK_MAP_PAGE));
  BlkRecovery found = RecoverBlk(device_->media());
  durable_ = std::move(found.blocks);
  pending_.clear();
  free_.clear();
  for (uint64_t page = media_.layout.first; page < media_.layout.end; page++)
    if (!found.pages.contains(page)) free_.insert(page);
}

bool ModelBlk::Without(kmem_persist_step step) const {
  switch (step) {
    case KMEM_STEP_BLK_DATA:
      return fault_ == BlkFault::kNoDataFlush;
    case KMEM_STEP_BLK_BEFORE_ENTRY:
      return fault_ == BlkFault::kNoFenceBeforeEntry;
    case KMEM_STEP_BLK_ENTRY:
      return fault_ == BlkFault::kNoEntryFlush;
    case KMEM_STEP_BLK_AFTER_ENTRY:
      return fault_ == BlkFault::kNoFenceAfterEntry;
    case KMEM_STEP_BLK_CLEAR:
      return fault_ == BlkFault::kNoClearFlush;
    case KMEM_STEP_BLK_AFTER_CLEAR:
      return fault_ == BlkFault::kNoClearFence;
    default:
      return false;
  }
}

void ModelBlk::Flush(kmem_persist_step step, const void* address,
                     size_t length) {
  if (Without(step)) return;
  const bool part = fault_ == BlkFault::kOnlyFirstLineFlush;
  device_->Flush(address,
                 part && step == KMEM_STEP_BLK_DATA ? kLineSize : length);
}

void ModelBlk::Fence(kmem_persist_step step) {
  if (!Without(step)) device_->Fence();
}

uint64_t ModelBlk::PageOfBlock(uint64_t block) const {
  return static_cast<uint64_t>(kmem_blk_lookup(&media_, block));
}

void ModelBlk::ScribbleOn(uint64_t page) {
  auto* words = static_cast<uint64_t*>(device_->Page(page));
  const uint64_t junk = random_();
  for (size_t i = 0; i < kPage / sizeof(*words); i++) words[i] = junk + i;
}

void ModelBlk::Scribble() {
  for (const uint64_t page : free_)
    if (random_() % 2) ScribbleOn(page);
  if (random_() % 2) return;
  // Caches write back by themselves, too.
  for (const uint64_t page : free_) device_->Flush(device_->Page(page), kPage);
  device_->Fence();
}

void ModelBlk::Done() {
  for (auto& [block, contents] : pending_) durable_[block] = contents;
  pending_.clear();
}

bool ModelBlk::Write(uint64_t block, uint64_t first, uint64_t count) {
  if (free_.empty()) return false;
  auto at = free_.begin();
  std::advance(at, random_() % free_.size());
  const uint64_t old = PageOfBlock(block);
  const bool in_place = fault_ == BlkFault::kOverwriteInPlace && old;
  const uint64_t page = in_place ? old : *at;
  if (!in_place) free_.erase(at);

  Block contents = durable_[block];
  for (uint64_t i = first * kBlkSector; i < (first + count) * kBlkSector; i++)
    contents[i] = static_cast<std::byte>(random_());
  pending_[block] = contents;
  std::memcpy(device_->Page(page), contents.data(), kPage);
  if (old && fault_ == BlkFault::kReuseBeforeStore) ScribbleOn(old);
  kmem_blk_store(&media_, block, static_cast<__u32>(page), device_->Page(page));
  Done();
  if (old && !in_place) free_.insert(old);
  return true;
}

void ModelBlk::Clear(uint64_t block, uint64_t count) {
  std::set<uint64_t> old;
  for (uint64_t b = block; b < block + count; b++) {
    if (const uint64_t page = PageOfBlock(b)) old.insert(page);
    pending_[b] = Block(kPage);
  }
  if (fault_ == BlkFault::kReuseBeforeClear)
    for (const uint64_t page : old) ScribbleOn(page);
  kmem_blk_clear(&media_, block, count);
  Done();
  free_.insert(old.begin(), old.end());
}

}  // namespace daxsnap::crash
