// SPDX-License-Identifier: Apache-2.0
#include "snapd/access.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "snapd/errors.h"

namespace daxsnap {
namespace {

absl::Status Denied(const Caller& caller, std::string message,
                    std::string hint) {
  return MakeError({.code = absl::StatusCode::kPermissionDenied,
                    .reason = reason::kPermissionDenied,
                    .message = std::move(message),
                    .hint = std::move(hint),
                    .metadata = {{"uid", absl::StrCat(caller.uid)}}});
}

// source: __ptrace_may_access() in kernel/ptrace.c and
// cap_ptrace_access_check() in security/commoncap.c, for a caller without
// capabilities
bool MayPtrace(const Caller& caller, const TaskInfo& task) {
  const auto is_uid = [&](uid_t uid) { return uid == caller.uid; };
  const auto is_gid = [&](gid_t gid) { return gid == caller.gid; };
  return std::all_of(task.uids.begin(), task.uids.end(), is_uid) &&
         std::all_of(task.gids.begin(), task.gids.end(), is_gid) &&
         task.proc_owner == caller.uid && !task.privileged;
}

}  // namespace

absl::Status CheckTaskAccess(const Caller& caller,
                             const std::vector<TaskInfo>& tree) {
  if (caller.is_root()) return absl::OkStatus();
  for (const TaskInfo& task : tree) {
    if (MayPtrace(caller, task)) continue;
    return Denied(caller,
                  absl::StrCat("pid ", task.id.pid, " (", task.comm,
                               ") is not yours: uid ", caller.uid,
                               " may not take a snapshot of it"),
                  "run the command as root or as the owner of the task");
  }
  return absl::OkStatus();
}

uid_t OwnerOf(const std::vector<TaskInfo>& tree) {
  const TaskInfo& root = tree.front();
  const Caller owner = {.uid = root.uids[0], .gid = root.gids[0]};
  return CheckTaskAccess(owner, tree).ok() ? owner.uid : 0;
}

absl::Status CheckSnapshotAccess(const Caller& caller, uid_t owner,
                                 const std::string& name) {
  if (caller.is_root() || caller.uid == owner) return absl::OkStatus();
  return Denied(caller,
                absl::StrCat("snapshot ", name, " is not yours: uid ",
                             caller.uid, " may not use it"),
                "run the command as root or as the owner of the snapshot");
}

}  // namespace daxsnap
