// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_LAUNCH_CHILD_H_
#define DAXSNAP_HOST_LAUNCH_CHILD_H_

#include <sys/types.h>

#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "host/launch/launch.h"

namespace daxsnap::launch {

// A task that has been cloned but waits for Release() before it becomes the
// command. Destroyed before that, the task is killed and reaped.
class HeldChild {
 public:
  // All pointers must stay valid until Release() has returned.
  struct Exec {
    const char* path = nullptr;
    char* const* argv = nullptr;
    char* const* envp = nullptr;
    const char* cwd = nullptr;
    int stdin_fd = -1;
    int log_fd = -1;
    std::optional<int> numa_node;
    bool neutral = false;
    std::span<const InheritedFd> inherited_fds;
  };

  // Clones with the PID `pid`, or any if it is 0. ALREADY_EXISTS: taken.
  static absl::StatusOr<HeldChild> Clone(const Exec& exec, pid_t pid);

  HeldChild(HeldChild&&) = default;
  HeldChild& operator=(HeldChild&&) = delete;
  ~HeldChild();

  pid_t pid() const { return pid_; }

  // Lets it become the command; returns its pidfd once execve(2) succeeded.
  absl::StatusOr<UniqueFd> Release() &&;

 private:
  HeldChild(pid_t pid, UniqueFd pidfd, UniqueFd go, UniqueFd report,
            const Exec& exec)
      : pid_(pid),
        pidfd_(std::move(pidfd)),
        go_(std::move(go)),
        report_(std::move(report)),
        exec_(exec) {}

  pid_t pid_;
  UniqueFd pidfd_;   // not valid once released
  UniqueFd go_;      // a byte here lets the child go on
  UniqueFd report_;  // the child's failure, or end of file at execve
  Exec exec_;        // for messages
};

}  // namespace daxsnap::launch

#endif  // DAXSNAP_HOST_LAUNCH_CHILD_H_
