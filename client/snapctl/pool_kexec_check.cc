// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/utf8.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "host/pool/kexec.h"

namespace daxsnap::snapctl {
namespace {

struct Options {
  std::string kernel;
  std::string config;
  std::string command_line;
};

absl::Status Check(const Options& options, const Context& context) {
  absl::StatusOr<pool::KernelImage> kernel =
      pool::ReadKernelImage(options.kernel, options.config);
  if (!kernel.ok()) return kernel.status();
  absl::StatusOr<std::vector<pool::PoolMemory>> pools = pool::FindPoolMemory();
  if (!pools.ok()) return pools.status();
  std::ifstream file("/proc/cmdline");
  std::string current;
  if (!std::getline(file, current))
    return absl::UnavailableError("cannot read /proc/cmdline");
  absl::Status status =
      pool::CheckKexec(*pools, *kernel, options.command_line, current);
  if (!status.ok()) return status;

  std::vector<std::string> devices;
  for (const pool::PoolMemory& found : *pools) devices.push_back(found.device);
  if (context.format == Format::kJson) {
    PrintJson({{"kernel", kernel->release}, {"devices", devices}},
              *context.out);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("kernel", ToPrintableUtf8(kernel->release));
  fields.Add("finds", devices.empty() ? "- (there is no pool)"
                                      : absl::StrJoin(devices, ", "));
  fields.Print(*context.out);
  return absl::OkStatus();
}

}  // namespace

void AddPoolKexecCheck(CLI::App* pool, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = pool->add_subcommand(
      "kexec-check", "Whether all pools come through a kexec; changes nothing");
  command
      ->add_option("KERNEL", options->kernel,
                   "The kernel to be started, a bzImage")
      ->required();
  command
      ->add_option("COMMAND_LINE", options->command_line,
                   "Its command line, in one argument")
      ->required();
  command->add_option("-c,--config", options->config,
                      "What it was built with; by default config-RELEASE "
                      "beside it");
  command->callback(
      [=] { *action = [=] { return Check(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
