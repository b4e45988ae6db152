// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/index.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/files.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap {
namespace {

Index::Mark ToMark(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .size = static_cast<uint64_t>(info.st_size),
          .modified = absl::TimeFromTimespec(info.st_mtim),
          .changed = absl::TimeFromTimespec(info.st_ctim)};
}

}  // namespace

bool Index::Settled(const Mark& mark) const {
  return std::max(mark.modified, mark.changed) <= absl::Now() - settle_;
}

absl::StatusOr<Index::Names> Index::List() {
  struct stat info;
  const bool known =
      FileFault("stat", "snapshots") == 0 && fstat(snapshots_, &info) == 0;
  Mark mark;
  if (known) {
    mark = ToMark(info);
    const std::lock_guard lock(mutex_);
    if (names_ != nullptr && names_mark_ == mark) return names_;
  }
  auto listed = ListDirectory(snapshots_);
  if (!listed.ok()) return listed.status();
  auto names =
      std::make_shared<const std::vector<std::string>>(*std::move(listed));
  const std::lock_guard lock(mutex_);
  names_ = nullptr;
  if (known && Settled(mark)) {
    names_mark_ = mark;
    names_ = names;
  }
  std::erase_if(entries_, [&names](const auto& kept) {
    return !std::binary_search(names->begin(), names->end(), kept.first);
  });
  return names;
}

std::optional<Index::Mark> Index::MarkOf(const std::string& name) const {
  const std::string path = absl::StrCat(name, "/manifest.pb");
  struct stat info;
  if (FileFault("stat", path) != 0 ||
      fstatat(snapshots_, path.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
      !S_ISREG(info.st_mode)) {
    return std::nullopt;
  }
  return ToMark(info);
}

Index::Entry Index::Find(const std::string& name, const Mark& mark) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end() || found->second.mark != mark) return nullptr;
  return found->second.entry;
}

void Index::Keep(const std::string& name, const Mark& mark, Entry entry) {
  if (!Settled(mark)) return;
  const std::lock_guard lock(mutex_);
  entries_[name] = {mark, std::move(entry)};
}

void Index::Drop(const std::string& name) {
  const std::lock_guard lock(mutex_);
  entries_.erase(name);
}

}  // namespace daxsnap
