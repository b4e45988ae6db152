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

struct Options {
  std::string device;
  std::string type = "fs";
  std::string label;
  std::uint64_t capacity = 0;
  bool force = false;
};

absl::Status Create(const Options& options, const Context& context) {
  absl::StatusOr<pool::PoolType> type = pool::ParsePoolType(options.type);
  if (!type.ok()) return type.status();
  absl::StatusOr<pool::Device> device = pool::FindDevice(options.device);
  if (!device.ok()) return device.status();
  pool::CreateOptions create;
  create.type = *type;
  create.label = options.label;
  create.capacity = options.capacity;
  create.overwrite =
      options.force ? pool::Overwrite::kForce : pool::Overwrite::kRefuse;
  const absl::StatusOr<pool::Header> header = [&] {
    const ProgressLine line(context,
                            absl::StrCat("making a pool of ", device->name));
    return pool::Create(*device, create);
  }();
  if (!header.ok()) return header.status();

  if (context.format == Format::kJson) {
    PrintJson({{"device", device->name},
               {"type", std::string(pool::PoolTypeName(header->type))},
               {"uuid", header->uuid},
               {"label", header->label},
               {"size", header->range_size}},
              *context.out);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("device", device->name);
  fields.Add("type", std::string(pool::PoolTypeName(header->type)));
  fields.Add("uuid", header->uuid);
  fields.Add("label", header->label.empty() ? "-" : header->label);
  fields.Add("size", FormatBytes(header->range_size));
  fields.Print(*context.out);
  return absl::OkStatus();
}

}  // namespace

void AddPoolCreate(CLI::App* pool, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = pool->add_subcommand(
      "create", "Make a DAX device an empty pool; what it holds is lost");
  command->add_option("DEV", options->device, "DAX device, for example dax0.0")
      ->required();
  command
      ->add_option(
          "-t,--type", options->type,
          "What it keeps: fs (snapshots), blk (a block device) or none "
          "(plain memory)")
      ->capture_default_str();
  command->add_option("-l,--label", options->label,
                      "Name for people, at most 63 bytes");
  command
      ->add_option("-c,--capacity", options->capacity,
                   "Type blk: bytes of the block device, for example 2G; by "
                   "default as much as the DAX device has room for")
      ->transform(CLI::AsSizeValue(false));
  command->add_flag("-f,--force", options->force,
                    "Overwrite a pool that is there already");
  command->callback(
      [=] { *action = [=] { return Create(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
