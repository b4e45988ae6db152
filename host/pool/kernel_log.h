// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_POOL_KERNEL_LOG_H_
#define DAXSNAP_HOST_POOL_KERNEL_LOG_H_

#include <string>

#include "absl/strings/string_view.h"
#include "base/unique_fd.h"

namespace daxsnap::pool {

// What the kernel logs from the construction of this object on: drivers say
// there why they refuse, as a write to sysfs returns no more than a number.
class KernelLog {
 public:
  KernelLog();

  // The last line so far that names `device` as a driver does ("... dax0.0:
  // reason"), without what comes before the name; "" if there is none or the
  // log cannot be read. Only of lines with `words`, if these are given.
  std::string LastLineAbout(absl::string_view device,
                            absl::string_view words = "");

 private:
  UniqueFd fd_;
};

// The text after "DEVICE: " in a record of /dev/kmsg, or "".
std::string ReasonInRecord(absl::string_view record, absl::string_view device);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_KERNEL_LOG_H_
