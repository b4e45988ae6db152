// SPDX-License-Identifier: Apache-2.0
#include "snapd/log.h"

#include <unistd.h>

#include <atomic>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace daxsnap {
namespace {

// The one process-wide setting: a log has no owner that could carry it.
std::atomic<int> max_level = static_cast<int>(LogLevel::kInfo);

void Write(LogLevel level, absl::string_view message) {
  const int number = static_cast<int>(level);
  if (number > max_level.load(std::memory_order_relaxed)) return;
  const std::string line =
      absl::StrCat("<", number, ">", absl::Utf8SafeCHexEscape(message), "\n");
  // One write(2) a line, so that lines of threads do not mix.
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void SetLogLevel(LogLevel level) { max_level = static_cast<int>(level); }
void LogError(absl::string_view message) { Write(LogLevel::kError, message); }
void LogWarning(absl::string_view message) {
  Write(LogLevel::kWarning, message);
}
void LogInfo(absl::string_view message) { Write(LogLevel::kInfo, message); }
void LogDebug(absl::string_view message) { Write(LogLevel::kDebug, message); }

}  // namespace daxsnap
