// SPDX-License-Identifier: Apache-2.0
#include "host/pool/origin.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace daxsnap::pool {
namespace {

// The first line of a sysfs file; "" if there is none.
std::string ReadLine(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

absl::StatusOr<std::uint64_t> ReadNumber(const std::filesystem::path& path) {
  const std::string line = ReadLine(path);
  std::uint64_t number = 0;
  if (absl::StartsWith(line, "0x") ? absl::SimpleHexAtoi(line, &number)
                                   : absl::SimpleAtoi(line, &number))
    return number;
  return absl::UnavailableError(
      absl::StrCat("cannot read a number from ", path.string()));
}

// Whether the firmware, whatever the command line says, lists it as persistent.
bool FirmwareKnows(const std::string& sysfs, const PhysicalRange& range) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat(sysfs, "/firmware/memmap"), error)) {
    if (!absl::StrContains(ReadLine(entry.path() / "type"), "Persistent"))
      continue;
    const absl::StatusOr<std::uint64_t> start =
        ReadNumber(entry.path() / "start");
    const absl::StatusOr<std::uint64_t> last = ReadNumber(entry.path() / "end");
    if (start.ok() && last.ok() && *start <= range.start &&
        range.end - 1 <= *last)
      return true;
  }
  return false;
}

// The nvdimm region above the device: ".../ndbus0/region0/dax0.0/dax0.0".
std::optional<std::filesystem::path> RegionOf(std::filesystem::path device) {
  for (; device.has_parent_path() && device != device.root_path();
       device = device.parent_path()) {
    if (absl::StartsWith(device.filename().string(), "region") &&
        absl::StartsWith(device.parent_path().filename().string(), "ndbus"))
      return device;
  }
  return std::nullopt;
}

// By the path of its region: who has told the kernel of it.
std::vector<std::string> Drivers(absl::string_view path) {
  if (absl::StrContains(path, "/e820_pmem/"))
    return {"CONFIG_X86_PMEM_LEGACY", "CONFIG_DEV_DAX_PMEM"};
  if (absl::StrContains(path, "/virtio"))
    return {"CONFIG_VIRTIO_PMEM", "CONFIG_DEV_DAX_PMEM"};
  return {"CONFIG_ACPI_NFIT", "CONFIG_DEV_DAX_PMEM"};
}

}  // namespace

absl::StatusOr<Origin> FindOrigin(const std::string& device,
                                  const std::string& sysfs) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(
      absl::StrCat(sysfs, "/bus/dax/devices/", device), error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot find ", device, " in sysfs"));
  }
  Origin origin;
  const std::optional<std::filesystem::path> region = RegionOf(path);
  // Memory of another kind: soft-reserved, or volatile memory of CXL.
  if (!region) return origin;
  origin.drivers = Drivers(region->string());
  if (!absl::StrContains(region->string(), "/e820_pmem/")) {
    origin.persistent = ReadLine(*region / "devtype") != "nd_volatile";
    return origin;
  }
  const absl::StatusOr<std::uint64_t> start = ReadNumber(*region / "resource");
  const absl::StatusOr<std::uint64_t> size = ReadNumber(*region / "size");
  if (!start.ok()) return start.status();
  if (!size.ok()) return size.status();
  const PhysicalRange range{*start, *start + *size};
  origin.persistent = FirmwareKnows(sysfs, range);
  if (!origin.persistent) origin.set_aside = range;
  return origin;
}

}  // namespace daxsnap::pool
