// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

// That of this file says nothing.
#define SD_JOURNAL_SUPPRESS_LOCATION

#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace daxsnap {
namespace {

// The one process-wide setting: a log has no owner that could carry it.
std::atomic<int> max_level = static_cast<int>(LogLevel::kInfo);

// Whether stderr is a stream of the journal, which could not take fields.
// source: systemd.exec(5), $JOURNAL_STREAM
bool IsJournal() {
  static const bool is_journal = [] {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat info;
    return stream != nullptr && fstat(STDERR_FILENO, &info) == 0 &&
           absl::StrCat(info.st_dev, ":", info.st_ino) == stream;
  }();
  return is_journal;
}

bool SendToJournal(int priority, const std::string& line,
                   const LogFields& fields) {
  std::vector<std::string> entries = {absl::StrCat("PRIORITY=", priority),
                                      absl::StrCat("MESSAGE=", line)};
  for (const auto& [name, value] : fields) {
    if (!value.empty()) entries.push_back(absl::StrCat(name, "=", value));
  }
  std::vector<iovec> parts;
  for (std::string& entry : entries) {
    parts.push_back({.iov_base = entry.data(), .iov_len = entry.size()});
  }
  return sd_journal_sendv(parts.data(), static_cast<int>(parts.size())) == 0;
}

constexpr int kNotice = 5;

void Write(int number, absl::string_view message, const LogFields& fields) {
  // No byte of it can make one message look like two.
  std::string line = ToPrintableUtf8(message);
  if (IsJournal() && SendToJournal(number, line, fields)) return;
  line = absl::StrCat("<", number, ">", line, "\n");
  // One write(2) a line, so that lines of threads do not mix.
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

void Write(LogLevel level, absl::string_view message) {
  const int number = static_cast<int>(level);
  if (number > max_level.load(std::memory_order_relaxed)) return;
  Write(number, message, {});
}

}  // namespace

void SetLogLevel(LogLevel level) { max_level = static_cast<int>(level); }
void LogError(absl::string_view message) { Write(LogLevel::kError, message); }
void LogWarning(absl::string_view message) {
  Write(LogLevel::kWarning, message);
}
void LogInfo(absl::string_view message) { Write(LogLevel::kInfo, message); }
void LogDebug(absl::string_view message) { Write(LogLevel::kDebug, message); }
void LogEvent(absl::string_view message, const LogFields& fields) {
  Write(kNotice, message, fields);
}

}  // namespace daxsnap
