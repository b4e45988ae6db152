// SPDX-License-Identifier: Apache-2.0
//
// The entries of one of CRIU's image files.
#ifndef DAXSNAP_SNAPD_ENGINE_IMAGE_ENTRIES_H_
#define DAXSNAP_SNAPD_ENGINE_IMAGE_ENTRIES_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/files.h"
#include "daxsnap/internal/criu.pb.h"
#include "snapd/engine/criu_images.h"

namespace daxsnap {

// The serialized entries of `name` below the directory. DATA_LOSS if it is
// missing or cut short.
absl::StatusOr<std::vector<std::string>> ReadRawEntries(
    int directory, const std::string& name);

inline absl::Status DamagedImage(absl::string_view name) {
  return absl::DataLossError(absl::StrCat("image ", name, " does not parse"));
}

// The same, parsed.
template <typename Entry>
absl::StatusOr<std::vector<Entry>> ReadEntries(int directory,
                                               const std::string& name) {
  auto raw = ReadRawEntries(directory, name);
  if (!raw.ok()) return raw.status();
  std::vector<Entry> entries;
  entries.reserve(raw->size());
  for (const std::string& bytes : *raw) {
    if (!entries.emplace_back().ParseFromString(bytes)) {
      return DamagedImage(name);
    }
  }
  return entries;
}

// Likewise; nullopt if there is no such image: a dead task has none.
template <typename Entry>
absl::StatusOr<std::optional<std::vector<Entry>>> ReadEntriesIfAny(
    int directory, const std::string& name) {
  auto exists = Exists(directory, name);
  if (!exists.ok()) return exists.status();
  if (!*exists) return std::nullopt;
  auto entries = ReadEntries<Entry>(directory, name);
  if (!entries.ok()) return entries.status();
  return *std::move(entries);
}

// Calls `mm` with the memory of each task, and `core` with what is of each of
// its threads. A dead task has neither.
absl::Status VisitTasks(
    int images, const std::vector<ImageTask>& tasks,
    const std::function<void(const internal::criu::Mm&)>& mm,
    const std::function<void(const internal::criu::ThreadCore&)>& core);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_IMAGE_ENTRIES_H_
