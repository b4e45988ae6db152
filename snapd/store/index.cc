// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/index.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap {

Index::Mark Index::Mark::Of(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .links = info.st_nlink,
          .size = static_cast<uint64_t>(info.st_size),
          .modified = absl::TimeFromTimespec(info.st_mtim),
          .changed = absl::TimeFromTimespec(info.st_ctim)};
}

absl::Duration Index::Monotonic() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

template <typename Content>
bool Index::Settled(const Mark& mark, absl::Duration now,
                    Kept<Content>* kept) const {
  if (kept->mark != mark) *kept = {mark, now, nullptr};
  return now - kept->since >= settle_;
}

absl::StatusOr<Index::Names> Index::List() {
  struct stat info;
  const bool known =
      FileFault("stat", "snapshots") == 0 && fstat(snapshots_, &info) == 0;
  Mark mark;
  bool settled = false;
  if (known) {
    mark = Mark::Of(info);
    const absl::Duration now = clock_();
    const std::lock_guard lock(mutex_);
    settled = Settled(mark, now, &names_);
    if (names_.content != nullptr) return names_.content;
  }
  auto listed = ListDirectory(snapshots_);
  if (!listed.ok()) return listed.status();
  auto names =
      std::make_shared<const std::vector<std::string>>(*std::move(listed));
  const std::lock_guard lock(mutex_);
  if (settled && names_.mark == mark) names_.content = names;
  std::erase_if(entries_, [&names](const auto& kept) {
    return !std::binary_search(names->begin(), names->end(), kept.first);
  });
  return names;
}

Index::Sight Index::Look(const std::string& name) {
  const std::string path = absl::StrCat(name, "/manifest.pb");
  struct stat info;
  if (FileFault("stat", path) != 0 ||
      fstatat(snapshots_, path.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
      !S_ISREG(info.st_mode)) {
    return {};
  }
  const Mark mark = Mark::Of(info);
  const absl::Duration now = clock_();
  const std::lock_guard lock(mutex_);
  Kept<Entry>* kept = &entries_[name];
  const bool settled = Settled(mark, now, kept);
  return {.entry = kept->content,
          .mark = settled ? std::optional<Mark>(mark) : std::nullopt};
}

void Index::Keep(const std::string& name, const Mark& mark, Entry entry) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end() || found->second.mark != mark) return;
  found->second.content = std::move(entry);
}

void Index::Drop(const std::string& name) {
  const std::lock_guard lock(mutex_);
  entries_.erase(name);
}

}  // namespace daxsnap
