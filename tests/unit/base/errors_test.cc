// SPDX-License-Identifier: Apache-2.0
#include "base/errors.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "absl/strings/cord.h"
#include "daxsnap/v1/error.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace daxsnap {
namespace {

google::rpc::ErrorInfo InfoIn(const std::string& serialized) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(serialized));
  google::rpc::ErrorInfo info;
  EXPECT_TRUE(rpc.details_size() == 1 && rpc.details(0).UnpackTo(&info));
  return info;
}

TEST(Errors, CarryReasonHintAndMetadata) {
  const absl::Status status = MakeError({.code = absl::StatusCode::kNotFound,
                                         .reason = reason::kTaskMissing,
                                         .message = "no task has pid 7",
                                         .hint = "check the PID",
                                         .metadata = {{"pid", "7"}}});
  EXPECT_EQ(ErrorReasonOf(status), "TASK_MISSING");
  EXPECT_EQ(ErrorMetadataOf(status)["pid"], "7");
  const google::rpc::ErrorInfo info = InfoIn(SerializedRpcStatus(status));
  EXPECT_EQ(info.domain(), "daxsnap");
  EXPECT_EQ(info.reason(), "TASK_MISSING");
  EXPECT_EQ(info.metadata().at("hint"), "check the PID");
}

// Names of tasks and files are any bytes; protobuf reads nothing but UTF-8.
TEST(Errors, BytesThatAreNoTextArriveEscaped) {
  const absl::Status status = MakeError({.reason = reason::kFileChanged,
                                         .message = "file /caf\xe9 is gone",
                                         .hint = "h",
                                         .metadata = {{"path", "/caf\xe9"}}});
  EXPECT_EQ(status.message(), "file /caf\\xe9 is gone");
  EXPECT_EQ(ErrorReasonOf(status), reason::kFileChanged);
  const google::rpc::ErrorInfo info = InfoIn(SerializedRpcStatus(status));
  EXPECT_EQ(info.metadata().at("path"), "/caf\\xe9");
  EXPECT_EQ(InfoIn(SerializedRpcStatus(absl::UnknownError("\xe9"))).reason(),
            "INTERNAL");
}

TEST(Errors, ReasonsAreThoseOfTheApi) {
  EXPECT_EQ(reason::kPidInUse, "PID_IN_USE");
  EXPECT_EQ(reason::kSysvIpc, "SYSV_IPC");
  for (const absl::string_view reason :
       {reason::kPidInUse, reason::kInternal, reason::kChecksumsMissing}) {
    v1::ErrorReason value;
    EXPECT_TRUE(
        v1::ErrorReason_Parse("ERROR_REASON_" + std::string(reason), &value))
        << reason;
  }
}

// The details of others are not ours to read.
TEST(Errors, OfAnotherDomainHaveNoReason) {
  google::rpc::ErrorInfo info;
  info.set_domain("example.org");
  info.set_reason("PID_IN_USE");
  absl::Status status = absl::UnknownError("x");
  status.SetPayload("type.googleapis.com/google.rpc.ErrorInfo",
                    absl::Cord(info.SerializeAsString()));
  EXPECT_EQ(ErrorReasonOf(status), "");
  EXPECT_TRUE(ErrorMetadataOf(status).empty());
  google::rpc::Status rpc;
  rpc.add_details()->PackFrom(info);
  EXPECT_FALSE(ErrorInfoIn(rpc.SerializeAsString()).has_value());
  EXPECT_FALSE(ErrorInfoIn("\xff").has_value());
}

TEST(Errors, FullDiskIsNoSpace) {
  for (const int error : {ENOSPC, ENOMEM, EDQUOT}) {
    const absl::Status status = ErrnoError(error, "cannot write");
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ErrorReasonOf(status), reason::kNoSpace);
  }
  EXPECT_EQ(ErrorReasonOf(ErrnoError(EIO, "x")), reason::kInternal);
}

TEST(Errors, ShortagesThatPassAreOverload) {
  for (const int error : {EMFILE, ENFILE, EAGAIN}) {
    const absl::Status status = ErrnoError(error, "cannot open");
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded);
    EXPECT_TRUE(IsShortage(status));
  }
  EXPECT_EQ(ErrnoNameOf(ErrnoError(EMFILE, "x")), "EMFILE");
  EXPECT_FALSE(IsShortage(ErrnoError(EIO, "x")));
  EXPECT_EQ(ErrnoNameOf(absl::UnknownError("x")), "");
}

// A snapshot may be the only copy of its tasks.
TEST(Errors, NoHintOfASystemCallSaysToDelete) {
  for (int error = 1; error < 134; ++error) {
    const std::string hint = ErrorMetadataOf(ErrnoError(error, "x"))["hint"];
    EXPECT_FALSE(hint.empty());
    for (const char* word : {"delete", "remove", "rm "}) {
      EXPECT_EQ(hint.find(word), std::string::npos) << error << ": " << hint;
    }
  }
}

TEST(Errors, StatusWithoutReasonBecomesInternal) {
  EXPECT_EQ(InfoIn(SerializedRpcStatus(absl::UnknownError("x"))).reason(),
            "INTERNAL");
}

TEST(Errors, CancellationHasNoReason) {
  google::rpc::Status rpc;
  ASSERT_TRUE(rpc.ParseFromString(SerializedRpcStatus(CancelledError())));
  EXPECT_EQ(rpc.details_size(), 0);
}

}  // namespace
}  // namespace daxsnap
