// SPDX-License-Identifier: Apache-2.0
#include <sys/utsname.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "base/version.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"

namespace daxsnap::snapctl {
namespace {

absl::StatusOr<v1::GetDaemonResponse> AskDaemon(const Context& context) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  return (*client)->GetDaemon();
}

// A snapd that does not answer is no failure: its version is not known, then.
absl::Status Version(const Context& context) {
  utsname system;
  uname(&system);
  const absl::StatusOr<v1::GetDaemonResponse> daemon = AskDaemon(context);
  if (context.format == Format::kJson) {
    nlohmann::ordered_json json = {{"snapctl", kVersion},
                                   {"kernel", system.release}};
    if (daemon.ok()) {
      json["snapd"] = ToJson(*daemon);
    } else {
      json["snapd"] = nullptr;
    }
    PrintJson(json, *context.out);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("snapctl", kVersion);
  fields.Add("kernel", system.release);
  if (daemon.ok()) {
    fields.Add("snapd", absl::StrCat(ToPrintableUtf8(daemon->version()),
                                     ", pid ", daemon->pid()));
    fields.Add("CRIU", daemon->criu_version().empty()
                           ? "cannot be run"
                           : ToPrintableUtf8(daemon->criu_version()));
  } else {
    fields.Add("snapd",
               absl::StrCat("no answer (",
                            ToPrintableUtf8(daemon.status().message()), ")"));
  }
  fields.Print(*context.out);
  return absl::OkStatus();
}

}  // namespace

void AddVersion(CLI::App* app, Context* context, Action* action) {
  CLI::App* command = app->add_subcommand(
      "version", "Show the versions of snapctl, snapd and CRIU");
  command->callback([=] { *action = [=] { return Version(*context); }; });
}

}  // namespace daxsnap::snapctl
