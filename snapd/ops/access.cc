// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/access.h"

#include <fcntl.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "host/task/trace_probe.h"

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

absl::Status NotYours(const Caller& caller, const TaskInfo& task) {
  return Denied(
      caller,
      absl::StrCat("pid ", task.id.pid, " (", task.comm, ") is not yours: uid ",
                   caller.uid, " may not take a snapshot of it"),
      "run the command as root or as the owner of the task");
}

// Empty, or why users may not trace their own tasks on this machine.
std::string YamaHint(const ProcFs& proc) {
  const std::string scope =
      ReadFileAt(AT_FDCWD, proc.root() + "/sys/kernel/yama/ptrace_scope",
                 /*limit=*/64)
          .value_or("0");
  if (absl::StartsWith(scope, "0")) return "";
  return absl::StrCat("; kernel.yama.ptrace_scope is ",
                      absl::StripAsciiWhitespace(scope),
                      ", which keeps users from tracing most of their tasks");
}

// The first condition, and what it says without asking anybody else.
// source: __ptrace_may_access() in kernel/ptrace.c and
// cap_ptrace_access_check() in security/commoncap.c, for a caller without
// capabilities
bool HasSameIds(const Caller& caller, const TaskInfo& task) {
  const auto is_uid = [&](uid_t uid) { return uid == caller.uid; };
  const auto is_gid = [&](gid_t gid) { return gid == caller.gid; };
  return std::all_of(task.uids.begin(), task.uids.end(), is_uid) &&
         std::all_of(task.gids.begin(), task.gids.end(), is_gid) &&
         !task.privileged;
}

}  // namespace

absl::Status CheckTaskAccess(const Caller& caller,
                             const std::vector<TaskInfo>& tree,
                             const ProcFs& proc) {
  if (caller.is_root()) return absl::OkStatus();
  // Threads have IDs of their own.
  std::map<pid_t, const TaskInfo*> tasks;
  std::vector<pid_t> threads;
  for (const TaskInfo& task : tree) {
    if (!HasSameIds(caller, task)) return NotYours(caller, task);
    auto found = proc.ReadThreads(task.id.pid);
    if (absl::IsNotFound(found.status())) continue;
    if (!found.ok()) return found.status();
    for (const pid_t thread : *found) {
      tasks[thread] = &task;
      threads.push_back(thread);
    }
  }
  auto refused = FindUntraceable(caller.uid, caller.gid, threads, proc);
  if (!refused.ok()) return refused.status();
  if (!refused->has_value()) return absl::OkStatus();
  const TaskInfo& task = *tasks[**refused];
  return Denied(
      caller,
      absl::StrCat("pid ", task.id.pid, " (", task.comm, "): uid ", caller.uid,
                   " may not take a snapshot of it, as it may not "
                   "ptrace it"),
      absl::StrCat("run the command as root", YamaHint(proc)));
}

absl::StatusOr<uid_t> OwnerOf(const std::vector<TaskInfo>& tree,
                              const ProcFs& proc) {
  const TaskInfo& root = tree.front();
  const Caller owner = {.uid = root.uids[0], .gid = root.gids[0]};
  const absl::Status access = CheckTaskAccess(owner, tree, proc);
  if (access.ok()) return owner.uid;
  if (absl::IsPermissionDenied(access)) return uid_t{0};
  return access;
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
