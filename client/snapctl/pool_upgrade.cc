// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

absl::Status Upgrade(const std::string& name, const Context& context) {
  const absl::StatusOr<pool::Upgraded> done = [&] {
    const ProgressLine line(context, absl::StrCat("upgrading ", name));
    return pool::Upgrade(name);
  }();
  if (!done.ok()) return done.status();
  if (context.format == Format::kJson) {
    PrintJson({{"device", done->mount.device},
               {"mount_point", done->mount.mount_point},
               {"from", done->from},
               {"to", done->to}},
              *context.out);
    return absl::OkStatus();
  }
  *context.out << "the pool of " << done->mount.device
               << (done->from == done->to ? " has format version "
                                          : " now has format version ")
               << done->to
               << (done->from == done->to ? " already" : "; it is durable")
               << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddPoolUpgrade(CLI::App* pool, Context* context, Action* action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = pool->add_subcommand(
      "upgrade",
      "Give an attached pool the newest format. Older kernels refuse it then; "
      "there is no way back");
  command
      ->add_option("POOL", *name,
                   "Its DAX device, for example dax0.0, its label or its UUID")
      ->required();
  command->callback(
      [=] { *action = [=] { return Upgrade(*name, *context); }; });
}

}  // namespace daxsnap::snapctl
