// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_SERVICE_OPTIONS_H_
#define DAXSNAP_SNAPD_SERVICE_OPTIONS_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/log.h"
#include "snapd/engine/criu_engine.h"

namespace daxsnap {

// The command line of snapd; snapd(8) and --help say what each option means.
struct Options {
  std::string socket;
  // Who may use the socket besides root.
  std::optional<gid_t> socket_group;
  // At most one of the two is set.
  std::string pool_device;
  std::string pool;
  CriuOptions criu;
  LogLevel log_level = LogLevel::kInfo;
};

// Parses the command line. --help and --version print and exit. On
// INVALID_ARGUMENT the message says what is wrong.
absl::StatusOr<Options> ParseOptions(int argc, char** argv);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_SERVICE_OPTIONS_H_
