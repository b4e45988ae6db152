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

// Whether the firmware, whatever the command line says, lists it as memory of a
// type with this word in its name.
bool FirmwareListsAs(absl::string_view type, const std::string& sysfs,
                     const PhysicalRange& range) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat(sysfs, "/firmware/memmap"), error)) {
    if (!absl::StrContains(ReadLine(entry.path() / "type"), type)) continue;
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

// What is above a device of memory behind CXL.
const std::vector<std::string> kCxl = {"CONFIG_CXL_BUS", "CONFIG_CXL_ACPI",
                                       "CONFIG_CXL_PCI", "CONFIG_CXL_MEM",
                                       "CONFIG_CXL_REGION"};

std::vector<std::string> With(std::vector<std::string> options,
                              const std::vector<std::string>& more) {
  options.insert(options.end(), more.begin(), more.end());
  return options;
}

// By the path of its nvdimm region: who has told the kernel of it.
std::vector<std::string> Drivers(absl::string_view path) {
  if (absl::StrContains(path, "/nvdimm-bridge"))
    return With(kCxl, {"CONFIG_CXL_PMEM", "CONFIG_DEV_DAX_PMEM"});
  if (absl::StrContains(path, "/e820_pmem/"))
    return {"CONFIG_X86_PMEM_LEGACY", "CONFIG_DEV_DAX_PMEM"};
  if (absl::StrContains(path, "/virtio"))
    return {"CONFIG_VIRTIO_PMEM", "CONFIG_DEV_DAX_PMEM"};
  return {"CONFIG_ACPI_NFIT", "CONFIG_DEV_DAX_PMEM"};
}

absl::StatusOr<PhysicalRange> ReadRange(const std::filesystem::path& of) {
  const absl::StatusOr<std::uint64_t> start = ReadNumber(of / "resource");
  const absl::StatusOr<std::uint64_t> size = ReadNumber(of / "size");
  if (!start.ok()) return start.status();
  if (!size.ok()) return size.status();
  return PhysicalRange{*start, *start + *size};
}

// Memory of no nvdimm region: volatile memory of CXL, or what the firmware has
// set aside as RAM for a special purpose, which may be both.
absl::StatusOr<Origin> FindVolatile(const std::filesystem::path& path,
                                    const std::string& sysfs) {
  Origin origin;
  const absl::StatusOr<PhysicalRange> range = ReadRange(path);
  if (!range.ok()) return range.status();
  origin.range = *range;
  const bool cxl = absl::StrContains(path.string(), "/dax_region");
  origin.drivers = cxl ? With(kCxl, {"CONFIG_DEV_DAX_CXL"})
                       : std::vector<std::string>{"CONFIG_DEV_DAX_HMEM"};
  origin.soft_reserved =
      !cxl || FirmwareListsAs("Soft Reserved", sysfs, *range);
  if (origin.soft_reserved)
    origin.drivers.emplace_back("CONFIG_EFI_SOFT_RESERVE");
  return origin;
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
  if (!region) return FindVolatile(path, sysfs);
  origin.drivers = Drivers(region->string());
  const absl::StatusOr<PhysicalRange> range = ReadRange(*region);
  if (!range.ok()) return range.status();
  origin.range = *range;
  if (!absl::StrContains(region->string(), "/e820_pmem/")) {
    origin.persistent = ReadLine(*region / "devtype") != "nd_volatile";
    return origin;
  }
  origin.persistent = FirmwareListsAs("Persistent", sysfs, *range);
  if (!origin.persistent) origin.set_aside = *range;
  return origin;
}

}  // namespace daxsnap::pool
