// SPDX-License-Identifier: Apache-2.0
//
// Starts commands that must outlive their starter and that CRIU can take
// snapshots of: `snapctl run` starts the user's command this way, snapd starts
// `criu restore` this way, whose restored tasks inherit all of it.
//
// What such a command gets:
//  - a systemd scope of its own in daxsnap.slice (without a system bus, a
//  cgroup
//    /sys/fs/cgroup/daxsnap.slice/SCOPE), so that stopping or killing the
//    starter's unit does not reach it;
//  - a session of its own, default signal dispositions and an empty mask;
//  - /dev/null as stdin, and an append-only log file as stdout and stderr, as
//    an inherited terminal or pipe would make CRIU refuse. CRIU lets files that
//    are open O_WRONLY|O_APPEND differ in size at restore;
//  - no other descriptors than those asked for;
//  - memory that is preferably (MPOL_PREFERRED_MANY) on a given NUMA node;
//  - a PID that no task gets by itself soon after a boot, so that it is free
//    when a snapshot is restored after a reboot.
//
// All functions are thread-safe and block.
#ifndef DAXSNAP_HOST_LAUNCH_LAUNCH_H_
#define DAXSNAP_HOST_LAUNCH_LAUNCH_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"

namespace daxsnap::launch {

// PIDs that are given out lie in [first, last].
struct PidRange {
  pid_t first = 1'000'000;
  pid_t last = 4'000'000;
};

// A descriptor of the caller that the command gets as number `target` (>= 3).
// The caller keeps `source` open until Launch returns.
struct InheritedFd {
  int source = -1;
  int target = -1;
};

struct LaunchSpec {
  // Command and arguments; argv[0] is looked up in PATH of `env` if it has no
  // slash. Not empty.
  std::vector<std::string> argv;
  // "KEY=VALUE" each. The command gets these and no others.
  std::vector<std::string> env;
  // Working directory, absolute.
  std::string cwd = "/";
  // File that stdout and stderr are appended to. Created 0600 if it is not
  // there, its directory 0700; both are synced, so that a power cut does not
  // take the file away from a snapshot that has it open.
  std::string log_path;
  // Memory is preferably on this node.
  std::optional<int> numa_node;
  // It may run on all processors, and has the usual personality, I/O priority
  // and timer slack, whatever the caller has.
  bool neutral = false;
  // Unit name, made by ScopeName(). Must not exist yet.
  std::string scope;
  // What `systemctl status` shows.
  std::string description;
  // If set, the PID comes from this range (needs CAP_CHECKPOINT_RESTORE or
  // CAP_SYS_ADMIN), and so do those of its children: see MovePidsTo(). If not,
  // the kernel chooses.
  std::optional<PidRange> pids;
  // Descriptors that the command gets besides 0, 1 and 2.
  std::vector<InheritedFd> inherited_fds;
};

struct LaunchedTask {
  pid_t pid = 0;
  // Refers to the task whatever becomes of its PID; close-on-exec.
  UniqueFd pidfd;
  // The scope; empty if it is a plain cgroup.
  std::string scope;
  // Directory of its cgroup relative to the cgroup2 mount, "/daxsnap.slice/…".
  std::string cgroup;
};

// Starts the command. It returns when execve(2) has succeeded; the task is a
// child of the caller, who reaps it (waitid(P_PIDFD)) if it lives longer.
//
// Errors: INVALID_ARGUMENT: the spec is wrong; NOT_FOUND: no such command;
// ALREADY_EXISTS: the scope exists; PERMISSION_DENIED: a capability is missing;
// RESOURCE_EXHAUSTED: no PID is free in the range; FAILED_PRECONDITION: log,
// directory, node or cgroup cannot be used. On error nothing is left running.
absl::StatusOr<LaunchedTask> Launch(const LaunchSpec& spec);

// Makes "daxsnap-<name>-<8 random hex digits>.scope", with characters that unit
// names cannot have replaced by '_' and the name cut to 128 bytes.
std::string ScopeName(absl::string_view name);

// Makes the kernel accept PIDs up to the end of `range`: raises
// /proc/sys/kernel/pid_max if it is lower, never lowers it. snapd calls it at
// start, so that CRIU can restore such PIDs. Needs CAP_SYS_ADMIN to raise it.
absl::Status EnsurePidMax(const PidRange& range = {});

// Moves the kernel's PID cursor into `range`, to `next`, unless it is in the
// range already: from then on all new tasks of this boot get PIDs from there,
// so that children of launched tasks do not collide with tasks of the next boot
// either. `next` lies in the range. Launch() calls it when it chooses a PID.
absl::Status MovePidsTo(const PidRange& range, pid_t next);

// Any PID of `range`, each as likely as the others; it may be in use.
pid_t RandomPid(const PidRange& range);

}  // namespace daxsnap::launch

#endif  // DAXSNAP_HOST_LAUNCH_LAUNCH_H_
