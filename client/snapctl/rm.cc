// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/errors.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"

namespace daxsnap::snapctl {
namespace {

struct Options {
  std::vector<std::string> names;
  bool ignore_missing = false;
};

// Goes on after a failure, as rm(1) does; the last failure decides the exit
// code.
absl::Status Rm(const Options& options, const Context& context) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  std::vector<std::string> deleted;
  absl::Status failure;
  for (const std::string& name : options.names) {
    const absl::Status status = [&] {
      const ProgressLine line(context, absl::StrCat("deleting ", name));
      return (*client)->DeleteSnapshot(name);
    }();
    if (status.ok()) {
      deleted.push_back(name);
    } else if (!(options.ignore_missing && absl::IsNotFound(status))) {
      if (!failure.ok()) PrintError(failure, context);
      failure = status;
    }
  }
  if (context.format == Format::kJson)
    PrintJson({{"deleted", deleted}}, *context.out);
  return failure;
}

}  // namespace

void AddRm(CLI::App* app, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand("rm", "Delete snapshots");
  command->add_option("NAME", options->names, "Names of the snapshots")
      ->required();
  command->add_flag("-f,--force", options->ignore_missing,
                    "Do not mind snapshots that are missing");
  command->callback([=] { *action = [=] { return Rm(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
