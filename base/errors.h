// SPDX-License-Identifier: Apache-2.0
//
// Errors as users meet them: an absl::Status whose payload is the ErrorInfo of
// the API. Everything in snapd that can fail for a reason a user can act on
// makes its status here; the service only translates.
#ifndef DAXSNAP_BASE_ERRORS_H_
#define DAXSNAP_BASE_ERRORS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/reasons.h"

namespace google::rpc {
class ErrorInfo;
}

namespace daxsnap {

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

// The ErrorInfo of a status, if it is of our domain.
std::optional<google::rpc::ErrorInfo> ErrorInfoOf(const absl::Status& status);

// The first of our domain in the google.rpc.Status that gRPC carries.
std::optional<google::rpc::ErrorInfo> ErrorInfoIn(
    const std::string& rpc_status);

// Puts `info`, under our domain, in the place of the one that `status` has.
void SetErrorInfo(google::rpc::ErrorInfo info, absl::Status* status);

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
