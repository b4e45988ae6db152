// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "host/pool/kexec.h"

namespace daxsnap::pool {
namespace {

constexpr char kMemmap[] = "memmap=";
constexpr char kSpareNodes[] = "numa_spare_nodes=";
constexpr char kEfi[] = "efi=";
constexpr absl::string_view kUnits = "KMGTPE";

// A number as memparse() of the kernel reads it, taken from the front.
bool ConsumeBytes(absl::string_view* text, std::uint64_t* bytes) {
  const std::string copy(*text);
  if (copy.empty() || !absl::ascii_isdigit(copy[0])) return false;
  char* end = nullptr;
  errno = 0;
  *bytes = std::strtoull(copy.c_str(), &end, 0);
  if (errno != 0) return false;
  text->remove_prefix(static_cast<std::size_t>(end - copy.c_str()));
  if (text->empty()) return true;
  const std::size_t unit = kUnits.find(absl::ascii_toupper(text->front()));
  if (unit == absl::string_view::npos) return true;
  text->remove_prefix(1);
  const std::size_t shift = 10 * (unit + 1);
  if (*bytes > std::numeric_limits<std::uint64_t>::max() >> shift) return false;
  *bytes <<= shift;
  return true;
}

// Words that blanks part, but not within quotes.
std::vector<std::string> Words(absl::string_view line) {
  std::vector<std::string> words(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (absl::ascii_isspace(c) && !quoted) {
      words.emplace_back();
    } else {
      words.back().push_back(c);
    }
  }
  return words;
}

absl::Status AddMemmap(absl::string_view text, MemoryParameters* parameters) {
  if (text == "exactmap") {
    parameters->exact = true;
    return absl::OkStatus();
  }
  MemoryParameters::Entry entry;
  entry.text = absl::StrCat(kMemmap, text);
  std::uint64_t size = 0;
  bool good = ConsumeBytes(&text, &size) && size > 0;
  if (good && text.empty()) return absl::OkStatus();  // a limit, as mem= is
  if (good) {
    entry.kind = text.front();
    text.remove_prefix(1);
    good =
        absl::StrContains("!$#@%", entry.kind) &&
        ConsumeBytes(&text, &entry.range.start) &&
        (text.empty() || entry.kind == '%') &&
        entry.range.start <= std::numeric_limits<std::uint64_t>::max() - size;
  }
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the command line has an entry that is none: ", entry.text));
  }
  entry.range.end = entry.range.start + size;
  parameters->entries.push_back(std::move(entry));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MemoryParameters> ParseMemoryParameters(
    absl::string_view command_line) {
  MemoryParameters parameters;
  for (const std::string& word : Words(command_line)) {
    if (word == "--") break;  // the rest is init's
    if (word == "nokaslr") parameters.fixed = true;
    absl::string_view value = word;
    if (absl::ConsumePrefix(&value, kSpareNodes)) {
      if (!absl::SimpleAtoi(value, &parameters.spare_nodes)) {
        return absl::InvalidArgumentError(
            absl::StrCat("the command line has an entry that is none: ", word));
      }
    } else if (absl::ConsumePrefix(&value, kEfi)) {
      for (const absl::string_view entry : absl::StrSplit(value, ','))
        parameters.all_ram |= entry == "nosoftreserve";
    } else if (absl::ConsumePrefix(&value, kMemmap)) {
      for (const absl::string_view entry : absl::StrSplit(value, ',')) {
        absl::Status status = AddMemmap(entry, &parameters);
        if (!status.ok()) return status;
      }
    }
  }
  return parameters;
}

}  // namespace daxsnap::pool
