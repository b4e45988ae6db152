// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_UUID_H_
#define DAXSNAP_BASE_UUID_H_

#include <string>

namespace daxsnap {

// A fresh random UUID in text form.
std::string NewUuid();

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_UUID_H_
