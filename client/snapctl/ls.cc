// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/snapshot_output.h"

namespace daxsnap::snapctl {
namespace {

absl::Status Ls(const Context& context) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  absl::StatusOr<client::Client::SnapshotList> list =
      (*client)->ListSnapshots();
  if (!list.ok()) return list.status();
  if (context.format != Format::kJson) {
    PrintList(*list, *context.out);
    for (const v1::UnlistedSnapshot& one : list->unlisted) {
      *context.err << "snapctl: " << ToPrintableUtf8(one.message())
                   << "\n  hint: " << ToPrintableUtf8(one.hint()) << "\n";
    }
    if (list->incomplete) {
      *context.err << "snapctl: there are snapshots of which it cannot be told "
                      "whether they are yours\n"
                      "  hint: run the command as root to see them\n";
    }
    return absl::OkStatus();
  }
  nlohmann::ordered_json json;
  json["snapshots"] = nlohmann::ordered_json::array();
  for (const v1::Snapshot& snapshot : list->snapshots) {
    json["snapshots"].push_back(ToJson(snapshot));
  }
  json["damaged"] = list->damaged;
  json["unlisted"] = nlohmann::ordered_json::array();
  for (const v1::UnlistedSnapshot& one : list->unlisted) {
    json["unlisted"].push_back({{"name", one.name()},
                                {"reason", one.reason()},
                                {"message", one.message()},
                                {"hint", one.hint()}});
  }
  json["incomplete"] = list->incomplete;
  PrintJson(json, *context.out);
  return absl::OkStatus();
}

}  // namespace

void AddLs(CLI::App* app, Context* context, Action* action) {
  CLI::App* command = app->add_subcommand("ls", "List the snapshots");
  command->alias("list");
  command->callback([=] { *action = [=] { return Ls(*context); }; });
}

}  // namespace daxsnap::snapctl
