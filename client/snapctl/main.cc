// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/string_view.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/errors.h"

namespace daxsnap::snapctl {
namespace {

// CLI11 makes positionals of what follows "--", which would mix the command of
// `run` with our options: take it away before it parses. Returns the number of
// arguments that are left.
int TakeCommand(int argc, char** argv, Context* context) {
  const auto is = [](absl::string_view text) {
    return [text](const char* argument) { return argument == text; };
  };
  char** end = argv + argc;
  char** dashes = std::find_if(argv, end, is("--"));
  if (std::none_of(argv, dashes, is("run"))) return argc;
  if (dashes != end) context->after_dashes.assign(dashes + 1, end);
  return static_cast<int>(dashes - argv);
}

int Main(int argc, char** argv) {
  Context context;
  context.out = &std::cout;
  context.err = &std::cerr;
  context.show_progress = isatty(STDERR_FILENO) == 1;

  CLI::App app(
      "snapctl takes and restores snapshots of processes that survive a "
      "reboot.",
      "snapctl");
  Action action;
  AddCommands(&app, &context, &action);
  try {
    app.parse(TakeCommand(argc, argv, &context), argv);
    if (!context.after_dashes.empty() && !app.got_subcommand("run")) {
      throw CLI::ExtrasError("snapctl", context.after_dashes);
    }
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    PrintUsageError(app, error, context);
    return kExitUsage;
  }

  const absl::Status status = action();
  std::cout.flush();
  if (!status.ok()) {
    PrintError(status, context);
    return ExitCode(status);
  }
  if (!std::cout) {
    std::cerr << "snapctl: cannot write to standard output\n";
    return kExitFailure;
  }
  return kExitOk;
}

}  // namespace
}  // namespace daxsnap::snapctl

// What else is thrown is a bug or lack of memory, and ends the process.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) { return daxsnap::snapctl::Main(argc, argv); }
