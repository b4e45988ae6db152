// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace daxsnap {
namespace {

struct Lead {
  std::size_t length;     // bytes of the character; 0: not a lead byte
  std::uint32_t bits;     // of the character in the lead byte
  std::uint32_t minimum;  // smallest character that needs so many bytes
};

Lead ParseLead(unsigned char byte) {
  if (byte < 0x80) return {1, byte, 0};
  if ((byte & 0xe0) == 0xc0) return {2, byte & 0x1fU, 0x80};
  if ((byte & 0xf0) == 0xe0) return {3, byte & 0x0fU, 0x800};
  if ((byte & 0xf8) == 0xf0) return {4, byte & 0x07U, 0x10000};
  return {0, 0, 0};
}

bool IsPrintable(std::uint32_t c) {
  const bool surrogate = c >= 0xd800 && c <= 0xdfff;
  const bool control = c < 0x20 || (c >= 0x7f && c <= 0x9f);
  return !surrogate && !control && c <= 0x10ffff;
}

// Bytes of the printable character that `text` begins with; 0: there is none.
std::size_t LeadingCharacter(absl::string_view text) {
  const Lead lead = ParseLead(static_cast<unsigned char>(text[0]));
  if (lead.length == 0 || lead.length > text.size()) return 0;
  std::uint32_t c = lead.bits;
  for (std::size_t i = 1; i < lead.length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return 0;
    c = c << 6 | (byte & 0x3fU);
  }
  return c >= lead.minimum && IsPrintable(c) ? lead.length : 0;
}

}  // namespace

bool IsPrintableUtf8(absl::string_view text) {
  while (!text.empty()) {
    const std::size_t length = LeadingCharacter(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string ToPrintableUtf8(absl::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const std::size_t length = LeadingCharacter(text);
    if (length == 0) {
      absl::StrAppend(&printable, "\\x",
                      absl::BytesToHexString(text.substr(0, 1)));
    } else {
      absl::StrAppend(&printable, text.substr(0, length));
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return printable;
}

}  // namespace daxsnap
