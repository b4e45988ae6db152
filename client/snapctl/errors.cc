// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/errors.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "base/reasons.h"
#include "base/utf8.h"
#include "client/snapctl/output.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

// Reasons that deserve an exit code of their own although their status code is
// shared with others.
int ExitCodeOfPrecondition(const client::ErrorDetails& details) {
  return details.reason == reason::kPidInUse ? kExitTaken : kExitRefused;
}

std::string CodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

// The details, with a hint where the kernel's word is all there is.
client::ErrorDetails DetailsOf(const absl::Status& status) {
  client::ErrorDetails details = client::GetErrorDetails(status);
  if (details.hint.empty() && absl::IsPermissionDenied(status))
    details.hint = "run the command as root";
  return details;
}

void PrintJson(const absl::Status& status, const client::ErrorDetails& details,
               std::ostream& err) {
  nlohmann::ordered_json error;
  error["code"] = CodeName(status.code());
  error["exit_code"] = ExitCode(status);
  error["reason"] = details.reason;
  error["message"] = std::string(status.message());
  error["hint"] = details.hint;
  error["metadata"] = details.metadata;
  err << nlohmann::ordered_json{{"error", error}}.dump(
             -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
      << "\n";
}

}  // namespace

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return kExitTaken;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitPermission;
    case absl::StatusCode::kUnavailable:
      // With a reason it is snapd who says so: then it is running.
      return client::GetErrorDetails(status).reason.empty() ? kExitNoDaemon
                                                            : kExitFailure;
    case absl::StatusCode::kResourceExhausted:
      return kExitNoSpace;
    case absl::StatusCode::kFailedPrecondition:
      return ExitCodeOfPrecondition(client::GetErrorDetails(status));
    case absl::StatusCode::kDataLoss:
      return kExitDamaged;
    case absl::StatusCode::kCancelled:
      return kExitCancelled;
    default:
      return kExitFailure;
  }
}

void PrintError(const absl::Status& status, const Context& context) {
  const client::ErrorDetails details = DetailsOf(status);
  std::ostream& err = *context.err;
  if (context.format == Format::kJson) {
    PrintJson(status, details, err);
    return;
  }
  err << "snapctl: " << ToPrintableUtf8(status.message()) << "\n";
  // The message names most facts already; these two are for reading on.
  for (const char* key : {"criu_error", "criu_log"}) {
    const auto fact = details.metadata.find(key);
    if (fact == details.metadata.end()) continue;
    if (absl::string_view(status.message()).find(fact->second) !=
        absl::string_view::npos)
      continue;
    err << "  " << key << ": " << ToPrintableUtf8(fact->second) << "\n";
  }
  if (!details.hint.empty())
    err << "  hint: " << ToPrintableUtf8(details.hint) << "\n";
}

}  // namespace daxsnap::snapctl
