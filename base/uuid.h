// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_UUID_H_
#define DAXSNAP_BASE_UUID_H_

#include <string>

#include "absl/strings/string_view.h"

namespace daxsnap {

// A fresh random UUID in text form.
std::string NewUuid();

// Whether it looks like one of NewUuid().
bool IsUuid(absl::string_view text);

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_UUID_H_
