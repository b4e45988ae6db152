// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_LAUNCH_SCOPE_H_
#define DAXSNAP_HOST_LAUNCH_SCOPE_H_

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"

namespace daxsnap::launch {

struct Scope {
  std::string unit;    // empty: a plain cgroup
  std::string cgroup;  // relative to the cgroup2 mount
};

// Moves `pid` into a new scope `name` in daxsnap.slice and returns when it is
// there: by systemd's D-Bus API, or, if there is no system bus, by hand.
absl::StatusOr<Scope> EnterNewScope(pid_t pid, const std::string& name,
                                    const std::string& description);

}  // namespace daxsnap::launch

#endif  // DAXSNAP_HOST_LAUNCH_SCOPE_H_
