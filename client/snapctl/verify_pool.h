// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_VERIFY_POOL_H_
#define DAXSNAP_CLIENT_SNAPCTL_VERIFY_POOL_H_

#include <string>

#include "absl/status/status.h"
#include "client/snapctl/context.h"

namespace daxsnap::snapctl {

// Verifies all files of an attached pool, which is named as for
// pool::FindPool(), without snapd.
absl::Status VerifyPool(const std::string& pool, bool make_checksums,
                        const Context& context);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_VERIFY_POOL_H_
