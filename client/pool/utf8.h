// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_POOL_UTF8_H_
#define DAXSNAP_CLIENT_POOL_UTF8_H_

#include "absl/strings/string_view.h"

namespace daxsnap::pool {

// Whether `text` is well-formed UTF-8 (RFC 3629) without control characters
// (U+0000 to U+001F, U+007F to U+009F).
bool IsPrintableUtf8(absl::string_view text);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_CLIENT_POOL_UTF8_H_
