// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_BUILD_ID_H_
#define DAXSNAP_SNAPD_BUILD_ID_H_

#include <string>

#include "absl/status/statusor.h"

namespace daxsnap {

// The GNU build-id of a 64-bit ELF file in lower-case hex; empty if the file is
// not one or has none. `fd` is readable and seekable; its position is not used.
// The content is not trusted. An error only if it cannot be read.
absl::StatusOr<std::string> ReadBuildId(int fd);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_BUILD_ID_H_
