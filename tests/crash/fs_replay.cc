// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/fs_replay.h"

#include <endian.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

namespace daxsnap::crash {
namespace {

constexpr uint64_t kAgain = 16;  // one state in so many is recovered twice

using Paths = std::map<std::string, const format::Inode*>;

// fs_generations makes no deeper ones.
Paths PathsOf(const format::Recovery& recovery) {
  Paths paths;
  for (const auto& [ino, inode] : recovery.inodes) {
    if (ino == KMEMFS_ROOT_INO) continue;
    std::string path = inode.name;
    if (inode.parent != KMEMFS_ROOT_INO)
      path = recovery.inodes.at(inode.parent).name + "/" + path;
    paths[path] = &inode;
  }
  return paths;
}

uint64_t NumberIn(const Paths& paths, const SparseMedia& media) {
  const auto found = paths.find(vmtest::kGenerationFile);
  if (found == paths.end() || found->second->runs.empty()) return 0;
  const format::Inode& inode = *found->second;
  const auto* text =
      reinterpret_cast<const char*>(media.Page(inode.runs[0].page));
  return std::strtoull(
      std::string(text, std::min<uint64_t>(inode.size, 31)).c_str(), nullptr,
      10);
}

std::string CompareFile(const format::Inode& inode,
                        const std::vector<uint64_t>& seeds,
                        const SparseMedia& media) {
  if (inode.size != seeds.size() * KMEMFS_PAGE_SIZE)
    return "has " + std::to_string(inode.size) + " bytes";
  std::vector<uint64_t> device_page(seeds.size());
  for (const format::Extent& run : inode.runs)
    for (uint64_t i = 0; i < run.count; i++)
      device_page.at(run.file_page + i) = run.page + i;
  for (size_t i = 0; i < seeds.size(); i++) {
    const std::optional<uint64_t> seed =
        device_page[i] == 0 ? 0 : media.SeedOf(device_page[i]);
    if (seed != seeds[i])
      return "differs at page " + std::to_string(i) + " (device page " +
             std::to_string(device_page[i]) + ")";
  }
  return "";
}

// As they are on media
std::string XattrsOf(const std::string& path, uint64_t generation) {
  const std::string value = vmtest::AttributeOf(path, generation);
  if (value.empty()) return "";
  const std::string name = vmtest::kGenerationAttribute;
  kmemfs_xattr head = {};
  head.prefix = KMEMFS_XATTR_USER;
  head.name_len = static_cast<__u8>(name.size());
  head.value_len = htole16(static_cast<uint16_t>(value.size()));
  return std::string(reinterpret_cast<const char*>(&head), sizeof(head)) +
         name + value;
}

std::string CompareXattrs(const Paths& paths, uint64_t generation) {
  for (const auto& [path, inode] : paths)
    if (inode->xattrs != XattrsOf(path, generation))
      return path + " has other attributes";
  return "";
}

std::string Compare(Paths paths, uint64_t generation,
                    const vmtest::Model& model, const SparseMedia& media) {
  for (const auto& [file, seeds] : model) {
    const std::string name = vmtest::NameOf(file);
    const auto found = paths.find(name);
    if (found == paths.end()) return name + " is missing";
    const std::string wrong = CompareFile(*found->second, seeds, media);
    if (!wrong.empty()) return name + " " + wrong;
    paths.erase(found);
  }
  if (generation > 0 && paths.erase(vmtest::kGenerationFile) +
                                paths.erase(vmtest::kGenerationDir) !=
                            2)
    return "a part of the tree is missing";
  return paths.empty() ? "" : paths.begin()->first + " should not be there";
}

uint64_t MiddleOfRoot(unsigned int slot) {
  return (1 + slot) * KMEMFS_PAGE_SIZE + KMEMFS_PAGE_SIZE / 2;
}

}  // namespace

FsReplay::FsReplay(uint64_t seed, size_t keep, uint64_t committed,
                   uint64_t begun, size_t max_pages)
    : Replay(seed, keep),
      max_pages_(max_pages),
      committed_(committed),
      begun_(begun),
      committed_model_(vmtest::ModelOf(committed, max_pages)),
      begun_model_(vmtest::ModelOf(begun, max_pages)) {}

void FsReplay::Begin(uint64_t generation) {
  for (const vmtest::Operation& o :
       vmtest::OperationsOf(generation, max_pages_))
    vmtest::ApplyToModel(begun_model_, o);
  begun_ = generation;
}

bool FsReplay::OnMark(const std::string& word, uint64_t number) {
  if (word == "begin" && begun_ == committed_ && number == begun_ + 1) {
    Begin(number);
    return true;
  }
  if (word == "done" && number == begun_ && begun_ == committed_ + 1) {
    committed_ = begun_;
    committed_model_ = begun_model_;
    return true;
  }
  return false;
}

std::string FsReplay::Allowed() const {
  return std::to_string(committed_) + " " + std::to_string(begun_);
}

kmemfs_media FsReplay::Media(const SparseMedia* media) const {
  kmemfs_media m = {
      .page = [](const kmemfs_media* m, __u64 page) -> const void* {
        if (page >= m->nr_pages) return nullptr;
        return static_cast<const SparseMedia*>(m->ctx)->Page(page);
      },
      .ctx = const_cast<SparseMedia*>(media),
      .nr_pages = nr_pages(),
      .first = std::max<uint64_t>(first(), KMEM_PERSIST_HEAD_PAGES),
      .end = end(),
      .uuid = {}};
  const auto* header =
      reinterpret_cast<const kmem_persist_header*>(media->Page(0));
  std::memcpy(m.uuid, header->uuid, sizeof(m.uuid));
  return m;
}

std::vector<bool> FsReplay::InUse() const {
  const format::Recovery recovery = format::Recover(Media(&state()));
  std::vector<bool> used(nr_pages());
  for (uint64_t page = 0; page < used.size(); page++)
    used[page] = page < KMEM_PERSIST_HEAD_PAGES ||
                 (recovery.ok() &&
                  (recovery.meta_bits[page] || recovery.data_bits[page]));
  return used;
}

bool FsReplay::IsMeta(const std::byte* page) const {
  const auto* head = reinterpret_cast<const kmemfs_page_head*>(page);
  return kmem_persist_page_crc(page, offsetof(kmemfs_page_head, crc)) ==
         le32toh(head->crc);
}

void FsReplay::OnHead(uint64_t page, SparseMedia* media) const {
  if (!cached_root_ || page != KMEMFS_ROOT_SLOTS) return;
  uint64_t newer = 0, highest = 0;
  for (uint64_t slot = 1; slot <= KMEMFS_ROOT_SLOTS; slot++) {
    const auto* root = reinterpret_cast<const kmemfs_root*>(media->Page(slot));
    const uint64_t generation = le64toh(root->head.generation);
    if (le32toh(root->head.kind) != KMEMFS_KIND_ROOT || generation < highest)
      continue;
    newer = slot;
    highest = generation;
  }
  const std::vector<std::byte> none(SparseMedia::kPage);
  if (newer != 0) media->Write(newer * none.size(), none.data(), none.size());
}

// Both roots are whole, and both lead to something: the power went before the
// older one ended. Some content is the older one's alone: whoever trusts that
// root once the page is somebody else's is wrong, and no checksum says so.
bool FsReplay::Special() {
  if (committed_ == 0) return false;
  for (uint64_t page = 1; page <= KMEMFS_ROOT_SLOTS; page++) {
    const auto* root = reinterpret_cast<const kmemfs_root*>(state().Page(page));
    if (le32toh(root->head.kind) != KMEMFS_KIND_ROOT ||
        kmem_persist_page_crc(root, offsetof(kmemfs_page_head, crc)) !=
            le32toh(root->head.crc))
      return false;
  }
  const format::Recovery newer = format::Recover(Media(&state()));
  if (!newer.ok()) return false;
  InvertByte(MiddleOfRoot(newer.slot));
  const format::Recovery older = format::Recover(Media(&state()));
  InvertByte(MiddleOfRoot(newer.slot));
  if (!older.ok()) return false;
  for (uint64_t page = 0; page < nr_pages(); page++)
    if (older.data_bits[page] && !newer.data_bits[page] &&
        !newer.meta_bits[page])
      return true;
  return false;
}

std::string FsReplay::CheckTree(const format::Recovery& recovery) {
  const Paths paths = PathsOf(recovery);
  const uint64_t generation = NumberIn(paths, state());
  std::string who = "generation " + std::to_string(generation);
  if (generation != committed_ && generation != begun_)
    return who + ", not " + Allowed();
  const bool is_new = generation == begun_;
  std::string wrong = Compare(
      paths, generation, is_new ? begun_model_ : committed_model_, state());
  if (wrong.empty() && generation > 0 && recovery.root.version > 1)
    wrong = CompareXattrs(paths, generation);
  if (!wrong.empty()) return who + ": " + wrong;
  if (begun_ != committed_)
    ++(is_new ? coverage_.new_state : coverage_.old_state);
  return "";
}

std::string FsReplay::CheckAgain(const format::Recovery& first) const {
  const format::Recovery second = format::Recover(Media(&state()));
  if (second.slot != first.slot || second.error != first.error ||
      second.meta != first.meta || second.data_bits != first.data_bits)
    return "recovering twice gives two results";
  return "";
}

// Media loses the root that rules. Then there is no state, or a whole one, but
// never an older one whose pages others may have.
std::string FsReplay::CheckDamaged(unsigned int ruling) {
  InvertByte(MiddleOfRoot(ruling));
  const format::Recovery recovery = format::Recover(Media(&state()));
  std::string wrong;
  if (recovery.ok()) {
    coverage_.fell_back++;
    wrong = CheckTree(recovery);
    if (!wrong.empty()) wrong = "with the ruling root damaged: " + wrong;
  } else {
    coverage_.refused++;
  }
  InvertByte(MiddleOfRoot(ruling));
  return wrong;
}

std::string FsReplay::CheckState() {
  const format::Recovery recovery = format::Recover(Media(&state()));
  if (coverage_.states % kAgain == 0) {
    std::string wrong = CheckAgain(recovery);
    if (!wrong.empty()) return wrong;
  }
  if (!recovery.ok()) return "not recovered: " + recovery.why;
  const std::string wrong = CheckTree(recovery);
  return wrong.empty() ? CheckDamaged(recovery.slot) : wrong;
}

}  // namespace daxsnap::crash
