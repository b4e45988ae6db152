// SPDX-License-Identifier: Apache-2.0
//
// Errors as users meet them: an absl::Status whose payload is the ErrorInfo of
// the API. Everything in snapd that can fail for a reason a user can act on
// makes its status here; the service only translates.
#ifndef DAXSNAP_SNAPD_ERRORS_H_
#define DAXSNAP_SNAPD_ERRORS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace daxsnap {

// Names of daxsnap.v1.ErrorReason without their prefix.
namespace reason {
inline constexpr absl::string_view kPidInUse = "PID_IN_USE";
inline constexpr absl::string_view kTcpEstablished = "TCP_ESTABLISHED";
inline constexpr absl::string_view kExternalUnixSocket = "EXTERNAL_UNIX_SOCKET";
inline constexpr absl::string_view kFileChanged = "FILE_CHANGED";
inline constexpr absl::string_view kCpuFeatureMissing = "CPU_FEATURE_MISSING";
inline constexpr absl::string_view kIoUring = "IO_URING";
inline constexpr absl::string_view kMappedDevice = "MAPPED_DEVICE";
inline constexpr absl::string_view kPoolMissing = "POOL_MISSING";
inline constexpr absl::string_view kNoSpace = "NO_SPACE";
inline constexpr absl::string_view kKernelUnsupported = "KERNEL_UNSUPPORTED";
inline constexpr absl::string_view kCriuFailed = "CRIU_FAILED";
inline constexpr absl::string_view kNameTaken = "NAME_TAKEN";
inline constexpr absl::string_view kNameInvalid = "NAME_INVALID";
inline constexpr absl::string_view kSnapshotMissing = "SNAPSHOT_MISSING";
inline constexpr absl::string_view kTaskMissing = "TASK_MISSING";
inline constexpr absl::string_view kTaskUnsupported = "TASK_UNSUPPORTED";
inline constexpr absl::string_view kPermissionDenied = "PERMISSION_DENIED";
inline constexpr absl::string_view kBusy = "BUSY";
inline constexpr absl::string_view kSnapshotDamaged = "SNAPSHOT_DAMAGED";
inline constexpr absl::string_view kVersionUnsupported = "VERSION_UNSUPPORTED";
inline constexpr absl::string_view kCommitFailed = "COMMIT_FAILED";
inline constexpr absl::string_view kLabelInvalid = "LABEL_INVALID";
inline constexpr absl::string_view kPageSizeInvalid = "PAGE_SIZE_INVALID";
inline constexpr absl::string_view kPageTokenInvalid = "PAGE_TOKEN_INVALID";
inline constexpr absl::string_view kExternalTerminal = "EXTERNAL_TERMINAL";
inline constexpr absl::string_view kExternalSession = "EXTERNAL_SESSION";
inline constexpr absl::string_view kInternal = "INTERNAL";
inline constexpr absl::string_view kSnapshotUnreadable = "SNAPSHOT_UNREADABLE";
inline constexpr absl::string_view kOverloaded = "OVERLOADED";
inline constexpr absl::string_view kOptionInvalid = "OPTION_INVALID";
}  // namespace reason

// What went wrong, in the terms of the API. `message` says what happened and to
// what, `hint` what to do, in one sentence.
struct ErrorDetails {
  absl::StatusCode code = absl::StatusCode::kInternal;
  absl::string_view reason = reason::kInternal;
  std::string message;
  std::string hint;
  std::map<std::string, std::string> metadata = {};
};

// A status that carries `details` as its ErrorInfo payload. Bytes that are not
// printable UTF-8 are written as \xNN there.
absl::Status MakeError(const ErrorDetails& details);

// The reason of a status made by MakeError; empty if it has none.
std::string ErrorReasonOf(const absl::Status& status);

// The metadata of a status made by MakeError, "hint" included.
std::map<std::string, std::string> ErrorMetadataOf(const absl::Status& status);

// The bytes of the google.rpc.Status that gRPC carries in its status details.
// A status without ErrorInfo gets the reason INTERNAL, except CANCELLED.
std::string SerializedRpcStatus(const absl::Status& status);

// "WHAT: strerror(error)" with the code that fits; ENOSPC, ENOMEM and EDQUOT
// become NO_SPACE, anything else INTERNAL.
absl::Status ErrnoError(int error, absl::string_view what);

// The status of an operation that its caller cancelled.
absl::Status CancelledError();

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ERRORS_H_
