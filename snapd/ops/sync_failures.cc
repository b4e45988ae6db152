// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/sync_failures.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "host/task/file_sync.h"

namespace daxsnap {

void SyncFailures::Add(const ProcFs& proc, const std::vector<TaskInfo>& tree,
                       const absl::Status& failure) {
  if (!MayHaveLostData(failure)) return;
  const auto metadata = ErrorMetadataOf(failure);
  const Failure found = {.mount_point = metadata.at("path"),
                         .error = metadata.at("error")};
  const std::lock_guard lock(mutex_);
  std::erase_if(failures_, [&](const auto& entry) {
    const auto& [pid, start_ticks] = entry.first;
    const auto now = proc.ReadTask(pid);
    return absl::IsNotFound(now.status()) ||
           (now.ok() && now->id.start_ticks != start_ticks);
  });
  for (const TaskInfo& task : tree) {
    failures_[{task.id.pid, task.id.start_ticks}] = found;
  }
}

absl::Status SyncFailures::Check(const std::vector<TaskInfo>& tree) const {
  const std::lock_guard lock(mutex_);
  for (const TaskInfo& task : tree) {
    const auto found = failures_.find({task.id.pid, task.id.start_ticks});
    if (found == failures_.end()) continue;
    const auto& [mount_point, error] = found->second;
    return MakeError(
        {.code = absl::StatusCode::kUnavailable,
         .reason = reason::kSyncFailed,
         .message = absl::StrCat(
             "an earlier sync of the file system on ", mount_point,
             ", which pid ", task.id.pid, " uses, failed (", error,
             "): what was written there may be lost, though the kernel does "
             "not say so again; the tasks run on"),
         .hint = "start the program anew, so that it finds out what its files "
                 "have; --force takes the snapshot all the same",
         .metadata = {{"path", mount_point}, {"error", error}}});
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
