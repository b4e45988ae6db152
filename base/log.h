// SPDX-License-Identifier: Apache-2.0
//
// snapd's log. Where stderr is the journal, messages go to it with their
// fields; else they are lines on stderr with the priority prefix of
// sd-daemon(3). Thread-safe; one call is one message.
#ifndef DAXSNAP_BASE_LOG_H_
#define DAXSNAP_BASE_LOG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace daxsnap {

enum class LogLevel { kError = 3, kWarning = 4, kInfo = 6, kDebug = 7 };

// Lines of a lower priority than `level` are dropped. kInfo at start.
void SetLogLevel(LogLevel level);

// What is not printable UTF-8 in `message` is written as \xNN.
void LogError(absl::string_view message);
void LogWarning(absl::string_view message);
void LogInfo(absl::string_view message);
void LogDebug(absl::string_view message);

// Name and value of what a log can be searched for: names of capital letters
// and '_'. Those without a value are left out.
using LogFields = std::vector<std::pair<std::string, std::string>>;

// A message of priority notice with fields, which only the journal keeps. It is
// written whatever the level: who did what is not for the level to say.
void LogEvent(absl::string_view message, const LogFields& fields);

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_LOG_H_
