// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/page_progress.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstddef>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/files.h"

namespace daxsnap {
namespace {

constexpr uint64_t kPageSize = 4096;
constexpr size_t kMaxStatus = size_t{1} << 20;

// Of the lines "RssAnon:      1234 kB" of /proc/PID/status that count.
uint64_t ResidentKib(absl::string_view status) {
  uint64_t sum = 0;
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    for (const absl::string_view name :
         {"RssAnon:", "RssShmem:", "VmSwap:", "HugetlbPages:"}) {
      absl::string_view value = line;
      uint64_t kib = 0;
      if (absl::ConsumePrefix(&value, name) &&
          absl::ConsumeSuffix(&value, " kB") && absl::SimpleAtoi(value, &kib)) {
        sum += kib;
      }
    }
  }
  return sum;
}

}  // namespace

uint64_t PagesToDump(const ProcFs& proc, const std::vector<TaskInfo>& tree) {
  uint64_t kib = 0;
  for (const TaskInfo& task : tree) {
    const std::string path =
        absl::StrCat(proc.root(), "/", task.id.pid, "/status");
    kib += ResidentKib(ReadFileAt(AT_FDCWD, path, kMaxStatus).value_or(""));
  }
  return kib * 1024 / kPageSize;
}

uint64_t PagesDumped(int images) {
  uint64_t bytes = 0;
  auto names = ListDirectory(images);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    struct stat info;
    if (absl::StartsWith(name, "pages-") &&
        fstatat(images, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
      bytes += static_cast<uint64_t>(info.st_size);
    }
  }
  return bytes / kPageSize;
}

}  // namespace daxsnap
