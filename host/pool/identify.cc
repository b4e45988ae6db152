// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/utf8.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {
namespace {

// The kernel tells it of an attached device. nullopt: it has no header.
absl::StatusOr<std::optional<Header>> AskKernel(const Device& device) {
  const std::filesystem::path pool =
      absl::StrCat("/sys/bus/dax/devices/", device.name, "/pool");
  const auto line = [&](const char* file) {
    std::ifstream in(pool / file);
    std::string text;
    std::getline(in, text);
    return text;
  };
  std::error_code error;
  if (!std::filesystem::exists(pool, error)) return std::nullopt;
  absl::StatusOr<PoolType> type = ParsePoolType(line("type"));
  if (!type.ok()) return type.status();
  return Header{*type, line("uuid"), line("label"), device.size};
}

std::string DescribePool(const Device& device, const Header& header) {
  std::string text = absl::StrCat(device.name, " (");
  if (!header.label.empty())
    absl::StrAppend(&text, ToPrintableUtf8(header.label), ", ");
  return absl::StrCat(text, header.uuid, ")");
}

}  // namespace

absl::StatusOr<std::optional<Header>> Identify(const Device& device) {
  switch (device.driver) {
    case Driver::kKmem:
      return AskKernel(device);
    case Driver::kDeviceDax:
      return ReadHeader(device);
    case Driver::kNone:
      break;
  }
  return std::nullopt;
}

absl::StatusOr<Device> FindPool(absl::string_view name) {
  absl::StatusOr<std::vector<Device>> devices = ListDevices();
  if (!devices.ok()) return devices.status();
  const absl::string_view device_name = absl::StripPrefix(name, "/dev/");
  std::vector<Device> matches;
  std::vector<std::string> known;
  for (const Device& device : *devices) {
    if (device.name == device_name) return device;
    const absl::StatusOr<std::optional<Header>> header = Identify(device);
    // One that is damaged has no name, and is not in the way of others.
    if (!header.ok() || !header->has_value()) {
      known.push_back(device.name);
      continue;
    }
    known.push_back(DescribePool(device, **header));
    if (absl::EqualsIgnoreCase((*header)->uuid, name) ||
        (!name.empty() && (*header)->label == name))
      matches.push_back(device);
  }
  if (matches.size() == 1) return std::move(matches.front());
  // It says what to do where there is no device at all.
  if (devices->empty()) return FindDevice(name);
  if (matches.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "no DAX device and no pool is called ", ToPrintableUtf8(name),
        "; there is ", absl::StrJoin(known, ", ")));
  }
  const auto append_name = [](std::string* out, const Device& device) {
    absl::StrAppend(out, device.name);
  };
  return absl::FailedPreconditionError(absl::StrCat(
      absl::StrJoin(matches, " and ", append_name), " are both called ",
      ToPrintableUtf8(name), "; name one by its UUID or as a device"));
}

}  // namespace daxsnap::pool
