// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/snapshot_output.h"

namespace daxsnap::snapctl {
namespace {

absl::Status Inspect(const std::string& name, const Context& context) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  absl::StatusOr<v1::Snapshot> snapshot = (*client)->GetSnapshot(name);
  if (!snapshot.ok()) return snapshot.status();
  if (context.format == Format::kJson) {
    PrintJson(ToJson(*snapshot), *context.out);
  } else {
    PrintDetails(*snapshot, *context.out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspect(CLI::App* app, Context* context, Action* action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command =
      app->add_subcommand("inspect", "Show all that is known of a snapshot");
  command->add_option("NAME", *name, "Name of the snapshot")->required();
  command->callback(
      [=] { *action = [=] { return Inspect(*name, *context); }; });
}

}  // namespace daxsnap::snapctl
