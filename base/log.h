// SPDX-License-Identifier: Apache-2.0
//
// snapd's log: lines on stderr with the priority prefix of sd-daemon(3), which
// journald understands. Thread-safe; one call is one line.
#ifndef DAXSNAP_BASE_LOG_H_
#define DAXSNAP_BASE_LOG_H_

#include "absl/strings/string_view.h"

namespace daxsnap {

enum class LogLevel { kError = 3, kWarning = 4, kInfo = 6, kDebug = 7 };

// Lines of a lower priority than `level` are dropped. kInfo at start.
void SetLogLevel(LogLevel level);

// Control characters in `message` become question marks.
void LogError(absl::string_view message);
void LogWarning(absl::string_view message);
void LogInfo(absl::string_view message);
void LogDebug(absl::string_view message);

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_LOG_H_
