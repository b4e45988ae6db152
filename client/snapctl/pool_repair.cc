// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

struct Options {
  std::string device;
  std::string label;
};

absl::Status Repair(const Options& options, const Context& context) {
  absl::StatusOr<pool::Device> device = pool::FindDevice(options.device);
  if (!device.ok()) return device.status();
  const absl::StatusOr<pool::Header> header = [&] {
    const ProgressLine line(context, absl::StrCat("repairing ", device->name));
    return pool::Repair(*device, options.label);
  }();
  if (!header.ok()) return header.status();
  const std::string type(pool::PoolTypeName(header->type));
  if (context.format == Format::kJson) {
    PrintJson({{"device", device->name},
               {"type", type},
               {"uuid", header->uuid},
               {"label", header->label}},
              *context.out);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("device", device->name);
  fields.Add("type", type);
  fields.Add("uuid", header->uuid);
  fields.Add("label",
             header->label.empty() ? "-" : ToPrintableUtf8(header->label));
  fields.Print(*context.out);
  return absl::OkStatus();
}

}  // namespace

void AddPoolRepair(CLI::App* pool, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = pool->add_subcommand(
      "repair",
      "Make the header of a pool anew, if it is damaged; what is stored is not "
      "touched");
  command->add_option("DEV", options->device, "DAX device, for example dax0.0")
      ->required();
  command->add_option("-l,--label", options->label,
                      "The pool's label, if the header does not tell it");
  command->callback(
      [=] { *action = [=] { return Repair(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
