// SPDX-License-Identifier: Apache-2.0
//
// Subcommands from the command line to what is printed, against a fake snapd.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "client/snapctl/commands.h"
#include "client/snapctl/errors.h"
#include "daxsnap/error.h"
#include "tests/unit/client/fake_server.h"

namespace daxsnap::snapctl {
namespace {

using ::testing::HasSubstr;

class SnapctlTest : public ::testing::Test {
 protected:
  SnapctlTest() {
    context_.socket = server_.socket();
    context_.out = &out_;
    context_.err = &err_;
  }

  // Runs one of the commands that need snapd; its status.
  absl::Status Run(std::vector<std::string> arguments) {
    CLI::App app("test", "snapctl");
    Action action;
    AddCommands(&app, &context_, &action);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    try {
      app.parse(arguments);
    } catch (const CLI::ParseError& error) {
      PrintUsageError(app, error, context_);
      return absl::InvalidArgumentError(error.what());
    }
    return action();
  }

  nlohmann::json Json() const { return nlohmann::json::parse(out_.str()); }

  void AnswerCreate(bool already_existed) {
    v1::CreateSnapshotResponse response;
    v1::CreateSnapshotResult& result = *response.mutable_result();
    result.set_already_existed(already_existed);
    v1::Snapshot& snapshot = *result.mutable_snapshot();
    snapshot.set_name("redis");
    snapshot.set_page_size(4096);
    snapshot.set_mode(v1::SNAPSHOT_MODE_BY_REFERENCE);
    snapshot.mutable_pages()->set_by_reference(65536);
    snapshot.mutable_pages()->set_shared(256);
    snapshot.mutable_pages()->set_copied(2);
    snapshot.mutable_times()->set_frozen_us(14'230);
    server_.create_stream = {response};
  }

  FakeServer server_;
  Context context_;
  std::ostringstream out_, err_;
};

TEST_F(SnapctlTest, CheckpointPrintsNameBytesAndFrozenTime) {
  AnswerCreate(false);
  const absl::Status status =
      Run({"checkpoint", "42", "--name", "redis", "--leave-running", "-l",
           "tier=cache", "-l", "a="});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(out_.str(), HasSubstr("name          redis\n"));
  EXPECT_THAT(out_.str(), HasSubstr("by reference  256.0 MiB (65536 pages)\n"));
  EXPECT_THAT(out_.str(), HasSubstr("shared        1.0 MiB (256 pages)\n"));
  EXPECT_THAT(out_.str(), HasSubstr("copied        8.0 KiB (2 pages)\n"));
  EXPECT_THAT(out_.str(), HasSubstr("frozen        14.2 ms\n"));
  EXPECT_EQ(server_.create_request.pid(), 42);
  EXPECT_EQ(server_.create_request.name(), "redis");
  EXPECT_TRUE(server_.create_request.options().leave_running());
  EXPECT_EQ(server_.create_request.labels().at("tier"), "cache");
  EXPECT_EQ(server_.create_request.labels().at("a"), "");
}

TEST_F(SnapctlTest, CheckpointWarnsOfWhatDoesNotComeBack) {
  AnswerCreate(false);
  v1::Snapshot* snapshot =
      server_.create_stream.back().mutable_result()->mutable_snapshot();
  v1::Finding* finding = snapshot->add_findings();
  finding->set_message("descriptor 4 is /dev/shm/\x1b[2J");
  finding->set_hint("move it");
  ASSERT_TRUE(Run({"checkpoint", "42", "--force", "--sync-timeout=9"}).ok());
  EXPECT_EQ(err_.str(),
            "snapctl: warning: descriptor 4 is /dev/shm/\\x1b[2J\n"
            "  hint: move it\n");
  EXPECT_TRUE(server_.create_request.options().force());
  EXPECT_EQ(server_.create_request.options().sync_timeout_seconds(), 9u);
}

TEST_F(SnapctlTest, InspectShowsFindings) {
  v1::Snapshot& snapshot = server_.snapshots["a"];
  snapshot.set_name("a");
  snapshot.set_forced(true);
  snapshot.add_findings()->set_consequence(v1::FINDING_CONSEQUENCE_LOST);
  snapshot.mutable_findings(0)->set_reason(v1::ERROR_REASON_VOLATILE_FILE);
  snapshot.mutable_findings(0)->set_message("one");
  snapshot.add_findings()->set_consequence(v1::FINDING_CONSEQUENCE_LIMITED);
  snapshot.mutable_findings(1)->set_message("two");
  ASSERT_TRUE(Run({"inspect", "a"}).ok());
  EXPECT_THAT(out_.str(), ::testing::ContainsRegex("forced +yes\n"));
  EXPECT_THAT(out_.str(),
              ::testing::ContainsRegex("does not come back +one\n"));
  EXPECT_THAT(out_.str(), ::testing::ContainsRegex("limited +two\n"));
  out_.str("");
  ASSERT_TRUE(Run({"inspect", "a", "-o", "json"}).ok());
  EXPECT_EQ(Json()["findings"][0]["reason"], "VOLATILE_FILE");
  EXPECT_EQ(Json()["findings"][0]["consequence"], "LOST");
}

TEST_F(SnapctlTest, InspectSaysWhatStockCriuLoses) {
  v1::Snapshot& snapshot = server_.snapshots["a"];
  snapshot.set_name("a");
  ASSERT_TRUE(Run({"inspect", "a"}).ok());
  EXPECT_EQ(out_.str().find("stock CRIU"), std::string::npos);
  snapshot.add_stock_criu_losses(v1::STOCK_CRIU_LOSS_EVENTFD);
  snapshot.add_stock_criu_losses(v1::STOCK_CRIU_LOSS_CPU_AFFINITY);
  out_.str("");
  ASSERT_TRUE(Run({"inspect", "a"}).ok());
  EXPECT_THAT(out_.str(), ::testing::ContainsRegex(
                              "stock CRIU loses +eventfd, cpu affinity\n"));
  out_.str("");
  ASSERT_TRUE(Run({"inspect", "a", "-o", "json"}).ok());
  EXPECT_EQ(Json()["stock_criu_losses"][1], "CPU_AFFINITY");
}

TEST_F(SnapctlTest, CheckpointRefusesTimeoutsThatMakeNoSense) {
  for (const char* seconds : {"0", "-1", "86401", "soon", ""}) {
    EXPECT_EQ(ExitCode(Run({"checkpoint", "42",
                            std::string("--sync-timeout=") + seconds})),
              kExitUsage)
        << seconds;
  }
}

TEST_F(SnapctlTest, CheckpointInJsonHasTheWholeSnapshot) {
  AnswerCreate(false);
  ASSERT_TRUE(Run({"checkpoint", "42", "-o", "json"}).ok());
  EXPECT_EQ(Json()["snapshot"]["pages"]["by_reference"], 65536);
  EXPECT_EQ(Json()["snapshot"]["times"]["frozen_us"], 14'230);
  EXPECT_FALSE(server_.create_request.options().leave_running());
}

TEST_F(SnapctlTest, CheckpointThatFoundAnOldSnapshotFails) {
  AnswerCreate(true);
  const absl::Status status = Run({"checkpoint", "42", "--name", "redis"});
  EXPECT_EQ(ExitCode(status), kExitTaken) << status;
  EXPECT_EQ(client::GetErrorDetails(status).reason, "NAME_TAKEN");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(SnapctlTest, CheckpointRefusesWhatIsNoPid) {
  for (const char* pid : {"abc", "0", "-1", "4194305", ""}) {
    EXPECT_EQ(ExitCode(Run({"checkpoint", pid})), kExitUsage) << pid;
  }
  EXPECT_EQ(ExitCode(Run({"checkpoint", "1", "-l", "no-equals-sign"})),
            kExitUsage);
}

TEST_F(SnapctlTest, RestorePrintsThePid) {
  v1::RestoreSnapshotResponse response;
  response.mutable_result()->set_pid(1'234'567);
  response.mutable_result()->set_scope("daxsnap-a-1.scope");
  server_.restore_stream = {response};
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("pid           1234567\n"));
  EXPECT_THAT(out_.str(), HasSubstr("daxsnap-a-1.scope"));
  EXPECT_EQ(server_.restore_request.name(), "a");
}

TEST_F(SnapctlTest, RestoreWithoutScopeShowsTheCgroup) {
  v1::RestoreSnapshotResponse response;
  response.mutable_result()->set_cgroup("/daxsnap.slice/x");
  server_.restore_stream = {response};
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("/daxsnap.slice/x"));
}

TEST_F(SnapctlTest, LsShowsAllAndMarksDamaged) {
  server_.snapshots["a"].set_name("a");
  server_.snapshots["a"].mutable_root_task()->set_comm("evil\x1b[2J");
  server_.snapshots["b"].set_name("b");
  ASSERT_TRUE(Run({"ls"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("evil\\x1b[2J"));
  EXPECT_THAT(out_.str(), HasSubstr("torn  damaged"));
  out_.str("");
  ASSERT_TRUE(Run({"ls", "-o", "json"}).ok());
  EXPECT_EQ(Json()["snapshots"].size(), 2U);
  EXPECT_EQ(Json()["damaged"][0], "torn");
}

TEST_F(SnapctlTest, LsSaysWhatItCannotList) {
  v1::UnlistedSnapshot one;
  one.set_name("sick");
  one.set_reason("SNAPSHOT_UNREADABLE");
  one.set_message("snapshot sick cannot be read now: Input/output error");
  one.set_hint("check the device");
  server_.unlisted = {one};
  one.set_name("future");
  one.set_reason("VERSION_UNSUPPORTED");
  server_.unlisted.push_back(one);
  server_.incomplete = true;
  ASSERT_TRUE(Run({"ls"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("sick    unreadable now"));
  EXPECT_THAT(out_.str(), HasSubstr("future  newer format"));
  EXPECT_THAT(err_.str(), HasSubstr("Input/output error"));
  EXPECT_THAT(err_.str(), HasSubstr("hint: check the device"));
  EXPECT_THAT(err_.str(), HasSubstr("whether they are yours"));
  out_.str("");
  ASSERT_TRUE(Run({"ls", "-o", "json"}).ok());
  EXPECT_EQ(Json()["unlisted"][0]["reason"], "SNAPSHOT_UNREADABLE");
  EXPECT_EQ(Json()["incomplete"], true);
}

TEST_F(SnapctlTest, RestoreTakesWhatToDoWithFiles) {
  v1::RestoreSnapshotResponse response;
  response.mutable_result()->set_pid(1);
  server_.restore_stream = {response};
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_EQ(server_.restore_request.options().files(), v1::FILES_POLICY_REFUSE);
  ASSERT_TRUE(Run({"restore", "a", "--files=accept"}).ok());
  EXPECT_EQ(server_.restore_request.options().files(), v1::FILES_POLICY_ACCEPT);
}

TEST_F(SnapctlTest, RestoreTakesWhetherToVerify) {
  v1::RestoreSnapshotResponse response;
  response.mutable_result()->set_pid(1);
  server_.restore_stream = {response};
  for (const auto& [word, policy] :
       {std::pair("auto", v1::VERIFY_POLICY_AUTO),
        std::pair("always", v1::VERIFY_POLICY_ALWAYS),
        std::pair("never", v1::VERIFY_POLICY_NEVER)}) {
    ASSERT_TRUE(Run({"restore", "a", std::string("--verify=") + word}).ok());
    EXPECT_EQ(server_.restore_request.options().verify(), policy);
  }
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_EQ(server_.restore_request.options().verify(), v1::VERIFY_POLICY_AUTO);
  EXPECT_EQ(ExitCode(Run({"restore", "a", "--verify=maybe"})), kExitUsage);
}

TEST_F(SnapctlTest, RestoreSaysWhatWasVerifiedAndWhatWasNot) {
  v1::RestoreSnapshotResponse response;
  response.mutable_result()->set_pid(1);
  v1::Verification& found = *response.mutable_result()->mutable_verification();
  found.set_bytes_verified(1 << 20);
  server_.restore_stream = {response};
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("verified      1.0 MiB\n"));
  EXPECT_EQ(err_.str(), "");
  found.set_bytes_without_checksum(8192);
  server_.restore_stream = {response};
  ASSERT_TRUE(Run({"restore", "a"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("1.0 MiB, 8.0 KiB without checksum\n"));
  EXPECT_THAT(err_.str(), HasSubstr("warning: 8.0 KiB of a have no checksum"));
}

class VerifyCommandTest : public SnapctlTest {
 protected:
  VerifyCommandTest() {
    AddFile("good", 1 << 20, 0, {});
    AddFile("bad", 1 << 20, 0, {{4096, 8192}, {65536, 4096}});
    server_.verify_statuses["bad"] =
        ErrorStatus(grpc::StatusCode::DATA_LOSS, "snapshot bad is damaged",
                    "SNAPSHOT_DAMAGED", {{"hint", "restore an older one"}});
    AddFile("old", 0, 1 << 20, {});
    server_.verify_statuses["old"] = ErrorStatus(
        grpc::StatusCode::FAILED_PRECONDITION, "snapshot old has no checksums",
        "CHECKSUMS_MISSING", {{"hint", "upgrade the pool"}});
    server_.verify_statuses["none"] =
        ErrorStatus(grpc::StatusCode::NOT_FOUND, "no snapshot is called none",
                    "SNAPSHOT_MISSING", {{"hint", "list them"}});
  }

  void AddFile(const std::string& name, std::uint64_t verified,
               std::uint64_t unknown,
               const std::vector<std::pair<int, int>>& damaged) {
    v1::VerifySnapshotResponse response;
    v1::FileVerification& file = *response.mutable_file();
    file.set_path("images/pages-1.img");
    file.set_bytes_verified(verified);
    file.set_bytes_without_checksum(unknown);
    for (const auto& [offset, length] : damaged) {
      file.add_damaged()->set_offset(static_cast<std::uint64_t>(offset));
      file.mutable_damaged()->rbegin()->set_length(
          static_cast<std::uint64_t>(length));
      file.set_bytes_damaged(file.bytes_damaged() +
                             static_cast<std::uint64_t>(length));
    }
    v1::VerifySnapshotResponse last;
    last.mutable_result();
    server_.verify_streams[name] = {response, last};
  }
};

TEST_F(VerifyCommandTest, SaysWhatIsWhole) {
  ASSERT_TRUE(Run({"verify", "good"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("good  whole        1   1.0 MiB"));
  EXPECT_EQ(err_.str(), "");
  EXPECT_FALSE(server_.verify_requests[0].make_checksums());
}

TEST_F(VerifyCommandTest, NamesDamagedRangesAndFailsWithACodeOfItsOwn) {
  EXPECT_EQ(ExitCode(Run({"verify", "bad"})), kExitDamaged);
  EXPECT_THAT(out_.str(), HasSubstr("bad   DAMAGED"));
  EXPECT_THAT(err_.str(),
              HasSubstr("bad: images/pages-1.img: 8192 bytes from 0x1000 on"));
  EXPECT_THAT(err_.str(),
              HasSubstr("bad: images/pages-1.img: 4096 bytes from 0x10000 on"));
}

TEST_F(VerifyCommandTest, WithoutChecksumsNothingIsWhole) {
  EXPECT_EQ(ExitCode(Run({"verify", "old"})), kExitRefused);
  EXPECT_THAT(out_.str(), HasSubstr("old   not known"));
  EXPECT_THAT(out_.str(), ::testing::Not(HasSubstr("whole")));
}

TEST_F(VerifyCommandTest, DamageDecidesAndTheOthersAreTold) {
  EXPECT_EQ(
      ExitCode(Run({"verify", "none", "good", "old", "bad", "-o", "json"})),
      kExitDamaged);
  const nlohmann::json verified = Json()["verified"];
  ASSERT_EQ(verified.size(), 4U);
  EXPECT_EQ(verified[0]["error"]["reason"], "SNAPSHOT_MISSING");
  EXPECT_EQ(verified[1]["verdict"], "whole");
  EXPECT_EQ(verified[1]["error"], nullptr);
  EXPECT_EQ(verified[2]["verdict"], "not known");
  EXPECT_EQ(verified[2]["verification"]["bytes_without_checksum"], 1 << 20);
  EXPECT_EQ(verified[3]["verdict"], "DAMAGED");
  EXPECT_EQ(verified[3]["files"][0]["damaged"][1]["offset"], 65536);
  EXPECT_THAT(err_.str(), HasSubstr("SNAPSHOT_MISSING"));
  EXPECT_THAT(err_.str(), HasSubstr("CHECKSUMS_MISSING"));
}

TEST_F(VerifyCommandTest, AllAreThoseThatAreListedAndWhatCannotBeListed) {
  server_.snapshots["good"].set_name("good");
  server_.snapshots["none"].set_name("none");  // deleted since
  server_.verify_statuses["torn"] =
      ErrorStatus(grpc::StatusCode::DATA_LOSS, "snapshot torn is damaged",
                  "SNAPSHOT_DAMAGED", {{"hint", "restore an older one"}});
  v1::UnlistedSnapshot sick;
  sick.set_name("sick");
  sick.set_reason("SNAPSHOT_UNREADABLE");
  sick.set_message("snapshot sick cannot be read now");
  server_.unlisted = {sick};
  EXPECT_EQ(ExitCode(Run({"verify", "--all", "-o", "json"})), kExitDamaged);
  const nlohmann::json json = Json();
  std::vector<std::string> names;
  for (const auto& one : json["verified"]) names.push_back(one["name"]);
  EXPECT_THAT(names, ::testing::ElementsAre("good", "torn", "sick"));
}

TEST_F(VerifyCommandTest, ChecksumsAreMadeOnce) {
  EXPECT_TRUE(Run({"verify", "good", "good", "--sum"}).ok());
  ASSERT_EQ(server_.verify_requests.size(), 2U);
  EXPECT_TRUE(server_.verify_requests[0].make_checksums());
  EXPECT_FALSE(server_.verify_requests[1].make_checksums());
}

TEST_F(VerifyCommandTest, WantsToKnowWhat) {
  for (const std::vector<std::string>& rest : {std::vector<std::string>{},
                                               {"--sum"},
                                               {"a", "--all"},
                                               {"a", "--pool=dax0.0"},
                                               {"--all", "--pool=dax0.0"},
                                               {"--pool"}}) {
    std::vector<std::string> line = {"verify"};
    line.insert(line.end(), rest.begin(), rest.end());
    EXPECT_EQ(ExitCode(Run(line)), kExitUsage) << rest.size();
  }
  EXPECT_TRUE(server_.verify_requests.empty());
}

TEST_F(VerifyCommandTest, PoolThatIsNotThereIsNotFound) {
  EXPECT_EQ(ExitCode(Run({"verify", "--pool=no such pool"})), kExitNotFound);
}

TEST_F(SnapctlTest, InspectShowsLabelsAndVersions) {
  v1::Snapshot& snapshot = server_.snapshots["a"];
  snapshot.set_name("a");
  (*snapshot.mutable_labels())["k"] = "v";
  snapshot.mutable_versions()->set_criu("4.1.1");
  ASSERT_TRUE(Run({"inspect", "a"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("k=v"));
  EXPECT_THAT(out_.str(), HasSubstr("CRIU 4.1.1"));
}

TEST_F(SnapctlTest, RmGoesOnAfterAMissingOneAndFails) {
  server_.snapshots["a"].set_name("a");
  server_.snapshots["c"].set_name("c");
  const absl::Status status = Run({"rm", "a", "b", "c", "d", "-o", "json"});
  EXPECT_EQ(ExitCode(status), kExitNotFound);
  EXPECT_EQ(Json()["deleted"].dump(), R"(["a","c"])");
  EXPECT_TRUE(server_.snapshots.empty());
  // The last failure is left to main; the one before it has been printed.
  EXPECT_THAT(err_.str(), HasSubstr("no snapshot is called b"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("called d"));
}

TEST_F(SnapctlTest, RmWithForceDoesNotMindMissingOnes) {
  EXPECT_TRUE(Run({"rm", "-f", "a"}).ok());
}

TEST_F(SnapctlTest, VersionWorksWithAndWithoutSnapd) {
  ASSERT_TRUE(Run({"version"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("9.8.7, pid 77"));
  server_.Stop();
  out_.str("");
  ASSERT_TRUE(Run({"version"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("not running"));
}

TEST_F(SnapctlTest, PoolShowTellsSizeAndNode) {
  ASSERT_TRUE(Run({"pool", "show"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("NUMA node   1\n"));
  EXPECT_THAT(out_.str(), HasSubstr("size        2.0 GiB\n"));
}

TEST_F(SnapctlTest, ErrorsForPeopleHaveHintAndCriuLog) {
  server_.stream_status =
      ErrorStatus(grpc::StatusCode::FAILED_PRECONDITION,
                  "CRIU could not dump pid 42", "CRIU_FAILED",
                  {{"hint", "Read the log."},
                   {"criu_error", "Can't dump it"},
                   {"criu_log", "/x/dump.log"}});
  const absl::Status status = Run({"checkpoint", "42"});
  EXPECT_EQ(ExitCode(status), kExitRefused);
  PrintError(status, context_);
  EXPECT_EQ(err_.str(),
            "snapctl: CRIU could not dump pid 42\n"
            "  criu_error: Can't dump it\n"
            "  criu_log: /x/dump.log\n"
            "  hint: Read the log.\n");
}

TEST_F(SnapctlTest, WhoIsNotRootIsToldToBe) {
  PrintError(absl::PermissionDeniedError("cannot open /x: Permission denied"),
             context_);
  EXPECT_EQ(err_.str(),
            "snapctl: cannot open /x: Permission denied\n"
            "  hint: run the command as root\n");
}

TEST_F(SnapctlTest, ErrorsInJsonAreOneLine) {
  server_.stream_status =
      ErrorStatus(grpc::StatusCode::FAILED_PRECONDITION, "pid 7 is in use",
                  "PID_IN_USE", {{"hint", "End it."}, {"pid", "7"}});
  const absl::Status status = Run({"restore", "a", "-o", "json"});
  EXPECT_EQ(ExitCode(status), kExitTaken);
  PrintError(status, context_);
  const nlohmann::json error = nlohmann::json::parse(err_.str())["error"];
  EXPECT_EQ(error["reason"], "PID_IN_USE");
  EXPECT_EQ(error["metadata"]["pid"], "7");
  EXPECT_EQ(error["hint"], "End it.");
  EXPECT_EQ(error["exit_code"], kExitTaken);
  EXPECT_EQ(err_.str().find('\n'), err_.str().size() - 1);
  EXPECT_EQ(out_.str(), "");
}

TEST_F(SnapctlTest, WrongCommandLinesAreSaidInTheFormatAskedFor) {
  const std::vector<std::vector<std::string>> wrong = {
      {"checkpoint", "abc"},
      {"checkpoint"},
      {"bogus"},
      {"run"},
      {"ls", "--bogus"},
      {},
      {"checkpoint", "1", "--name"},
  };
  for (std::vector<std::string> arguments : wrong) {
    err_.str("");
    context_.format = Format::kTable;
    EXPECT_EQ(ExitCode(Run(arguments)), kExitUsage);
    EXPECT_THAT(err_.str(), testing::StartsWith("snapctl: "));
    EXPECT_THAT(err_.str(), HasSubstr("\n  hint: see `snapctl"));
    err_.str("");
    arguments.insert(arguments.begin(), {"-o", "json"});
    EXPECT_EQ(ExitCode(Run(arguments)), kExitUsage);
    ASSERT_TRUE(nlohmann::json::accept(err_.str())) << err_.str();
    const nlohmann::json error = nlohmann::json::parse(err_.str())["error"];
    EXPECT_EQ(error["exit_code"], kExitUsage);
    EXPECT_NE(error["message"], "");
  }
}

TEST_F(SnapctlTest, MistypedWordsAreNamed) {
  const std::vector<std::vector<std::string>> mistyped = {
      {"bogus", "5"},
      {"--bogus"},
      {"pool", "bogus"},
      {"ls", "bogus"},
      {"checkpoint", "--bogus"}};
  for (const std::vector<std::string>& arguments : mistyped) {
    err_.str("");
    EXPECT_EQ(ExitCode(Run(arguments)), kExitUsage);
    EXPECT_THAT(err_.str(), HasSubstr("bogus"));
  }
  EXPECT_THAT(err_.str(), HasSubstr("`snapctl checkpoint --help`"));
}

TEST_F(SnapctlTest, NoDaemonHasAnExitCodeOfItsOwn) {
  server_.Stop();
  EXPECT_EQ(ExitCode(Run({"ls"})), kExitNoDaemon);
  EXPECT_EQ(ExitCode(Run({"checkpoint", "42"})), kExitNoDaemon);
}

// Every subcommand and option of `app` that the man page does not have.
std::vector<std::string> MissingIn(const std::string& page, const CLI::App& app,
                                   const std::string& path) {
  std::vector<std::string> missing;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (name != "help" && page.find("Fl -" + name) == std::string::npos) {
        missing.push_back(path + " --" + name);
      }
    }
  }
  for (const CLI::App* command :
       app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string name =
        path.empty() ? command->get_name() : path + " " + command->get_name();
    if (page.find("Ic " + name) == std::string::npos) missing.push_back(name);
    for (std::string& more : MissingIn(page, *command, name))
      missing.push_back(std::move(more));
  }
  return missing;
}

TEST(ManPageTest, HasEverySubcommandAndOption) {
  std::ostringstream page;
  page << std::ifstream(SNAPCTL_MAN_PAGE).rdbuf();
  ASSERT_FALSE(page.str().empty()) << SNAPCTL_MAN_PAGE;
  CLI::App app;
  Context context;
  Action action;
  AddCommands(&app, &context, &action);
  EXPECT_THAT(MissingIn(page.str(), app, ""), ::testing::IsEmpty());
}

TEST(ExitCodeTest, IsAsDocumented) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCode(absl::DataLossError("")), 9);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCode(absl::NotFoundError("")), 3);
  EXPECT_EQ(ExitCode(absl::AlreadyExistsError("")), 4);
  EXPECT_EQ(ExitCode(absl::AbortedError("")), 4);
  EXPECT_EQ(ExitCode(absl::PermissionDeniedError("")), 5);
  EXPECT_EQ(ExitCode(absl::UnavailableError("")), 6);
  EXPECT_EQ(ExitCode(absl::ResourceExhaustedError("")), 7);
  EXPECT_EQ(ExitCode(absl::FailedPreconditionError("")), 8);
  EXPECT_EQ(ExitCode(absl::CancelledError("")), 130);
  absl::Status commit_failed = absl::UnavailableError("");
  client::SetErrorDetails(
      {.reason = "COMMIT_FAILED", .hint = "", .metadata = {}}, &commit_failed);
  EXPECT_EQ(ExitCode(commit_failed), 1)
      << "snapd runs, so it is not exit code 6";
}

}  // namespace
}  // namespace daxsnap::snapctl
