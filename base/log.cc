// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"

namespace daxsnap {
namespace {

// The one process-wide setting: a log has no owner that could carry it.
std::atomic<int> max_level = static_cast<int>(LogLevel::kInfo);

// Without the bytes that could make one message look like two.
std::string OneLine(absl::string_view message) {
  std::string line(message);
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return line;
}

void Write(LogLevel level, absl::string_view message) {
  const int number = static_cast<int>(level);
  if (number > max_level.load(std::memory_order_relaxed)) return;
  const std::string line =
      absl::StrCat("<", number, ">", OneLine(message), "\n");
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
