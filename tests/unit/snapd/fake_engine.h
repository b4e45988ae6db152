// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_SNAPD_FAKE_ENGINE_H_
#define DAXSNAP_TESTS_UNIT_SNAPD_FAKE_ENGINE_H_

#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "snapd/engine/engine.h"
#include "tests/unit/base/child.h"

namespace daxsnap {

// Does to one Child what CRIU does to tasks: stops it while its images are
// written, then kills it or lets it go on.
class FakeEngine : public Engine {
 public:
  // `child` may be null for restores.
  explicit FakeEngine(Child* child) : child_(child) {}

  // Called at points of a dump: "started", "images", "killed", "resumed"; and
  // of a restore: "restore", "resuming".
  std::function<void(const std::string& point)> on_point;
  // If not OK, a dump fails with it before the images are complete, or a
  // restore fails with it.
  absl::Status fail;
  // If not OK, a dump fails with it after images_complete has agreed; with
  // `die_killing` the child is dead by then.
  absl::Status fail_late;
  bool die_killing = false;
  // Files that the images of a dump say are open.
  std::vector<std::string> open_files;
  // What a restore was asked for.
  RestoreRequest restored;
  std::atomic<int> dumps = 0;
  // PID of the root task of a restore.
  pid_t restored_pid = 4242;
  // If not OK, a restore fails with it after `resuming` has agreed.
  absl::Status fail_resuming;
  // What it was asked of the work of an earlier snapd, and what it says.
  std::vector<pid_t> ended_dumps;
  std::vector<pid_t> awaited_restores;
  std::vector<std::string> ended_cgroups;
  bool worker_ends = true;
  absl::StatusOr<TasksLeft> tasks_left = TasksLeft::kNone;
  absl::StatusOr<bool> has_let_go = false;
  // Called in place of asking CRIU.
  std::function<absl::StatusOr<std::string>()> on_version;

  // Waits until the dump under way is cancelled.
  void AwaitCancelled();

  absl::StatusOr<DumpOutcome> Dump(const DumpRequest& request,
                                   const DumpCallbacks& callbacks,
                                   Cancellation* cancellation) override;
  absl::StatusOr<RestoreOutcome> Restore(const RestoreRequest& request,
                                         const RestoreCallbacks& callbacks,
                                         Cancellation* cancellation) override;
  bool EndDump(const TaskId& worker) override {
    ended_dumps.push_back(worker.pid);
    return worker_ends;
  }
  bool AwaitWorker(const TaskId& worker) override {
    awaited_restores.push_back(worker.pid);
    return worker_ends;
  }
  bool EndTasks(const TaskId& /*worker*/, const Placement& placement) override {
    ended_cgroups.push_back(placement.cgroup);
    return worker_ends;
  }
  absl::StatusOr<TasksLeft> LookAtTasks(
      const Placement& /*placement*/) override {
    return tasks_left;
  }
  absl::StatusOr<bool> HasLetGo(int /*work*/) override { return has_let_go; }
  absl::StatusOr<std::string> Version() override {
    return on_version ? on_version() : "9.9";
  }

 private:
  void Point(const std::string& point) {
    if (on_point) on_point(point);
  }

  Child* const child_;
  std::atomic<Cancellation*> dumping_ = nullptr;
};

// A version of CRIU, 4.2.1, that the engine says when it is let. One call.
class HeldVersion {
 public:
  explicit HeldVersion(FakeEngine* engine) {
    engine->on_version = [this]() -> absl::StatusOr<std::string> {
      asked_.set_value();
      answer_.get_future().wait();
      return "4.2.1";
    };
  }

  void AwaitAsked() { asked_.get_future().wait(); }
  void Say() { answer_.set_value(); }

 private:
  std::promise<void> asked_;
  std::promise<void> answer_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_SNAPD_FAKE_ENGINE_H_
