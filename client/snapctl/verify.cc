// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "client/snapctl/commands.h"
#include "client/snapctl/progress.h"
#include "client/snapctl/verify_output.h"
#include "client/snapctl/verify_pool.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

struct Options {
  std::vector<std::string> names;
  std::string pool;
  bool all = false;
  bool make_checksums = false;
};

// What a list cannot tell more of.
VerifyReport Unlisted(const v1::UnlistedSnapshot& one) {
  VerifyReport report;
  report.name = one.name();
  report.status = one.reason() == reason::kVersionUnsupported
                      ? absl::FailedPreconditionError(one.message())
                      : absl::UnavailableError(one.message());
  client::SetErrorDetails(
      {.reason = one.reason(), .hint = one.hint(), .metadata = {}},
      &report.status);
  return report;
}

class Verifier {
 public:
  Verifier(const Context& context, client::Client* client,
           client::Cancellation* cancellation, bool make_checksums)
      : context_(context),
        client_(client),
        cancellation_(cancellation),
        make_checksums_(make_checksums) {}

  VerifyReport Verify(const std::string& name) {
    VerifyReport report;
    report.name = name;
    v1::VerifySnapshotRequest request;
    request.set_name(name);
    // Once is enough for all of the pool.
    request.set_make_checksums(std::exchange(make_checksums_, false));
    ProgressLine line(context_, absl::StrCat("verifying ", name));
    client::CallOptions call;
    call.on_progress = [&](const v1::Progress& progress) {
      line.Update(absl::StrCat(name, ": ", DescribeProgress(progress)));
    };
    call.cancellation = cancellation_;
    report.status = client_
                        ->VerifySnapshot(request, call,
                                         [&](const v1::FileVerification& file) {
                                           report.files.push_back(file);
                                         })
                        .status();
    return report;
  }

 private:
  const Context& context_;
  client::Client* const client_;
  client::Cancellation* const cancellation_;
  bool make_checksums_;
};

absl::Status VerifyAll(Verifier* verifier, client::Client* client,
                       std::vector<VerifyReport>* reports) {
  absl::StatusOr<client::Client::SnapshotList> list = client->ListSnapshots();
  if (!list.ok()) return list.status();
  for (const v1::Snapshot& snapshot : list->snapshots) {
    VerifyReport report = verifier->Verify(snapshot.name());
    if (absl::IsCancelled(report.status)) return report.status;
    // Deleted since.
    if (!absl::IsNotFound(report.status)) reports->push_back(std::move(report));
  }
  for (const std::string& name : list->damaged) {
    reports->push_back(verifier->Verify(name));
  }
  for (const v1::UnlistedSnapshot& one : list->unlisted) {
    reports->push_back(Unlisted(one));
  }
  if (!list->incomplete) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "there are snapshots of which it cannot be told whether they are yours; "
      "run the command as root to verify them");
}

absl::Status Verify(const Options& options, const Context& context) {
  SignalCancellation signals;
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect({.socket = context.socket});
  if (!client.ok()) return client.status();
  Verifier verifier(context, client->get(), signals.cancellation(),
                    options.make_checksums);
  std::vector<VerifyReport> reports;
  absl::Status status;
  if (options.all) {
    status = VerifyAll(&verifier, client->get(), &reports);
  }
  for (const std::string& name : options.names) {
    reports.push_back(verifier.Verify(name));
    if (absl::IsCancelled(reports.back().status)) break;
  }
  if (absl::IsCancelled(status)) return status;
  PrintReports(reports, context);
  const absl::Status worst = WorstOf(reports, context);
  return worst.ok() ? status : worst;
}

}  // namespace

void AddVerify(CLI::App* app, Context* context, Action* action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand(
      "verify", "Compare what is stored with its checksums");
  CLI::Option* names =
      command->add_option("NAME", options->names, "Names of snapshots");
  CLI::Option* all =
      command->add_flag("-a,--all", options->all, "All snapshots")
          ->excludes(names);
  command
      ->add_option(
          "--pool", options->pool,
          "All files of an attached pool, also those that snapd does "
          "not know: a DAX device, for example dax0.0, or the label or "
          "UUID of a pool; needs root and no snapd")
      ->option_text("POOL")
      ->excludes(names)
      ->excludes(all);
  command->add_flag("--sum", options->make_checksums,
                    "Make checksums that are missing first, of what is there "
                    "now, and make them durable; needs root");
  command->callback([=] {
    if (options->names.empty() && !options->all && options->pool.empty()) {
      throw CLI::RequiredError("NAME, --all or --pool");
    }
    *action = [=] {
      return options->pool.empty()
                 ? Verify(*options, *context)
                 : VerifyPool(options->pool, options->make_checksums, *context);
    };
  });
}

}  // namespace daxsnap::snapctl
