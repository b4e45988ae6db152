// SPDX-License-Identifier: Apache-2.0
//
// Inside daxsnap_pool, and for snapd: where the memory of a DAX device is from.
#ifndef DAXSNAP_HOST_POOL_ORIGIN_H_
#define DAXSNAP_HOST_POOL_ORIGIN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace daxsnap::pool {

// [start, end) in bytes of physical memory.
struct PhysicalRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool Overlaps(const PhysicalRange& other) const {
    return start < other.end && other.start < end;
  }
  bool operator==(const PhysicalRange& other) const {
    return start == other.start && end == other.end;
  }
};

struct Origin {
  // Whether the firmware, or the host of a virtual machine, lists it as
  // persistent memory. The persistence_domain of an nvdimm region says
  // something else, namely what a write-back reaches, and is empty for many
  // NVDIMMs.
  bool persistent = false;
  // Options of the kernel that finds the device: "CONFIG_X86_PMEM_LEGACY".
  std::vector<std::string> drivers;
  // Where it is.
  PhysicalRange range;
  // Whether the firmware lists it as RAM for a special purpose, which kernels
  // take for RAM like any other if they are told to.
  bool soft_reserved = false;
  // The region of RAM that the command line has set aside for it; empty if it
  // is the firmware that tells of the device.
  PhysicalRange set_aside;
};

// Of the device called `device` ("dax0.0"). UNAVAILABLE if that cannot be told.
// Needs root. `sysfs` is for tests.
absl::StatusOr<Origin> FindOrigin(const std::string& device,
                                  const std::string& sysfs = "/sys");

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_ORIGIN_H_
