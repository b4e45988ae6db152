// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/recovery.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/log.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/manifest.h"

namespace daxsnap {
namespace {

// How long killed tasks get to end.
constexpr absl::Duration kEndTimeout = absl::Seconds(30);

// One operation of an earlier snapd.
class Recovery {
 public:
  Recovery(const ProcFs& proc, Engine* engine, Catalog* catalog,
           const std::string& uid)
      : proc_(proc), engine_(engine), catalog_(catalog), uid_(uid) {}

  // Of the snapshot; empty until it is known.
  const std::string& name() const { return operation_.name(); }
  // The record is kept, for who asks again.
  bool stays() const { return stays_; }

  absl::Status Run() {
    catalog_->RemoveUnfinished(uid_);
    auto operation = catalog_->records().Read(uid_);
    // Something that is being deleted, or whose record never became durable.
    // One that cannot be read now may be of a CRIU at work.
    if (absl::IsNotFound(operation.status()) ||
        absl::IsDataLoss(operation.status())) {
      return Remove();
    }
    if (!operation.ok()) return operation.status();
    operation_ = *std::move(operation);
    auto boot_id = proc_.BootId();
    if (!boot_id.ok()) return boot_id.status();
    this_boot_ = operation_.boot_id() == *boot_id;
    switch (operation_.kind()) {
      case internal::OPERATION_KIND_CHECKPOINT:
        return Checkpoint();
      case internal::OPERATION_KIND_RESTORE:
        return Restore();
      default:
        return absl::UnimplementedError(
            absl::StrCat("a newer snapd made it: kind ", operation_.kind()));
    }
  }

 private:
  absl::Status Checkpoint() {
    const TaskId criu = Criu();
    // What may have been told to kill is not disturbed: it does so, or says at
    // the end of its log that it does not.
    const bool agreed = operation_.kill() == internal::KILL_STATE_AGREED;
    absl::Status gone = EndWorker([&] {
      return agreed ? engine_->AwaitWorker(criu) : engine_->EndDump(criu);
    });
    if (!gone.ok()) return gone;
    StagedSnapshot staged;
    staged.uid = uid_;
    staged.name = operation_.name();
    auto manifest = catalog_->Read(staged.name);
    if (ErrorReasonOf(manifest.status()) == reason::kSnapshotUnreadable) {
      return manifest.status();
    }
    staged.published =
        manifest.ok() && manifest->snapshot().uid() == operation_.uid();
    if (!staged.published && !catalog_->CheckWritable().ok()) return Keep();
    if (!staged.published || (this_boot_ && operation_.withdrawn())) {
      return catalog_->Discard(std::move(staged));
    }
    auto directory = catalog_->Open(staged.name);
    if (!directory.ok()) return directory.status();
    // Left running, its caller may have heard of it.
    if (!manifest->snapshot().left_running()) {
      auto killed = WasKilled(directory->get());
      if (!killed.ok()) return killed.status();
      if (!*killed) return catalog_->Discard(std::move(staged));
      if (absl::Status ended = EndRest(); !ended.ok()) return ended;
    }
    if (!catalog_->CheckWritable().ok()) return Keep();
    // It is whole and durable without.
    AddStatistics(directory->get(), /*callback_us=*/0, &*manifest);
    absl::Status written = catalog_->WriteManifest(directory->get(), *manifest);
    if (!written.ok()) {
      LogWarning(absl::StrCat("snapshot ", staged.name,
                              " lacks statistics: ", written.message()));
    }
    return catalog_->Finish(std::move(staged));
  }

  // Whether the tasks of a snapshot that is published were killed for it, as
  // far as that can be told: if it cannot, it may be all that is left of them.
  // What has ended by itself, or was killed by others, may have done more
  // since.
  absl::StatusOr<bool> WasKilled(int directory) const {
    if (!this_boot_) return true;
    // CRIU kills it first of all.
    auto lives_on = RootLives();
    if (!lives_on.ok()) return lives_on.status();
    if (*lives_on) return false;
    if (operation_.kill() == internal::KILL_STATE_UNSPECIFIED) return true;
    if (operation_.kill() == internal::KILL_STATE_NOT_AGREED) return false;
    auto let_go = engine_->HasLetGo(directory);
    if (!let_go.ok()) return let_go.status();
    return !*let_go;
  }

  // Ends what a CRIU that died has not killed any more, if none of it has run
  // since: what has may have done so for days, and is not in the snapshot.
  absl::Status EndRest() const {
    if (!this_boot_ || operation_.kill() != internal::KILL_STATE_AGREED) {
      return absl::OkStatus();
    }
    std::vector<UniqueFd> rest;
    for (const internal::Victim& victim : operation_.victims()) {
      const TaskId id = {victim.pid(), victim.start_ticks()};
      auto pidfd = OpenPidfd(proc_, id);
      if (absl::IsNotFound(pidfd.status())) continue;
      if (!pidfd.ok()) return pidfd.status();
      auto task = proc_.ReadTask(id.pid);
      if (absl::IsNotFound(task.status())) continue;
      if (!task.ok()) return task.status();
      if (task->id != id) continue;
      if (task->lives_on() && task->cpu_ticks != victim.cpu_ticks()) {
        LogWarning(absl::StrCat("pid ", id.pid, " of snapshot ",
                                operation_.name(),
                                " has run on without its root task: it, and "
                                "what else is left of them, is not ended"));
        return absl::OkStatus();
      }
      rest.push_back(*std::move(pidfd));
    }
    for (const UniqueFd& pidfd : rest) KillTask(pidfd);
    const absl::Time deadline = absl::Now() + kEndTimeout;
    for (const UniqueFd& pidfd : rest) {
      if (AwaitTask(pidfd, deadline)) continue;
      return absl::UnavailableError("its tasks have not ended yet");
    }
    return absl::OkStatus();
  }

  absl::Status Restore() {
    if (!this_boot_) return Remove();
    if (operation_.has_result()) {
      auto lives_on = RootLives();
      if (!lives_on.ok()) return lives_on.status();
      stays_ = *lives_on;
      return stays_ ? absl::OkStatus() : Remove();
    }
    const Placement placement = {.scope = operation_.scope(),
                                 .cgroup = operation_.cgroup()};
    const TaskId criu = Criu();
    if (!operation_.resuming()) return EndTasks(criu, placement);
    absl::Status gone = EndWorker([&] { return engine_->AwaitWorker(criu); });
    if (!gone.ok()) return gone;
    auto left = engine_->LookAtTasks(placement);
    if (!left.ok()) return left.status();
    // CRIU has died, too.
    if (*left == TasksLeft::kNeverRan) return EndTasks({}, placement);
    if (*left == TasksLeft::kNone) return Remove();
    LogWarning(absl::StrCat("a restore of ", operation_.name(),
                            " came to its end without its snapd: its tasks, "
                            "pid ",
                            operation_.pid(), " and others, run in ",
                            placement.cgroup));
    auto root = proc_.ReadTask(operation_.pid());
    if (operation_.request_id().empty() || absl::IsNotFound(root.status()) ||
        !catalog_->CheckWritable().ok()) {
      return Remove();
    }
    if (!root.ok()) return root.status();
    operation_.set_start_ticks(root->id.start_ticks);
    v1::RestoreSnapshotResult* result = operation_.mutable_result();
    result->set_pid(operation_.pid());
    result->set_scope(placement.scope);
    result->set_cgroup(placement.cgroup);
    absl::Status written = catalog_->records().Write(operation_);
    if (written.ok()) stays_ = true;
    return written;
  }

  // Ends tasks of a restore that have not run, and forgets it.
  absl::Status EndTasks(const TaskId& criu, const Placement& placement) {
    if (!engine_->EndTasks(criu, placement)) {
      return absl::UnavailableError("its tasks have not ended yet");
    }
    return Remove();
  }

  // CRIU at work on it, if there is one, is gone when this returns OK.
  template <typename End>
  absl::Status EndWorker(End end) {
    if (!this_boot_ || operation_.criu_pid() == 0) return absl::OkStatus();
    auto alive = proc_.IsAlive(Criu());
    if (!alive.ok()) return alive.status();
    if (!*alive || end()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(
        "CRIU (pid ", operation_.criu_pid(), ") still works on it"));
  }

  TaskId Criu() const {
    return {operation_.criu_pid(), operation_.criu_start_ticks()};
  }

  absl::StatusOr<bool> RootLives() const {
    if (!this_boot_) return false;
    return proc_.IsAlive({operation_.pid(), operation_.start_ticks()});
  }

  // The record stays in a pool that cannot be changed, and is in nobody's way.
  absl::Status Keep() {
    stays_ = true;
    return absl::OkStatus();
  }

  absl::Status Remove() {
    if (!catalog_->CheckWritable().ok()) return Keep();
    StagedSnapshot nothing;
    nothing.uid = uid_;
    return catalog_->Discard(std::move(nothing));
  }

  const ProcFs& proc_;
  Engine* const engine_;
  Catalog* const catalog_;
  const std::string uid_;
  internal::Operation operation_;
  bool this_boot_ = false;
  bool stays_ = false;
};

// Also if that cannot be told.
bool OfThisBoot(const ProcFs& proc, const Catalog& catalog,
                const std::string& uid) {
  auto operation = catalog.records().Read(uid);
  if (absl::IsNotFound(operation.status()) ||
      absl::IsDataLoss(operation.status())) {
    return false;
  }
  auto boot_id = proc.BootId();
  return !operation.ok() || !boot_id.ok() || operation->boot_id() == *boot_id;
}

}  // namespace

absl::Status RecoverOne(const ProcFs& proc, Engine* engine, Catalog* catalog,
                        const std::string& uid) {
  Recovery recovery(proc, engine, catalog, uid);
  absl::Status status = recovery.Run();
  if (!status.ok()) {
    LogError(absl::StrCat("staging/", uid, ": ", status.message()));
    catalog->AddUnfinished(uid, recovery.name());
    return status;
  }
  if (!recovery.stays()) LogInfo(absl::StrCat("staging/", uid, ": cleaned up"));
  return status;
}

absl::Status Recover(const ProcFs& proc, Engine* engine, Pool* pool,
                     Catalog* catalog) {
  auto left = catalog->records().List();
  if (!left.ok()) return left.status();
  if (left->empty()) return absl::OkStatus();
  const absl::Status writable = pool->CheckWritable();
  absl::Status first;
  for (const std::string& uid : *left) {
    // What is of an earlier boot has no tasks any more, and can stay.
    if (!writable.ok() && !OfThisBoot(proc, *catalog, uid)) continue;
    first.Update(RecoverOne(proc, engine, catalog, uid));
  }
  first.Update(writable.ok() ? pool->Commit() : writable);
  return first;
}

}  // namespace daxsnap
