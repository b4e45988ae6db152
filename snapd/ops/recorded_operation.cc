// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/recorded_operation.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/uuid.h"
#include "snapd/ops/recovery.h"
#include "snapd/store/names.h"

namespace daxsnap {

absl::Status RecordedOperation::ClaimName(const std::string& name) {
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  auto claim = parts_.claims->ClaimName(name);
  if (!claim.ok()) return claim.status();
  claim_.emplace(*std::move(claim));
  name_ = name;
  if (absl::Status late = parts_.catalog->CheckNotLate(name); !late.ok()) {
    return late;
  }
  for (const std::string& uid : parts_.catalog->Unfinished(name)) {
    absl::Status status =
        RecoverOne(*parts_.proc, parts_.engine, parts_.catalog, uid);
    if (status.ok()) status = parts_.pool->Commit();
    if (status.ok()) continue;
    return MakeError(
        {.code = absl::StatusCode::kAborted,
         .reason = reason::kBusy,
         .message = absl::StrCat("what was begun before with ", name,
                                 " is not finished: ", status.message()),
         .hint = "try again; see the log of snapd",
         .metadata = {{"name", name}}});
  }
  return absl::OkStatus();
}

absl::Status RecordedOperation::ClaimPids(const std::vector<pid_t>& pids) {
  return claim_->AddPids(pids);
}

absl::Status RecordedOperation::BeginRecord(internal::OperationKind kind,
                                            const TaskId& root) {
  auto boot_id = parts_.proc->BootId();
  if (!boot_id.ok()) return boot_id.status();
  record_.set_uid(NewUuid());
  record_.set_kind(kind);
  record_.set_name(name_);
  record_.set_pid(root.pid);
  record_.set_start_ticks(root.start_ticks);
  record_.set_boot_id(*std::move(boot_id));
  return absl::OkStatus();
}

void RecordedOperation::SetWorker(const TaskId& worker) {
  record_.set_criu_pid(worker.pid);
  record_.set_criu_start_ticks(worker.start_ticks);
}

void RecordedOperation::RemoveRecord() const {
  absl::Status removed = parts_.catalog->records().Remove(record_.uid());
  if (removed.ok()) return;
  LogWarning(absl::StrCat("staging/", record_.uid(), ": ", removed.message()));
}

void RecordedOperation::Audit(absl::string_view operation,
                              absl::string_view did, pid_t pid) const {
  LogEvent(absl::StrCat("uid ", caller_.uid, " ", did, " snapshot ", name_),
           {{"DAXSNAP_OPERATION", std::string(operation)},
            {"DAXSNAP_SNAPSHOT", name_},
            {"DAXSNAP_CALLER_UID", absl::StrCat(caller_.uid)},
            {"DAXSNAP_PID", pid == 0 ? "" : absl::StrCat(pid)}});
}

}  // namespace daxsnap
