// SPDX-License-Identifier: Apache-2.0
//
// How snapctl writes things: units, tables, JSON.
#ifndef DAXSNAP_CLIENT_SNAPCTL_OUTPUT_H_
#define DAXSNAP_CLIENT_SNAPCTL_OUTPUT_H_

#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace daxsnap::snapctl {

// "0 B", "1023 B", "1.0 KiB", "256.2 MiB": binary units, one decimal.
std::string FormatBytes(std::uint64_t bytes);

// "256.2 MiB (65587 pages)".
std::string FormatPages(std::uint64_t pages, std::uint32_t page_size);

// "870 us", "14.2 ms", "3.45 s".
std::string FormatMicroseconds(std::uint64_t us);

// "2025-01-31 23:59:59 UTC"; "-" for a time of 0.
std::string FormatTime(const google::protobuf::Timestamp& time);

// Name of an enum value without the prefix that its type gives it:
// SNAPSHOT_MODE_COPIED → "COPIED".
std::string EnumName(const google::protobuf::EnumValueDescriptor& value);

enum class Align { kLeft, kRight };

// A table with a header line and columns as wide as their widest cell.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns.
  void AddRow(std::vector<std::string> cells) {
    rows_.push_back(std::move(cells));
  }

  void Print(std::ostream& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Lines "key   value" with aligned values.
class Fields {
 public:
  void Add(std::string key, std::string value) {
    rows_.push_back({std::move(key), std::move(value)});
  }
  void Print(std::ostream& out) const;

 private:
  struct Row {
    std::string key, value;
  };
  std::vector<Row> rows_;
};

// A message as JSON: all fields under their proto names, also those that are
// zero or empty; 64-bit integers as numbers; enum values as EnumName; times as
// RFC 3339 strings. Of a oneof, and of messages, only what is set.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// Writes it indented, with a newline at the end.
void PrintJson(const nlohmann::ordered_json& json, std::ostream& out);

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_OUTPUT_H_
