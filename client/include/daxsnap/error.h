// SPDX-License-Identifier: Apache-2.0
//
// What an error of daxsnap says beyond its code and message.
#ifndef DAXSNAP_ERROR_H_
#define DAXSNAP_ERROR_H_

#include <map>
#include <string>

#include "absl/status/status.h"

namespace daxsnap::client {

// Thread-safe as a value.
struct ErrorDetails {
  // "PID_IN_USE", ...: a daxsnap.v1.ErrorReason without its prefix; empty if
  // the error did not come from snapd.
  std::string reason;
  // One sentence on what to do; may be empty.
  std::string hint;
  // Facts by key, as named in daxsnap/v1/error.proto; without "hint".
  std::map<std::string, std::string> metadata;
};

// The details in a status returned by this library; empty ones if it has none.
ErrorDetails GetErrorDetails(const absl::Status& status);

// Puts details into a status that is not OK, in place of those it has.
void SetErrorDetails(const ErrorDetails& details, absl::Status* status);

}  // namespace daxsnap::client

#endif  // DAXSNAP_ERROR_H_
