// SPDX-License-Identifier: Apache-2.0
//
// Makes errors that users understand out of what CRIU writes.
#ifndef DAXSNAP_SNAPD_ENGINE_CRIU_LOG_H_
#define DAXSNAP_SNAPD_ENGINE_CRIU_LOG_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace daxsnap {

// The first line of a CRIU log that reports an error, without time stamp and
// source position; empty if there is none.
std::string FirstErrorLine(absl::string_view log);

struct CriuFailure {
  // "dump" or "restore".
  absl::string_view action;
  // Root task of a dump; of a restore 0.
  pid_t pid = 0;
  std::string name;
  // The whole log; may be empty.
  absl::string_view log;
  // What CRIU said on its socket; may be empty.
  std::string message;
  // Where the log can be read.
  std::string log_path;
};

// A status with the reason that the log tells, or CRIU_FAILED. metadata always
// has criu_error and criu_log.
absl::Status CriuError(const CriuFailure& failure);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CRIU_LOG_H_
