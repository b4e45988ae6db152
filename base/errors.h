// SPDX-License-Identifier: Apache-2.0
//
// Errors as users meet them: an absl::Status whose payload is the ErrorInfo of
// the API. Everything in snapd that can fail for a reason a user can act on
// makes its status here; the service only translates.
#ifndef DAXSNAP_BASE_ERRORS_H_
#define DAXSNAP_BASE_ERRORS_H_

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
inline constexpr absl::string_view kSyncTimeout = "SYNC_TIMEOUT";
inline constexpr absl::string_view kSyncFailed = "SYNC_FAILED";
inline constexpr absl::string_view kVolatileFile = "VOLATILE_FILE";
inline constexpr absl::string_view kLinkRemapped = "LINK_REMAPPED";
inline constexpr absl::string_view kNamespace = "NAMESPACE";
inline constexpr absl::string_view kPidNotReserved = "PID_NOT_RESERVED";
inline constexpr absl::string_view kSysvIpc = "SYSV_IPC";
inline constexpr absl::string_view kInternal = "INTERNAL";
inline constexpr absl::string_view kSnapshotUnreadable = "SNAPSHOT_UNREADABLE";
inline constexpr absl::string_view kOverloaded = "OVERLOADED";
inline constexpr absl::string_view kOptionInvalid = "OPTION_INVALID";
inline constexpr absl::string_view kChecksumsMissing = "CHECKSUMS_MISSING";
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

// "WHAT: strerror(error)" with the code that fits: ENOSPC, EDQUOT and ENOMEM
// are NO_SPACE; EMFILE, ENFILE and EAGAIN, which pass by themselves,
// OVERLOADED; anything else is INTERNAL. metadata "error" is the errno's name.
absl::Status ErrnoError(int error, absl::string_view what);

// What ErrnoError() was made of, "EIO"; empty if it was not.
std::string ErrnoNameOf(const absl::Status& status);

// Whether the machine was short of something for the moment, so that the same
// call may succeed later: NO_SPACE or OVERLOADED.
bool IsShortage(const absl::Status& status);

// What helps when a pool is full. Says nothing of deleting: a snapshot may be
// the only copy of its tasks.
inline constexpr absl::string_view kMakeRoomHint =
    "make room: end processes whose memory is in the pool, or use a larger "
    "pool; `snapctl pool show` says what takes the space";
inline constexpr absl::string_view kFreeMemoryHint =
    "end processes that use much memory, then try again";
inline constexpr absl::string_view kTryAgainHint =
    "try again when other calls have ended; if it stays so, give snapd more "
    "descriptors and processes (LimitNOFILE, TasksMax)";

inline constexpr absl::string_view kNoChecksumsHint =
    "`snapctl pool upgrade` gives a kmemfs of format version 1 checksums, with "
    "a "
    "kernel that knows them; other file systems have none";

// The status of an operation that its caller cancelled.
absl::Status CancelledError();

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_ERRORS_H_
