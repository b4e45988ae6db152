// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/verify_output.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/reasons.h"
#include "base/utf8.h"
#include "client/snapctl/errors.h"
#include "client/snapctl/output.h"
#include "daxsnap/error.h"

namespace daxsnap::snapctl {
namespace {

// "whole" only if all was compared.
std::string Verdict(const VerifyReport& report) {
  if (report.status.ok()) return "whole";
  if (absl::IsDataLoss(report.status)) return "DAMAGED";
  const bool missing = client::GetErrorDetails(report.status).reason ==
                       reason::kChecksumsMissing;
  return missing ? "not known" : "-";
}

void PrintDamage(const VerifyReport& report, std::ostream& err) {
  for (const v1::FileVerification& file : report.files) {
    std::uint64_t told = 0;
    for (const v1::DamagedRange& range : file.damaged()) {
      err << absl::StrFormat("snapctl: %s: %s: %d bytes from %#x on\n",
                             ToPrintableUtf8(report.name),
                             ToPrintableUtf8(file.path()), range.length(),
                             range.offset());
      told += range.length();
    }
    if (file.bytes_damaged() > told) {
      err << absl::StrFormat(
          "snapctl: %s: %s: %d bytes more\n", ToPrintableUtf8(report.name),
          ToPrintableUtf8(file.path()), file.bytes_damaged() - told);
    }
  }
}

nlohmann::ordered_json ReportJson(const VerifyReport& report) {
  nlohmann::ordered_json json;
  json["name"] = report.name;
  json["verdict"] = Verdict(report);
  json["verification"] = ToJson(report.Totals());
  json["files"] = nlohmann::ordered_json::array();
  for (const v1::FileVerification& file : report.files) {
    json["files"].push_back(ToJson(file));
  }
  json["error"] = nullptr;
  if (!report.status.ok()) {
    const client::ErrorDetails details = client::GetErrorDetails(report.status);
    json["error"] = {{"code", absl::StatusCodeToString(report.status.code())},
                     {"reason", details.reason},
                     {"message", std::string(report.status.message())},
                     {"hint", details.hint},
                     {"metadata", details.metadata}};
  }
  return json;
}

}  // namespace

v1::Verification VerifyReport::Totals() const {
  v1::Verification totals;
  totals.set_files(files.size());
  for (const v1::FileVerification& file : files) {
    totals.set_bytes_verified(totals.bytes_verified() + file.bytes_verified());
    totals.set_bytes_without_checksum(totals.bytes_without_checksum() +
                                      file.bytes_without_checksum());
    totals.set_bytes_damaged(totals.bytes_damaged() + file.bytes_damaged());
  }
  return totals;
}

std::string DescribeVerification(const v1::Verification& verification) {
  std::string text = FormatBytes(verification.bytes_verified());
  if (verification.bytes_without_checksum() > 0) {
    absl::StrAppend(&text, ", ",
                    FormatBytes(verification.bytes_without_checksum()),
                    " without checksum");
  }
  return text;
}

void PrintReports(const std::vector<VerifyReport>& reports,
                  const Context& context) {
  if (context.format == Format::kJson) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const VerifyReport& report : reports) {
      json.push_back(ReportJson(report));
    }
    PrintJson({{"verified", json}}, *context.out);
    return;
  }
  Table table({{"NAME"},
               {"VERDICT"},
               {"FILES", Align::kRight},
               {"VERIFIED", Align::kRight},
               {"NO CHECKSUM", Align::kRight},
               {"DAMAGED", Align::kRight}});
  for (const VerifyReport& report : reports) {
    const v1::Verification totals = report.Totals();
    table.AddRow({ToPrintableUtf8(report.name), Verdict(report),
                  absl::StrCat(totals.files()),
                  FormatBytes(totals.bytes_verified()),
                  FormatBytes(totals.bytes_without_checksum()),
                  FormatBytes(totals.bytes_damaged())});
  }
  table.Print(*context.out);
  for (const VerifyReport& report : reports) PrintDamage(report, *context.err);
}

absl::Status WorstOf(const std::vector<VerifyReport>& reports,
                     const Context& context) {
  const VerifyReport* worst = nullptr;
  for (const VerifyReport& report : reports) {
    if (report.status.ok()) continue;
    if (worst == nullptr ||
        (absl::IsDataLoss(report.status) && !absl::IsDataLoss(worst->status))) {
      worst = &report;
    }
  }
  for (const VerifyReport& report : reports) {
    if (!report.status.ok() && &report != worst) {
      PrintError(report.status, context);
    }
  }
  return worst == nullptr ? absl::OkStatus() : worst->status;
}

}  // namespace daxsnap::snapctl
