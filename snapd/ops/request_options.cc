// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/request_options.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "google/protobuf/message.h"
#include "google/protobuf/unknown_field_set.h"

namespace daxsnap {
namespace {

absl::Status CheckFields(const google::protobuf::Message& message,
                         const std::string& prefix) {
  const google::protobuf::UnknownFieldSet& unknown =
      message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return absl::OkStatus();
  const std::string field = absl::StrCat(prefix, unknown.field(0).number());
  return InvalidOption(
      field,
      absl::StrCat("the request has a field that this snapd does not know: ",
                   field),
      "update daxsnap, restart snapd if it is older than its package, or do "
      "without that option");
}

template <typename Request>
absl::Status CheckRequestFields(const Request& request) {
  absl::Status known = CheckFields(request, "");
  return known.ok() ? CheckFields(request.options(), "options.") : known;
}

}  // namespace

// The one reader of the fields that are deprecated.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

v1::CheckpointOptions OptionsOf(const v1::CreateSnapshotRequest& request) {
  v1::CheckpointOptions options = request.options();
  if (request.leave_running()) options.set_leave_running(true);
  if (request.force()) options.set_force(true);
  if (options.sync_timeout_seconds() == 0) {
    options.set_sync_timeout_seconds(request.sync_timeout_seconds());
  }
  return options;
}

v1::RestoreOptions OptionsOf(const v1::RestoreSnapshotRequest& request) {
  v1::RestoreOptions options = request.options();
  if (options.files() == v1::FILES_POLICY_UNSPECIFIED) {
    options.set_files(request.files());
  }
  if (options.verify() == v1::VERIFY_POLICY_UNSPECIFIED) {
    options.set_verify(request.verify());
  }
  return options;
}

#pragma GCC diagnostic pop

absl::Status InvalidOption(const std::string& field, std::string message,
                           std::string hint) {
  return MakeError({.code = absl::StatusCode::kInvalidArgument,
                    .reason = reason::kOptionInvalid,
                    .message = std::move(message),
                    .hint = std::move(hint),
                    .metadata = {{"field", field}}});
}

absl::Status CheckKnown(const v1::CreateSnapshotRequest& request) {
  return CheckRequestFields(request);
}

absl::Status CheckKnown(const v1::RestoreSnapshotRequest& request) {
  return CheckRequestFields(request);
}

}  // namespace daxsnap
