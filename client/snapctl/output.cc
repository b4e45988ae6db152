// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/output.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace daxsnap::snapctl {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

constexpr char kColumnGap[] = "  ";

std::string Pad(const std::string& text, std::size_t width, Align align) {
  const std::string space(width - std::min(width, text.size()), ' ');
  return align == Align::kLeft ? text + space : space + text;
}

// SNAPSHOT_MODE_ of SnapshotMode.
std::string EnumPrefix(const EnumDescriptor& type) {
  std::string prefix;
  for (const char c : type.name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  return prefix + '_';
}

ordered_json EnumToJson(const EnumDescriptor& type, int number) {
  const auto* value = type.FindValueByNumber(number);
  if (value == nullptr) return number;  // of a newer snapd
  return EnumName(*value);
}

ordered_json MessageToJson(const Message& message) {
  if (message.GetDescriptor() == google::protobuf::Timestamp::descriptor()) {
    google::protobuf::Timestamp time;
    time.CopyFrom(message);
    return google::protobuf::util::TimeUtil::ToString(time);
  }
  return ToJson(message);
}

ordered_json SingularToJson(const Message& message,
                            const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumToJson(*field.enum_type(),
                        reflection.GetEnumValue(message, &field));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageToJson(reflection.GetMessage(message, &field));
  }
  return nullptr;
}

// The API has repeated strings, enums and messages only.
ordered_json RepeatedToJson(const Message& message,
                            const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  ordered_json array = ordered_json::array();
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      array.push_back(reflection.GetRepeatedString(message, &field, i));
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      array.push_back(
          EnumToJson(*field.enum_type(),
                     reflection.GetRepeatedEnumValue(message, &field, i)));
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      array.push_back(
          MessageToJson(reflection.GetRepeatedMessage(message, &field, i)));
    }
  }
  return array;
}

// Maps have string keys; the order is made stable.
ordered_json MapToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  const FieldDescriptor& key = *field.message_type()->map_key();
  const FieldDescriptor& value = *field.message_type()->map_value();
  std::vector<std::pair<std::string, ordered_json>> entries;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    entries.emplace_back(entry.GetReflection()->GetString(entry, &key),
                         SingularToJson(entry, value));
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  ordered_json object = ordered_json::object();
  for (auto& [name, json] : entries) object[name] = std::move(json);
  return object;
}

}  // namespace

std::string FormatBytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB",
                                                 "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatPages(std::uint64_t pages, std::uint32_t page_size) {
  return absl::StrCat(FormatBytes(pages * page_size), " (", pages,
                      pages == 1 ? " page)" : " pages)");
}

std::string FormatMicroseconds(std::uint64_t us) {
  if (us < 1000) return absl::StrCat(us, " us");
  if (us < 1'000'000)
    return absl::StrFormat("%.1f ms", static_cast<double>(us) / 1e3);
  return absl::StrFormat("%.2f s", static_cast<double>(us) / 1e6);
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC",
                          absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string EnumName(const google::protobuf::EnumValueDescriptor& value) {
  return std::string(
      absl::StripPrefix(value.name(), EnumPrefix(*value.type())));
}

void Table::Print(std::ostream& out) const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t width = columns_[i].title.size();
    for (const auto& row : rows_) width = std::max(width, row[i].size());
    widths.push_back(width);
  }
  const auto print_row = [&](const auto& cell_at) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) line += kColumnGap;
      line += Pad(cell_at(i), widths[i], columns_[i].align);
    }
    out << absl::StripTrailingAsciiWhitespace(line) << "\n";
  };
  print_row([&](std::size_t i) { return columns_[i].title; });
  for (const auto& row : rows_) {
    print_row([&](std::size_t i) { return row[i]; });
  }
}

void Fields::Print(std::ostream& out) const {
  std::size_t width = 0;
  for (const Row& row : rows_) width = std::max(width, row.key.size());
  for (const Row& row : rows_) {
    const std::string line =
        Pad(row.key, width, Align::kLeft) + kColumnGap + row.value;
    out << absl::StripTrailingAsciiWhitespace(line) << "\n";
  }
}

ordered_json ToJson(const Message& message) {
  ordered_json object = ordered_json::object();
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string name(field.name());
    if (field.is_map()) {
      object[name] = MapToJson(message, field);
    } else if (field.is_repeated()) {
      object[name] = RepeatedToJson(message, field);
    } else if (!field.has_presence() || reflection.HasField(message, &field)) {
      object[name] = SingularToJson(message, field);
    }
  }
  return object;
}

void PrintJson(const ordered_json& json, std::ostream& out) {
  out << json.dump(2, ' ', false, ordered_json::error_handler_t::replace)
      << "\n";
}

}  // namespace daxsnap::snapctl
