// SPDX-License-Identifier: Apache-2.0
#include <linux/kmem_persist.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/local_pool.h"
#include "client/snapctl/output.h"
#include "client/snapctl/snapshot_output.h"
#include "host/pool/origin.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

// snapd knows most; without it the kernel still knows the pool.
absl::StatusOr<v1::Pool> CurrentPool(const Context& context) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (client.ok()) return (*client)->GetPool();
  absl::StatusOr<std::optional<v1::Pool>> local = ReadLocalPool();
  if (local.ok() && local->has_value()) return **local;
  return client.status();
}

absl::Status ShowPool(const Context& context) {
  absl::StatusOr<v1::Pool> pool = CurrentPool(context);
  if (!pool.ok()) return pool.status();
  if (context.format == Format::kJson) {
    PrintJson(ToJson(*pool), *context.out);
  } else {
    PrintPool(*pool, *context.out);
  }
  return absl::OkStatus();
}

nlohmann::ordered_json DeviceJson(
    const pool::Device& device, const pool::Origin& origin,
    const std::optional<pool::Header>& header,
    const std::optional<pool::BlockDevice>& block) {
  nlohmann::ordered_json json = {
      {"device", device.name},
      {"size", device.size},
      {"node", device.target_node},
      {"driver", std::string(pool::DriverName(device.driver))},
      {"persistent", origin.persistent},
      {"header", nullptr},
      {"block_device", nullptr}};
  if (header) {
    json["header"] = {{"type", std::string(pool::PoolTypeName(header->type))},
                      {"uuid", header->uuid},
                      {"label", header->label},
                      {"size", header->range_size}};
  }
  if (block) {
    json["block_device"] = {{"path", block->path},
                            {"capacity", block->capacity},
                            {"mapped_blocks", block->mapped},
                            {"free_blocks", block->free},
                            {"discarded_blocks", block->discarded}};
  }
  return json;
}

std::string FormatBlocks(std::uint64_t blocks) {
  return FormatBytes(blocks * KMEM_PERSIST_PAGE_SIZE);
}

void AddBlockDevice(const pool::BlockDevice& block, Fields* fields) {
  fields->Add("block device", block.path);
  fields->Add("capacity", FormatBytes(block.capacity));
  fields->Add("stored", FormatBlocks(block.mapped));
  fields->Add("free memory", FormatBlocks(block.free));
  fields->Add("discarded", FormatBlocks(block.discarded));
}

absl::Status ShowDevice(const std::string& name, const Context& context) {
  absl::StatusOr<pool::Device> device = pool::FindPool(name);
  if (!device.ok()) return device.status();
  absl::StatusOr<std::optional<pool::Header>> header = pool::Identify(*device);
  if (!header.ok()) return header.status();
  absl::StatusOr<std::optional<pool::BlockDevice>> block =
      pool::FindBlockDevice(*device);
  if (!block.ok()) return block.status();
  absl::StatusOr<pool::Origin> origin = pool::FindOrigin(device->name);
  if (!origin.ok()) return origin.status();
  if (context.format == Format::kJson) {
    PrintJson(DeviceJson(*device, *origin, *header, *block), *context.out);
    return absl::OkStatus();
  }
  Fields fields;
  fields.Add("device", device->name);
  fields.Add("size", FormatBytes(device->size));
  fields.Add("NUMA node", absl::StrCat(device->target_node));
  fields.Add("driver", std::string(pool::DriverName(device->driver)));
  fields.Add("persistent", origin->persistent ? "yes" : "not promised");
  if (*header) {
    const pool::Header& found = **header;
    fields.Add("pool type", std::string(pool::PoolTypeName(found.type)));
    fields.Add("uuid", found.uuid);
    fields.Add("label",
               found.label.empty() ? "-" : ToPrintableUtf8(found.label));
  } else {
    fields.Add("pool", device->driver == pool::Driver::kNone
                           ? "not readable while the device has no driver"
                           : "none");
  }
  if (*block) AddBlockDevice(**block, &fields);
  fields.Print(*context.out);
  return absl::OkStatus();
}

}  // namespace

void AddPoolShow(CLI::App* pool, Context* context, Action* action) {
  auto device = std::make_shared<std::string>();
  CLI::App* command =
      pool->add_subcommand("show", "Show the pool that is open, or another");
  command->add_option(
      "DEV", *device,
      "Another to look at: a DAX device, for example dax0.0, or "
      "the label or UUID of a pool");
  command->callback([=] {
    *action = [=] {
      return device->empty() ? ShowPool(*context)
                             : ShowDevice(*device, *context);
    };
  });
}

}  // namespace daxsnap::snapctl
