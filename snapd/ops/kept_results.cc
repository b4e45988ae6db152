// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/kept_results.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/log.h"
#include "snapd/store/records.h"

namespace daxsnap {

KeptResults::KeptResults(const std::string& directory) {
  if (directory.empty()) return;
  auto made = EnsureDirectories(directory);
  auto uids = made.ok() ? Records(made->get()).List() : made.status();
  if (!uids.ok()) {
    LogWarning(absl::StrCat("results of restores are not kept in ", directory,
                            ": ", uids.status().message()));
    return;
  }
  directory_ = *std::move(made);
  for (const std::string& uid : *uids) {
    auto record = Records(directory_.get()).Read(uid);
    if (record.ok()) records_.push_back(*std::move(record));
  }
}

void KeptResults::Add(internal::Operation record) {
  const std::lock_guard lock(mutex_);
  if (directory_.valid()) {
    absl::Status written = Records(directory_.get()).Write(record);
    if (!written.ok()) {
      LogWarning(absl::StrCat("the next snapd will not know the restore of ",
                              record.name(), ": ", written.message()));
    }
  }
  records_.push_back(std::move(record));
}

void KeptResults::Remove(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  if (std::erase_if(records_, [&uid](const internal::Operation& record) {
        return record.uid() == uid;
      }) == 0) {
    return;
  }
  if (directory_.valid()) (void)Records(directory_.get()).Remove(uid);
}

std::vector<internal::Operation> KeptResults::All() const {
  const std::lock_guard lock(mutex_);
  return records_;
}

}  // namespace daxsnap
