// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "snapd/engine/stock_losses.h"
#include "snapd/ops/manifest.h"
#include "snapd/ops/page_progress.h"
#include "snapd/ops/preflight.h"
#include "snapd/ops/request_options.h"
#include "snapd/store/names.h"

namespace daxsnap {
namespace {

// How long killed tasks get to end. A large one takes a while to free its
// memory; one that hangs in the kernel may never end.
constexpr absl::Duration kEndTimeout = absl::Seconds(30);

// A pool with less free space than this counts as full when CRIU fails: the
// kernel keeps some pages for itself.
constexpr uint64_t kFullBelowBytes = uint64_t{16} << 20;

// How long, and how often, it is tried to see whether a task was killed.
constexpr absl::Duration kLookTimeout = absl::Seconds(5);
constexpr absl::Duration kLookEvery = absl::Milliseconds(50);

constexpr absl::Duration kSyncTimeout = absl::Seconds(60);

// File systems that a snapshot names of those that may have lost something.
constexpr size_t kMaxLostWrites = 20;

absl::StatusOr<bool> SameRequest(const v1::Snapshot& snapshot,
                                 const v1::CreateSnapshotRequest& request,
                                 bool leave_running, const ProcFs& proc) {
  auto boot_id = proc.BootId();
  if (!boot_id.ok()) return boot_id.status();
  const v1::Task& root = snapshot.root_task();
  const std::string& boot =
      request.boot_id().empty() ? *boot_id : request.boot_id();
  if (root.pid() != request.pid() || root.boot_id() != boot ||
      snapshot.left_running() != leave_running) {
    return false;
  }
  if (request.start_ticks() != 0) {
    return root.start_ticks() == request.start_ticks();
  }
  auto task = proc.ReadTask(request.pid());
  if (absl::IsNotFound(task.status())) return true;
  if (!task.ok()) return task.status();
  return task->id.start_ticks == root.start_ticks();
}

}  // namespace

Checkpoint::Checkpoint(const OperationParts& parts, const Caller& caller,
                       const v1::CreateSnapshotRequest& request,
                       const ProgressSink& progress, Cancellation* cancellation,
                       std::function<std::string()> criu_version,
                       PagesSink pages)
    : RecordedOperation(parts, caller, progress, cancellation),
      request_(request),
      options_(OptionsOf(request)),
      criu_version_(std::move(criu_version)),
      pages_(std::move(pages)) {}

absl::Status Checkpoint::CheckRequest() {
  if (absl::Status known = CheckKnown(request_); !known.ok()) return known;
  if (request_.pid() <= 0) {
    return MakeError(
        {.code = absl::StatusCode::kInvalidArgument,
         .reason = reason::kTaskMissing,
         .message = absl::StrCat("pid ", request_.pid(), " is not positive"),
         .hint = "pass the PID of a process",
         .metadata = {{"pid", absl::StrCat(request_.pid())}}});
  }
  if (!request_.name().empty()) {
    absl::Status status = ValidateSnapshotName(request_.name());
    if (!status.ok()) return status;
  }
  return ValidateLabels({request_.labels().begin(), request_.labels().end()});
}

absl::StatusOr<std::optional<v1::CreateSnapshotResult>>
Checkpoint::FindExisting() {
  auto has = parts_.catalog->Has(name_);
  if (!has.ok()) return has.status();
  if (!*has) return std::nullopt;
  auto manifest = parts_.catalog->Read(name_);
  if (ErrorReasonOf(manifest.status()) == reason::kSnapshotUnreadable) {
    return manifest.status();
  }
  // What does not parse, or is newer, is none of this call's.
  absl::StatusOr<bool> same = false;
  if (manifest.ok()) {
    same = SameRequest(manifest->snapshot(), request_, options_.leave_running(),
                       *parts_.proc);
  }
  if (!same.ok()) return same.status();
  if (!*same) {
    return MakeError(
        {.code = absl::StatusCode::kAlreadyExists,
         .reason = reason::kNameTaken,
         .message = absl::StrCat("a snapshot called ", name_, " exists"),
         .hint = "pick another name",
         .metadata = {{"name", name_}}});
  }
  absl::Status allowed =
      CheckSnapshotAccess(caller_, manifest->snapshot().owner_uid(), name_);
  if (!allowed.ok()) return allowed;
  v1::CreateSnapshotResult result;
  *result.mutable_snapshot() = std::move(*manifest->mutable_snapshot());
  result.set_already_existed(true);
  return result;
}

absl::Status Checkpoint::CheckTasks() {
  auto root = parts_.proc->ReadTask(request_.pid());
  if (absl::IsNotFound(root.status())) return TaskMissing(request_.pid());
  if (!root.ok()) return root.status();
  auto boot_id = parts_.proc->BootId();
  if (!boot_id.ok()) return boot_id.status();
  // The PID may be another task's by now.
  if ((!request_.boot_id().empty() && request_.boot_id() != *boot_id) ||
      (request_.start_ticks() != 0 &&
       request_.start_ticks() != root->id.start_ticks)) {
    return TaskMissing(request_.pid());
  }
  if (absl::Status status = CheckTaskAccess(caller_, {*root}, *parts_.proc);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckTaskKind(*root); !status.ok()) return status;
  auto tree = parts_.proc->ReadTree(request_.pid());
  if (absl::IsNotFound(tree.status())) return TaskMissing(request_.pid());
  if (!tree.ok()) return tree.status();
  if (tree->front().id != root->id) return TaskMissing(request_.pid());
  tree_ = *std::move(tree);
  if (absl::Status status = CheckTaskAccess(caller_, tree_, *parts_.proc);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckWithoutSelf(tree_, getpid()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckSession(*root); !status.ok()) return status;
  if (absl::Status status = CheckPolicies(*parts_.proc, tree_); !status.ok()) {
    return status;
  }
  return CheckDescriptors(*parts_.proc, tree_);
}

absl::StatusOr<v1::CreateSnapshotResult> Checkpoint::Run() {
  progress_(v1::PROGRESS_PHASE_CHECKING);
  if (absl::Status status = CheckRequest(); !status.ok()) return status;
  std::string name = request_.name();
  if (name.empty()) {
    auto root = parts_.proc->ReadTask(request_.pid());
    if (absl::IsNotFound(root.status())) return TaskMissing(request_.pid());
    if (!root.ok()) return root.status();
    name = GenerateSnapshotName(root->comm, request_.pid(), absl::Now());
  }
  if (absl::Status claimed = ClaimName(name); !claimed.ok()) return claimed;
  auto existing = FindExisting();
  if (!existing.ok()) return existing.status();
  if (existing->has_value()) return **std::move(existing);

  if (absl::Status status = CheckTasks(); !status.ok()) return status;
  std::vector<pid_t> pids;
  for (const TaskInfo& task : tree_) pids.push_back(task.id.pid);
  if (absl::Status status = ClaimPids(pids); !status.ok()) return status;

  auto rules = TmpfilesRules::Read();
  if (!rules.ok()) return rules.status();
  tmpfiles_ = *std::move(rules);
  auto targets = CheckFiles();
  if (!targets.ok()) return targets.status();
  absl::Status lost = CheckLost(*targets, absl::InfinitePast());
  if (!lost.ok()) return lost;
  // What is on its way to the disks already is not waited for while the tasks
  // stand still.
  absl::Status synced = Sync(*targets, &sync_us_);
  if (!synced.ok()) return synced;
  targets->clear();

  absl::Status begun =
      BeginRecord(internal::OPERATION_KIND_CHECKPOINT, tree_.front().id);
  if (!begun.ok()) return begun;
  record_.set_kill(internal::KILL_STATE_NOT_AGREED);
  auto staged = parts_.catalog->Begin(record_);
  if (!staged.ok()) return staged.status();
  return Take(*std::move(staged));
}

absl::StatusOr<std::vector<SyncTarget>> Checkpoint::CheckFiles() {
  auto files = ReadUsedFiles(*parts_.proc, tree_);
  if (!files.ok()) return files.status();
  auto findings = parts_.host->find(
      *parts_.proc, tree_, *files,
      {.tmpfiles = &tmpfiles_, .leave_running = options_.leave_running()});
  if (!findings.ok()) return findings.status();
  findings_ = *std::move(findings);
  // A running task loses nothing, and who forces it knows better.
  if (!options_.leave_running() && !options_.force()) {
    absl::Status refused = RefuseLosses(findings_);
    if (!refused.ok()) return refused;
  }
  return CollectSyncTargets(*parts_.proc, *files);
}

absl::Status Checkpoint::CheckLost(const std::vector<SyncTarget>& targets,
                                   absl::Time deadline) {
  auto suspicions =
      parts_.sync_failures->Check(tree_, targets, deadline, *cancellation_);
  if (!suspicions.ok()) return suspicions.status();
  if (suspicions->empty()) return absl::OkStatus();
  if (!options_.force()) return RefuseSuspicion(suspicions->front());
  for (const auto& suspicion : *suspicions) {
    lost_writes_.push_back(FindingOf(suspicion));
    if (lost_writes_.size() == kMaxLostWrites) break;
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Sync(const std::vector<SyncTarget>& targets,
                              uint64_t* time_us) {
  progress_(v1::PROGRESS_PHASE_SYNCING);
  const absl::Time start = absl::Now();
  const absl::Duration timeout = SyncTimeout();
  auto sync = parts_.sync_failures->Begin(tree_, targets);
  if (!sync.ok()) return sync.status();
  SyncOutcome synced =
      parts_.host->sync(targets, timeout, *cancellation_, sync->record());
  sync->Ended(synced.lost);
  absl::Status status = std::move(synced.status);
  // Another one may be told of the loss, and this one no more.
  lost_writes_.clear();
  if (status.ok()) status = CheckLost(targets, start + timeout);
  *time_us += MicrosecondsSince(start);
  return status;
}

absl::Duration Checkpoint::SyncTimeout() const {
  const uint32_t seconds = options_.sync_timeout_seconds();
  return seconds == 0 ? kSyncTimeout : absl::Seconds(seconds);
}

absl::StatusOr<v1::CreateSnapshotResult> Checkpoint::Take(
    StagedSnapshot staged) {
  const TaskId task = tree_.front().id;
  DumpCallbacks callbacks;
  callbacks.started = [this](const TaskId& worker) {
    SetWorker(worker);
    return WriteRecord();
  };
  callbacks.images_complete = [&] { return OnImagesComplete(&staged); };
  if (pages_) {
    resident_pages_ = PagesToDump(*parts_.proc, tree_);
    callbacks.working = [&] { TellPages(staged); };
  }

  if (cancellation_->cancelled()) {
    return Abandon(std::move(staged), CancelledError());
  }
  auto pool = parts_.pool->Info();
  if (!pool.ok()) return Abandon(std::move(staged), pool.status());
  std::optional<int> node;
  if (pool->node() >= 0) node = pool->node();
  progress_(v1::PROGRESS_PHASE_DUMPING);
  // CRIU freezes the tasks first of all.
  create_time_ = absl::Now();
  auto outcome = parts_.engine->Dump({.task = task,
                                      .name = name_,
                                      .options = options_,
                                      .memory_node = node,
                                      .images = staged.images.get(),
                                      .work = staged.directory.get()},
                                     callbacks, cancellation_);
  if (!outcome.ok()) {
    absl::Status failure = ExplainFailure(outcome.status());
    if (kill_agreed_ && AnyKilled()) {
      return FinishKill(std::move(staged), std::move(failure));
    }
    return Abandon(std::move(staged), std::move(failure));
  }
  // Nothing fails any more; a snapd can be killed here.
  (void)FaultPoint("checkpoint: dumped");
  if (options_.leave_running()) {
    absl::Status status = Sync(sync_targets_, &sync_us_);
    sync_targets_.clear();
    if (status.ok()) status = MakeManifestOf(&staged);
    if (status.ok()) {
      RecordStatistics(staged, *outcome);
      status = Publish(&staged);
    }
    if (!status.ok()) return Abandon(std::move(staged), std::move(status));
  } else {
    AwaitEndOfTasks();
  }
  RecordStatistics(staged, *outcome);
  return Complete(std::move(staged));
}

void Checkpoint::TellPages(const StagedSnapshot& staged) const {
  const uint64_t done = PagesDumped(staged.images.get());
  pages_(v1::PROGRESS_PHASE_DUMPING, done, std::max(done, resident_pages_));
}

absl::Status Checkpoint::ExplainFailure(const absl::Status& failure) const {
  if (ErrorReasonOf(failure) != reason::kCriuFailed) return failure;
  auto pool = parts_.pool->Info();
  if (!pool.ok() || pool->free_pages() * pool->page_size() >= kFullBelowBytes) {
    return failure;
  }
  // CRIU's log is in the pool too, so it may not have been able to say so.
  std::map<std::string, std::string> metadata = ErrorMetadataOf(failure);
  metadata["free_bytes"] = absl::StrCat(pool->free_pages() * pool->page_size());
  return MakeError(
      {.code = absl::StatusCode::kResourceExhausted,
       .reason = reason::kNoSpace,
       .message = absl::StrCat("the pool is full: ", failure.message()),
       .hint = std::string(kMakeRoomHint),
       .metadata = std::move(metadata)});
}

void Checkpoint::RecordStatistics(const StagedSnapshot& staged,
                                  const DumpOutcome& outcome) {
  // Without leave_running the time frozen contains sync and commit, which have
  // times of their own.
  AddStatistics(staged.directory.get(),
                options_.leave_running() ? 0 : outcome.callback_us, &manifest_);
  v1::Snapshot* snapshot = manifest_.mutable_snapshot();
  snapshot->mutable_times()->set_dump_us(outcome.dump_us);
  snapshot->mutable_times()->set_commit_us(commit_us_);
  snapshot->mutable_times()->set_sync_us(sync_us_);
  snapshot->mutable_times()->set_sync_frozen_us(sync_frozen_us_);
  if (auto info = parts_.pool->Info(); info.ok()) {
    snapshot->set_pool_generation(info->generation());
  }
}

v1::CreateSnapshotResult Checkpoint::Complete(StagedSnapshot staged) {
  // Times and counts are known only now; the snapshot is durable without them.
  absl::Status finished =
      parts_.catalog->WriteManifest(staged.directory.get(), manifest_);
  finished.Update(parts_.catalog->Finish(std::move(staged)));
  if (!finished.ok()) {
    LogWarning(absl::StrCat("snapshot ", name_,
                            " lacks statistics: ", finished.message()));
  }
  Audit("checkpoint", "took", request_.pid());
  v1::CreateSnapshotResult result;
  *result.mutable_snapshot() = manifest_.snapshot();
  return result;
}

absl::Status Checkpoint::CheckFrozenTasks() {
  auto tree = parts_.proc->ReadTree(request_.pid());
  if (absl::IsNotFound(tree.status()) ||
      (tree.ok() && tree->front().id != tree_.front().id)) {
    return TaskMissing(request_.pid());
  }
  if (!tree.ok()) return tree.status();
  tree_ = *std::move(tree);
  if (caller_.is_root()) {
    auto owner = OwnerOf(tree_, *parts_.proc);
    if (owner.ok()) owner_ = *owner;
    return owner.status();
  }
  if (absl::Status status = CheckTaskAccess(caller_, tree_, *parts_.proc);
      !status.ok()) {
    return status;
  }
  owner_ = caller_.uid;
  // Whose memory the images hold: a killed one could have given its PID to
  // another, which was asked about in its place.
  for (const TaskInfo& task : tree_) {
    auto now = parts_.proc->ReadTask(task.id.pid);
    if (absl::IsNotFound(now.status()) || (now.ok() && now->id != task.id)) {
      return TaskMissing(task.id.pid);
    }
    if (!now.ok()) return now.status();
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::OnImagesComplete(StagedSnapshot* staged) {
  if (absl::Status at = FaultPoint("checkpoint: frozen"); !at.ok()) return at;
  if (absl::Status status = CheckFrozenTasks(); !status.ok()) return status;
  // They may have opened other files since they were looked at.
  auto targets = CheckFiles();
  if (!targets.ok()) return targets.status();
  // What has been stored before changes no time any more after this. If it ends
  // here, nothing is stored.
  absl::Status clean = options_.leave_running()
                           ? WriteBackMappings(*parts_.proc, tree_)
                           : Sync(*targets, &sync_frozen_us_);
  if (!clean.ok()) return clean;
  auto written = ReadWrittenFiles(*parts_.proc, tree_);
  if (!written.ok()) return written.status();
  written_files_ = *std::move(written);
  if (options_.leave_running()) {
    // Resume at once; sync and commit follow.
    sync_targets_ = *std::move(targets);
    return absl::OkStatus();
  }
  targets->clear();
  absl::Status status = OpenTasks();
  if (status.ok()) status = MakeManifestOf(staged);
  if (status.ok()) status = Publish(staged);
  if (status.ok()) status = FaultPoint("checkpoint: published");
  // What somebody else has ended is not to come back as if this call had.
  if (status.ok()) status = CheckTasksLive();
  if (!status.ok()) return status;
  record_.set_kill(internal::KILL_STATE_AGREED);
  status = parts_.catalog->RecordInTime(staged, record_, SyncTimeout(),
                                        *cancellation_);
  if (status.ok()) status = FaultPoint("checkpoint: killing");
  if (!status.ok()) return status;
  progress_(v1::PROGRESS_PHASE_KILLING);
  kill_agreed_ = true;
  return status;
}

absl::Status Checkpoint::OpenTasks() {
  for (const TaskInfo& task : tree_) {
    if (task.ended()) continue;
    auto pidfd = OpenPidfd(*parts_.proc, task.id);
    if (absl::IsNotFound(pidfd.status())) return TaskMissing(task.id.pid);
    if (!pidfd.ok()) return pidfd.status();
    victims_.push_back({task.id, *std::move(pidfd)});
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckTasksLive() {
  record_.clear_victims();
  for (const Victim& victim : victims_) {
    auto task = parts_.proc->ReadTask(victim.id.pid);
    if (absl::IsNotFound(task.status()) ||
        (task.ok() && (task->id != victim.id || !task->lives_on()))) {
      return TaskMissing(victim.id.pid);
    }
    if (!task.ok()) return task.status();
    internal::Victim* record = record_.add_victims();
    record->set_pid(task->id.pid);
    record->set_start_ticks(task->id.start_ticks);
    record->set_cpu_ticks(task->cpu_ticks);
  }
  return absl::OkStatus();
}

bool Checkpoint::AnyKilled() const {
  const absl::Time deadline = absl::Now() + kLookTimeout;
  return std::any_of(
      victims_.begin(), victims_.end(), [&](const Victim& victim) {
        absl::StatusOr<bool> alive = true;
        do {
          // It needs neither memory nor descriptors; /proc tells of those too
          // that have yet to end.
          if (AwaitTask(victim.pidfd, absl::InfinitePast())) return true;
          alive = parts_.proc->IsAlive(victim.id);
          if (alive.ok()) return !*alive;
        } while (!AwaitTask(victim.pidfd, absl::Now() + kLookEvery) &&
                 absl::Now() < deadline);
        // Also if that cannot be told: the snapshot may be all that is left.
        return true;
      });
}

absl::Status Checkpoint::MakeManifestOf(StagedSnapshot* staged) {
  auto images = ReadImageSet(staged->images.get());
  if (!images.ok()) return images.status();
  ManifestInput input;
  input.name = name_;
  input.uid = staged->uid;
  input.boot_id = record_.boot_id();
  input.criu_version = criu_version_();
  input.create_time = create_time_;
  input.left_running = options_.leave_running();
  input.pool_is_kmemfs = parts_.pool->is_kmemfs();
  auto pool = parts_.pool->Info();
  if (!pool.ok()) return pool.status();
  input.pool_uuid = pool->uuid();
  input.memory_node = pool->node();
  input.root = tree_.front();
  input.owner = owner_;
  for (const TaskInfo& task : tree_) input.tasks[task.id.pid] = task;
  input.labels.insert(request_.labels().begin(), request_.labels().end());
  input.written_files = written_files_;
  auto sizes = ListImages(staged->images.get());
  if (!sizes.ok()) return sizes.status();
  staged->image_bytes = 0;
  for (const auto& [image, bytes] : *sizes) staged->image_bytes += bytes;
  input.image_sizes = *std::move(sizes);
  auto manifest = MakeManifest(input, *images);
  if (!manifest.ok()) return manifest.status();
  manifest_ = *std::move(manifest);
  v1::Snapshot* snapshot = manifest_.mutable_snapshot();
  snapshot->mutable_findings()->Assign(lost_writes_.begin(),
                                       lost_writes_.end());
  snapshot->mutable_findings()->Add(findings_.begin(), findings_.end());
  auto losses = ReadStockLosses(staged->images.get(), *images);
  if (!losses.ok()) return losses.status();
  snapshot->mutable_stock_criu_losses()->Assign(losses->begin(), losses->end());
  snapshot->set_forced(options_.force() && !options_.leave_running() &&
                       (HasLoss(findings_) || HasLoss(lost_writes_)));
  return absl::OkStatus();
}

absl::Status Checkpoint::Publish(StagedSnapshot* staged) {
  if (cancellation_->cancelled()) return CancelledError();
  progress_(v1::PROGRESS_PHASE_COMMITTING);
  const absl::Time start = absl::Now();
  // The tasks stand still, and are not to wait for a device for ever.
  absl::Status published = parts_.catalog->PublishInTime(
      staged, manifest_, SyncTimeout(), *cancellation_);
  commit_us_ = MicrosecondsSince(start);
  if (!published.ok()) return published;
  // The last moment at which it can still be taken back.
  return cancellation_->cancelled() ? CancelledError() : absl::OkStatus();
}

absl::StatusOr<v1::CreateSnapshotResult> Checkpoint::FinishKill(
    StagedSnapshot staged, absl::Status cause) {
  const auto ended = [this](const Victim& victim) {
    auto alive = parts_.proc->IsAlive(victim.id);
    return alive.ok() && !*alive;
  };
  const bool all = std::all_of(victims_.begin(), victims_.end(), ended);
  for (const Victim& victim : victims_) KillTask(victim.pidfd);
  AwaitEndOfTasks();
  v1::CreateSnapshotResult result = Complete(std::move(staged));
  if (all) {
    LogWarning(absl::StrCat("snapshot ", name_, " is whole, and its tasks are ",
                            "killed, although: ", cause.message()));
    return result;
  }
  // They may have run for a moment, and written to files.
  return MakeError(
      {.code = cause.code(),
       .reason = ErrorReasonOf(cause),
       .message = absl::StrCat(
           "snapshot ", name_,
           " stays, as some of its tasks had been killed when this happened, "
           "and the others were ended then: ",
           cause.message()),
       .hint = "restore it",
       .metadata = ErrorMetadataOf(cause)});
}

absl::Status Checkpoint::Abandon(StagedSnapshot staged, absl::Status cause) {
  const std::string uid = staged.uid;
  if (absl::Status gone = parts_.catalog->Discard(std::move(staged));
      !gone.ok()) {
    LogError(absl::StrCat("staging/", uid, " stays for now: ", gone.message()));
  }
  return cause;
}

void Checkpoint::AwaitEndOfTasks() const {
  const absl::Time deadline = absl::Now() + kEndTimeout;
  for (const Victim& victim : victims_) {
    if (AwaitTask(victim.pidfd, deadline)) continue;
    LogWarning(absl::StrCat("killed tasks of snapshot ", name_,
                            " have not ended yet"));
    return;
  }
}

}  // namespace daxsnap
