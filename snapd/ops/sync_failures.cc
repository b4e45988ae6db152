// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/sync_failures.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

uint64_t TicksNow() {
  struct timespec now = {};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const auto hz = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  constexpr uint64_t kNanoseconds = 1000000000;
  return static_cast<uint64_t>(now.tv_sec) * hz +
         static_cast<uint64_t>(now.tv_nsec) * hz / kNanoseconds;
}

// The tasks above the first of a tree, from its parent on.
std::vector<TaskId> AncestorsOf(const ProcFs& proc,
                                const std::vector<TaskInfo>& tree) {
  std::vector<TaskId> ancestors;
  for (pid_t pid = tree.front().parent_pid; pid > 0;) {
    const auto task = proc.ReadTask(pid);
    if (!task.ok()) break;
    ancestors.push_back(task->id);
    pid = task->parent_pid;
  }
  return ancestors;
}

absl::Status MayBeLost(const LostWrites& lost, const TaskInfo& task) {
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncFailed,
       .message = absl::StrCat(
           "an earlier sync of the file system on ", lost.mount_point,
           ", which pid ", task.id.pid, " uses, failed (", lost.error,
           "): what was written there may be lost, though the kernel does "
           "not say so again; the tasks run on"),
       .hint = "start the program anew, so that it finds out what its files "
               "have; --force takes the snapshot all the same",
       .metadata = {{"path", lost.mount_point}, {"error", lost.error}}});
}

}  // namespace

void SyncFailures::Add(const std::vector<TaskInfo>& tree,
                       const std::vector<LostWrites>& lost) {
  const std::lock_guard lock(mutex_);
  for (const LostWrites& one : lost) {
    Failure& failure = failures_[one.device];
    failure.lost = one;
    failure.at_ticks = TicksNow();
    for (const TaskInfo& task : tree) {
      failure.tasks.emplace(task.id.pid, task.id.start_ticks);
    }
  }
}

absl::Status SyncFailures::Check(const ProcFs& proc,
                                 const std::vector<TaskInfo>& tree,
                                 const std::vector<SyncTarget>& targets) const {
  const std::lock_guard lock(mutex_);
  std::optional<std::vector<TaskId>> ancestors;
  for (const SyncTarget& target : targets) {
    const auto found = failures_.find(target.device);
    if (found == failures_.end()) continue;
    const Failure& failure = found->second;
    for (const TaskInfo& task : tree) {
      if (task.id.start_ticks <= failure.at_ticks) {
        return MayBeLost(failure.lost, task);
      }
    }
    if (!ancestors.has_value()) ancestors = AncestorsOf(proc, tree);
    const bool descends = std::any_of(
        ancestors->begin(), ancestors->end(), [&](const TaskId& id) {
          return failure.tasks.count({id.pid, id.start_ticks}) != 0;
        });
    if (descends) return MayBeLost(failure.lost, tree.front());
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
