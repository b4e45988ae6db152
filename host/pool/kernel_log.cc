// SPDX-License-Identifier: Apache-2.0
#include "host/pool/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace daxsnap::pool {

KernelLog::KernelLog()
    : fd_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (fd_.valid()) lseek(fd_.get(), 0, SEEK_END);
}

std::string KernelLog::LastLineAbout(absl::string_view device,
                                     absl::string_view words) {
  std::string last;
  if (!fd_.valid()) return last;
  char record[8192];  // one read gives one record
  for (;;) {
    const ssize_t length = read(fd_.get(), record, sizeof(record));
    if (length < 0 && (errno == EPIPE || errno == EINTR))
      continue;  // records were overwritten
    if (length <= 0) return last;
    std::string reason =
        ReasonInRecord(absl::string_view(record, length), device);
    if (!reason.empty() && absl::StrContains(reason, words))
      last = std::move(reason);
  }
}

std::string ReasonInRecord(absl::string_view record, absl::string_view device) {
  // "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT\n KEY=VALUE\n..."
  const std::size_t semicolon = record.find(';');
  if (semicolon == absl::string_view::npos) return "";
  absl::string_view text = record.substr(semicolon + 1);
  text = text.substr(0, text.find('\n'));
  const std::string mark = absl::StrCat(device, ": ");
  const std::size_t at = text.find(mark);
  if (at == absl::string_view::npos) return "";
  // "adax0.0: " names another device.
  if (at > 0 && text[at - 1] != ' ') return "";
  const absl::string_view reason = text.substr(at + mark.size());
  // The driver core's own line says no more than the number that we have.
  if (absl::StartsWith(reason, "probe with driver ")) return "";
  return std::string(reason);
}

}  // namespace daxsnap::pool
