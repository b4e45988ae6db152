// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/restore.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "host/task/machine.h"
#include "snapd/engine/criu_images.h"
#include "snapd/ops/manifest.h"
#include "snapd/ops/request_options.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxRequestIdBytes = 64;

absl::Status UnknownPolicy(const std::string& field, int value) {
  return InvalidOption(field,
                       absl::StrCat(field, " is ", value,
                                    ", a policy that this snapd does not know"),
                       "update daxsnap, or use another policy");
}

bool IsRequestIdByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-';
}

bool WantsVerification(v1::VerifyPolicy policy, const Pool& pool) {
  switch (policy) {
    case v1::VERIFY_POLICY_ALWAYS:
      return true;
    case v1::VERIFY_POLICY_NEVER:
      return false;
    default:
      return pool.persistence() == Persistence::kNotPromised;
  }
}

// NODE_MISSING if the tasks cannot have the memory policies that they had.
absl::Status CheckPolicyNodes(const v1::Manifest& manifest, int images,
                              int pool_node) {
  auto policies = ReadPolicies(images);
  // CRIU says what is wrong with images.
  if (absl::IsDataLoss(policies.status())) return absl::OkStatus();
  if (!policies.ok()) return policies.status();
  if (policies->empty()) return absl::OkStatus();
  auto there = ReadMemoryNodes();
  if (!there.ok()) return there.status();
  return CheckNodes(manifest, *policies, *there, pool_node);
}

}  // namespace

Restore::Restore(const OperationParts& parts, const Caller& caller,
                 const v1::RestoreSnapshotRequest& request,
                 const ProgressSink& progress, Cancellation* cancellation,
                 const VerifyEvents& verify_events)
    : RecordedOperation(parts, caller, progress, cancellation),
      request_(request),
      options_(OptionsOf(request)),
      verify_events_(verify_events),
      start_(absl::Now()) {}

absl::Status Restore::CheckRequest() const {
  if (absl::Status known = CheckKnown(request_); !known.ok()) return known;
  if (!v1::FilesPolicy_IsValid(options_.files())) {
    return UnknownPolicy("files", options_.files());
  }
  if (!v1::VerifyPolicy_IsValid(options_.verify())) {
    return UnknownPolicy("verify", options_.verify());
  }
  const std::string& id = request_.request_id();
  if (id.size() > kMaxRequestIdBytes ||
      !std::all_of(id.begin(), id.end(), IsRequestIdByte)) {
    return InvalidOption("request_id", "the request ID is not valid",
                         "use at most 64 of A-Z a-z 0-9 -, a UUID for example");
  }
  return absl::OkStatus();
}

absl::Status Restore::ReadSnapshot() {
  auto manifest = parts_.catalog->Read(name_);
  if (!manifest.ok()) return manifest.status();
  manifest_ = *std::move(manifest);
  return CheckSnapshotAccess(caller_, manifest_.snapshot().owner_uid(), name_);
}

absl::Status Restore::ReadRecords() {
  const Records& records = parts_.catalog->records();
  auto uids = records.List();
  if (!uids.ok()) return uids.status();
  absl::Status unread;
  for (const std::string& uid : *uids) {
    auto record = records.Read(uid);
    if (record.ok()) {
      if (record->has_result()) results_.push_back(*std::move(record));
    } else if (!absl::IsNotFound(record.status()) &&
               !absl::IsDataLoss(record.status())) {
      // One that is not this call's, or has just gone, is none.
      unread.Update(record.status());
    }
  }
  return unread;
}

absl::Status Restore::ReadResults() {
  auto boot_id = parts_.proc->BootId();
  if (!boot_id.ok()) return boot_id.status();
  results_ = parts_.kept_results->All();
  unread_ = ReadRecords();
  for (auto result = results_.begin(); result != results_.end();) {
    absl::StatusOr<bool> lives_on = false;
    if (result->boot_id() == *boot_id) {
      lives_on = parts_.proc->IsAlive({result->pid(), result->start_ticks()});
    }
    if (!lives_on.ok()) return lives_on.status();
    if (*lives_on) {
      ++result;
      continue;
    }
    // Nobody will ask for it any more.
    (void)parts_.catalog->records().Remove(result->uid());
    parts_.kept_results->Remove(result->uid());
    result = results_.erase(result);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::RestoreSnapshotResult>> Restore::FindDone() {
  if (absl::Status read = ReadResults(); !read.ok()) return read;
  for (internal::Operation& record : results_) {
    if (request_.request_id().empty() || record.name() != name_ ||
        record.request_id() != request_.request_id()) {
      continue;
    }
    // One of an older snapd does not say of what it is.
    if (!record.snapshot_uid().empty() &&
        (record.snapshot_uid() != manifest_.snapshot().uid() ||
         record.options().SerializeAsString() !=
             options_.SerializeAsString())) {
      return InvalidOption(
          "request_id",
          absl::StrCat("the request ID is that of another restore, whose "
                       "tasks, pid ",
                       record.pid(), " and others, run"),
          "use another ID for another snapshot or other options");
    }
    v1::RestoreSnapshotResult result = std::move(*record.mutable_result());
    result.set_already_running(true);
    return result;
  }
  if (unread_.ok()) return std::nullopt;
  // Tasks that have the snapshot's PIDs may be those that this call asks for.
  // A pool that takes nothing has no record of this boot.
  if (!request_.request_id().empty() && parts_.pool->CheckWritable().ok() &&
      !CheckPidsFree(manifest_, *parts_.proc).ok()) {
    return unread_;
  }
  LogWarning(absl::StrCat(
      "the restore of ", name_,
      " goes on without a record that cannot be read: ", unread_.message()));
  return std::nullopt;
}

absl::Status Restore::CheckMachine() const {
  absl::Status files = CheckFiles(manifest_, options_.files());
  return files.ok() ? CheckPidsFree(manifest_, *parts_.proc) : files;
}

absl::Status Restore::Verify() {
  if (!WantsVerification(options_.verify(), *parts_.pool)) {
    return absl::OkStatus();
  }
  auto directory = parts_.catalog->Open(name_);
  if (!directory.ok()) return directory.status();
  auto outcome =
      VerifyFiles(*parts_.pool, name_, directory->get(), VerifyScope::kRestored,
                  verify_events_, *cancellation_);
  if (!outcome.ok()) return outcome.status();
  absl::Status status = CheckVerified(
      name_, *outcome,
      "restore an older one; `snapctl verify` lists all that is damaged, and "
      "`snapctl restore --verify=never` starts the tasks with what is there");
  if (!status.ok()) return status;
  *result_.mutable_verification() = std::move(outcome->totals);
  return CheckMachine();  // it may have taken minutes
}

absl::StatusOr<v1::RestoreSnapshotResult> Restore::Run() {
  progress_(v1::PROGRESS_PHASE_CHECKING);
  absl::Status status = ClaimName(request_.name());
  if (status.ok()) status = CheckRequest();
  if (status.ok()) status = ReadSnapshot();
  if (!status.ok()) return status;
  auto done = FindDone();
  if (!done.ok()) return done.status();
  if (done->has_value()) return **std::move(done);

  status = ClaimPids(PidsOf(manifest_));
  auto cpu = ReadCpuInfo();
  if (status.ok()) status = cpu.status();
  if (status.ok()) status = CheckCpu(manifest_, *cpu);
  if (status.ok()) status = CheckRemappedLinks(manifest_);
  if (status.ok()) status = CheckMachine();
  if (!status.ok()) return status;
  auto images = parts_.catalog->OpenImages(name_);
  if (!images.ok()) return images.status();
  status = CheckImages(manifest_, name_, images->get());
  if (status.ok()) status = Verify();
  if (!status.ok()) return status;
  if (cancellation_->cancelled()) return CancelledError();
  return Start(images->get());
}

absl::StatusOr<v1::RestoreSnapshotResult> Restore::Start(int images) {
  auto before = parts_.pool->Info();
  if (!before.ok()) return before.status();
  absl::Status usable = CheckPolicyNodes(manifest_, images, before->node());
  if (!usable.ok()) return usable;
  RestoreRequest restore;
  restore.name = name_;
  restore.options = options_;
  restore.root = manifest_.snapshot().root_task().pid();
  restore.images = images;
  // The node of the pool now; it may have had another number then.
  if (before->node() >= 0) restore.memory_node = before->node();

  absl::Status begun =
      BeginRecord(internal::OPERATION_KIND_RESTORE, {restore.root, 0});
  record_.set_request_id(request_.request_id());
  record_.set_snapshot_uid(manifest_.snapshot().uid());
  *record_.mutable_options() = options_;
  recorded_ = true;
  if (begun.ok()) begun = Note();
  if (!begun.ok()) return begun;
  RestoreCallbacks callbacks;
  callbacks.started = [this](const TaskId& worker, const Placement& placement) {
    SetWorker(worker);
    record_.set_scope(placement.scope);
    record_.set_cgroup(placement.cgroup);
    return Note();
  };
  callbacks.resuming = [this] {
    if (cancellation_->cancelled()) return CancelledError();
    record_.set_resuming(true);
    absl::Status noted = Note();
    if (noted.ok()) noted = FaultPoint("restore: resuming");
    if (!noted.ok()) return noted;
    progress_(v1::PROGRESS_PHASE_RESUMING);
    // The last moment at which none of them has run.
    return cancellation_->cancelled() ? CancelledError() : noted;
  };
  if (verify_events_.progress && parts_.pool->is_kmemfs()) {
    callbacks.working = [&] { TellPages(before->counters()); };
  }
  result_.mutable_times()->set_check_us(MicrosecondsSince(start_));
  progress_(v1::PROGRESS_PHASE_RESTORING);
  auto outcome = parts_.engine->Restore(restore, callbacks, cancellation_);
  if (!outcome.ok()) {
    if (recorded_) RemoveRecord();
    return outcome.status();
  }
  (void)FaultPoint("restore: resumed");
  result_.set_pid(outcome->pid);
  result_.set_scope(outcome->placement.scope);
  result_.set_cgroup(outcome->placement.cgroup);
  result_.mutable_times()->set_restore_us(outcome->restore_us);
  if (auto after = parts_.pool->Info(); after.ok()) {
    const v1::PoolCounters& then = before->counters();
    const v1::PoolCounters& now = after->counters();
    v1::RestorePages* pages = result_.mutable_pages();
    pages->set_installed(now.read_installed() - then.read_installed());
    pages->set_copied(now.read_copied() - then.read_copied());
  }
  Finish(outcome->pid);
  Audit("restore", "restored", outcome->pid);
  return std::move(result_);
}

void Restore::TellPages(const v1::PoolCounters& then) const {
  auto info = parts_.pool->Info();
  if (!info.ok()) return;
  const v1::PoolCounters& now = info->counters();
  const v1::SnapshotPages& stored = manifest_.snapshot().pages();
  const uint64_t total =
      stored.by_reference() + stored.shared() + stored.copied();
  // Others may read at the same time.
  const uint64_t done =
      std::min(total, now.read_installed() + now.read_copied() -
                          then.read_installed() - then.read_copied());
  verify_events_.progress(v1::PROGRESS_PHASE_RESTORING, done, total);
}

absl::Status Restore::Note() {
  if (!recorded_) return absl::OkStatus();
  absl::Status written = WriteRecord();
  // What is on a pool that takes nothing more shall come back all the same.
  const bool read_only =
      !noted_ && !written.ok() &&
      (ErrnoNameOf(written) == "EROFS" || !parts_.pool->CheckWritable().ok());
  if (!read_only && ErrorReasonOf(written) != reason::kNoSpace) {
    noted_ = noted_ || written.ok();
    return written;
  }
  LogWarning(absl::StrCat(
      "the restore of ", name_,
      " is not recorded, as there is no space, or the pool is read-only: if "
      "snapd is killed meanwhile, "
      "its tasks may be left in ",
      record_.cgroup(), ": ", written.message()));
  recorded_ = false;
  if (read_only) return absl::OkStatus();
  // One of an earlier step would have them ended.
  return parts_.catalog->records().Remove(record_.uid());
}

void Restore::Finish(pid_t pid) {
  auto root = parts_.proc->ReadTask(pid);
  if (!request_.request_id().empty() && root.ok()) {
    internal::Operation kept = record_;
    kept.set_pid(pid);
    kept.set_start_ticks(root->id.start_ticks);
    *kept.mutable_result() = result_;
    parts_.kept_results->Add(std::move(kept));
  }
  if (recorded_) RemoveRecord();
}

}  // namespace daxsnap
