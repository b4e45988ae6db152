// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/snapshot_output.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/reasons.h"
#include "base/utf8.h"
#include "client/snapctl/output.h"

namespace daxsnap::snapctl {
namespace {

std::string ModeName(v1::SnapshotMode mode) {
  const auto* value = v1::SnapshotMode_descriptor()->FindValueByNumber(mode);
  return value == nullptr ? absl::StrCat(mode) : EnumName(*value);
}

// "cpu affinity, eventfd"
std::string LossNames(const v1::Snapshot& snapshot) {
  std::vector<std::string> names;
  for (const int loss : snapshot.stock_criu_losses()) {
    const auto* value = v1::StockCriuLoss_descriptor()->FindValueByNumber(loss);
    names.push_back(value == nullptr
                        ? absl::StrCat(loss)
                        : absl::AsciiStrToLower(absl::StrReplaceAll(
                              EnumName(*value), {{"_", " "}})));
  }
  return absl::StrJoin(names, ", ");
}

std::string Bytes(std::uint64_t pages, const v1::Snapshot& snapshot) {
  return FormatBytes(pages * snapshot.page_size());
}

std::string OrDash(const std::string& text) {
  return text.empty() ? "-" : ToPrintableUtf8(text);
}

// Mode and pages, as summary and details have them in common.
void AddPages(const v1::Snapshot& snapshot, Fields* fields) {
  const v1::SnapshotPages& pages = snapshot.pages();
  fields->Add("mode", ModeName(snapshot.mode()));
  fields->Add("by reference",
              FormatPages(pages.by_reference(), snapshot.page_size()));
  fields->Add("shared", FormatPages(pages.shared(), snapshot.page_size()));
  fields->Add("copied", FormatPages(pages.copied(), snapshot.page_size()));
}

void AddTimes(const v1::SnapshotTimes& times, Fields* fields) {
  fields->Add("frozen", FormatMicroseconds(times.frozen_us()));
  fields->Add("dump", FormatMicroseconds(times.dump_us()));
  fields->Add("sync", absl::StrCat(FormatMicroseconds(times.sync_us()), ", ",
                                   FormatMicroseconds(times.sync_frozen_us()),
                                   " more while stopped"));
  fields->Add("commit", FormatMicroseconds(times.commit_us()));
}

}  // namespace

void PrintSummary(const v1::Snapshot& snapshot, std::ostream& out) {
  Fields fields;
  fields.Add("name", snapshot.name());
  AddPages(snapshot, &fields);
  AddTimes(snapshot.times(), &fields);
  fields.Print(out);
}

void PrintWarnings(const v1::Snapshot& snapshot, std::ostream& err) {
  for (const v1::Finding& finding : snapshot.findings()) {
    err << "snapctl: warning: " << ToPrintableUtf8(finding.message()) << "\n";
    if (!finding.hint().empty())
      err << "  hint: " << ToPrintableUtf8(finding.hint()) << "\n";
  }
}

void PrintDetails(const v1::Snapshot& snapshot, std::ostream& out) {
  const v1::Task& task = snapshot.root_task();
  Fields fields;
  fields.Add("name", snapshot.name());
  fields.Add("uid", snapshot.uid());
  fields.Add("created", FormatTime(snapshot.create_time()));
  fields.Add("task",
             absl::StrCat("pid ", task.pid(), ", ", OrDash(task.comm())));
  fields.Add("executable", OrDash(task.exe()));
  fields.Add("tasks", absl::StrCat(snapshot.task_count()));
  fields.Add("owner", absl::StrCat("uid ", snapshot.owner_uid()));
  fields.Add("left running", snapshot.left_running() ? "yes" : "no");
  AddPages(snapshot, &fields);
  fields.Add("holes",
             FormatPages(snapshot.pages().hole(), snapshot.page_size()));
  fields.Add("image files", FormatBytes(snapshot.image_bytes()));
  fields.Add("freezing", FormatMicroseconds(snapshot.times().freezing_us()));
  AddTimes(snapshot.times(), &fields);
  fields.Add("pages phase", FormatMicroseconds(snapshot.times().pages_us()));
  if (snapshot.forced()) fields.Add("forced", "yes");
  for (const v1::Finding& finding : snapshot.findings()) {
    const bool lost = finding.consequence() == v1::FINDING_CONSEQUENCE_LOST;
    fields.Add(lost ? "does not come back" : "limited",
               ToPrintableUtf8(finding.message()));
  }
  if (snapshot.stock_criu_losses_size() > 0) {
    fields.Add("stock CRIU loses", LossNames(snapshot));
  }
  fields.Add("pool", OrDash(snapshot.pool_uuid()));
  fields.Add("generation", absl::StrCat(snapshot.pool_generation()));
  fields.Add("made by",
             absl::StrCat("daxsnap ", OrDash(snapshot.versions().daxsnap()),
                          ", CRIU ", OrDash(snapshot.versions().criu()),
                          ", Linux ", OrDash(snapshot.versions().kernel())));
  const std::map<std::string, std::string> labels(snapshot.labels().begin(),
                                                  snapshot.labels().end());
  for (const auto& [key, value] : labels) {
    fields.Add("label",
               absl::StrCat(ToPrintableUtf8(key), "=", ToPrintableUtf8(value)));
  }
  fields.Print(out);
}

void PrintList(const client::Client::SnapshotList& list, std::ostream& out) {
  Table table({{"NAME"},
               {"CREATED"},
               {"PID", Align::kRight},
               {"COMMAND"},
               {"TASKS", Align::kRight},
               {"BY REFERENCE", Align::kRight},
               {"SHARED", Align::kRight},
               {"COPIED", Align::kRight}});
  for (const v1::Snapshot& snapshot : list.snapshots) {
    table.AddRow({snapshot.name(), FormatTime(snapshot.create_time()),
                  absl::StrCat(snapshot.root_task().pid()),
                  OrDash(snapshot.root_task().comm()),
                  absl::StrCat(snapshot.task_count()),
                  Bytes(snapshot.pages().by_reference(), snapshot),
                  Bytes(snapshot.pages().shared(), snapshot),
                  Bytes(snapshot.pages().copied(), snapshot)});
  }
  for (const std::string& name : list.damaged) {
    table.AddRow(
        {ToPrintableUtf8(name), "damaged", "-", "-", "-", "-", "-", "-"});
  }
  for (const v1::UnlistedSnapshot& one : list.unlisted) {
    table.AddRow({ToPrintableUtf8(one.name()),
                  one.reason() == reason::kVersionUnsupported
                      ? "newer format"
                      : "unreadable now",
                  "-", "-", "-", "-", "-", "-"});
  }
  table.Print(out);
}

void PrintPool(const v1::Pool& pool, std::ostream& out) {
  const std::uint32_t page = pool.page_size();
  Fields fields;
  fields.Add("path", ToPrintableUtf8(pool.path()));
  if (pool.kind() != v1::POOL_KIND_KMEMFS) {
    fields.Add("kind", "directory (snapshots are copied)");
  } else {
    fields.Add("kind", "kmemfs");
    fields.Add("device", OrDash(pool.device()));
    fields.Add("uuid", OrDash(pool.uuid()));
    fields.Add("label", OrDash(pool.label()));
    fields.Add("NUMA node", absl::StrCat(pool.node()));
    if (pool.persistence() != v1::POOL_PERSISTENCE_UNSPECIFIED) {
      fields.Add("persistent",
                 pool.persistence() == v1::POOL_PERSISTENCE_PROMISED
                     ? "yes"
                     : "not promised (restores verify first)");
    }
    fields.Add("format", pool.format_version() == 0
                             ? "-"
                             : absl::StrCat("version ", pool.format_version()));
    fields.Add(
        "generation",
        absl::StrCat(pool.generation(),
                     pool.dirty() ? ", with changes not durable yet" : ""));
  }
  fields.Add("size", FormatBytes(pool.total_pages() * page));
  fields.Add("free", FormatBytes(pool.free_pages() * page));
  if (pool.kind() == v1::POOL_KIND_KMEMFS) {
    fields.Add("in files", FormatPages(pool.file_pages(), page));
    fields.Add("metadata", FormatPages(pool.meta_pages(), page));
    const v1::PoolCounters& counters = pool.counters();
    fields.Add("captured",
               absl::StrCat(counters.captured_by_reference(), " by reference, ",
                            counters.captured_shared(), " shared, ",
                            counters.captured_copied(), " copied"));
    fields.Add("read",
               absl::StrCat(counters.read_installed(), " by reference, ",
                            counters.read_copied(), " copied"));
  }
  fields.Add("snapshots", absl::StrCat(pool.snapshot_count()));
  fields.Print(out);
}

}  // namespace daxsnap::snapctl
