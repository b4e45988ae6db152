// SPDX-License-Identifier: Apache-2.0
#include "daxsnap/error.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "client/lib/status_mapping.h"
#include "google/rpc/error_details.pb.h"

namespace daxsnap::client {
namespace {

constexpr char kHintKey[] = "hint";

// What gRPC itself says: "Socket closed".
absl::Status ConnectionLost(const std::string& why) {
  absl::Status status = absl::UnavailableError(
      absl::StrCat("the connection to snapd was lost: ", why));
  SetErrorDetails(
      {.reason = "",
       .hint = "Look into its log (journalctl -u snapd). A checkpoint that was "
               "under way has left a snapshot, or its tasks running; a restore "
               "its tasks running, or none.",
       .metadata = {}},
      &status);
  return status;
}

}  // namespace

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  const auto info = ErrorInfoOf(status);
  if (!info.has_value()) return details;
  details.reason = info->reason();
  details.metadata = {info->metadata().begin(), info->metadata().end()};
  if (const auto hint = details.metadata.find(kHintKey);
      hint != details.metadata.end()) {
    details.hint = hint->second;
    details.metadata.erase(hint);
  }
  return details;
}

void SetErrorDetails(const ErrorDetails& details, absl::Status* status) {
  google::rpc::ErrorInfo info;
  info.set_reason(details.reason);
  for (const auto& [key, value] : details.metadata)
    (*info.mutable_metadata())[key] = value;
  if (!details.hint.empty())
    (*info.mutable_metadata())[kHintKey] = details.hint;
  SetErrorInfo(std::move(info), status);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE &&
      status.error_details().empty()) {
    return ConnectionLost(status.error_message());
  }
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  if (auto info = ErrorInfoIn(status.error_details()); info.has_value()) {
    SetErrorInfo(*std::move(info), &result);
  }
  return result;
}

}  // namespace daxsnap::client
