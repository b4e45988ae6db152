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
  std::string name;
  pool::AttachOptions attach;
};

// On standard error, also where the answer is for a program.
void PrintDamage(const pool::Attached& attached, const Context& context) {
  if (attached.damage.empty()) return;
  *context.err
      << "snapctl: WARNING: " << attached.device.name
      << " is damaged, and can only be read: "
      << ToPrintableUtf8(attached.damage)
      << "\nsnapctl: nothing more is stored there. Restore the snapshots that "
         "are whole (`snapctl verify --all`), or copy them elsewhere, then "
         "make "
         "the pool anew\n";
}

absl::Status Attach(const Options& options, const Context& context) {
  const absl::StatusOr<pool::Attached> attached = [&] {
    const ProgressLine line(context, absl::StrCat("attaching ", options.name));
    return pool::Attach(options.name, options.attach);
  }();
  if (!attached.ok()) return attached.status();
  const pool::Device& device = attached->device;
  if (context.format == Format::kJson) {
    PrintJson({{"device", device.name},
               {"node", device.target_node},
               {"size", device.size},
               {"mount_point", attached->mount_point},
               {"block_device", attached->block_device},
               {"read_only", attached->read_only},
               {"was_attached", attached->was_attached}},
              *context.out);
    PrintDamage(*attached, context);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("device", device.name);
  fields.Add("NUMA node", absl::StrCat(device.target_node));
  fields.Add("size", FormatBytes(device.size));
  const std::string already = attached->was_attached ? " (already)" : "";
  if (!attached->block_device.empty()) {
    fields.Add("block device", attached->block_device + already);
  } else {
    const std::string only = attached->read_only ? ", read-only" : "";
    fields.Add("mounted on", attached->mount_point.empty()
                                 ? "- (plain memory)"
                                 : attached->mount_point + only + already);
  }
  fields.Print(*context.out);
  PrintDamage(*attached, context);
  return absl::OkStatus();
}

}  // namespace

void AddPoolAttach(CLI::App* pool, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = pool->add_subcommand(
      "attach",
      "Turn a pool's device into memory and mount its file system, if it is of "
      "type fs");
  command
      ->add_option("POOL", options->name,
                   "Its DAX device, for example dax0.0, its label or its UUID")
      ->required();
  command
      ->add_option("-m,--mount-point", options->attach.mount_point,
                   "Where to mount it")
      ->capture_default_str();
  command->add_option("--mount-options", options->attach.mount_options,
                      "Options of kmemfs: byref=on|off, commit=SECONDS, "
                      "size=BYTES|N%, reserve=BYTES|N%; ro: read-only");
  command->callback(
      [=] { *action = [=] { return Attach(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
