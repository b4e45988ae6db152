// SPDX-License-Identifier: Apache-2.0
#include "daxsnap/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/lib/status_mapping.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace daxsnap::client {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kDomain[] = "daxsnap";
constexpr char kHintKey[] = "hint";

// What gRPC itself says: "Socket closed".
absl::Status ConnectionLost(const std::string& why) {
  absl::Status status = absl::UnavailableError(
      absl::StrCat("the connection to snapd was lost: ", why));
  SetErrorDetails(
      {.reason = "",
       .hint = "Look into its log (journalctl -u snapd). A checkpoint that was "
               "under way has left a snapshot, or its tasks running.",
       .metadata = {}},
      &status);
  return status;
}

}  // namespace

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  const auto payload = status.GetPayload(kErrorInfoUrl);
  google::rpc::ErrorInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload)))
    return details;
  details.reason = info.reason();
  details.metadata = {info.metadata().begin(), info.metadata().end()};
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
  info.set_domain(kDomain);
  for (const auto& [key, value] : details.metadata)
    (*info.mutable_metadata())[key] = value;
  if (!details.hint.empty())
    (*info.mutable_metadata())[kHintKey] = details.hint;
  status->SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE &&
      status.error_details().empty()) {
    return ConnectionLost(status.error_message());
  }
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  google::rpc::Status full;
  if (!full.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& any : full.details()) {
    google::rpc::ErrorInfo info;
    if (!any.UnpackTo(&info) || info.domain() != kDomain) continue;
    result.SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
  }
  return result;
}

}  // namespace daxsnap::client
