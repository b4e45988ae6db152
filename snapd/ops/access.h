// SPDX-License-Identifier: Apache-2.0
//
// Who may do what. Root may do everything. Anybody else may take snapshots of
// tasks they could ptrace, and see, restore and delete the snapshots of these.
#ifndef DAXSNAP_SNAPD_OPS_ACCESS_H_
#define DAXSNAP_SNAPD_OPS_ACCESS_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "host/task/proc.h"

namespace daxsnap {

// The peer of a connection, as the kernel knew it when it connected.
struct Caller {
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);

  bool is_root() const { return uid == 0; }
  // clang-tidy 14 takes the 0 that it is compared with for a pointer.
  // NOLINTNEXTLINE(modernize-use-nullptr)
  friend auto operator<=>(const Caller&, const Caller&) = default;
};

// OK if the caller could ptrace every task of the tree: all its user and group
// IDs are the caller's, it has no capabilities, and the kernel would let a
// process of the caller attach to each of its threads, which excludes programs
// that are not dumpable (set-user-ID ones, ssh-agent) and what Yama and other
// security modules forbid. PERMISSION_DENIED otherwise. UNAVAILABLE or
// RESOURCE_EXHAUSTED if that cannot be told now.
absl::Status CheckTaskAccess(const Caller& caller,
                             const std::vector<TaskInfo>& tree,
                             const ProcFs& proc);

// Whose a snapshot of the tree is, the root task first: the real user's, if
// that user could have taken it, and root's otherwise, so that nobody starts
// again what root had a set-user-ID program do. Errors as CheckTaskAccess.
absl::StatusOr<uid_t> OwnerOf(const std::vector<TaskInfo>& tree,
                              const ProcFs& proc);

// OK if the snapshot is the caller's own. PERMISSION_DENIED otherwise.
absl::Status CheckSnapshotAccess(const Caller& caller, uid_t owner,
                                 const std::string& name);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_ACCESS_H_
