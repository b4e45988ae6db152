// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_ERRORS_H_
#define DAXSNAP_CLIENT_SNAPCTL_ERRORS_H_

#include "absl/status/status.h"
#include "client/snapctl/context.h"

namespace daxsnap::snapctl {

// Exit codes, as snapctl(1) documents them. They never change their meaning.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;      // none of those below
inline constexpr int kExitUsage = 2;        // wrong command line or argument
inline constexpr int kExitNotFound = 3;     // what was named does not exist
inline constexpr int kExitTaken = 4;        // name, PID or device is in use
inline constexpr int kExitPermission = 5;   // permission denied
inline constexpr int kExitNoDaemon = 6;     // snapd is not running
inline constexpr int kExitNoSpace = 7;      // the pool is full
inline constexpr int kExitRefused = 8;      // not possible in this state
inline constexpr int kExitDamaged = 9;      // what is stored is damaged
inline constexpr int kExitCancelled = 130;  // by SIGINT or SIGTERM

int ExitCode(const absl::Status& status);

// Writes the error to context.err: for people "snapctl: MESSAGE" with facts and
// hint on lines of their own; with JSON output one line {"error": {...}}.
void PrintError(const absl::Status& status, const Context& context);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_ERRORS_H_
