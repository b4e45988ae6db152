// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "host/pool/kexec.h"

namespace daxsnap::pool {
namespace {

// source: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
constexpr std::size_t kHeaderBytes = 0x8000 + 0x400;  // with room for the text
constexpr std::size_t kMagicAt = 0x202;
constexpr std::size_t kVersionAt = 0x20e;
constexpr std::size_t kVersionBase = 0x200;

absl::StatusOr<std::string> ReadRelease(const std::string& kernel) {
  std::ifstream file(kernel, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", kernel));
  std::vector<char> head(kHeaderBytes);
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(file.gcount()));
  const absl::Status none = absl::InvalidArgumentError(
      absl::StrCat(kernel, " is not a bzImage of Linux"));
  if (head.size() < kVersionAt + 2 ||
      std::memcmp(head.data() + kMagicAt, "HdrS", 4) != 0)
    return none;
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(head[i]));
  };
  const std::size_t at =
      kVersionBase + (byte(kVersionAt) | byte(kVersionAt + 1) << 8);
  if (at == kVersionBase || at >= head.size()) return none;
  const absl::string_view text(head.data() + at, head.size() - at);
  const std::size_t length = text.find(' ');
  if (length == 0 || length == absl::string_view::npos || length > 64)
    return none;
  return std::string(text.substr(0, length));
}

// What is in the quotes of "TEXT", as Kconfig writes it.
std::string Unquoted(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "\"") || !absl::ConsumeSuffix(&text, "\""))
    return "";
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    plain.push_back(text[i]);
  }
  return plain;
}

// "6.12.48" of "# Linux/x86 6.12.48 Kernel Configuration"; "" of other lines.
absl::string_view VersionInTitle(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, "# Linux/") ||
      !absl::ConsumeSuffix(&line, " Kernel Configuration"))
    return "";
  const std::size_t space = line.rfind(' ');
  return space == absl::string_view::npos ? "" : line.substr(space + 1);
}

}  // namespace

absl::StatusOr<KernelImage> ReadKernelImage(const std::string& kernel,
                                            const std::string& config) {
  absl::StatusOr<std::string> release = ReadRelease(kernel);
  if (!release.ok()) return release.status();
  std::string path = config;
  if (path.empty()) {
    path = std::filesystem::path(kernel).replace_filename(
        absl::StrCat("config-", *release));
  }
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(
        "cannot read ", path, ", which tells what ", kernel,
        " can do; name the configuration it was built with by --config"));
  }
  KernelImage image{*release, {}, ""};
  std::string version, local;
  for (std::string line; std::getline(file, line);) {
    if (const absl::string_view title = VersionInTitle(line); !title.empty())
      version = std::string(title);
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    if (parts.size() != 2 || !absl::StartsWith(parts[0], "CONFIG_")) continue;
    if (parts[1] == "y" || parts[1] == "m") image.options.insert(parts[0]);
    if (parts[0] == "CONFIG_LOCALVERSION") local = Unquoted(parts[1]);
    if (parts[0] == "CONFIG_CMDLINE") image.built_in = Unquoted(parts[1]);
  }
  // Builds add more at the end, but not at the front: 6.12.4 is not 6.12.48.
  absl::string_view rest = *release;
  const bool fits = !version.empty() && absl::ConsumePrefix(&rest, version) &&
                    (rest.empty() || !absl::ascii_isdigit(rest[0])) &&
                    absl::StrContains(rest, local);
  if (fits) return image;
  return absl::InvalidArgumentError(absl::StrCat(
      path, " is the configuration of ", version.empty() ? "no" : version,
      local, " kernel, but ", kernel, " is ", *release));
}

}  // namespace daxsnap::pool
