// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_CHECKPOINT_H_
#define DAXSNAP_SNAPD_OPS_CHECKPOINT_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "daxsnap/v1/manifest.pb.h"
#include "daxsnap/v1/snapshot.pb.h"
#include "host/task/file_sync.h"
#include "host/task/proc.h"
#include "host/task/tmpfiles.h"
#include "host/task/tree_files.h"
#include "host/task/written_files.h"
#include "snapd/engine/engine.h"
#include "snapd/ops/recorded_operation.h"
#include "snapd/store/catalog.h"

namespace daxsnap {

// One CreateSnapshot: checks, dump, publication, end of the tasks. Used once,
// by one thread.
//
// The order that nothing may change: the images are complete, the files of the
// tasks are synced, the manifest is written, the snapshot is published and
// durable, and only then the tasks are killed. Until that moment every failure,
// cancellation included, takes the snapshot back and lets the tasks run on.
class Checkpoint : private RecordedOperation {
 public:
  // `criu_version` is called with the tasks frozen: it does not block.
  Checkpoint(const OperationParts& parts, const Caller& caller,
             const v1::CreateSnapshotRequest& request,
             const ProgressSink& progress, Cancellation* cancellation,
             std::function<std::string()> criu_version,
             PagesSink pages = nullptr);

  absl::StatusOr<v1::CreateSnapshotResult> Run();

 private:
  absl::Status CheckRequest();
  // The snapshot that an earlier, identical call has made, if there is one.
  absl::StatusOr<std::optional<v1::CreateSnapshotResult>> FindExisting();
  absl::Status CheckTasks();
  // The same tree and access as before, looked at while it stands still.
  absl::Status CheckFrozenTasks();
  // Looks at the files that the tasks use now, and finds what does not come
  // back; an error if that is a reason not to go on. What to sync before the
  // kill.
  absl::StatusOr<std::vector<SyncTarget>> CheckFiles();
  // SYNC_FAILED or SYNC_TIMEOUT if another sync has lost what the tasks wrote,
  // or may have; syncs under way are waited for until `deadline`. With force
  // they are lost_writes_.
  absl::Status CheckLost(const std::vector<SyncTarget>& targets,
                         absl::Time deadline);
  // Makes durable what the tasks wrote; adds the time it took to `time_us`.
  absl::Status Sync(const std::vector<SyncTarget>& targets, uint64_t* time_us);
  // What each sync, and the commit, may take.
  absl::Duration SyncTimeout() const;
  absl::StatusOr<v1::CreateSnapshotResult> Take(StagedSnapshot staged);
  absl::Status OnImagesComplete(StagedSnapshot* staged);
  // Says how far the dump is.
  void TellPages(const StagedSnapshot& staged) const;
  // Says that the pool is full if that is why CRIU failed.
  absl::Status ExplainFailure(const absl::Status& failure) const;
  void RecordStatistics(const StagedSnapshot& staged,
                        const DumpOutcome& outcome);
  v1::CreateSnapshotResult Complete(StagedSnapshot staged);
  absl::Status MakeManifestOf(StagedSnapshot* staged);
  absl::Status Publish(StagedSnapshot* staged);
  // Takes hold of the tasks that are to be killed. TASK_MISSING if one has
  // ended.
  absl::Status OpenTasks();
  // Likewise if one has ended since. Puts them on record.
  absl::Status CheckTasksLive();
  // The engine has failed after it was told to kill the tasks. Whether any has
  // been killed.
  bool AnyKilled() const;
  // Ends those that are left of them: the snapshot stays.
  absl::StatusOr<v1::CreateSnapshotResult> FinishKill(StagedSnapshot staged,
                                                      absl::Status cause);
  // Undoes everything.
  absl::Status Abandon(StagedSnapshot staged, absl::Status cause);
  void AwaitEndOfTasks() const;

  const v1::CreateSnapshotRequest request_;
  const v1::CheckpointOptions options_;
  const std::function<std::string()> criu_version_;
  const PagesSink pages_;

  std::vector<TaskInfo> tree_;
  // About; as of the beginning.
  uint64_t resident_pages_ = 0;
  // Whose the snapshot will be, as of the freeze.
  uid_t owner_ = 0;
  // Those that are to be killed, in the order of the tree; zombies are not.
  struct Victim {
    TaskId id;
    UniqueFd pidfd;
  };
  std::vector<Victim> victims_;
  // The engine was told to kill them.
  bool kill_agreed_ = false;
  // As of the freeze.
  std::map<std::string, WrittenFile> written_files_;
  absl::Time create_time_;
  TmpfilesRules tmpfiles_;
  std::vector<v1::Finding> findings_;
  // As of the last sync.
  std::vector<v1::Finding> lost_writes_;
  // What is to be synced once the tasks run again.
  std::vector<SyncTarget> sync_targets_;
  v1::Manifest manifest_;
  uint64_t sync_us_ = 0;
  uint64_t sync_frozen_us_ = 0;
  uint64_t commit_us_ = 0;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_CHECKPOINT_H_
