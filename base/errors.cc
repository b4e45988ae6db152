// SPDX-License-Identifier: Apache-2.0
#include "base/errors.h"

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace daxsnap {
namespace {

constexpr absl::string_view kErrorInfoUrl =
    "type.googleapis.com/google.rpc.ErrorInfo";
constexpr absl::string_view kDomain = "daxsnap";

}  // namespace

std::optional<google::rpc::ErrorInfo> ErrorInfoOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrorInfoUrl);
  google::rpc::ErrorInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload)) ||
      info.domain() != kDomain) {
    return std::nullopt;
  }
  return info;
}

std::optional<google::rpc::ErrorInfo> ErrorInfoIn(
    const std::string& rpc_status) {
  google::rpc::Status rpc;
  if (!rpc.ParseFromString(rpc_status)) return std::nullopt;
  for (const google::protobuf::Any& any : rpc.details()) {
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&info) && info.domain() == kDomain) return info;
  }
  return std::nullopt;
}

void SetErrorInfo(google::rpc::ErrorInfo info, absl::Status* status) {
  info.set_domain(std::string(kDomain));
  status->SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
}

absl::Status MakeError(const ErrorDetails& details) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(details.reason));
  // Names of tasks and files are any bytes.
  for (const auto& [key, value] : details.metadata) {
    (*info.mutable_metadata())[key] = ToPrintableUtf8(value);
  }
  (*info.mutable_metadata())["hint"] = ToPrintableUtf8(details.hint);
  absl::Status status(details.code, ToPrintableUtf8(details.message));
  SetErrorInfo(std::move(info), &status);
  return status;
}

std::string ErrorReasonOf(const absl::Status& status) {
  const auto info = ErrorInfoOf(status);
  return info.has_value() ? info->reason() : std::string();
}

std::map<std::string, std::string> ErrorMetadataOf(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  if (const auto info = ErrorInfoOf(status); info.has_value()) {
    metadata.insert(info->metadata().begin(), info->metadata().end());
  }
  return metadata;
}

std::string SerializedRpcStatus(const absl::Status& status) {
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));
  rpc.set_message(ToPrintableUtf8(status.message()));
  auto info = ErrorInfoOf(status);
  if (!info.has_value() && status.code() != absl::StatusCode::kCancelled) {
    info.emplace();
    info->set_domain(std::string(kDomain));
    info->set_reason(std::string(reason::kInternal));
    (*info->mutable_metadata())["hint"] = "report this with the log of snapd";
  }
  if (info.has_value()) rpc.add_details()->PackFrom(*info);
  return rpc.SerializeAsString();
}

absl::Status ErrnoError(int error, absl::string_view what) {
  ErrorDetails details;
  details.message = absl::StrCat(what, ": ", std::strerror(error));
  const char* name = strerrorname_np(error);
  details.metadata["error"] =
      name != nullptr ? std::string(name) : absl::StrCat(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      details.code = absl::StatusCode::kResourceExhausted;
      details.reason = reason::kNoSpace;
      details.hint = std::string(kMakeRoomHint);
      break;
    case ENOMEM:
      details.code = absl::StatusCode::kResourceExhausted;
      details.reason = reason::kNoSpace;
      details.hint = std::string(kFreeMemoryHint);
      break;
    case EMFILE:
    case ENFILE:
    case EAGAIN:
      details.code = absl::StatusCode::kUnavailable;
      details.reason = reason::kOverloaded;
      details.hint = std::string(kTryAgainHint);
      break;
    case EIO:
      details.hint = "check the device and the kernel log";
      break;
    default:
      details.hint = "report this with the log of snapd";
  }
  return MakeError(details);
}

std::string ErrnoNameOf(const absl::Status& status) {
  return ErrorMetadataOf(status)["error"];
}

bool IsShortage(const absl::Status& status) {
  const std::string reason = ErrorReasonOf(status);
  return reason == reason::kNoSpace || reason == reason::kOverloaded;
}

absl::Status CancelledError() {
  return absl::CancelledError("the call was cancelled; no trace is left");
}

}  // namespace daxsnap
