// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_log.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

absl::Status DumpError(const std::string& log,
                       const std::string& message = "") {
  return CriuError({.action = "dump",
                    .pid = 4242,
                    .name = "s",
                    .log = log,
                    .message = message,
                    .log_path = "/var/log/daxsnap/s.log"});
}

TEST(CriuLog, FirstErrorLineWithoutPosition) {
  EXPECT_EQ(FirstErrorLine("(00.1) Warn  (a.c:1): odd\n"
                           "(00.2)  12: Error (criu/x.c:34): x: broken: 5\n"
                           "(00.3) Error (criu/y.c:1): Dumping FAILED.\n"),
            "x: broken: 5");
  EXPECT_EQ(FirstErrorLine("all is well\n"), "");
}

TEST(CriuLog, UnknownErrorCarriesFirstLineAndLogPath) {
  const absl::Status status =
      DumpError("(00.2) Error (criu/x.c:34): x: broken\n");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReasonOf(status), reason::kCriuFailed);
  auto metadata = ErrorMetadataOf(status);
  EXPECT_EQ(metadata["criu_error"], "x: broken");
  EXPECT_EQ(metadata["criu_log"], "/var/log/daxsnap/s.log");
  EXPECT_TRUE(absl::StrContains(status.message(), "pid 4242"));
  EXPECT_TRUE(absl::StrContains(metadata["hint"], "/var/log/daxsnap/s.log"));
}

TEST(CriuLog, LastWordsReplaceAMissingLog) {
  EXPECT_EQ(ErrorMetadataOf(DumpError("", "Error (a.c:1): gone"))["criu_error"],
            "gone");
  EXPECT_FALSE(ErrorMetadataOf(DumpError(""))["criu_error"].empty());
}

TEST(CriuLog, KnownErrorsHaveTheirReasons) {
  const std::pair<const char*, absl::string_view> cases[] = {
      {"inet: Connected TCP socket, consider using --tcp-established option.",
       reason::kTcpEstablished},
      {"sk unix: External socket is used. Consider using --ext-unix-sk option.",
       reason::kExternalUnixSocket},
      {"Can't dump file 5 of that type [600] (unknown anon_inode:[io_uring])",
       reason::kIoUring},
      {"Can't handle non-regular mapping on 12's map 7f0000000000",
       reason::kMappedDevice},
      {"tty: Found slave peer index 0 without correspond master peer",
       reason::kExternalTerminal},
      {"tty: Found dangling tty with sid 1 pgid 2 (pts) on peer fd 0.",
       reason::kExternalTerminal},
      {"page-xfer: write: No space left on device", reason::kNoSpace},
      {"Can't fork for 4242: File exists", reason::kPidInUse},
      {"Can't fork for 4242: Resource temporarily unavailable",
       reason::kCriuFailed},
      {"File usr/bin/x has bad build-ID", reason::kFileChanged},
      {"Can't open file var/x on restore: No such file or directory",
       reason::kFileChanged},
  };
  for (const auto& [line, expected] : cases) {
    const absl::Status status =
        DumpError("(00.1) Error (criu/z.c:1): " + std::string(line) + "\n");
    EXPECT_EQ(ErrorReasonOf(status), expected) << line;
    EXPECT_FALSE(ErrorMetadataOf(status)["hint"].empty()) << line;
  }
}

TEST(CriuLog, RestoreErrorsNameTheSnapshot) {
  const absl::Status status = CriuError({.action = "restore",
                                         .pid = 0,
                                         .name = "snap",
                                         .log = "Error (a.c:1): no\n",
                                         .message = "",
                                         .log_path = "/l"});
  EXPECT_EQ(status.message(), "snapshot snap: CRIU restore failed: no");
}

}  // namespace
}  // namespace daxsnap
