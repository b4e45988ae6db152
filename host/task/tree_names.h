// SPDX-License-Identifier: Apache-2.0
//
// The names that tasks hold without having the file open: those that UNIX
// sockets are bound to, and what inotify and fanotify watch. A restore binds
// and watches by the same names again.
#ifndef DAXSNAP_HOST_TASK_TREE_NAMES_H_
#define DAXSNAP_HOST_TASK_TREE_NAMES_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/task/proc.h"
#include "host/task/stat_paths.h"
#include "host/task/tree_files.h"

namespace daxsnap {

// A descriptor of a UNIX socket into which others were sent that nobody has
// received yet.
struct InFlight {
  pid_t pid = 0;
  int fd = -1;
  uint64_t count = 0;
};

struct TreeNames {
  // Names that sockets are bound to, which a restore binds again: neither those
  // that were removed nor those of connections that a listener has accepted.
  std::vector<UsedFile> sockets;
  // Files and directories that are watched, where they have a name.
  std::vector<UsedFile> watched;
  std::vector<InFlight> in_flight;
};

// Of the tasks, root task first; each socket and watched file once. Tasks that
// are gone have none; what cannot be read of others is an error. UNAVAILABLE,
// OVERLOADED if a file system does not answer within `timeout`.
absl::StatusOr<TreeNames> ReadTreeNames(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    absl::Duration timeout = kAnswerTimeout);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_TREE_NAMES_H_
