// SPDX-License-Identifier: Apache-2.0
//
// What `verify`, of snapshots and of pools, tells.
#ifndef DAXSNAP_CLIENT_SNAPCTL_VERIFY_OUTPUT_H_
#define DAXSNAP_CLIENT_SNAPCTL_VERIFY_OUTPUT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/snapctl/context.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap::snapctl {

// What was found in one snapshot or pool.
struct VerifyReport {
  std::string name;
  std::vector<v1::FileVerification> files;
  absl::Status status;

  v1::Verification Totals() const;
};

// "1.0 GiB", "1.0 GiB, 4.0 KiB without checksum".
std::string DescribeVerification(const v1::Verification& verification);

// A table, and the damaged ranges on standard error; or JSON.
void PrintReports(const std::vector<VerifyReport>& reports,
                  const Context& context);

// The worst: damage, then whatever came first. All others are told.
absl::Status WorstOf(const std::vector<VerifyReport>& reports,
                     const Context& context);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_VERIFY_OUTPUT_H_
