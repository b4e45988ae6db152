// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_UTF8_H_
#define DAXSNAP_BASE_UTF8_H_

#include <string>

#include "absl/strings/string_view.h"

namespace daxsnap {

// Whether `text` is well-formed UTF-8 (RFC 3629) without control characters
// (U+0000 to U+001F, U+007F to U+009F).
bool IsPrintableUtf8(absl::string_view text);

// The text with every byte that keeps it from being so as \xNN. Messages of
// protobuf that hold anything but UTF-8 can be written and not be read.
std::string ToPrintableUtf8(absl::string_view text);

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_UTF8_H_
