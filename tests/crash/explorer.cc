// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/explorer.h"

#include <endian.h>

#include "tests/unit/format/recovery.h"

namespace daxsnap::crash {
namespace {

constexpr uint64_t kAgain = 16;  // one state in so many is recovered twice

}  // namespace

void Explorer::Explore(const Device& device, const ModelFs& fs) {
  fs_ = &fs;
  CrashStates::Explore(device);
}

Bytes Explorer::RandomCrash(const Device& device, const ModelFs& fs) {
  fs_ = &fs;
  return CrashStates::RandomCrash(device);
}

std::string Explorer::CheckAgain(const format::Recovery& first,
                                 const Bytes& image) const {
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
  const Bytes before = image;
  const format::Recovery second = format::Recover(MediaOf(image, kUuid));
  if (image != before) return "recovering writes";
  if (second.slot != first.slot || second.error != first.error ||
      second.inodes != first.inodes || second.meta != first.meta)
    return "recovering twice gives two results";
  return "";
}

std::string Explorer::Check(const Bytes& image) {
  const kmemfs_media media = MediaOf(image, kUuid);
  const format::Recovery recovery = format::Recover(media);
  if (coverage_.states % kAgain == 0) {
    std::string wrong = CheckAgain(recovery, image);
    if (!wrong.empty()) return wrong;
  }
  if (!recovery.ok()) return "not recovered: " + recovery.why;
  for (unsigned int slot = 0; slot < KMEMFS_ROOT_SLOTS; slot++) {
    const auto* root =
        static_cast<const kmemfs_root*>(media.page(&media, 1 + slot));
    if (le32toh(root->head.kind) == KMEMFS_KIND_ROOT &&
        kmem_persist_page_crc(root, 4) != root->head.crc)
      coverage_.torn_slot++;
  }
  const std::string wrong = CheckState(recovery, media);
  return wrong.empty() ? CheckDamaged(image, recovery.slot) : wrong;
}

// Media loses the root that rules. Then there is no state, or a whole one, but
// never an older one whose pages others may have.
std::string Explorer::CheckDamaged(const Bytes& image, unsigned int ruling) {
  Bytes damaged = image;
  damaged[(1 + ruling) * KMEMFS_PAGE_SIZE + KMEMFS_PAGE_SIZE / 2] ^=
      std::byte{1};
  const kmemfs_media media = MediaOf(damaged, kUuid);
  const format::Recovery recovery = format::Recover(media);
  if (!recovery.ok()) {
    coverage_.refused++;
    return "";
  }
  coverage_.fell_back++;
  const std::string wrong = CheckState(recovery, media);
  return wrong.empty() ? "" : "with the ruling root damaged: " + wrong;
}

std::string Explorer::CheckState(const format::Recovery& recovery,
                                 const kmemfs_media& media) {
  const ReadTree found = ReadState(recovery, media);
  if (!found.torn.empty()) return found.torn;
  const std::string is_new =
      fs_->pending() ? Difference(*fs_->pending(), found.state) : "no commit";
  const std::string is_old = Difference(fs_->durable(), found.state);
  if (is_new.empty()) {
    coverage_.new_state++;
  } else if (!is_old.empty()) {
    return "not the old state: " + is_old + "; not the new: " + is_new;
  } else if (fs_->pending()) {
    coverage_.old_state++;
  }
  return "";
}

}  // namespace daxsnap::crash
