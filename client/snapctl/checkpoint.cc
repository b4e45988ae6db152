// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "client/snapctl/snapshot_output.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

struct Options {
  int pid = 0;
  std::string name;
  bool leave_running = false;
  bool force = false;
  std::vector<std::string> labels;
  unsigned sync_timeout_seconds = 0;
};

absl::StatusOr<v1::CreateSnapshotRequest> Request(const Options& options) {
  v1::CreateSnapshotRequest request;
  request.set_pid(options.pid);
  request.set_name(options.name);
  v1::CheckpointOptions* how = request.mutable_options();
  how->set_leave_running(options.leave_running);
  how->set_force(options.force);
  how->set_sync_timeout_seconds(options.sync_timeout_seconds);
  for (const std::string& label : options.labels) {
    const std::size_t equals = label.find('=');
    if (equals == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("label \"", label, "\" is not of the form KEY=VALUE"));
    }
    (*request.mutable_labels())[label.substr(0, equals)] =
        label.substr(equals + 1);
  }
  return request;
}

// The API is idempotent for those who repeat a call; who types the command
// again wants a new snapshot.
absl::Status AlreadyExisted(const v1::Snapshot& snapshot) {
  absl::Status status = absl::AlreadyExistsError(absl::StrCat(
      "snapshot ", snapshot.name(), " of this task exists already, taken at ",
      FormatTime(snapshot.create_time()), "; nothing was done"));
  client::ErrorDetails details;
  details.reason = std::string(reason::kNameTaken);
  details.hint = "Use another --name.";
  details.metadata["name"] = snapshot.name();
  client::SetErrorDetails(details, &status);
  return status;
}

absl::Status Checkpoint(const Options& options, const Context& context) {
  absl::StatusOr<v1::CreateSnapshotRequest> request = Request(options);
  if (!request.ok()) return request.status();
  SignalCancellation signals;
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  absl::StatusOr<v1::CreateSnapshotResult> result;
  {
    ProgressLine line(context, "waiting for snapd");
    client::CallOptions call;
    call.on_progress = [&line](const v1::Progress& progress) {
      line.Update(DescribeProgress(progress));
    };
    call.cancellation = signals.cancellation();
    result = (*client)->CreateSnapshot(*request, call);
  }
  if (!result.ok()) return result.status();
  if (result->already_existed()) return AlreadyExisted(result->snapshot());
  if (context.format == Format::kJson) {
    PrintJson(ToJson(*result), *context.out);
  } else {
    PrintWarnings(result->snapshot(), *context.err);
    PrintSummary(result->snapshot(), *context.out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddCheckpoint(CLI::App* app, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand(
      "checkpoint",
      "Take a snapshot of a task and its descendants, then end them");
  command->add_option("PID", options->pid, "Process ID of the root task")
      ->required()
      ->check(CLI::Range(1, 4194304));
  command->add_option(
      "-n,--name", options->name,
      "Name of the snapshot; made up from command, PID and time if not given");
  command->add_flag("-r,--leave-running", options->leave_running,
                    "Let the tasks run on instead of ending them once the "
                    "snapshot is durable");
  command->add_flag("--force", options->force,
                    "End the tasks although something was found that does not "
                    "come back, or not after a reboot");
  command
      ->add_option("-l,--label", options->labels,
                   "Label KEY=VALUE; may be given repeatedly")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--sync-timeout", options->sync_timeout_seconds,
                   "How long syncing the files of the tasks may take before "
                   "the checkpoint fails; 60 if not given")
      ->type_name("SECONDS")
      ->check(CLI::Range(1, 86400));
  command->callback(
      [=] { *action = [=] { return Checkpoint(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
