// SPDX-License-Identifier: Apache-2.0
//
// The machine a snapshot is made on and restored on.
#ifndef DAXSNAP_HOST_TASK_MACHINE_H_
#define DAXSNAP_HOST_TASK_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace daxsnap {

struct CpuInfo {
  std::string model;
  // Those flags of /proc/cpuinfo that name instructions a program can use, and
  // so must be there when it is restored. Sorted.
  std::vector<std::string> features;
};

// Parses the text of /proc/cpuinfo; only the first CPU counts.
CpuInfo ParseCpuInfo(absl::string_view text);

// The CPU of this machine.
absl::StatusOr<CpuInfo> ReadCpuInfo();

// As `uname -r`.
std::string KernelRelease();

// Numbers of the NUMA nodes that have memory, as a mask of the first 64; of a
// kernel without NUMA there is one. `sysfs` is another directory in tests.
absl::StatusOr<uint64_t> ReadMemoryNodes(const std::string& sysfs = "/sys");

// What `have` lacks of `need`. Both sorted.
std::vector<std::string> MissingFeatures(const std::vector<std::string>& need,
                                         const std::vector<std::string>& have);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_MACHINE_H_
