// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/commands.h"

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/snapctl/errors.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

constexpr char kFooter[] =
    "Exit status: 0 done, 1 other failure, 2 wrong command line, 3 not found, "
    "4 in use or\n"
    "taken already, 5 permission denied, 6 snapd is not running, 7 pool full, "
    "8 refused in\n"
    "this state, 9 what is stored is damaged, 130 cancelled. See snapctl(1).";

}  // namespace

void AddCommands(CLI::App* app, Context* context, Action* action) {
  app->footer(kFooter);
  AddGlobalOptions(app, context);
  // Global options may stand after the subcommand too, as people type them.
  app->fallthrough();
  app->require_subcommand(1);
  CLI::App* pool = app->add_subcommand(
      "pool", "Make, attach, detach, show, upgrade, repair and check pools");
  pool->fallthrough();
  pool->require_subcommand(1);
  AddPoolCreate(pool, context, action);
  AddPoolAttach(pool, context, action);
  AddPoolDetach(pool, context, action);
  AddPoolShow(pool, context, action);
  AddPoolUpgrade(pool, context, action);
  AddPoolRepair(pool, context, action);
  AddPoolKexecCheck(pool, context, action);
  AddRun(app, context, action);
  AddCheckpoint(app, context, action);
  AddRestore(app, context, action);
  AddLs(app, context, action);
  AddInspect(app, context, action);
  AddVerify(app, context, action);
  AddRm(app, context, action);
  AddVersion(app, context, action);
}

void PrintUsageError(const CLI::App& app, const CLI::ParseError& error,
                     Context context) {
  // The parser may have given up before it set the format.
  const std::vector<std::string>& formats =
      app.get_option("--output")->results();
  if (!formats.empty() && formats.back() == "json")
    context.format = Format::kJson;
  std::string message = error.what();
  // It says what is missing before it says what there is too much of, which is
  // the same thing when a word is mistyped.
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  if (error.get_name() == "RequiredError" && !rest.empty())
    absl::StrAppend(&message, ", and this is not known: ", rest.front());
  std::string command = "snapctl";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    absl::StrAppend(&command, " ", at->get_name());
  }
  absl::Status status = absl::InvalidArgumentError(message);
  client::SetErrorDetails({.reason = "",
                           .hint = absl::StrCat("see `", command, " --help`"),
                           .metadata = {}},
                          &status);
  PrintError(status, context);
}

void AddGlobalOptions(CLI::App* app, Context* context) {
  app->add_option("-s,--socket", context->socket, "UNIX socket of snapd")
      ->envname("DAXSNAP_SOCKET")
      ->capture_default_str();
  AddOutputOption(app, context);
}

void AddOutputOption(CLI::App* app, Context* context) {
  app->add_option("-o,--output", context->format,
                  "How results are printed: table or json")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Format>{
          {"table", Format::kTable}, {"json", Format::kJson}}))
      ->option_text("table|json");
}

}  // namespace daxsnap::snapctl
