// SPDX-License-Identifier: Apache-2.0
//
// Whether pools come through a kexec. Their memory keeps what it holds, but the
// kernel that starts must leave it alone and know what it is.
//
// Nothing here changes anything. Safe to call from any thread.
#ifndef DAXSNAP_HOST_POOL_KEXEC_H_
#define DAXSNAP_HOST_POOL_KEXEC_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "host/pool/origin.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {

// What a kernel's command line says of memory.
struct MemoryParameters {
  // One memmap= entry that has an address: 8G!16G.
  struct Entry {
    PhysicalRange range;
    char kind = '!';   // '!', '$', '#', '@' or '%'
    std::string text;  // as it is written
  };
  std::vector<Entry> entries;
  std::uint64_t spare_nodes = 0;  // numa_spare_nodes=
  bool exact = false;             // memmap=exactmap
  bool fixed = false;             // nokaslr
  bool all_ram = false;           // efi=nosoftreserve
};

// Reads it as the kernel does. INVALID_ARGUMENT for an entry that has no sense.
absl::StatusOr<MemoryParameters> ParseMemoryParameters(
    absl::string_view command_line);

// The kernel that is to be started.
struct KernelImage {
  std::string release;            // "6.12.48-daxsnap"
  std::set<std::string> options;  // those that are y or m: "CONFIG_KMEMFS_FS"
  std::string built_in;           // CONFIG_CMDLINE
};

// Reads a bzImage and the configuration that it was built with. `config` may be
// empty: config-RELEASE beside the kernel. INVALID_ARGUMENT: not a bzImage, or
// the configuration is that of another kernel; NOT_FOUND: no configuration.
absl::StatusOr<KernelImage> ReadKernelImage(const std::string& kernel,
                                            const std::string& config);

// A pool as this machine has it.
struct PoolMemory {
  std::string device;  // "dax0.0"
  PoolType type = PoolType::kFs;
  // Options of the kernel that finds the device: "CONFIG_X86_PMEM_LEGACY".
  std::vector<std::string> drivers;
  // The region of RAM that the command line has set aside for it; empty if it
  // is the firmware that tells of the device.
  PhysicalRange set_aside;
  // As in Origin.
  PhysicalRange range = {};
  bool soft_reserved = false;
};

// All pools: devices that are attached, or have a header. Needs root.
absl::StatusOr<std::vector<PoolMemory>> FindPoolMemory();

// OK if `kernel`, started with `command_line` from a kernel with the command
// line `current`, finds all `pools` as they are. FAILED_PRECONDITION with the
// pool and what to change if not.
absl::Status CheckKexec(const std::vector<PoolMemory>& pools,
                        const KernelImage& kernel,
                        absl::string_view command_line,
                        absl::string_view current);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_KEXEC_H_
