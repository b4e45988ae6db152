// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "base/utf8.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/local_pool.h"
#include "client/snapctl/output.h"
#include "daxsnap/error.h"
#include "host/launch/launch.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

constexpr char kLogDir[] = "/var/log/daxsnap";

struct Options {
  std::vector<std::string> command;
  std::string name;
  std::string log;
  std::string node = "pool";
  bool quiet = false;
};

absl::Status NoPool() {
  absl::Status status = absl::FailedPreconditionError("no pool is attached");
  client::ErrorDetails details;
  details.reason = std::string(reason::kPoolMissing);
  details.hint =
      "Attach one (snapctl pool attach DEV, or start snapd), or pass "
      "--node=none to run the "
      "command in ordinary memory, whose snapshots are copied.";
  client::SetErrorDetails(details, &status);
  return status;
}

// "Resource temporarily unavailable" is not that of snapd, whose absence has
// the same code.
absl::Status StartFailure(absl::Status status) {
  if (!absl::IsUnavailable(status)) return status;
  client::SetErrorDetails(
      {.reason = "OVERLOADED",
       .hint = "Try again when other processes have ended; there are limits "
               "to their number (ulimit -u, TasksMax=, pid_max).",
       .metadata = {}},
      &status);
  return status;
}

absl::StatusOr<std::optional<int>> ChooseNode(const std::string& node) {
  if (node == "none") return std::nullopt;
  int number = 0;
  if (absl::SimpleAtoi(node, &number) && number >= 0) return number;
  if (node != "pool") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--node=", node, " is neither a number nor \"pool\" nor \"none\""));
  }
  absl::StatusOr<std::optional<v1::Pool>> pool = ReadLocalPool();
  if (!pool.ok()) return pool.status();
  if (!pool->has_value()) return NoPool();
  return (*pool)->node();
}

std::vector<std::string> Environment() {
  std::vector<std::string> env;
  for (char** entry = environ; *entry != nullptr; ++entry)
    env.emplace_back(*entry);
  return env;
}

void Print(const launch::LaunchedTask& task, const launch::LaunchSpec& spec,
           const Options& options, const Context& context) {
  if (context.format == Format::kJson) {
    nlohmann::ordered_json json = {{"pid", task.pid},
                                   {"scope", task.scope},
                                   {"cgroup", task.cgroup},
                                   {"log", spec.log_path},
                                   {"node", nullptr}};
    if (spec.numa_node) json["node"] = *spec.numa_node;
    PrintJson(json, *context.out);
    return;
  }
  if (options.quiet) {
    *context.out << task.pid << "\n";
    return;
  }
  Fields fields;
  fields.Add("pid", absl::StrCat(task.pid));
  fields.Add("scope", task.scope.empty() ? task.cgroup : task.scope);
  fields.Add("NUMA node",
             spec.numa_node ? absl::StrCat(*spec.numa_node) : "any");
  fields.Add("log", spec.log_path);
  fields.Print(*context.out);
}

absl::Status Run(const Options& options, const Context& context) {
  absl::StatusOr<std::optional<int>> node = ChooseNode(options.node);
  if (!node.ok()) return node.status();
  std::error_code error;
  const std::string cwd = std::filesystem::current_path(error);
  if (error)
    return absl::ErrnoToStatus(error.value(),
                               "cannot tell the working directory");

  const std::string name =
      options.name.empty()
          ? std::filesystem::path(options.command[0]).filename().string()
          : options.name;
  launch::LaunchSpec spec;
  spec.argv = options.command;
  spec.env = Environment();
  spec.cwd = cwd;
  spec.numa_node = *node;
  spec.scope = launch::ScopeName(name);
  // D-Bus takes nothing but UTF-8.
  spec.description = absl::StrCat("daxsnap: ", ToPrintableUtf8(name));
  spec.pids = launch::PidRange();
  if (!options.log.empty()) {
    spec.log_path = std::filesystem::path(cwd) / options.log;
  } else {
    absl::string_view base = spec.scope;
    absl::ConsumePrefix(&base, "daxsnap-");
    absl::ConsumeSuffix(&base, ".scope");
    spec.log_path = absl::StrCat(kLogDir, "/", base, ".log");
  }
  absl::StatusOr<launch::LaunchedTask> task = launch::Launch(spec);
  if (!task.ok()) return StartFailure(task.status());
  Print(*task, spec, options, context);
  return absl::OkStatus();
}

// The parser does not know of the command: see TakeCommand() of main.cc.
class RunFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* /*app*/,
                         std::string /*name*/) const override {
    return "Usage: snapctl run [OPTIONS] -- COMMAND [ARGUMENT...]\n";
  }
};

}  // namespace

void AddRun(CLI::App* app, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app->add_subcommand("run",
                          "Start a command whose memory is in the pool and "
                          "that snapshots can be taken of");
  command->formatter(std::make_shared<RunFormatter>());
  command->add_option(
      "-n,--name", options->name,
      "Name for scope and log file; the command's if not given");
  command->add_option(
      "--log", options->log,
      absl::StrCat("File for the command's output; else one in ", kLogDir));
  command
      ->add_option("--node", options->node,
                   "NUMA node for its memory: a number, \"pool\" or \"none\"")
      ->capture_default_str();
  command->add_flag("-q,--quiet", options->quiet,
                    "Print the PID and nothing else");
  AddOutputOption(command, context);
  // From the first word that is no option of ours, all belongs to the command.
  command->prefix_command();
  command->fallthrough(false);
  command->callback([=] {
    options->command = command->remaining();
    if (!options->command.empty() && !context->after_dashes.empty()) {
      options->command.push_back("--");
    }
    options->command.insert(options->command.end(),
                            context->after_dashes.begin(),
                            context->after_dashes.end());
    if (options->command.empty()) throw CLI::RequiredError("COMMAND");
    *action = [=] { return Run(*options, *context); };
  });
}

}  // namespace daxsnap::snapctl
