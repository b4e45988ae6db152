// SPDX-License-Identifier: Apache-2.0
//
// What takes tasks apart and puts them together again. The one engine is CRIU;
// tests have another.
#ifndef DAXSNAP_SNAPD_ENGINE_ENGINE_H_
#define DAXSNAP_SNAPD_ENGINE_ENGINE_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "host/task/proc.h"

namespace daxsnap {

struct DumpRequest {
  TaskId task;
  // Name of the snapshot, for scopes and logs.
  std::string name;
  bool leave_running = false;
  // Directories; the caller keeps them open. Image files go to `images`; log
  // and statistics to `work`.
  int images = -1;
  int work = -1;
};

// Called by the thread that called Dump.
struct DumpCallbacks {
  // The process that will do the work exists and waits. An error ends the dump.
  std::function<absl::Status(const TaskId& worker)> started;
  // The images are complete and the tasks stand still. OK: the engine goes on
  // to kill the tasks, or with leave_running to resume them. An error: it
  // resumes them, and Dump returns that error.
  std::function<absl::Status()> images_complete;
};

struct DumpOutcome {
  // From start to end, without the time in callbacks. µs.
  uint64_t dump_us = 0;
  // Time spent in images_complete, while the tasks stood still. µs.
  uint64_t callback_us = 0;
};

struct RestoreRequest {
  std::string name;
  int images = -1;
  // NUMA node that the tasks prefer for their memory.
  std::optional<int> memory_node;
};

struct RestoreOutcome {
  pid_t pid = 0;
  std::string scope;
  std::string cgroup;
  uint64_t restore_us = 0;
};

// Thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;

  // Takes a snapshot of the task and its descendants. Whatever the error, the
  // tasks run on as before. A cancelled dump returns CANCELLED, as soon as the
  // tasks can be resumed safely. Once images_complete has agreed a cancellation
  // has no effect any more.
  virtual absl::StatusOr<DumpOutcome> Dump(const DumpRequest& request,
                                           const DumpCallbacks& callbacks,
                                           Cancellation* cancellation) = 0;

  // Starts the tasks again. On error, CANCELLED included, none of them is left.
  virtual absl::StatusOr<RestoreOutcome> Restore(
      const RestoreRequest& request, Cancellation* cancellation) = 0;

  // Version, "4.1.1".
  virtual absl::StatusOr<std::string> Version() = 0;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_ENGINE_H_
