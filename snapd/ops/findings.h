// SPDX-License-Identifier: Apache-2.0
//
// What can be told of tasks before they are touched that does not come back, or
// not always: files that a reboot removes, namespaces, PIDs that a boot gives
// to others, System V IPC. Most of it is from /proc and the machine's
// configuration; no task is stopped for it.
#ifndef DAXSNAP_SNAPD_OPS_FINDINGS_H_
#define DAXSNAP_SNAPD_OPS_FINDINGS_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "host/launch/launch.h"
#include "host/task/proc.h"
#include "host/task/stat_paths.h"
#include "host/task/tmpfiles.h"
#include "host/task/tree_files.h"

namespace daxsnap {

// What the findings depend on besides the tasks.
struct FindingsInput {
  // What a boot removes; reading it takes a while.
  const TmpfilesRules* tmpfiles = nullptr;
  // PIDs from this on are not given out by a boot.
  pid_t first_reserved_pid = launch::PidRange().first;
  bool leave_running = false;
  // How long file systems get to answer.
  absl::Duration answer_timeout = kAnswerTimeout;
};

// All findings about a tree and its files, the gravest first; of one kind and
// consequence at most a hundred, and fewer if they are long: the last says how
// many more there are. Together they have at most 512 KiB. An error if
// something cannot be read, so that it is not known; UNAVAILABLE, OVERLOADED if
// a file system does not answer.
absl::StatusOr<std::vector<v1::Finding>> FindLosses(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    const std::vector<UsedFile>& files, const FindingsInput& input);

// Whether one of them is a loss.
bool HasLoss(const std::vector<v1::Finding>& findings);

// FAILED_PRECONDITION with the reason of the first loss, and all losses in its
// message.
absl::Status RefuseLosses(const std::vector<v1::Finding>& findings);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_FINDINGS_H_
