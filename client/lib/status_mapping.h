// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_LIB_STATUS_MAPPING_H_
#define DAXSNAP_CLIENT_LIB_STATUS_MAPPING_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace daxsnap::client {

// The same code and message; the ErrorInfo of our domain among the details, if
// any, becomes the payload that GetErrorDetails() reads.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace daxsnap::client

#endif  // DAXSNAP_CLIENT_LIB_STATUS_MAPPING_H_
