// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/uuid.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "client/snapctl/verify_output.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

void Print(const v1::RestoreSnapshotResult& result, const std::string& name,
           std::ostream& out) {
  Fields fields;
  fields.Add("name", name);
  fields.Add("pid", absl::StrCat(result.pid()));
  fields.Add("scope",
             result.scope().empty() ? result.cgroup() : result.scope());
  fields.Add("restore", FormatMicroseconds(result.times().restore_us()));
  fields.Add("by reference",
             absl::StrCat(result.pages().installed(), " pages"));
  fields.Add("copied", absl::StrCat(result.pages().copied(), " pages"));
  if (result.already_running()) fields.Add("already running", "yes");
  if (result.has_verification()) {
    fields.Add("verified", DescribeVerification(result.verification()));
  }
  fields.Print(out);
}

void PrintWarnings(const v1::RestoreSnapshotResult& result,
                   const std::string& name, std::ostream& err) {
  const std::uint64_t unknown = result.verification().bytes_without_checksum();
  if (unknown == 0) return;
  err << "snapctl: warning: " << FormatBytes(unknown) << " of " << name
      << " have no checksum: whether they are what was stored is not known\n";
}

struct Options {
  std::string name;
  v1::FilesPolicy files = v1::FILES_POLICY_REFUSE;
  v1::VerifyPolicy verify = v1::VERIFY_POLICY_AUTO;
  std::string request_id;
};

// How to find out what became of a restore whose answer is lost.
void PrintRetry(const Options& options, const std::string& request_id,
                std::ostream& err) {
  err << "  to ask what became of it, and restore if nothing runs: snapctl "
         "restore "
      << options.name << " --request-id " << request_id << "\n";
}

absl::Status Restore(const Options& options, const Context& context) {
  SignalCancellation signals;
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  v1::RestoreSnapshotRequest request;
  request.set_name(options.name);
  request.mutable_options()->set_files(options.files);
  request.mutable_options()->set_verify(options.verify);
  request.set_request_id(options.request_id.empty() ? NewUuid()
                                                    : options.request_id);
  absl::StatusOr<v1::RestoreSnapshotResult> result;
  {
    ProgressLine line(context, "waiting for snapd");
    client::CallOptions call;
    call.on_progress = [&line](const v1::Progress& progress) {
      line.Update(DescribeProgress(progress));
    };
    call.cancellation = signals.cancellation();
    result = (*client)->RestoreSnapshot(request, call);
  }
  if (!result.ok()) {
    // snapd gives its errors a reason; without one, nobody knows. Nor when it
    // is called off: the tasks may just have begun to run.
    if ((absl::IsUnavailable(result.status()) ||
         absl::IsCancelled(result.status())) &&
        client::GetErrorDetails(result.status()).reason.empty() &&
        context.format != Format::kJson) {
      PrintRetry(options, request.request_id(), *context.err);
    }
    return result.status();
  }
  if (context.format == Format::kJson) {
    PrintJson(ToJson(*result), *context.out);
  } else {
    Print(*result, options.name, *context.out);
    PrintWarnings(*result, options.name, *context.err);
  }
  return absl::OkStatus();
}

}  // namespace

void AddRestore(CLI::App* app, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand(
      "restore", "Start the tasks of a snapshot again, with their old PIDs");
  command->add_option("NAME", options->name, "Name of the snapshot")
      ->required();
  command
      ->add_option("--files", options->files,
                   "If files that the tasks map or can write were modified "
                   "since: refuse, or accept them as they are now")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, v1::FilesPolicy>{
              {"refuse", v1::FILES_POLICY_REFUSE},
              {"accept", v1::FILES_POLICY_ACCEPT}}))
      ->option_text("refuse|accept");
  command
      ->add_option(
          "--verify", options->verify,
          "Compare what is stored with its checksums before a task "
          "runs: auto, if nobody promises that the pool's memory keeps "
          "it; always; or never")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, v1::VerifyPolicy>{
              {"auto", v1::VERIFY_POLICY_AUTO},
              {"always", v1::VERIFY_POLICY_ALWAYS},
              {"never", v1::VERIFY_POLICY_NEVER}}))
      ->option_text("auto|always|never");
  command
      ->add_option("--request-id", options->request_id,
                   "What this restore is called: while the tasks live that one "
                   "of this ID has started, it returns their PID and does "
                   "nothing (default: a new UUID)")
      ->option_text("ID");
  command->callback(
      [=] { *action = [=] { return Restore(*options, *context); }; });
}

}  // namespace daxsnap::snapctl
