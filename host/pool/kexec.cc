// SPDX-License-Identifier: Apache-2.0
#include "host/pool/kexec.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace daxsnap::pool {
namespace {

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

// Memory that the firmware tells of, and that the kernel is to leave alone.
// What the running kernel was told, too, does not matter: it has found the
// pool.
absl::Status CheckFirmware(const PoolMemory& pool, const MemoryParameters& next,
                           const MemoryParameters& now) {
  if (pool.soft_reserved && next.all_ram) {
    return absl::FailedPreconditionError(
        absl::StrCat(pool.device, ": with efi=nosoftreserve the kernel uses ",
                     "the pool's memory as RAM, and all that is stored would "
                     "be lost; leave it out"));
  }
  for (const MemoryParameters::Entry& entry : next.entries) {
    const auto same = [&](const MemoryParameters::Entry& other) {
      return other.kind == entry.kind && other.range == entry.range;
    };
    if (!entry.range.Overlaps(pool.range) ||
        std::any_of(now.entries.begin(), now.entries.end(), same))
      continue;
    return absl::FailedPreconditionError(
        absl::StrCat(pool.device, ": ", entry.text,
                     " of the command line is about the pool's memory, of "
                     "which the firmware tells; leave it out"));
  }
  return absl::OkStatus();
}

absl::Status CheckSetAside(const PoolMemory& pool, const MemoryParameters& next,
                           const MemoryParameters& now) {
  if (pool.set_aside == PhysicalRange{}) return CheckFirmware(pool, next, now);
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

// A kernel with KASLR looks for a place of its own before it reads its memory
// map, and knows of the line no more than mem_avoid_memmap() in
// arch/x86/boot/compressed/kaslr.c makes of it.
absl::Status CheckPlace(const PoolMemory& pool, const KernelImage& kernel,
                        const MemoryParameters& next) {
  constexpr int kKnown = 4;
  if (pool.set_aside == PhysicalRange{} || next.fixed ||
      kernel.options.count("CONFIG_RANDOMIZE_BASE") == 0) {
    return absl::OkStatus();
  }
  int known = 0;
  for (const MemoryParameters::Entry& entry : next.entries) {
    if (next.exact || known == kKnown) break;
    if (entry.kind == '!' && entry.range == pool.set_aside)
      return absl::OkStatus();
    if (absl::StrContains("!$#", entry.kind) && entry.range.start > 0) ++known;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      pool.device, ": kernel ", kernel.release,
      " is put at a random place, and keeps off only the first ", kKnown,
      " regions of memmap=, or none with exactmap; add nokaslr"));
}

// The line that the kernel reads once it runs; its image is put somewhere by
// what is given alone.
std::string EffectiveLine(const KernelImage& kernel, absl::string_view given) {
  if (kernel.options.count("CONFIG_CMDLINE_BOOL") == 0)
    return std::string(given);
  if (kernel.options.count("CONFIG_CMDLINE_OVERRIDE") > 0)
    return kernel.built_in;
  return absl::StrCat(kernel.built_in, " ", given);
}

// Why it is refused, with where the line is from if it is not the given one.
absl::Status WithLine(const absl::Status& status, const KernelImage& kernel) {
  if (status.ok() || kernel.options.count("CONFIG_CMDLINE_OVERRIDE") == 0)
    return status;
  return absl::Status(
      status.code(),
      absl::StrCat(status.message(), "; kernel ", kernel.release,
                   " takes the command line that is built in, CONFIG_CMDLINE, "
                   "and no other"));
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
    absl::StatusOr<Origin> origin = FindOrigin(device.name);
    if (!origin.ok()) return origin.status();
    pools.push_back({device.name, **type, std::move(origin->drivers),
                     origin->set_aside, origin->range, origin->soft_reserved});
  }
  return pools;
}

absl::Status CheckKexec(const std::vector<PoolMemory>& pools,
                        const KernelImage& kernel,
                        absl::string_view command_line,
                        absl::string_view current) {
  const absl::StatusOr<MemoryParameters> given =
      ParseMemoryParameters(command_line);
  if (!given.ok()) return given.status();
  const absl::StatusOr<MemoryParameters> next =
      ParseMemoryParameters(EffectiveLine(kernel, command_line));
  if (!next.ok()) return WithLine(next.status(), kernel);
  absl::StatusOr<MemoryParameters> now = ParseMemoryParameters(current);
  if (!now.ok()) return now.status();
  for (const PoolMemory& pool : pools) {
    absl::Status status = CheckKernel(pool, kernel);
    if (status.ok())
      status = WithLine(CheckSetAside(pool, *next, *now), kernel);
    if (status.ok()) status = CheckPlace(pool, kernel, *given);
    if (!status.ok()) return status;
  }
  if (pools.empty() || next->spare_nodes >= now->spare_nodes)
    return absl::OkStatus();
  return WithLine(
      absl::FailedPreconditionError(absl::StrCat(
          "the command line sets ", next->spare_nodes,
          " NUMA nodes aside, and this kernel has ", now->spare_nodes,
          ": a pool may find no node; add numa_spare_nodes=",
          now->spare_nodes)),
      kernel);
}

}  // namespace daxsnap::pool
