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
#include "daxsnap/v1/snapshot.pb.h"
#include "host/task/proc.h"

namespace daxsnap {

struct DumpRequest {
  TaskId task;
  // Name of the snapshot, for scopes and logs.
  std::string name;
  // As asked for.
  v1::CheckpointOptions options;
  // NUMA node that tasks which `snapctl run` has started prefer for their
  // memory: a restore gives that of its own pool in its place.
  std::optional<int> memory_node = std::nullopt;
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
  // Called some times a second while the worker is at it, until images_complete
  // has agreed, if it is there.
  std::function<void()> working = nullptr;
};

struct DumpOutcome {
  // From start to end, without the time in callbacks. µs.
  uint64_t dump_us = 0;
  // Time spent in images_complete, while the tasks stood still. µs.
  uint64_t callback_us = 0;
};

struct RestoreRequest {
  std::string name;
  // As asked for.
  v1::RestoreOptions options;
  // PID of the root task, which it will have again.
  pid_t root = 0;
  int images = -1;
  // NUMA node that the tasks prefer for their memory.
  std::optional<int> memory_node;
};

// Where restored tasks are.
struct Placement {
  // systemd's; empty without it.
  std::string scope;
  // Relative to the cgroup2 mount. Nothing else is in it but the worker.
  std::string cgroup;
};

// What there is of the tasks of a restore whose worker is gone.
enum class TasksLeft {
  kNone,
  // They wait for a worker that lets them run, and will for ever.
  kNeverRan,
  // They run, or may have.
  kRun,
};

// Called by the thread that called Restore.
struct RestoreCallbacks {
  // The process that will do the work exists and waits. An error ends the
  // restore.
  std::function<absl::Status(const TaskId& worker, const Placement&)> started;
  // All tasks are there and stand still. OK: they will run, whatever becomes of
  // this process or is cancelled. An error: they are ended, and Restore returns
  // it.
  std::function<absl::Status()> resuming;
  // Called some times a second while the worker is at it, until resuming has
  // agreed, if it is there.
  std::function<void()> working = nullptr;
};

struct RestoreOutcome {
  pid_t pid = 0;
  Placement placement;
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

  // Starts the tasks again. On error, CANCELLED included, none of them is left,
  // unless the worker died when they had begun to run: then the error says so,
  // and its metadata has their "cgroup". Once `resuming` has agreed a
  // cancellation has no effect any more.
  virtual absl::StatusOr<RestoreOutcome> Restore(
      const RestoreRequest& request, const RestoreCallbacks& callbacks,
      Cancellation* cancellation) = 0;

  // What follows is about the work of a snapd that was killed; `worker` is what
  // `started` was told. Each waits up to half a minute.

  // Makes a worker that is at a dump roll back, as if the dump were cancelled.
  // Whether it is gone.
  virtual bool EndDump(const TaskId& worker) = 0;
  // Lets a worker come to its end, as it was told last. Whether it is gone.
  virtual bool AwaitWorker(const TaskId& worker) = 0;
  // Ends the tasks of a restore, and its worker, which gets to tidy up. Whether
  // they are gone.
  virtual bool EndTasks(const TaskId& worker, const Placement& placement) = 0;
  // What a restore whose worker is gone has left. An error if that cannot be
  // told.
  virtual absl::StatusOr<TasksLeft> LookAtTasks(const Placement& placement) = 0;
  // Whether a dump whose worker is gone says in its directory `work` that it
  // has let the tasks go on. It may have if not, if it had no time to say so.
  virtual absl::StatusOr<bool> HasLetGo(int work) = 0;

  // Version, "4.2.1".
  virtual absl::StatusOr<std::string> Version() = 0;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_ENGINE_H_
