// SPDX-License-Identifier: Apache-2.0
//
// Inside daxsnap_pool: drivers of DAX devices.
#ifndef DAXSNAP_HOST_POOL_DEVICE_H_
#define DAXSNAP_HOST_POOL_DEVICE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {

// Binds the device to `driver`, from whatever it is bound to. Returns when the
// driver's probe has succeeded. On failure the device is bound to nothing, and
// the message has the kernel's own reason if its log tells one.
absl::Status BindTo(const Device& device, Driver driver);

// Whether the running kernel leaves a device with a header of ours alone, or
// keeps what is stored there. Another one makes plain memory of all of it.
// Needs no root. `root` is for tests.
bool KernelKeepsPools(const std::string& root = "");

// Holds off others that would change the device, until the result is closed.
absl::StatusOr<UniqueFd> LockDevice(const Device& device);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_DEVICE_H_
