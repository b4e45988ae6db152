// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/catalog.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/uuid.h"
#include "base/version.h"
#include "daxsnap/v1/manifest.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "snapd/store/names.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxManifest = size_t{64} << 20;
constexpr uint32_t kManifestVersion = 1;
constexpr char kManifestFile[] = "manifest.pb";

absl::Status SnapshotMissing(const std::string& name) {
  return MakeError({.code = absl::StatusCode::kNotFound,
                    .reason = reason::kSnapshotMissing,
                    .message = absl::StrCat("no snapshot is called ", name),
                    .hint = "list the snapshots with `snapctl ls`",
                    .metadata = {{"name", name}}});
}

// The format of a manifest, which is its first field, whatever follows; 0 if
// there is none. What a newer daxsnap has written need not parse otherwise.
uint32_t FormatVersionOf(const std::string& manifest) {
  google::protobuf::io::CodedInputStream in(
      reinterpret_cast<const uint8_t*>(manifest.data()),
      static_cast<int>(manifest.size()));
  constexpr uint32_t kVarintOfFieldOne = 1 << 3;
  uint32_t version = 0;
  if (in.ReadTag() != kVarintOfFieldOne || !in.ReadVarint32(&version)) return 0;
  return version;
}

absl::Status VersionUnsupported(const std::string& name, uint32_t version,
                                const std::string& manifest) {
  v1::Manifest parsed;
  std::string maker = "a newer daxsnap";
  if (parsed.ParseFromString(manifest) &&
      !parsed.snapshot().versions().daxsnap().empty()) {
    maker = absl::StrCat("daxsnap ", parsed.snapshot().versions().daxsnap());
  }
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kVersionUnsupported,
       .message =
           absl::StrCat("snapshot ", name, " has format ", version,
                        ", made by ", maker, "; this daxsnap, ", kVersion,
                        ", knows formats up to ", kManifestVersion),
       .hint = absl::StrCat("use ", maker, " or a later one"),
       .metadata = {{"name", name}, {"version", absl::StrCat(version)}}});
}

absl::Status NameTaken(const std::string& name) {
  return MakeError(
      {.code = absl::StatusCode::kAlreadyExists,
       .reason = reason::kNameTaken,
       .message = absl::StrCat("a snapshot called ", name, " exists"),
       .hint = "pick another name",
       .metadata = {{"name", name}}});
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

}  // namespace

absl::Status SnapshotUnreadable(const std::string& name,
                                const std::string& path,
                                const absl::Status& cause) {
  const std::string error = ErrnoNameOf(cause);
  // Most of what reads files says which.
  const bool said = path.empty() || absl::StrContains(cause.message(), path);
  const std::string where = said ? "" : absl::StrCat(path, ": ");
  std::string hint =
      "the snapshot may be whole: see the log of snapd, and try "
      "again";
  if (IsShortage(cause)) {
    hint = std::string(error == "ENOMEM" ? kFreeMemoryHint : kTryAgainHint);
  } else if (error == "EIO") {
    hint =
        "the snapshot may be whole: check the device and the kernel log, "
        "and try again";
  }
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSnapshotUnreadable,
       .message = absl::StrCat("snapshot ", name,
                               " cannot be read now: ", where, cause.message()),
       .hint = std::move(hint),
       .metadata = {{"name", name}, {"path", path}, {"error", error}}});
}

absl::StatusOr<StagedSnapshot> Catalog::Begin(
    const internal::Operation& operation) {
  StagedSnapshot staged;
  staged.uid = operation.uid();
  staged.name = operation.name();
  staged.failed_commits = failed_commits_;
  absl::Status status = [&]() -> absl::Status {
    absl::Status recorded = records_.Write(operation);
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
  if (absl::Status removed = RemoveStaged(staged.uid); !removed.ok()) {
    LogWarning(absl::StrCat("staging/", staged.uid, ": ", removed.message()));
  }
  return status;
}

// A file system other than kmemfs tells of what it could not write once, of
// nobody's files: what others have written until then may be lost, too.
absl::Status Catalog::Commit() {
  if (pool_->is_kmemfs()) return pool_->Commit();
  const std::lock_guard lock(commit_mutex_);
  absl::Status committed = pool_->Commit();
  if (!committed.ok()) ++failed_commits_;
  return committed;
}

absl::Status Catalog::CommitOf(const StagedSnapshot& staged) {
  absl::Status committed = Commit();
  if (!committed.ok()) return committed;
  if (failed_commits_ == staged.failed_commits) return committed;
  return ToCommitFailed(absl::UnavailableError(
      "a commit failed that began after the images were begun"));
}

// Removes the directory first: what has no record is removed by the next start,
// whatever it is.
absl::Status Catalog::RemoveStaged(const std::string& uid) {
  absl::Status removed = RemoveTree(pool_->staging(), uid);
  return removed.ok() ? records_.Remove(uid) : removed;
}

absl::Status Catalog::Publish(StagedSnapshot* staged) {
  // A commit of kmemfs takes all or nothing; other file systems may make the
  // rename durable before the data.
  if (!pool_->is_kmemfs()) {
    absl::Status status = CommitOf(*staged);
    if (!status.ok()) return status;
  }
  {
    const std::lock_guard lock(mutex_);
    // Another one that is not finished has the name.
    if (!hidden_.try_emplace(staged->name, staged->uid).second) {
      return NameTaken(staged->name);
    }
  }
  if (!RenameNoReplace(pool_->staging(), staged->uid, pool_->snapshots(),
                       staged->name)) {
    const int error = errno;
    Unhide(staged->name, staged->uid);
    if (error == EEXIST) return NameTaken(staged->name);
    return ErrnoError(error, absl::StrCat("cannot publish ", staged->name));
  }
  staged->published = true;
  absl::Status committed = CommitOf(*staged);
  if (committed.ok()) return committed;
  if (absl::Status undone = Unpublish(staged); !undone.ok()) {
    LogError(absl::StrCat("snapshot ", staged->name,
                          " could not be taken back: ", undone.message()));
  }
  return ToCommitFailed(std::move(committed));
}

absl::Status Catalog::Unpublish(StagedSnapshot* staged) {
  if (!RenameNoReplace(pool_->snapshots(), staged->name, pool_->staging(),
                       staged->uid)) {
    return ErrnoError(errno, absl::StrCat("cannot take back ", staged->name));
  }
  staged->published = false;
  index_.Drop(staged->name);
  Unhide(staged->name, staged->uid);
  return absl::OkStatus();
}

void Catalog::MarkWithdrawn(const std::string& uid) const {
  auto operation = records_.Read(uid);
  if (absl::IsNotFound(operation.status())) return;
  absl::Status marked = operation.status();
  if (marked.ok()) {
    if (operation->withdrawn()) return;
    operation->set_kill(internal::KILL_STATE_NOT_AGREED);
    operation->set_withdrawn(true);
    marked = records_.Write(*operation);
  }
  if (marked.ok()) return;
  LogWarning(absl::StrCat("staging/", uid, ": ", marked.message()));
}

absl::Status Catalog::Discard(StagedSnapshot staged) {
  absl::Status gone = TakeBack(&staged);
  // It has the name yet.
  if (!gone.ok() && staged.published) {
    AddUnfinished(staged.uid, staged.name);
    Unhide(staged.name, staged.uid);
  }
  return gone;
}

absl::Status Catalog::TakeBack(StagedSnapshot* staged) {
  if (absl::Status late = AwaitLate(staged); !late.ok()) return late;
  const bool was_published = staged->published;
  if (was_published) {
    MarkWithdrawn(staged->uid);
    if (absl::Status undone = Unpublish(staged); !undone.ok()) return undone;
    if (absl::Status status = Commit(); !status.ok()) return status;
  }
  if (absl::Status removed = RemoveStaged(staged->uid); !removed.ok()) {
    return removed;
  }
  return was_published ? Commit() : absl::OkStatus();
}

absl::Status Catalog::Finish(StagedSnapshot staged) {
  absl::Status status = RemoveStaged(staged.uid);
  if (status.ok()) status = Commit();
  // Also then: it is durable, and may be all that is left of its tasks.
  Unhide(staged.name, staged.uid);
  return status;
}

absl::Status Catalog::WriteManifest(int directory,
                                    const v1::Manifest& manifest) {
  const std::string bytes = manifest.SerializeAsString();
  if (bytes.size() > kMaxManifest) {
    return ErrnoError(EFBIG, absl::StrCat("a manifest of ", bytes.size(),
                                          " bytes could not be read again"));
  }
  // A commit of kmemfs takes all or nothing. Other file systems may make the
  // name durable before the content.
  return pool_->is_kmemfs()
             ? ReplaceFileAt(directory, kManifestFile, bytes)
             : ReplaceFileDurablyAt(directory, kManifestFile, bytes);
}

bool Catalog::IsHidden(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return hidden_.contains(name);
}

void Catalog::Unhide(const std::string& name, const std::string& uid) {
  const std::lock_guard lock(mutex_);
  const auto found = hidden_.find(name);
  if (found != hidden_.end() && found->second == uid) hidden_.erase(found);
}

absl::StatusOr<bool> Catalog::Has(const std::string& name) const {
  if (IsHidden(name)) return false;
  auto exists = Exists(pool_->snapshots(), name);
  if (exists.ok()) return exists;
  return SnapshotUnreadable(name, "", exists.status());
}

absl::Status Catalog::Damaged(const std::string& name, const std::string& path,
                              absl::string_view why) const {
  return MakeError(
      {.code = absl::StatusCode::kDataLoss,
       .reason = reason::kSnapshotDamaged,
       .message = absl::StrCat("snapshot ", name, " is damaged: ", why),
       .hint = absl::StrCat(
           "restore an older one; what is whole of this one, and the log of "
           "its dump, are in ",
           pool_->path(), "/snapshots/", name, " until it is deleted"),
       .metadata = {{"name", name}, {"path", path}}});
}

absl::StatusOr<UniqueFd> Catalog::Open(const std::string& name) const {
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  auto has = Has(name);
  if (!has.ok()) return has.status();
  if (!*has) return SnapshotMissing(name);
  auto directory = OpenDirectory(pool_->snapshots(), name);
  if (directory.ok()) return directory;
  if (absl::IsNotFound(directory.status())) return SnapshotMissing(name);
  const std::string error = ErrnoNameOf(directory.status());
  if (error == "ENOTDIR" || error == "ELOOP") {
    return Damaged(name, "", "it is no directory");
  }
  return SnapshotUnreadable(name, "", directory.status());
}

absl::StatusOr<UniqueFd> Catalog::OpenImages(const std::string& name) const {
  auto directory = Open(name);
  if (!directory.ok()) return directory.status();
  auto images = OpenDirectory(directory->get(), "images");
  if (absl::IsNotFound(images.status())) {
    return Damaged(name, "images", "it has no images");
  }
  if (!images.ok()) return SnapshotUnreadable(name, "images", images.status());
  for (const std::string file : {"inventory.img", "pstree.img"}) {
    const std::string path = absl::StrCat("images/", file);
    auto exists = Exists(images->get(), file);
    if (!exists.ok()) return SnapshotUnreadable(name, path, exists.status());
    if (!*exists) return Damaged(name, path, absl::StrCat("it has no ", file));
  }
  return images;
}

absl::StatusOr<v1::Manifest> Catalog::Read(const std::string& name) const {
  auto directory = Open(name);
  if (!directory.ok()) return directory.status();
  auto content = ReadFileAt(directory->get(), kManifestFile, kMaxManifest);
  if (absl::IsNotFound(content.status())) {
    return Damaged(name, kManifestFile, "it has no manifest.pb");
  }
  if (absl::IsFailedPrecondition(content.status())) {
    return Damaged(name, kManifestFile, content.status().message());
  }
  if (!content.ok()) {
    return SnapshotUnreadable(name, kManifestFile, content.status());
  }
  const uint32_t version = FormatVersionOf(*content);
  if (version > kManifestVersion) {
    return VersionUnsupported(name, version, *content);
  }
  v1::Manifest manifest;
  if (version == 0 || !manifest.ParseFromString(*content) ||
      manifest.snapshot().uid().empty()) {
    return Damaged(name, kManifestFile, "manifest.pb does not parse");
  }
  manifest.mutable_snapshot()->set_name(name);
  absl::Status finished = CheckFinished(manifest.snapshot());
  if (!finished.ok()) return finished;
  return manifest;
}

absl::Status Catalog::CheckFinished(const v1::Snapshot& snapshot) const {
  const std::lock_guard lock(mutex_);
  if (!unfinished_.contains(snapshot.uid())) return absl::OkStatus();
  return SnapshotUnreadable(
      snapshot.name(), "",
      absl::UnavailableError(
          "it is neither finished nor taken back, and its tasks may not have "
          "been killed"));
}

absl::StatusOr<Index::Entry> Catalog::Describe(const std::string& name) const {
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  const Index::Sight sight = index_.Look(name);
  if (sight.entry != nullptr) {
    if (IsHidden(name)) return SnapshotMissing(name);
    absl::Status finished = CheckFinished(*sight.entry);
    if (!finished.ok()) return finished;
    return sight.entry;
  }
  auto manifest = Read(name);
  if (!manifest.ok()) return manifest.status();
  auto entry = std::make_shared<const v1::Snapshot>(
      std::move(*manifest->mutable_snapshot()));
  if (sight.mark.has_value()) index_.Keep(name, *sight.mark, entry);
  return entry;
}

void Catalog::AddUnfinished(const std::string& uid, const std::string& name) {
  const std::lock_guard lock(mutex_);
  unfinished_[uid] = name;
}

void Catalog::RemoveUnfinished(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  unfinished_.erase(uid);
}

std::vector<std::string> Catalog::Unfinished(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> uids;
  for (const auto& [uid, of] : unfinished_) {
    if (of == name) uids.push_back(uid);
  }
  return uids;
}

absl::StatusOr<std::vector<std::string>> Catalog::List(
    absl::string_view after) const {
  auto all = index_.List();
  if (!all.ok()) return all.status();
  std::vector<std::string> names(
      std::upper_bound((*all)->begin(), (*all)->end(), after), (*all)->end());
  // Whatever else someone puts there is not ours.
  std::erase_if(names, [this](const std::string& name) {
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
  auto has = Has(name);
  if (!has.ok()) return has.status();
  if (!*has) return SnapshotMissing(name);
  StagedSnapshot staged;
  staged.uid = NewUuid();
  staged.name = name;
  if (absl::Status gone = Unpublish(&staged); !gone.ok()) return gone;
  if (absl::Status committed = Commit(); !committed.ok()) {
    // Put it back, so that the caller can try again.
    if (!RenameNoReplace(pool_->staging(), staged.uid, pool_->snapshots(),
                         name)) {
      LogError(
          absl::StrCat("snapshot ", name, " stays deleted: errno ", errno));
    }
    return ToCommitFailed(std::move(committed));
  }
  // It is gone for good. What follows gives the space back; a failure here is
  // made good by the next start.
  absl::Status removed = RemoveTree(pool_->staging(), staged.uid);
  if (removed.ok()) removed = Commit();
  if (!removed.ok()) {
    LogWarning(absl::StrCat("staging/", staged.uid, ": ", removed.message()));
  }
  return absl::OkStatus();
}

}  // namespace daxsnap
