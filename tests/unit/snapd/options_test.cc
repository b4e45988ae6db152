// SPDX-License-Identifier: Apache-2.0
#include "snapd/service/options.h"

#include <grp.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace daxsnap {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "snapd");
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  return ParseOptions(static_cast<int>(arguments.size()), argv.data());
}

TEST(ParseOptions, DefaultsServeRootOnly) {
  auto options = Parse({});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->socket, "/run/daxsnap/snapd.sock");
  EXPECT_FALSE(options->socket_group.has_value());
  EXPECT_EQ(options->pool, "");
  EXPECT_EQ(options->pool_device, "");
  EXPECT_EQ(options->log_level, LogLevel::kInfo);
  EXPECT_THAT(options->criu.criu_path, HasSubstr("/sbin/criu"));
}

TEST(ParseOptions, TakesAllOptions) {
  auto options =
      Parse({"--pool-device=dax1.0", "--socket=/a/sock", "--socket-group=65533",
             "--criu=/b/criu", "--criu-libdir=/c", "--criu-log-level=4",
             "--work-dir=/d", "--log-dir=/e", "--log-level=debug"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->pool_device, "dax1.0");
  EXPECT_EQ(options->socket, "/a/sock");
  EXPECT_EQ(options->socket_group, gid_t{65533});
  EXPECT_EQ(options->criu.criu_path, "/b/criu");
  EXPECT_EQ(options->criu.plugin_directory, "/c");
  EXPECT_EQ(options->criu.log_level, 4);
  EXPECT_EQ(options->criu.work_directory, "/d");
  EXPECT_EQ(options->criu.log_directory, "/e");
  EXPECT_EQ(options->log_level, LogLevel::kDebug);
}

TEST(ParseOptions, GroupsHaveNames) {
  const group* entry = getgrgid(0);
  ASSERT_NE(entry, nullptr);
  auto options = Parse({std::string("--socket-group=") + entry->gr_name});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->socket_group, gid_t{0});
}

// As the unit gives them: its variable may be empty, and more words may follow.
TEST(ParseOptions, WhatIsSaidLastCountsAndNothingIsNoPool) {
  auto options = Parse({"--pool-device=", "--criu=/a/criu", "--pool=/b",
                        "--pool=", "--criu=/c/criu", "--pool=/d"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->pool_device, "");
  EXPECT_EQ(options->pool, "/d");
  EXPECT_EQ(options->criu.criu_path, "/c/criu");
  options = Parse({"--pool-device=", "--log-level=debug"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->pool_device, "");
  EXPECT_EQ(options->log_level, LogLevel::kDebug);
}

TEST(ParseOptions, RefusesWhatItDoesNotUnderstand) {
  struct Case {
    std::vector<std::string> arguments;
    const char* says;
  };
  for (const Case& c : {
           Case{{"--no-such-option"}, "--no-such-option"},
           Case{{"--no-such-option"}, "snapd --help"},
           Case{{"--socket"}, "--socket"},
           Case{{"dax0.0"}, "dax0.0"},
           Case{{"--pool=/a", "--pool-device=dax0.0"}, "excludes"},
           Case{{"--socket=sock"}, "sock is not an absolute path"},
           Case{{"--work-dir=d"}, "d is not an absolute path"},
           Case{{"--log-dir="}, "--log-dir"},
           Case{{"--criu-log-level=5"}, "--criu-log-level"},
           Case{{"--criu-log-level=-1"}, "--criu-log-level"},
           Case{{"--criu-log-level=2x"}, "--criu-log-level"},
           Case{{"--log-level=loud"}, "--log-level"},
           Case{{"--socket-group="}, "--socket-group"},
           Case{{"--socket-group=no such group"}, "no group"},
           Case{{"--socket-group=-1"}, "no group"},
           Case{{"--socket-group=4294967295"}, "no group"},
           Case{{"--socket-group=4294967296"}, "no group"},
       }) {
    auto options = Parse(c.arguments);
    EXPECT_TRUE(absl::IsInvalidArgument(options.status()))
        << c.arguments[0] << ": " << options.status();
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(c.says));
  }
}

TEST(ParseOptionsDeathTest, HelpAndVersionPrintAndExit) {
  EXPECT_EXIT((void)Parse({"--help"}), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT((void)Parse({"--version"}), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace daxsnap
