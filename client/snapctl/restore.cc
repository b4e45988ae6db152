// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"

namespace daxsnap::snapctl {
namespace {

void Print(const v1::RestoreSnapshotResult& result, const std::string& name,
           std::ostream& out) {
  Fields fields;
  fields.Add("name", name);
  fields.Add("pid", absl::StrCat(result.pid()));
  fields.Add("scope",
             result.scope().empty() ? result.cgroup() : result.scope());
  fields.Add("restore", FormatMicroseconds(result.times().restore_us()));
  fields.Add("by reference",
             absl::StrCat(result.pages().installed(), " pages"));
  fields.Add("copied", absl::StrCat(result.pages().copied(), " pages"));
  fields.Print(out);
}

absl::Status Restore(const std::string& name, const Context& context) {
  SignalCancellation signals;
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  v1::RestoreSnapshotRequest request;
  request.set_name(name);
  absl::StatusOr<v1::RestoreSnapshotResult> result;
  {
    ProgressLine line(context, "waiting for snapd");
    client::CallOptions call;
    call.on_progress = [&line](const v1::Progress& progress) {
      line.Update(DescribeProgress(progress));
    };
    call.cancellation = signals.cancellation();
    result = (*client)->RestoreSnapshot(request, call);
  }
  if (!result.ok()) return result.status();
  if (context.format == Format::kJson) {
    PrintJson(ToJson(*result), *context.out);
  } else {
    Print(*result, name, *context.out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddRestore(CLI::App* app, Context* context, Action* action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = app->add_subcommand(
      "restore", "Start the tasks of a snapshot again, with their old PIDs");
  command->add_option("NAME", *name, "Name of the snapshot")->required();
  command->callback(
      [=] { *action = [=] { return Restore(*name, *context); }; });
}

}  // namespace daxsnap::snapctl
