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

absl::Status Detach(const std::string& mount_point, const Context& context) {
  absl::Status status = [&] {
    const ProgressLine line(context, absl::StrCat("detaching ", mount_point));
    return pool::Detach(mount_point);
  }();
  if (!status.ok()) return status;
  if (context.format == Format::kJson) {
    PrintJson({{"detached", mount_point}}, *context.out);
  } else {
    *context.out << "detached " << ToPrintableUtf8(mount_point)
                 << "; all of it is durable. The memory stays system memory "
                    "until the next boot.\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddPoolDetach(CLI::App* pool, Context* context, Action* action) {
  auto mount_point = std::make_shared<std::string>(pool::kDefaultMountPoint);
  CLI::App* command =
      pool->add_subcommand("detach",
                           "Commit and unmount the pool. Its memory stays "
                           "system memory until the next boot");
  command->add_option("MOUNT_POINT", *mount_point, "Where it is mounted")
      ->capture_default_str();
  command->callback(
      [=] { *action = [=] { return Detach(*mount_point, *context); }; });
}

}  // namespace daxsnap::snapctl
