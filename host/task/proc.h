// SPDX-License-Identifier: Apache-2.0
//
// What /proc tells about tasks. Everything here is a snapshot of a moving
// target: only a start time names one incarnation of a PID.
#ifndef DAXSNAP_HOST_TASK_PROC_H_
#define DAXSNAP_HOST_TASK_PROC_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"

namespace daxsnap {

// A PID and the start time (clock ticks since boot, field 22 of
// /proc/PID/stat): one task of this boot.
struct TaskId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;

  friend bool operator==(const TaskId&, const TaskId&) = default;
};

struct TaskInfo {
  TaskId id;
  pid_t parent_pid = 0;
  // Thread group: equals id.pid for a process, differs for a mere thread.
  pid_t thread_group = 0;
  // PID of the leader of its session.
  pid_t session = 0;
  // State letter of /proc/PID/stat: R, S, D, T, t, Z, ...
  char state = '?';
  bool kernel_thread = false;
  // Ending: it is giving up what it has.
  bool exiting = false;
  // Killed already, or ending: it will not run its own code again.
  bool doomed = false;
  // CPU time that it has used, all threads together, in clock ticks.
  uint64_t cpu_ticks = 0;
  std::string comm;
  // Empty if it cannot be read.
  std::string exe;
  // Real, effective, saved and file system IDs.
  std::array<uid_t, 4> uids = {};
  std::array<gid_t, 4> gids = {};
  // It has permitted capabilities, or that cannot be told.
  bool privileged = false;

  // A zombie, or about to be none any more.
  bool ended() const { return state == 'Z' || state == 'X'; }
  // Nor killed.
  bool lives_on() const { return !doomed && !ended(); }
};

// An open descriptor of a task.
struct FdInfo {
  int fd = -1;
  // As readlink("/proc/PID/fd/N") says: a path, or "pipe:[4711]".
  std::string target;
  // Flags of open(2).
  unsigned flags = 0;
  // Its mount, as in /proc/PID/mountinfo.
  int mount_id = -1;
};

// A file that a task has mapped.
struct MapInfo {
  // Entry of /proc/PID/map_files: "7f0000000000-7f0000001000".
  std::string range;
  // MAP_SHARED, of at least one of its mappings.
  bool shared = false;
  // Of the file system, not always what stat(2) says.
  dev_t device = 0;
  uint64_t inode = 0;
  // As in /proc/PID/maps, newlines as "\012".
  std::string path;
};

// A mounted file system.
struct MountInfo {
  int id = 0;
  dev_t device = 0;
  std::string mount_point;
  // "ext4", "tmpfs", ...
  std::string type;
  // "/dev/vda1", or a name of its own.
  std::string source = {};
  // Of the file system: "rw,upperdir=/a,workdir=/b".
  std::string options = {};
};

// Reads tasks below a proc file system. Thread-safe. What cannot be read or
// parsed is an error, never left out.
class ProcFs {
 public:
  // `root` is another directory in tests.
  explicit ProcFs(std::string root = "/proc") : root_(std::move(root)) {}

  // NOT_FOUND if there is no such task.
  absl::StatusOr<TaskInfo> ReadTask(pid_t pid) const;

  // The task and all its descendants, parents before children. NOT_FOUND if the
  // root is gone; descendants that vanish meanwhile are left out. An error if
  // any other cannot be read: a tree is never returned in part.
  absl::StatusOr<std::vector<TaskInfo>> ReadTree(pid_t root) const;

  // IDs of the threads of a process, the leader included.
  absl::StatusOr<std::vector<pid_t>> ReadThreads(pid_t pid) const;

  // Scheduling policy of a thread of a process, SCHED_*. NOT_FOUND if there is
  // no such thread.
  absl::StatusOr<unsigned> ReadPolicy(pid_t pid, pid_t thread) const;

  // Whether a thread of a process is ending, so that it has given up some of
  // what it had, or is gone.
  absl::StatusOr<bool> IsEnding(pid_t pid, pid_t thread) const;

  // Open descriptors; NOT_FOUND if there is no such task.
  absl::StatusOr<std::vector<FdInfo>> ReadFds(pid_t pid) const;

  // The same without flags and mount, which takes less time.
  absl::StatusOr<std::vector<FdInfo>> ReadFdTargets(pid_t pid) const;

  // What a link below /proc/PID says, "ns/mnt" for example. NOT_FOUND if there
  // is no such task or link; a zombie has few.
  absl::StatusOr<std::string> ReadLink(pid_t pid,
                                       const std::string& name) const;

  // Mappings of files; NOT_FOUND if there is no such task.
  absl::StatusOr<std::vector<MapInfo>> ReadMappings(pid_t pid) const;

  // Files that are mapped, each once; NOT_FOUND if there is no such task.
  absl::StatusOr<std::vector<MapInfo>> ReadMaps(pid_t pid) const;

  // What is mounted where, as the task sees it; NOT_FOUND if there is no such
  // task.
  absl::StatusOr<std::vector<MountInfo>> ReadMounts(pid_t pid) const;

  // PIDs of all processes.
  absl::StatusOr<std::vector<pid_t>> ListPids() const;

  // Whether exactly this task exists and will live on: no zombie, not killed.
  absl::StatusOr<bool> IsAlive(const TaskId& id) const;

  // What an error means that came of reading something of the task: OK if there
  // is nothing to read any more, as the task or the thing is gone; else the
  // error. A task that ends has errors of its own for much of what it had.
  absl::Status UnlessGone(const TaskId& id, const absl::Status& error) const;

  // ID of the running boot, /proc/sys/kernel/random/boot_id.
  absl::StatusOr<std::string> BootId() const;

  const std::string& root() const { return root_; }

 private:
  absl::StatusOr<std::string> ReadThreadStat(pid_t pid, pid_t thread) const;

  std::string root_;
};

// A pidfd of exactly this task; NOT_FOUND if it is gone.
absl::StatusOr<UniqueFd> OpenPidfd(const ProcFs& proc, const TaskId& id);

// Sends SIGKILL to the task of a pidfd, if it is there.
void KillTask(const UniqueFd& pidfd);

// Waits for its end. Whether it has ended.
bool AwaitTask(const UniqueFd& pidfd, absl::Time deadline);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_PROC_H_
