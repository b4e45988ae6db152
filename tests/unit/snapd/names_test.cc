// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/names.h"

#include <gtest/gtest.h>

#include "base/errors.h"

namespace daxsnap {
namespace {

TEST(SnapshotName, AcceptsWhatTheRuleSays) {
  for (const std::string& name :
       {std::string("a"), std::string("0"), std::string("redis-1"),
        std::string("A.b_c-D"), std::string("a..b"), std::string(128, 'x')}) {
    EXPECT_TRUE(ValidateSnapshotName(name).ok()) << name;
  }
}

TEST(SnapshotName, RefusesPathsControlBytesAndLength) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."),
        std::string("../etc"), std::string("a/b"), std::string("/a"),
        std::string(".hidden"), std::string("-rf"), std::string("_a"),
        std::string("a b"), std::string("a\n"), std::string("a\0b", 3),
        std::string("\xc3\xa9"), std::string(129, 'x'), std::string(255, 'x'),
        std::string(100000, 'x')}) {
    const absl::Status status = ValidateSnapshotName(name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << name.substr(0, 200);
    EXPECT_EQ(ErrorReasonOf(status), reason::kNameInvalid);
    EXPECT_FALSE(ErrorMetadataOf(status)["hint"].empty());
  }
}

TEST(SnapshotName, GeneratedNamesAreValid) {
  const absl::Time time = absl::FromUnixMillis(1741964966535);
  EXPECT_EQ(GenerateSnapshotName("redis-server", 42, time),
            "redis-server-42-20250314T150926.535Z");
  for (const std::string& comm :
       {std::string(), std::string("(sd-pam)"), std::string("a b/c"),
        std::string("\xff\x01"), std::string(64, 'x')}) {
    const std::string name = GenerateSnapshotName(comm, 4194304, time);
    EXPECT_TRUE(ValidateSnapshotName(name).ok()) << name;
  }
}

TEST(Labels, KeepTheRule) {
  EXPECT_TRUE(ValidateLabels({{"app/v1.x_-", "gr\xc3\xbcn"}, {"k", ""}}).ok());
  EXPECT_TRUE(
      ValidateLabels({{std::string(63, 'k'), std::string(255, 'v')}}).ok());
}

TEST(Labels, RefusesWhatBreaksTheRule) {
  std::map<std::string, std::string> many;
  for (int i = 0; i < 65; ++i) many["k" + std::to_string(i)] = "";
  const std::map<std::string, std::string> bad[] = {
      {{"", "v"}},
      {{"a b", "v"}},
      {{std::string(64, 'k'), "v"}},
      {{"k", std::string(256, 'v')}},
      {{"k", "a\nb"}},
      {{"k", "\xc0\x80"}},
      {{"k", "\xed\xa0\x80"}},
      {{"k", "\xc3"}},
      many,
  };
  for (const auto& labels : bad) {
    const absl::Status status = ValidateLabels(labels);
    EXPECT_EQ(ErrorReasonOf(status), reason::kLabelInvalid);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace daxsnap
