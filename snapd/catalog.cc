// SPDX-License-Identifier: Apache-2.0
#include "snapd/catalog.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/errors.h"
#include "snapd/files.h"
#include "snapd/log.h"
#include "snapd/machine.h"
#include "snapd/names.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxManifest = size_t{64} << 20;
constexpr uint32_t kManifestVersion = 1;
constexpr char kManifestFile[] = "manifest.pb";
// staging/UID.operation: a record beside the directory, not in it, as the
// directory becomes the snapshot.
constexpr absl::string_view kOperationSuffix = ".operation";

absl::Status SnapshotMissing(const std::string& name) {
  return MakeError({.code = absl::StatusCode::kNotFound,
                    .reason = reason::kSnapshotMissing,
                    .message = absl::StrCat("no snapshot is called ", name),
                    .hint = "list the snapshots with `snapctl ls`",
                    .metadata = {{"name", name}}});
}

absl::Status SnapshotDamaged(const std::string& name, absl::string_view why) {
  return MakeError(
      {.code = absl::StatusCode::kDataLoss,
       .reason = reason::kSnapshotDamaged,
       .message = absl::StrCat("snapshot ", name, " is damaged: ", why),
       .hint = "delete it and take an older one",
       .metadata = {{"name", name}, {"path", kManifestFile}}});
}

absl::Status NameTaken(const std::string& name) {
  return MakeError(
      {.code = absl::StatusCode::kAlreadyExists,
       .reason = reason::kNameTaken,
       .message = absl::StrCat("a snapshot called ", name, " exists"),
       .hint = "pick another name, or delete that snapshot first",
       .metadata = {{"name", name}}});
}

std::string OperationFile(const std::string& uid) {
  return absl::StrCat(uid, kOperationSuffix);
}

// Removes the directory first: what has no record is removed by the next start,
// whatever it is.
absl::Status RemoveStaged(int staging, const std::string& uid) {
  if (absl::Status removed = RemoveTree(staging, uid); !removed.ok()) {
    return removed;
  }
  return RemoveTree(staging, OperationFile(uid));
}

absl::Status ToCommitFailed(absl::Status status) {
  if (!ErrorReasonOf(status).empty() &&
      ErrorReasonOf(status) != reason::kInternal) {
    return status;
  }
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kCommitFailed,
                    .message = std::string(status.message()),
                    .hint = "check the device and the kernel log"});
}

absl::StatusOr<internal::Operation> ReadOperation(int staging,
                                                  const std::string& uid) {
  auto content = ReadFileAt(staging, OperationFile(uid), kMaxManifest);
  if (!content.ok()) return content.status();
  internal::Operation operation;
  if (!operation.ParseFromString(*content) || operation.uid() != uid) {
    return absl::DataLossError("the record does not parse");
  }
  return operation;
}

}  // namespace

absl::StatusOr<StagedSnapshot> Catalog::Begin(
    const internal::Operation& operation) {
  StagedSnapshot staged;
  staged.uid = operation.uid();
  staged.name = operation.name();
  absl::Status status = [&]() -> absl::Status {
    absl::Status recorded = Record(staged, operation);
    if (!recorded.ok()) return recorded;
    auto directory = EnsureDirectory(pool_->staging(), staged.uid);
    if (!directory.ok()) return directory.status();
    staged.directory = *std::move(directory);
    auto images = EnsureDirectory(staged.directory.get(), "images");
    if (!images.ok()) return images.status();
    staged.images = *std::move(images);
    return absl::OkStatus();
  }();
  if (status.ok()) return staged;
  if (absl::Status removed = RemoveStaged(pool_->staging(), staged.uid);
      !removed.ok()) {
    LogWarning(absl::StrCat("staging/", staged.uid, ": ", removed.message()));
  }
  return status;
}

absl::Status Catalog::Record(const StagedSnapshot& staged,
                             const internal::Operation& operation) {
  return ReplaceFileAt(pool_->staging(), OperationFile(staged.uid),
                       operation.SerializeAsString());
}

absl::Status Catalog::Publish(StagedSnapshot* staged) {
  // A commit of kmemfs takes all or nothing; other file systems may make the
  // rename durable before the data.
  if (!pool_->is_kmemfs()) {
    if (absl::Status status = pool_->Commit(); !status.ok()) return status;
  }
  {
    const std::lock_guard lock(mutex_);
    hidden_.insert(staged->name);
  }
  if (renameat2(pool_->staging(), staged->uid.c_str(), pool_->snapshots(),
                staged->name.c_str(), RENAME_NOREPLACE) != 0) {
    const int error = errno;
    const std::lock_guard lock(mutex_);
    hidden_.erase(staged->name);
    if (error == EEXIST) return NameTaken(staged->name);
    return ErrnoError(error, absl::StrCat("cannot publish ", staged->name));
  }
  staged->published = true;
  absl::Status committed = pool_->Commit();
  if (committed.ok()) return committed;
  if (absl::Status undone = Unpublish(staged); !undone.ok()) {
    LogError(absl::StrCat("snapshot ", staged->name,
                          " could not be taken back: ", undone.message()));
  }
  return ToCommitFailed(std::move(committed));
}

absl::Status Catalog::Unpublish(StagedSnapshot* staged) {
  if (renameat2(pool_->snapshots(), staged->name.c_str(), pool_->staging(),
                staged->uid.c_str(), RENAME_NOREPLACE) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot take back ", staged->name));
  }
  staged->published = false;
  const std::lock_guard lock(mutex_);
  hidden_.erase(staged->name);
  return absl::OkStatus();
}

absl::Status Catalog::Discard(StagedSnapshot staged) {
  const bool was_published = staged.published;
  if (was_published) {
    if (absl::Status undone = Unpublish(&staged); !undone.ok()) return undone;
    if (absl::Status status = pool_->Commit(); !status.ok()) return status;
  }
  if (absl::Status removed = RemoveStaged(pool_->staging(), staged.uid);
      !removed.ok()) {
    return removed;
  }
  return was_published ? pool_->Commit() : absl::OkStatus();
}

absl::Status Catalog::Finish(StagedSnapshot staged) {
  absl::Status status = RemoveStaged(pool_->staging(), staged.uid);
  if (status.ok()) status = pool_->Commit();
  // Also then: it is durable, and may be all that is left of its tasks.
  const std::lock_guard lock(mutex_);
  hidden_.erase(staged.name);
  return status;
}

absl::Status Catalog::WriteManifest(int directory,
                                    const v1::Manifest& manifest) {
  return ReplaceFileAt(directory, kManifestFile, manifest.SerializeAsString());
}

bool Catalog::IsHidden(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return hidden_.contains(name);
}

bool Catalog::Has(const std::string& name) const {
  return !IsHidden(name) && Exists(pool_->snapshots(), name);
}

absl::StatusOr<UniqueFd> Catalog::Open(const std::string& name) const {
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  if (!Has(name)) return SnapshotMissing(name);
  auto directory = OpenDirectory(pool_->snapshots(), name);
  if (absl::IsNotFound(directory.status())) return SnapshotMissing(name);
  return directory;
}

absl::StatusOr<v1::Manifest> Catalog::Read(const std::string& name) const {
  auto directory = Open(name);
  if (!directory.ok()) return directory.status();
  auto content = ReadFileAt(directory->get(), kManifestFile, kMaxManifest);
  if (!content.ok()) return SnapshotDamaged(name, content.status().message());
  v1::Manifest manifest;
  if (!manifest.ParseFromString(*content) || manifest.format_version() == 0 ||
      manifest.snapshot().uid().empty()) {
    return SnapshotDamaged(name, "manifest.pb does not parse");
  }
  if (manifest.format_version() > kManifestVersion) {
    return MakeError(
        {.code = absl::StatusCode::kFailedPrecondition,
         .reason = reason::kVersionUnsupported,
         .message = absl::StrCat("snapshot ", name, " has format ",
                                 manifest.format_version(),
                                 ", this daxsnap knows ", kManifestVersion),
         .hint = "update daxsnap",
         .metadata = {{"name", name},
                      {"version", absl::StrCat(manifest.format_version())}}});
  }
  manifest.mutable_snapshot()->set_name(name);
  return manifest;
}

absl::StatusOr<std::vector<std::string>> Catalog::List(
    absl::string_view after) const {
  auto names = ListDirectory(pool_->snapshots());
  if (!names.ok()) return names.status();
  names->erase(names->begin(),
               std::upper_bound(names->begin(), names->end(), after));
  // Whatever else someone puts there is not ours.
  std::erase_if(*names, [this](const std::string& name) {
    return !ValidateSnapshotName(name).ok() || IsHidden(name);
  });
  return names;
}

absl::StatusOr<size_t> Catalog::Count() const {
  auto names = List("");
  if (!names.ok()) return names.status();
  return names->size();
}

absl::Status Catalog::Delete(const std::string& name) {
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  if (!Has(name)) return SnapshotMissing(name);
  StagedSnapshot staged;
  staged.uid = NewUuid();
  staged.name = name;
  if (absl::Status gone = Unpublish(&staged); !gone.ok()) return gone;
  if (absl::Status committed = pool_->Commit(); !committed.ok()) {
    // Put it back, so that the caller can try again.
    if (renameat2(pool_->staging(), staged.uid.c_str(), pool_->snapshots(),
                  name.c_str(), RENAME_NOREPLACE) != 0) {
      LogError(
          absl::StrCat("snapshot ", name, " stays deleted: errno ", errno));
    }
    return ToCommitFailed(std::move(committed));
  }
  // It is gone for good. What follows gives the space back; a failure here is
  // made good by the next Reconcile.
  absl::Status removed = RemoveTree(pool_->staging(), staged.uid);
  if (removed.ok()) removed = pool_->Commit();
  if (!removed.ok()) {
    LogWarning(absl::StrCat("staging/", staged.uid, ": ", removed.message()));
  }
  return absl::OkStatus();
}

absl::Status Catalog::ReconcileOne(
    const std::string& uid, const ProcFs& proc, const WaitGone& wait_gone,
    const std::function<void(int, v1::Manifest*)>& finish) {
  auto operation = ReadOperation(pool_->staging(), uid);
  if (!operation.ok()) return RemoveStaged(pool_->staging(), uid);
  const bool this_boot = operation->boot_id() == proc.BootId();
  if (this_boot && operation->criu_pid() != 0) {
    const TaskId criu = {operation->criu_pid(), operation->criu_start_ticks()};
    if (proc.IsAlive(criu) && !wait_gone(criu)) {
      return absl::UnavailableError(
          absl::StrCat("CRIU (pid ", criu.pid, ") still works on it"));
    }
  }
  StagedSnapshot staged;
  staged.uid = uid;
  staged.name = operation->name();
  auto manifest = Read(staged.name);
  staged.published =
      manifest.ok() && manifest->snapshot().uid() == operation->uid();
  const TaskId task = {operation->pid(), operation->start_ticks()};
  if (!staged.published || (this_boot && proc.IsAlive(task))) {
    return Discard(std::move(staged));
  }
  auto directory = Open(staged.name);
  if (!directory.ok()) return directory.status();
  finish(directory->get(), &*manifest);
  if (absl::Status written = WriteManifest(directory->get(), *manifest);
      !written.ok()) {
    return written;
  }
  return Finish(std::move(staged));
}

absl::Status Catalog::Reconcile(
    const ProcFs& proc, const WaitGone& wait_gone,
    const std::function<void(int, v1::Manifest*)>& finish) {
  auto left = ListDirectory(pool_->staging());
  if (!left.ok()) return left.status();
  if (left->empty()) return absl::OkStatus();
  std::set<std::string> uids;
  for (const std::string& entry : *left) {
    uids.insert(std::string(absl::StripSuffix(entry, kOperationSuffix)));
  }
  absl::Status first;
  for (const std::string& uid : uids) {
    absl::Status status = ReconcileOne(uid, proc, wait_gone, finish);
    if (status.ok()) {
      LogInfo(absl::StrCat("staging/", uid, ": cleaned up"));
      continue;
    }
    LogError(absl::StrCat("staging/", uid, ": ", status.message()));
    first.Update(status);
  }
  first.Update(pool_->Commit());
  return first;
}

}  // namespace daxsnap
