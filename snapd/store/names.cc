// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/names.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/utf8.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 63;
constexpr size_t kMaxLabelValueBytes = 255;

bool IsNameByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
         c == '_' || c == '-';
}

bool IsLabelKeyByte(char c) { return IsNameByte(c) || c == '/'; }

// `text` for people: what is not printable as \xNN, and cut to 64 bytes.
std::string Shown(absl::string_view text) {
  constexpr size_t kMaxBytes = 64;
  const char* rest = text.size() > kMaxBytes ? "..." : "";
  return absl::StrCat(ToPrintableUtf8(text.substr(0, kMaxBytes)), rest);
}

absl::Status NameError(std::string message) {
  return MakeError(
      {.code = absl::StatusCode::kInvalidArgument,
       .reason = reason::kNameInvalid,
       .message = std::move(message),
       .hint = "use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or "
               "a digit"});
}

absl::Status LabelError(absl::string_view key, std::string message) {
  return MakeError({.code = absl::StatusCode::kInvalidArgument,
                    .reason = reason::kLabelInvalid,
                    .message = std::move(message),
                    .hint = "keys: 1 to 63 of A-Z a-z 0-9 . _ / -; values: at "
                            "most 255 bytes of UTF-8 without control "
                            "characters; at most 64 labels",
                    .metadata = {{"key", Shown(key)}}});
}

}  // namespace

absl::Status ValidateSnapshotName(absl::string_view name) {
  if (name.empty()) return NameError("the name is empty");
  if (name.size() > kMaxNameBytes) {
    return NameError(absl::StrCat("the name has ", name.size(), " bytes"));
  }
  if (!std::all_of(name.begin(), name.end(), IsNameByte)) {
    return NameError(absl::StrCat(
        "name \"", Shown(name), "\" has a character that names may not have"));
  }
  if (!absl::ascii_isalnum(static_cast<unsigned char>(name.front()))) {
    return NameError(absl::StrCat("name \"", Shown(name),
                                  "\" begins with neither letter nor digit"));
  }
  return absl::OkStatus();
}

absl::Status ValidateLabels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return LabelError("", absl::StrCat(labels.size(), " labels are too many"));
  }
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes ||
        !std::all_of(key.begin(), key.end(), IsLabelKeyByte)) {
      return LabelError(
          key, absl::StrCat("label key \"", Shown(key), "\" is not valid"));
    }
    if (value.size() > kMaxLabelValueBytes || !IsPrintableUtf8(value)) {
      return LabelError(
          key, absl::StrCat("the value of label ", key, " is not valid"));
    }
  }
  return absl::OkStatus();
}

std::string GenerateSnapshotName(absl::string_view comm, int pid,
                                 absl::Time time) {
  constexpr size_t kMaxCommBytes = 15;
  std::string base(comm.substr(0, kMaxCommBytes));
  std::replace_if(
      base.begin(), base.end(), [](char c) { return !IsNameByte(c); }, '_');
  if (base.empty() ||
      !absl::ascii_isalnum(static_cast<unsigned char>(base.front()))) {
    base.insert(0, "task");
  }
  return absl::StrCat(
      base, "-", pid, "-",
      absl::FormatTime("%Y%m%dT%H%M%E3SZ", time, absl::UTCTimeZone()));
}

}  // namespace daxsnap
