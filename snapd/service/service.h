// SPDX-License-Identifier: Apache-2.0
//
// The gRPC services: they translate, Operations does the work.
#ifndef DAXSNAP_SNAPD_SERVICE_SERVICE_H_
#define DAXSNAP_SNAPD_SERVICE_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "base/executor.h"
#include "snapd/ops/access.h"
#include "snapd/ops/operations.h"

namespace daxsnap {

// What a client gets; an error is logged.
grpc::Status ToGrpc(const absl::Status& status);

// All services of the API for one caller. They must live as long as the server
// that they are registered with; `operations` and `executor` longer.
std::vector<std::unique_ptr<grpc::Service>> MakeServices(const Caller& caller,
                                                         Operations* operations,
                                                         Executor* executor);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_SERVICE_SERVICE_H_
