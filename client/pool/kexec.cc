// SPDX-License-Identifier: Apache-2.0
#include "client/pool/kexec.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

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
bool FirmwareKnows(const PhysicalRange& range) {
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/sys/firmware/memmap", error)) {
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

absl::Status FindOrigin(PoolMemory* pool) {
  std::error_code error;
  const std::filesystem::path device = std::filesystem::canonical(
      absl::StrCat("/sys/bus/dax/devices/", pool->device), error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot find ", pool->device, " in sysfs"));
  }
  const std::optional<std::filesystem::path> region = RegionOf(device);
  if (!region) return absl::OkStatus();
  pool->drivers = Drivers(region->string());
  if (!absl::StrContains(region->string(), "/e820_pmem/"))
    return absl::OkStatus();
  const absl::StatusOr<std::uint64_t> start = ReadNumber(*region / "resource");
  const absl::StatusOr<std::uint64_t> size = ReadNumber(*region / "size");
  if (!start.ok()) return start.status();
  if (!size.ok()) return size.status();
  const PhysicalRange range{*start, *start + *size};
  if (!FirmwareKnows(range)) pool->set_aside = range;
  return absl::OkStatus();
}

// nullopt: not a pool.
absl::StatusOr<std::optional<PoolType>> TypeOf(const Device& device) {
  // Nobody can look at it now: taken for one, rather than lost.
  if (device.driver == Driver::kNone) return PoolType::kNone;
  absl::StatusOr<std::optional<Header>> header = Identify(device);
  if (!header.ok()) return header.status();
  if (!header->has_value()) return std::nullopt;
  return (*header)->type;
}

std::string TypeOption(PoolType type) {
  switch (type) {
    case PoolType::kFs:
      return "CONFIG_KMEMFS_FS";
    case PoolType::kBlk:
      return "CONFIG_KMEM_PERSIST_BLK";
    case PoolType::kNone:
      break;
  }
  return "CONFIG_KMEM_PERSIST";
}

absl::Status CheckKernel(const PoolMemory& pool, const KernelImage& kernel) {
  std::vector<std::string> wanted = pool.drivers;
  wanted.push_back("CONFIG_KMEM_PERSIST");
  wanted.push_back(TypeOption(pool.type));
  for (const std::string& option : wanted) {
    if (kernel.options.count(option) > 0) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        pool.device, ": kernel ", kernel.release, " is built without ", option,
        ", and could not use the pool"));
  }
  return absl::OkStatus();
}

absl::Status CheckSetAside(const PoolMemory& pool,
                           const MemoryParameters& next) {
  if (pool.set_aside == PhysicalRange{}) return absl::OkStatus();
  const std::string wanted = absl::StrFormat(
      "memmap=%#x!%#x", pool.set_aside.end - pool.set_aside.start,
      pool.set_aside.start);
  bool found = false;
  for (const MemoryParameters::Entry& entry : next.entries) {
    if (entry.kind == '!' && entry.range == pool.set_aside) {
      found = true;
    } else if (entry.range.Overlaps(pool.set_aside)) {
      return absl::FailedPreconditionError(
          absl::StrCat(pool.device, ": the pool is in ", wanted, ", and ",
                       entry.text, " of the command line is in its way"));
    }
  }
  if (found) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(pool.device, ": the command line does not set the pool's ",
                   "memory aside: the kernel would use it, and all that is "
                   "stored would be lost; add ",
                   wanted));
}

}  // namespace

absl::StatusOr<std::vector<PoolMemory>> FindPoolMemory() {
  absl::StatusOr<std::vector<Device>> devices = ListDevices();
  if (!devices.ok()) return devices.status();
  std::vector<PoolMemory> pools;
  for (const Device& device : *devices) {
    absl::StatusOr<std::optional<PoolType>> type = TypeOf(device);
    if (!type.ok()) return type.status();
    if (!type->has_value()) continue;
    PoolMemory pool{device.name, **type, {}, {}};
    absl::Status status = FindOrigin(&pool);
    if (!status.ok()) return status;
    pools.push_back(std::move(pool));
  }
  return pools;
}

absl::Status CheckKexec(const std::vector<PoolMemory>& pools,
                        const KernelImage& kernel,
                        absl::string_view command_line,
                        absl::string_view current) {
  absl::StatusOr<MemoryParameters> next = ParseMemoryParameters(command_line);
  if (!next.ok()) return next.status();
  absl::StatusOr<MemoryParameters> now = ParseMemoryParameters(current);
  if (!now.ok()) return now.status();
  for (const PoolMemory& pool : pools) {
    absl::Status status = CheckKernel(pool, kernel);
    if (status.ok()) status = CheckSetAside(pool, *next);
    if (!status.ok()) return status;
  }
  if (pools.empty() || next->spare_nodes >= now->spare_nodes)
    return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the command line sets ", next->spare_nodes,
      " NUMA nodes aside, and this kernel has ", now->spare_nodes,
      ": a pool may find no node; add numa_spare_nodes=", now->spare_nodes));
}

}  // namespace daxsnap::pool
