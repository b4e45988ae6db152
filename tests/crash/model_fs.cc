// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/model_fs.h"

#include <sys/stat.h>

#include <algorithm>

namespace daxsnap::crash {

ModelFs::ModelFs(Device* device, const Mistake& mistake, uint32_t version)
    : device_(device),
      fault_(mistake.fault),
      nth_(mistake.nth),
      version_(version) {}

// Pages are taken from the end, so what was freed last is used again first:
// mistakes in their reuse show soon.
uint64_t ModelFs::AllocatePage() {
  if (free_.empty()) return 0;
  const uint64_t page = free_.back();
  free_.pop_back();
  return page;
}

void ModelFs::FreePage(uint64_t page) { free_.push_back(page); }

void ModelFs::DropData(uint64_t page) {
  if (--owners_[page] > 0) return;
  owners_.erase(page);
  unflushed_.erase(page);
  if (committed_.contains(page) && fault_ != Fault::kReuseDataBeforeCommit) {
    dropped_.push_back(page);
  } else {
    FreePage(page);
  }
}

bool ModelFs::Named(uint64_t parent, const std::string& name,
                    uint64_t* ino) const {
  const auto found =
      std::find_if(now_.begin(), now_.end(), [&](const auto& file) {
        return file.first != KMEMFS_ROOT_INO && file.second.parent == parent &&
               file.second.name == name;
      });
  if (found == now_.end()) return false;
  *ino = found->first;
  return true;
}

bool ModelFs::Empty(uint64_t dir) const {
  return std::none_of(now_.begin(), now_.end(), [&](const auto& file) {
    return file.second.parent == dir && file.first != dir;
  });
}

void ModelFs::Touch(uint64_t ino) {
  nodes_[ino].changed = true;
  changed_leaves_.insert(ino / KMEMFS_INODES_PER_PAGE);
}

uint64_t ModelFs::Create(uint64_t parent, const std::string& name,
                         uint32_t mode) {
  uint64_t ino = 0;
  if (!now_.contains(parent) || !S_ISDIR(now_[parent].mode) ||
      Named(parent, name, &ino))
    return 0;
  for (ino = KMEMFS_ROOT_INO + 1; now_.contains(ino); ino++) {
  }
  if (ino > kMaxInode) return 0;
  now_[ino] = {.parent = parent, .mode = mode, .name = name, .pages = {}};
  Touch(ino);
  return ino;
}

bool ModelFs::Write(uint64_t ino, uint64_t file_page, Tag tag) {
  const auto file = now_.find(ino);
  if (file == now_.end() || !S_ISREG(file->second.mode)) return false;
  auto& pages = nodes_[ino].pages;
  const auto old = pages.find(file_page);
  const bool in_place =
      old != pages.end() && owners_[old->second] == 1 &&
      (!committed_.contains(old->second) || fault_ == Fault::kOverwriteInPlace);
  if (!in_place) {
    const uint64_t page = AllocatePage();
    if (!page) return false;
    if (old != pages.end()) DropData(old->second);
    pages[file_page] = page;
    owners_[page] = 1;
  }
  FillPage(device_->Page(pages[file_page]), tag);
  unflushed_.insert(pages[file_page]);
  file->second.pages[file_page] = tag;
  file->second.size =
      std::max(file->second.size, (file_page + 1) * KMEMFS_PAGE_SIZE);
  Touch(ino);
  return true;
}

bool ModelFs::Truncate(uint64_t ino, uint64_t pages) {
  const auto file = now_.find(ino);
  if (file == now_.end() || !S_ISREG(file->second.mode)) return false;
  auto& owned = nodes_[ino].pages;
  for (auto at = owned.lower_bound(pages); at != owned.end();) {
    DropData(at->second);
    file->second.pages.erase(at->first);
    at = owned.erase(at);
  }
  file->second.size = pages * KMEMFS_PAGE_SIZE;
  Touch(ino);
  return true;
}

bool ModelFs::Clone(uint64_t from, uint64_t to) {
  if (from == to || !now_.contains(from) || !S_ISREG(now_[from].mode) ||
      !Truncate(to, 0))
    return false;
  nodes_[to].pages = nodes_[from].pages;
  for (const auto& [at, page] : nodes_[to].pages) owners_[page]++;
  now_[to].pages = now_[from].pages;
  now_[to].size = now_[from].size;
  return true;
}

bool ModelFs::SetXattrs(uint64_t ino, Tag tag) {
  if (version_ != 2 || !now_.contains(ino)) return false;
  std::string value;
  while (value.size() <= KMEMFS_XATTR_IN_RECORD) value += std::to_string(tag);
  now_[ino].xattrs = format::Xattr(KMEMFS_XATTR_USER, "tag", value);
  Touch(ino);
  return true;
}

void ModelFs::Remove(uint64_t ino) {
  for (const auto& [at, page] : nodes_[ino].pages) DropData(page);
  nodes_[ino].pages.clear();
  now_.erase(ino);
  Touch(ino);
}

bool ModelFs::Unlink(uint64_t ino) {
  if (ino == KMEMFS_ROOT_INO || !now_.contains(ino)) return false;
  if (S_ISDIR(now_[ino].mode) && !Empty(ino)) return false;
  Remove(ino);
  return true;
}

bool ModelFs::Rename(uint64_t ino, uint64_t parent, const std::string& name) {
  if (ino == KMEMFS_ROOT_INO || !now_.contains(ino) || !now_.contains(parent))
    return false;
  // Directories stay where they are: no cycles here.
  if (!S_ISREG(now_[ino].mode) || !S_ISDIR(now_[parent].mode)) return false;
  uint64_t over = 0;
  if (Named(parent, name, &over)) {
    if (over == ino || !S_ISREG(now_[over].mode)) return false;
    Remove(over);
  }
  now_[ino].parent = parent;
  now_[ino].name = name;
  Touch(ino);
  return true;
}

}  // namespace daxsnap::crash
