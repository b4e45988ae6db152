// SPDX-License-Identifier: Apache-2.0
//
// The snapshots in a pool. The directories are the only state: what is below
// snapshots/ exists, what is below staging/ never happened.
//
// Publish: rename from staging into snapshots, then commit.
// Withdraw, delete: rename back into staging, commit, remove, commit.
#ifndef DAXSNAP_SNAPD_STORE_CATALOG_H_
#define DAXSNAP_SNAPD_STORE_CATALOG_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "snapd/store/index.h"
#include "snapd/store/pool.h"
#include "snapd/store/records.h"

namespace daxsnap {

namespace v1 {
class Manifest;
class Snapshot;
}  // namespace v1

// SNAPSHOT_UNREADABLE: nothing but that it, or the file `path` of it, could not
// be read just now.
absl::Status SnapshotUnreadable(const std::string& name,
                                const std::string& path,
                                const absl::Status& cause);

// A snapshot that is being made. Owned by one operation; not thread-safe.
struct StagedSnapshot {
  std::string uid;
  std::string name;
  // staging/UID; still the same directory after publication.
  UniqueFd directory;
  // Its images/.
  UniqueFd images;
  bool published = false;
  // Of its images, once they are complete.
  uint64_t image_bytes = 0;
  // Commits that had failed before it was begun.
  uint64_t failed_commits = 0;
};

// Thread-safe, but no two calls may work on one name at the same time: see
// Claims.
class Catalog {
 public:
  // `pool` outlives the catalog. For `settle` and `clock` see Index.
  explicit Catalog(Pool* pool, absl::Duration late_patience = absl::Seconds(10),
                   absl::Duration settle = absl::Seconds(2),
                   Index::Clock clock = Index::Monotonic)
      : pool_(pool),
        late_patience_(late_patience),
        records_(pool->staging()),
        index_(pool->snapshots(), settle, std::move(clock)) {}
  // Waits for publications that are under way.
  ~Catalog();

  // Makes an empty staging directory for the operation, with its record in it.
  // `operation` has uid and name.
  absl::StatusOr<StagedSnapshot> Begin(const internal::Operation& operation);

  // Makes the snapshot appear under its name, durably. NAME_TAKEN if there is
  // one by now, COMMIT_FAILED or NO_SPACE if it could not be made durable; it
  // is in staging again then, for Discard. It is hidden from List and Read
  // until Finish.
  absl::Status Publish(StagedSnapshot* staged);

  // Writes the manifest and publishes, on a thread: no call for a pool that
  // does not answer (a slow device, a frozen file system below a COPIED one)
  // returns. UNAVAILABLE, SYNC_TIMEOUT once `timeout` is over, and with a pool
  // in a directory a second for each 16 MiB that it and others write; CANCELLED
  // as soon as `cancellation` fires; then only Discard may be called.
  absl::Status PublishInTime(StagedSnapshot* staged,
                             const v1::Manifest& manifest,
                             absl::Duration timeout,
                             const Cancellation& cancellation);

  // Replaces the record of what is published, likewise.
  absl::Status RecordInTime(StagedSnapshot* staged,
                            const internal::Operation& operation,
                            absl::Duration timeout,
                            const Cancellation& cancellation);

  // Takes back whatever was done, also a publication, and removes all of it,
  // the record last. On error the rest is left to the next start, or, if it has
  // its name yet, to the next call on that: it is unfinished. A publication
  // that is still under way after some seconds takes itself back at its end:
  // UNAVAILABLE.
  absl::Status Discard(StagedSnapshot staged);

  // Ends a publication: shows the snapshot and removes the operation's record.
  absl::Status Finish(StagedSnapshot staged);

  // Writes manifest.pb into a snapshot directory, in one step, over a power cut
  // too: the old one or the new one is there then. Not durable by itself.
  // EFBIG if Read() would not take it.
  absl::Status WriteManifest(int directory, const v1::Manifest& manifest);

  // Reads the manifest of a snapshot. NOT_FOUND SNAPSHOT_MISSING: there is
  // none. DATA_LOSS SNAPSHOT_DAMAGED: it was read, and does not hold.
  // FAILED_PRECONDITION VERSION_UNSUPPORTED: a newer daxsnap made it.
  // UNAVAILABLE SNAPSHOT_UNREADABLE: it could not be read, so that nothing is
  // known of it.
  absl::StatusOr<v1::Manifest> Read(const std::string& name) const;

  // The same, for who only wants to see: what the manifest says of the
  // snapshot, from memory if it was read before. Never null.
  absl::StatusOr<Index::Entry> Describe(const std::string& name) const;

  // Whether a snapshot, intact or not, has that name. SNAPSHOT_UNREADABLE if
  // that cannot be told.
  absl::StatusOr<bool> Has(const std::string& name) const;

  // Opens snapshots/NAME. SNAPSHOT_MISSING, SNAPSHOT_DAMAGED,
  // SNAPSHOT_UNREADABLE.
  absl::StatusOr<UniqueFd> Open(const std::string& name) const;

  // Opens its images/, with those that CRIU begins with in it. Errors likewise.
  absl::StatusOr<UniqueFd> OpenImages(const std::string& name) const;

  // Names after `after`, in bytewise order.
  absl::StatusOr<std::vector<std::string>> List(absl::string_view after) const;

  // Number of snapshots.
  absl::StatusOr<size_t> Count() const;

  // Removes a snapshot, durably. COMMIT_FAILED if that cannot be; then the
  // snapshot is still there.
  absl::Status Delete(const std::string& name);

  // Operations that are neither finished nor undone, most of an earlier snapd,
  // by what they work on; the name is empty if it is not known. A snapshot that
  // one has made cannot be read until it is removed again: it may be taken
  // back.
  void AddUnfinished(const std::string& uid, const std::string& name);
  void RemoveUnfinished(const std::string& uid);
  // Those that work on the name.
  std::vector<std::string> Unfinished(const std::string& name) const;

  // ABORTED, BUSY while a publication of that name, which nobody waits for any
  // more, is not taken back yet.
  absl::Status CheckNotLate(const std::string& name) const;

  // POOL_READ_ONLY if its pool cannot be changed.
  absl::Status CheckWritable() const { return pool_->CheckWritable(); }

  // The records of operations under way.
  const Records& records() const { return records_; }

 private:
  absl::Status Commit();
  // COMMIT_FAILED also if another one has failed since it was begun.
  absl::Status CommitOf(const StagedSnapshot& staged);
  struct Publication;

  void RunPublication(Publication* publication);
  absl::Status DoInTime(StagedSnapshot* staged,
                        std::function<absl::Status(StagedSnapshot*)> work,
                        absl::Duration timeout,
                        const Cancellation& cancellation);
  absl::Status Unpublish(StagedSnapshot* staged);
  // `staged` says whether it is published yet.
  absl::Status TakeBack(StagedSnapshot* staged);
  // Says in the record, if it can, that what was published is not kept, and has
  // killed nothing: it may come no further.
  void MarkWithdrawn(const std::string& uid) const;
  absl::Status RemoveStaged(const std::string& uid);
  bool IsHidden(const std::string& name) const;
  // SNAPSHOT_UNREADABLE if that snapshot is neither finished nor taken back.
  absl::Status CheckFinished(const v1::Snapshot& snapshot) const;
  // Shows it, if it is what the name hides.
  void Unhide(const std::string& name, const std::string& uid);
  // Waits for the one of it that is late, a while, and then leaves it to
  // itself: UNAVAILABLE.
  absl::Status AwaitLate(StagedSnapshot* staged);
  // Joins the threads of late publications that have ended.
  void JoinEnded();
  absl::Status Damaged(const std::string& name, const std::string& path,
                       absl::string_view why) const;

  Pool* const pool_;
  // How long a call that has failed waits for its commit, its tasks running on.
  const absl::Duration late_patience_;
  const Records records_;
  mutable Index index_;
  std::mutex commit_mutex_;  // held while a plain directory is committed
  std::atomic<uint64_t> failed_commits_ = 0;
  // Images of publications under way in a plain directory.
  std::atomic<uint64_t> committing_bytes_ = 0;
  mutable std::mutex mutex_;
  // Guarded by mutex_: published, not finished; UIDs by name.
  std::map<std::string, std::string> hidden_;
  // Guarded by mutex_: under way, though nobody waits for them any more; by
  // UID.
  std::map<std::string, std::shared_ptr<Publication>> late_;
  std::map<std::string, std::string> unfinished_;  // guarded by mutex_: by UID
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_STORE_CATALOG_H_
