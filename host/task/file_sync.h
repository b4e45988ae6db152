// SPDX-License-Identifier: Apache-2.0
//
// Makes durable what tasks have written to files, so that files are never older
// than the memory of a snapshot.
//
// A sync can hang for ever: a device that does not answer, a frozen file
// system, one whose server is among the stopped tasks. So a child does it; see
// bounded_child.h. It opens directories, never a file, FIFO or device: who
// opens such a thing by a name that users choose may do more than look. (What
// is only mapped, on FUSE, is the one exception.) Files of a file system that
// has no place among the mounts any more are reached by the descriptors that
// tasks have of them.
#ifndef DAXSNAP_HOST_TASK_FILE_SYNC_H_
#define DAXSNAP_HOST_TASK_FILE_SYNC_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "host/task/proc.h"
#include "host/task/tree_files.h"

namespace daxsnap {

// A descriptor of a task.
struct TaskDescriptor {
  pid_t pid = 0;
  int number = -1;
  // A regular file that can be written.
  bool writable = false;
};

// One file system; while this exists it can be synced, whatever its tasks do.
struct SyncTarget {
  // Something on it, opened with O_PATH.
  UniqueFd fd;
  // Its mount point, for people.
  std::string mount_point;
  // Of the file system as a whole, which files of a subvolume have not.
  dev_t device = 0;
  // What the tasks have open there.
  std::vector<TaskDescriptor> descriptors = {};
  // Links of /proc to what the tasks can write by mappings alone.
  std::vector<std::string> mappings = {};
  // Where the file system is mounted, below the root directory of the task,
  // which is opened with O_PATH.
  UniqueFd root = UniqueFd();
  std::vector<std::string> places = {};
};

// The file systems of those of the files that are regular or directories, each
// once. What is gone is left out; what cannot be opened is an error. Asks no
// file system anything, so it does not hang with one.
absl::StatusOr<std::vector<SyncTarget>> CollectSyncTargets(
    const ProcFs& proc, const std::vector<UsedFile>& files);

// A file system that could not write something: the next sync may succeed
// without it.
struct LostWrites {
  dev_t device = 0;
  std::string mount_point;
  std::string error;
};

struct SyncOutcome {
  SyncOutcome() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): nothing is lost.
  SyncOutcome(absl::Status of) : status(std::move(of)) {}

  // Of the first one that failed.
  absl::Status status;
  // All of which that is known, whatever else failed.
  std::vector<LostWrites> lost;
};

// What the child writes down of a sync(2) of one target, before and after it.
struct SyncStep {
  enum State : uint8_t { kBegins = 1, kEnds = 2 };
  uint32_t target = 0;
  State state = kBegins;
  // An errno, or 0.
  uint8_t error = 0;
  uint16_t reserved = 0;
  // As TaskId::start_ticks.
  uint64_t ticks = 0;
};

// Now, as TaskId::start_ticks.
uint64_t TicksNow();

// Syncs all of them, one after the other, but those that are only memory or the
// kernel's own, such as tmpfs and proc. Where syncfs(2) says nothing to the
// server (FUSE) or to the file system below (eCryptfs), each file that the
// tasks can write is synced by itself. UNAVAILABLE, SYNC_TIMEOUT once
// `timeout` is over, SYNC_FAILED if one says so; both name the mount point.
// CANCELLED as soon as `cancellation` fires. Thread-safe.
//
// The kernel tells of lost data once, whoever it is that asks, and may do so
// after this has returned. So the child ends the sync that it is at, and writes
// SyncSteps to the end of `record`, a file open for appending, of which it has
// a descriptor until it has ended. Below 0: it is killed, and nobody learns.
SyncOutcome SyncFileSystems(const std::vector<SyncTarget>& targets,
                            absl::Duration timeout,
                            const Cancellation& cancellation, int record = -1);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_FILE_SYNC_H_
