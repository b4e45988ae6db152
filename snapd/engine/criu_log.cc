// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_log.h"

#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

struct KnownError {
  absl::string_view text;  // in an Error line
  absl::StatusCode code;
  absl::string_view reason;
  absl::string_view what;
  absl::string_view hint;
};

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// source: pr_err and pr_perror of CRIU 4.2.1
constexpr KnownError kKnownErrors[] = {
    {"Connected TCP socket", kPrecondition, reason::kTcpEstablished,
     "the tasks have established TCP connections", "close the connections"},
    {"In-flight connection (l)", kPrecondition, reason::kTcpEstablished,
     "a TCP connection is just being made", "try again"},
    {"External socket is used", kPrecondition, reason::kExternalUnixSocket,
     "a UNIX socket leads to a task outside the tree",
     "take the snapshot of a parent of both tasks, or close the socket"},
    {"io_uring", kPrecondition, reason::kIoUring, "the tasks use io_uring",
     "run the program with io_uring switched off"},
    {"Can't handle non-regular mapping", kPrecondition, reason::kMappedDevice,
     "a task has device memory mapped", "close the device"},
    {"without correspond master peer", kPrecondition, reason::kExternalTerminal,
     "a terminal leads out of the tree",
     "start the program with `snapctl run`"},
    {"Found dangling tty", kPrecondition, reason::kExternalTerminal,
     "a terminal leads out of the tree",
     "start the program with `snapctl run`"},
    {"ctty inheritance detected", kPrecondition, reason::kExternalTerminal,
     "a terminal leads out of the tree",
     "start the program with `snapctl run`"},
    {"No space left on device", absl::StatusCode::kResourceExhausted,
     reason::kNoSpace, "the pool is full", kMakeRoomHint},
    {"Cannot allocate memory", absl::StatusCode::kResourceExhausted,
     reason::kNoSpace, "memory ran out", kFreeMemoryHint},
    {"do not match expected", kPrecondition, reason::kPidInUse,
     "a PID of the snapshot is in use", "end the task that has the PID first"},
    {"Can't fork for", kPrecondition, reason::kPidInUse,
     "a PID of the snapshot is in use", "end the task that has the PID first"},
    {"has bad build-ID", kPrecondition, reason::kFileChanged,
     "a file the tasks use has changed", "put the file back as it was"},
    {"has bad size", kPrecondition, reason::kFileChanged,
     "a file the tasks use has changed", "put the file back as it was"},
    {"has bad mode", kPrecondition, reason::kFileChanged,
     "a file the tasks use has changed", "put the file back as it was"},
    {"Can't restore memory policy", kPrecondition, reason::kNodeMissing,
     "a NUMA node that the tasks name is not there",
     "boot so that it has memory, then restore; the snapshot stays"},
    {"on restore: No such file", kPrecondition, reason::kFileChanged,
     "a file the tasks use is gone", "put the file back as it was"},
};

bool IsErrorLine(absl::string_view line) {
  return absl::StrContains(line, "Error (");
}

// "(00.012345)   4242: Error (criu/x.c:12): what" -> "what"
absl::string_view WithoutPosition(absl::string_view line) {
  const size_t error = line.find("Error (");
  if (error == absl::string_view::npos) return line;
  const size_t colon = line.find("): ", error);
  if (colon == absl::string_view::npos) return line;
  return line.substr(colon + 3);
}

const KnownError* FindKnown(absl::string_view log) {
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    if (!IsErrorLine(line)) continue;
    for (const KnownError& known : kKnownErrors) {
      if (!absl::StrContains(line, known.text)) continue;
      // A failed fork has many causes; only one is a PID in use.
      if (known.text == "Can't fork for" &&
          !absl::StrContains(line, "File exists")) {
        continue;
      }
      return &known;
    }
  }
  return nullptr;
}

std::string Subject(const CriuFailure& failure) {
  if (failure.pid != 0) return absl::StrCat("pid ", failure.pid);
  return absl::StrCat("snapshot ", failure.name);
}

}  // namespace

std::string FirstErrorLine(absl::string_view log) {
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    if (IsErrorLine(line)) {
      return std::string(absl::StripAsciiWhitespace(WithoutPosition(line)));
    }
  }
  return {};
}

absl::Status CriuError(const CriuFailure& failure) {
  std::string first = FirstErrorLine(failure.log);
  if (first.empty()) {
    first = std::string(
        absl::StripAsciiWhitespace(WithoutPosition(failure.message)));
  }
  if (first.empty()) first = "CRIU ended without saying why";
  const KnownError* known = FindKnown(failure.log);
  // Without a log, for example on a full disk, its last words must do.
  if (known == nullptr) known = FindKnown(failure.message);

  ErrorDetails details;
  details.metadata = {{"criu_error", first}, {"criu_log", failure.log_path}};
  if (failure.pid != 0) details.metadata["pid"] = absl::StrCat(failure.pid);
  if (!failure.name.empty()) details.metadata["name"] = failure.name;
  if (known != nullptr) {
    details.code = known->code;
    details.reason = known->reason;
    details.message = absl::StrCat(Subject(failure), ": ", known->what,
                                   " (CRIU: ", first, ")");
    details.hint = std::string(known->hint);
  } else {
    details.code = absl::StatusCode::kFailedPrecondition;
    details.reason = reason::kCriuFailed;
    details.message = absl::StrCat(Subject(failure), ": CRIU ", failure.action,
                                   " failed: ", first);
    details.hint = absl::StrCat("read ", failure.log_path);
  }
  return MakeError(details);
}

}  // namespace daxsnap
