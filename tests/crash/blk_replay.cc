// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/blk_replay.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace daxsnap::crash {
namespace {

constexpr uint64_t kPage = KMEM_BLK_BLOCK_SIZE;

}  // namespace

BlkReplay::BlkReplay(uint64_t seed, size_t keep)
    : Replay(seed, keep), blocks_(blktest::kBlocks, Block(kPage)) {}

void BlkReplay::Begin(uint64_t number) {
  const blktest::Operation o = sequence_->Next();
  for (uint64_t sector = o.first; sector < o.first + o.count; sector++) {
    const uint64_t number_of_block = sector / blktest::kSectorsPerBlock;
    Block& block =
        pending_.try_emplace(number_of_block, blocks_[number_of_block])
            .first->second;
    blktest::FillSector(
        seed_, o.discard ? 0 : number, sector,
        &block[sector % blktest::kSectorsPerBlock * blktest::kSector]);
  }
}

bool BlkReplay::OnMark(const std::string& word, uint64_t number) {
  if (word == "seed" && pending_.empty()) {
    seed_ = number;
    sequence_.emplace(seed_);
    done_ = 0;
    for (uint64_t block = 0; block < blocks_.size(); block++)
      pending_[block] = Block(kPage);
    return true;
  }
  if (word == "begin" && pending_.empty() && sequence_ && number == done_ + 1) {
    Begin(number);
    return true;
  }
  if (word == "done" && !pending_.empty() &&
      number == (pending_.size() == blocks_.size() ? 0 : done_ + 1)) {
    for (auto& [block, contents] : pending_)
      blocks_[block] = std::move(contents);
    pending_.clear();
    done_ = number;
    return true;
  }
  return false;
}

std::string BlkReplay::Allowed() const {
  // Between two seeds, blk_writer could not tell.
  if (!sequence_ || pending_.size() == blocks_.size()) return "";
  return std::to_string(seed_) + " " + std::to_string(done_);
}

// As the driver does it: the machine has a say in where blocks can be, too.
std::string BlkReplay::ReadLayout(kmem_blk_layout* layout) const {
  std::vector<std::byte> head(KMEM_BLK_MAP_PAGE * kPage);
  for (uint64_t page = 0; page < KMEM_BLK_MAP_PAGE; page++)
    std::memcpy(&head[page * kPage], state().Page(page), kPage);
  kmem_persist_why why = {};
  if (kmem_blk_layout_read(head.data(), nr_pages(), layout, &why) != 0)
    return why.text;
  layout->first = std::max<uint64_t>(layout->first, first());
  layout->end = end();
  return "";
}

std::vector<__le64> BlkReplay::ReadMap(const kmem_blk_layout& layout) const {
  std::vector<__le64> map(layout.map_pages * KMEM_BLK_MAP_ENTRIES);
  for (uint64_t page = 0; page < layout.map_pages; page++)
    std::memcpy(&map[page * KMEM_BLK_MAP_ENTRIES],
                state().Page(KMEM_BLK_MAP_PAGE + page), kPage);
  return map;
}

std::vector<bool> BlkReplay::InUse() const {
  std::vector<bool> used(nr_pages());
  kmem_blk_layout layout = {};
  if (!ReadLayout(&layout).empty()) return used;
  const std::vector<__le64> map = ReadMap(layout);
  std::fill_n(used.begin(), KMEM_BLK_MAP_PAGE + layout.map_pages, true);
  for (uint64_t block = 0; block < layout.nr_blocks; block++) {
    const __s64 page = kmem_blk_entry_page(&layout, block, map[block]);
    if (page > 0) used[static_cast<size_t>(page)] = true;
  }
  return used;
}

std::string BlkReplay::CheckState() {
  static const Block kZeroes(kPage);
  kmem_blk_layout layout = {};
  std::string wrong = ReadLayout(&layout);
  if (!wrong.empty()) return wrong;
  const std::vector<__le64> map = ReadMap(layout);
  std::vector<unsigned long> used(nr_pages() / 64 + 1);
  __u64 stored = 0;
  kmem_persist_why why = {};
  if (kmem_blk_map_verify(&layout, map.data(), used.data(), &stored, &why) != 0)
    return why.text;
  bool any_new = false;
  for (uint64_t block = 0; block < blocks_.size(); block++) {
    const __s64 page = kmem_blk_entry_page(&layout, block, map[block]);
    const std::byte* found =
        page == 0 ? kZeroes.data() : state().Page(static_cast<uint64_t>(page));
    if (std::memcmp(found, blocks_[block].data(), kPage) == 0) continue;
    const auto next = pending_.find(block);
    if (next == pending_.end() ||
        std::memcmp(found, next->second.data(), kPage) != 0)
      return "block " + std::to_string(block) + " (device page " +
             std::to_string(page) + ") is as no operation left it";
    any_new = true;
  }
  if (!pending_.empty())
    ++(any_new ? coverage_.new_state : coverage_.old_state);
  return "";
}

}  // namespace daxsnap::crash
