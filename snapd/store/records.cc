// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/records.h"

#include <cerrno>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/uuid.h"

namespace daxsnap {
namespace {

constexpr absl::string_view kSuffix = ".operation";
// What ReplaceFileAt() leaves of a record if it is killed.
constexpr absl::string_view kUnfinishedSuffix = ".operation.new";
// A task takes some 20 bytes of it.
constexpr size_t kMaxRecord = size_t{16} << 20;

std::string FileOf(const std::string& uid) {
  return absl::StrCat(uid, kSuffix);
}

}  // namespace

absl::Status Records::Write(const internal::Operation& operation) const {
  const std::string record = operation.SerializeAsString();
  if (record.size() > kMaxRecord) {
    return ErrnoError(EFBIG, absl::StrCat("a record of ", record.size(),
                                          " bytes could not be read again"));
  }
  return ReplaceFileAt(staging_, FileOf(operation.uid()), record);
}

absl::StatusOr<internal::Operation> Records::Read(
    const std::string& uid) const {
  auto content = ReadFileAt(staging_, FileOf(uid), kMaxRecord);
  if (absl::IsFailedPrecondition(content.status())) {
    return absl::DataLossError(content.status().message());
  }
  if (!content.ok()) return content.status();
  internal::Operation operation;
  if (!operation.ParseFromString(*content) || operation.uid() != uid) {
    return absl::DataLossError("the record does not parse");
  }
  return operation;
}

absl::Status Records::Remove(const std::string& uid) const {
  absl::Status removed =
      RemoveTree(staging_, absl::StrCat(uid, kUnfinishedSuffix));
  if (!removed.ok()) return removed;
  return RemoveTree(staging_, FileOf(uid));
}

std::string Records::UidOf(absl::string_view entry) {
  if (!absl::ConsumeSuffix(&entry, kUnfinishedSuffix)) {
    absl::ConsumeSuffix(&entry, kSuffix);
  }
  return IsUuid(entry) ? std::string(entry) : std::string();
}

absl::StatusOr<std::set<std::string>> Records::List() const {
  auto entries = ListDirectory(staging_);
  if (!entries.ok()) return entries.status();
  std::set<std::string> uids;
  for (const std::string& entry : *entries) {
    std::string uid = UidOf(entry);
    if (!uid.empty()) uids.insert(std::move(uid));
  }
  return uids;
}

}  // namespace daxsnap
