// SPDX-License-Identifier: Apache-2.0
#include "host/task/machine.h"

#include <fcntl.h>
#include <sys/utsname.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProcFile = size_t{16} << 20;

// Beginnings of the flags that a program can tell: instruction sets and the
// state that XSAVE keeps. The other flags describe the kernel's own business
// (mitigations, virtualisation, power) and may differ after an update.
constexpr absl::string_view kInstructionFlags[] = {
    "abm",     "adx",        "aes",    "amx",     "avx",    "bmi",
    "cx16",    "cx8",        "cmov",   "f16c",    "fma",    "fsgsbase",
    "fxsr",    "gfni",       "lahf",   "mmx",     "movbe",  "movdir",
    "pclmul",  "pku",        "popcnt", "rdpid",   "rdrand", "rdseed",
    "rdtscp",  "rtm",        "serial", "sha_ni",  "sse",    "ssse3",
    "vaes",    "vpclmul",    "xsave",  "clflush", "clwb",   "waitpkg",
    "xgetbv1", "user_shstk",
};

bool IsInstructionFlag(absl::string_view flag) {
  return std::any_of(std::begin(kInstructionFlags), std::end(kInstructionFlags),
                     [flag](absl::string_view known) {
                       return absl::StartsWith(flag, known);
                     });
}

}  // namespace

CpuInfo ParseCpuInfo(absl::string_view text) {
  CpuInfo cpu;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    const absl::string_view key = absl::StripAsciiWhitespace(field.first);
    const absl::string_view value = absl::StripAsciiWhitespace(field.second);
    if (key.empty() && !cpu.features.empty()) break;
    if (key == "model name") cpu.model = std::string(value);
    if (key != "flags") continue;
    for (const absl::string_view flag :
         absl::StrSplit(value, ' ', absl::SkipEmpty())) {
      if (IsInstructionFlag(flag)) cpu.features.emplace_back(flag);
    }
  }
  std::sort(cpu.features.begin(), cpu.features.end());
  return cpu;
}

absl::StatusOr<CpuInfo> ReadCpuInfo() {
  auto text = ReadFileAt(AT_FDCWD, "/proc/cpuinfo", kMaxProcFile);
  if (!text.ok()) return text.status();
  return ParseCpuInfo(*text);
}

absl::StatusOr<uint64_t> ReadMemoryNodes(const std::string& sysfs) {
  const std::string path =
      absl::StrCat(sysfs, "/devices/system/node/has_memory");
  auto text = ReadFileAt(AT_FDCWD, path, kMaxProcFile);
  if (absl::IsNotFound(text.status())) return uint64_t{1};
  if (!text.ok()) return text.status();
  uint64_t nodes = 0;
  for (const absl::string_view part : absl::StrSplit(
           absl::StripAsciiWhitespace(*text), ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> range =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    unsigned first = 0;
    if (!absl::SimpleAtoi(range.first, &first)) {
      return absl::InternalError(absl::StrCat("cannot parse ", path));
    }
    unsigned last = first;
    if (!range.second.empty() && !absl::SimpleAtoi(range.second, &last)) {
      return absl::InternalError(absl::StrCat("cannot parse ", path));
    }
    for (unsigned node = first; node <= last && node < 64; ++node) {
      nodes |= uint64_t{1} << node;
    }
  }
  return nodes;
}

std::string KernelRelease() {
  utsname names;
  return uname(&names) == 0 ? names.release : std::string();
}

std::vector<std::string> MissingFeatures(const std::vector<std::string>& need,
                                         const std::vector<std::string>& have) {
  std::vector<std::string> missing;
  std::set_difference(need.begin(), need.end(), have.begin(), have.end(),
                      std::back_inserter(missing));
  return missing;
}

}  // namespace daxsnap
