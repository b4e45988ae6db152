// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_ENGINE_CRIU_ENGINE_H_
#define DAXSNAP_SNAPD_ENGINE_CRIU_ENGINE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/launch/launch.h"
#include "snapd/engine/engine.h"

namespace daxsnap {

struct CriuOptions {
  std::string criu_path = "/opt/daxsnap/sbin/criu";
  // Directory of daxsnap_plugin.so.
  std::string plugin_directory = "/opt/daxsnap/lib/criu";
  // What CRIU writes to stderr, and the work of restores.
  std::string work_directory = "/run/daxsnap/work";
  // Logs of failed dumps and restores.
  std::string log_directory = "/var/log/daxsnap";
  // 0 (least) to 4. Messages are written while the tasks stand still.
  int log_level = 2;
  // How long the CRIU of a restore that is cancelled gets to tidy up.
  absl::Duration tidy_timeout = absl::Seconds(30);
  // How long CRIU gets to say which version it is.
  absl::Duration version_timeout = absl::Seconds(10);
  // Where tasks get their PIDs that are made after a restore. If there is none,
  // the kernel goes on where it was.
  std::optional<launch::PidRange> child_pids = std::nullopt;
};

// Runs CRIU: one process a call, in a scope of its own, so that nothing that
// happens to snapd or its unit kills a CRIU that has tasks in its hands.
//
// A CRIU at work on a dump is never killed, as that could leave its code in the
// tasks. It is cancelled by making its next write fail, and by answering its
// next notification with failure; both make it roll back. If snapd dies, the
// closed socket does the same. See snapd/README.md.
class CriuEngine : public Engine {
 public:
  explicit CriuEngine(CriuOptions options) : options_(std::move(options)) {}

  absl::StatusOr<DumpOutcome> Dump(const DumpRequest& request,
                                   const DumpCallbacks& callbacks,
                                   Cancellation* cancellation) override;
  absl::StatusOr<RestoreOutcome> Restore(const RestoreRequest& request,
                                         const RestoreCallbacks& callbacks,
                                         Cancellation* cancellation) override;
  // Its next write fails: else it would work on until it looks for its snapd.
  bool EndDump(const TaskId& criu) override;
  bool AwaitWorker(const TaskId& criu) override;
  bool EndTasks(const TaskId& criu, const Placement& placement) override;
  absl::StatusOr<TasksLeft> LookAtTasks(const Placement& placement) override;
  absl::StatusOr<bool> HasLetGo(int work) override;
  absl::StatusOr<std::string> Version() override;

 private:
  // How to start CRIU for `purpose` on snapshot `name`.
  launch::LaunchSpec Spec(absl::string_view purpose,
                          const std::string& name) const;
  // Keeps the log in `directory` of a failed run, and makes the error of it.
  absl::Status Failure(absl::string_view action, pid_t pid,
                       const std::string& name, int directory,
                       const std::string& message) const;
  // As Failure(), of a restore whose tasks run, or may.
  absl::Status RunsUnfinished(const std::string& name, int directory,
                              const std::string& message,
                              const RestoreOutcome& outcome) const;

  const CriuOptions options_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CRIU_ENGINE_H_
