// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/verify.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/unique_fd.h"
#include "base/utf8.h"
#include "daxsnap/v1/manifest.pb.h"
#include "host/pool/checksums.h"
#include "snapd/engine/criu_images.h"
#include "snapd/ops/manifest.h"

namespace daxsnap {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(200);
constexpr uint64_t kPage = 4096;
// Units of st_blocks.
constexpr uint64_t kBlock = 512;

absl::Status Unreadable(const std::string& name, const std::string& path,
                        const absl::Status& cause) {
  if (IsShortage(cause)) return cause;
  return SnapshotUnreadable(name, path, cause);
}

// Goes through one snapshot. Used once.
class Verifier {
 public:
  Verifier(const Pool& pool, const std::string& name,
           const VerifyEvents& events, const Cancellation& cancellation)
      : pool_(pool),
        name_(name),
        events_(events),
        cancellation_(cancellation) {}

  absl::StatusOr<VerifyOutcome> Run(int directory, VerifyScope scope) {
    absl::Status found = scope == VerifyScope::kAll
                             ? Find(directory, "")
                             : FindOne(directory, "manifest.pb", "");
    if (found.ok() && scope == VerifyScope::kRestored) {
      found = FindOne(directory, "images", "");
    }
    if (!found.ok()) return found;
    for (const std::string& path : paths_) {
      absl::Status status = Verify(directory, path);
      if (!status.ok()) return status;
    }
    Report();
    outcome_.totals.set_files(paths_.size());
    outcome_.totals.set_verify_us(
        static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - start_)));
    return std::move(outcome_);
  }

 private:
  // All files below a directory.
  absl::Status Find(int directory, const std::string& prefix) {
    auto entries = ListDirectory(directory);
    if (!entries.ok()) return Unreadable(name_, prefix, entries.status());
    for (const std::string& entry : *entries) {
      absl::Status status = FindOne(directory, entry, prefix);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // What is not there (any more) is not what this looks for.
  absl::Status FindOne(int directory, const std::string& entry,
                       const std::string& prefix) {
    struct stat info;
    if (fstatat(directory, entry.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) return absl::OkStatus();
      return Unreadable(name_, prefix + entry,
                        ErrnoError(errno, "cannot be looked at"));
    }
    if (S_ISDIR(info.st_mode)) {
      auto below = OpenDirectory(directory, entry);
      if (absl::IsNotFound(below.status())) return absl::OkStatus();
      if (!below.ok()) {
        return Unreadable(name_, prefix + entry, below.status());
      }
      return Find(below->get(), absl::StrCat(prefix, entry, "/"));
    }
    if (!S_ISREG(info.st_mode)) return absl::OkStatus();
    paths_.push_back(prefix + entry);
    bytes_total_ += static_cast<uint64_t>(info.st_blocks) * kBlock;
    return absl::OkStatus();
  }

  absl::Status Verify(int directory, const std::string& path) {
    const UniqueFd fd(openat(directory, path.c_str(),
                             O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info;
    if (!fd.valid() || fstat(fd.get(), &info) != 0) {
      if (errno == ENOENT) return absl::OkStatus();
      return Unreadable(name_, path, ErrnoError(errno, "cannot be opened"));
    }
    auto check = pool::CheckFile(
        [&](uint64_t offset, uint64_t length) {
          return pool_.CheckRange(fd.get(), offset, length);
        },
        static_cast<uint64_t>(info.st_size),
        [&](uint64_t bytes) { return Step(bytes); });
    if (absl::IsCancelled(check.status())) return CancelledError();
    if (!check.ok()) return Unreadable(name_, path, check.status());
    Add(path, static_cast<uint64_t>(info.st_size), *check);
    return absl::OkStatus();
  }

  bool Step(uint64_t bytes_of_file) {
    if (absl::Now() - reported_ >= kProgressInterval) {
      bytes_of_file_ = bytes_of_file;
      Report();
    }
    return !cancellation_.cancelled();
  }

  void Report() {
    reported_ = absl::Now();
    if (!events_.progress) return;
    const uint64_t done = (bytes_done_ + bytes_of_file_) / kPage;
    events_.progress(v1::PROGRESS_PHASE_VERIFYING, done,
                     std::max(done, bytes_total_ / kPage));
  }

  void Add(const std::string& path, uint64_t size,
           const pool::FileCheck& check) {
    v1::Verification& totals = outcome_.totals;
    totals.set_bytes_verified(totals.bytes_verified() + check.bytes_verified);
    totals.set_bytes_without_checksum(totals.bytes_without_checksum() +
                                      check.bytes_without_checksum);
    totals.set_bytes_damaged(totals.bytes_damaged() + check.bytes_damaged);
    bytes_done_ = totals.bytes_verified() + totals.bytes_without_checksum() +
                  totals.bytes_damaged();
    bytes_of_file_ = 0;
    v1::FileVerification file;
    file.set_path(ToPrintableUtf8(path));
    file.set_size(size);
    file.set_bytes_verified(check.bytes_verified);
    file.set_bytes_without_checksum(check.bytes_without_checksum);
    file.set_bytes_damaged(check.bytes_damaged);
    for (const pool::ByteRange& range : check.damaged) {
      v1::DamagedRange* damaged = file.add_damaged();
      damaged->set_offset(range.offset);
      damaged->set_length(range.length);
    }
    if (check.bytes_damaged > 0 && !outcome_.first_damaged.has_value()) {
      outcome_.first_damaged = file;
    }
    if (events_.file) events_.file(std::move(file));
  }

  const Pool& pool_;
  const std::string& name_;
  const VerifyEvents& events_;
  const Cancellation& cancellation_;
  const absl::Time start_ = absl::Now();
  absl::Time reported_ = absl::InfinitePast();
  std::vector<std::string> paths_;
  uint64_t bytes_total_ = 0;
  uint64_t bytes_done_ = 0;     // of files that are done
  uint64_t bytes_of_file_ = 0;  // of the one that is not
  VerifyOutcome outcome_;
};

// Whether all that is stored was compared.
absl::Status CheckComplete(const Pool& pool, const std::string& name,
                           const v1::Verification& totals) {
  auto info = pool.Info();
  if (pool.IsDamaged()) {
    return MakeError(
        {.code = absl::StatusCode::kDataLoss,
         .reason = reason::kSnapshotDamaged,
         .message =
             absl::StrCat("the pool does not hold, so files of snapshot ", name,
                          " may be missing"),
         .hint = "what is there is whole; the kernel's log says what the pool "
                 "has lost",
         .metadata = {{"name", name}, {"path", pool.path()}}});
  }
  if (totals.bytes_without_checksum() == 0) return absl::OkStatus();
  const bool none = totals.bytes_verified() == 0;
  const bool never = !info.ok() || info->format_version() < 2;
  std::string message =
      none ? absl::StrCat("snapshot ", name, " has no checksums")
           : absl::StrCat(totals.bytes_without_checksum(),
                          " bytes of snapshot ", name, " have no checksum");
  absl::StrAppend(&message,
                  never ? absl::StrCat(", as the pool cannot have them: ",
                                       pool.WhyNoChecksums())
                        : " yet",
                  "; whether they are what was stored is not known");
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kChecksumsMissing,
       .message = std::move(message),
       .hint = never ? std::string(kNoChecksumsHint)
                     : "the kernel makes them soon after a commit: try again "
                       "later, or have them made now with `snapctl verify "
                       "--sum`",
       .metadata = {{"name", name},
                    {"bytes_verified", absl::StrCat(totals.bytes_verified())},
                    {"bytes_without_checksum",
                     absl::StrCat(totals.bytes_without_checksum())}}});
}

// What the manifest and those images say that snapd reads.
struct Metadata {
  absl::Status access;  // a reason to go no further
  absl::Status holds;
};

Metadata CheckMetadata(const Catalog& catalog, const Caller& caller,
                       const std::string& name) {
  auto manifest = catalog.Read(name);
  if (!manifest.ok()) {
    const std::string reason = ErrorReasonOf(manifest.status());
    const bool there = reason == reason::kSnapshotDamaged ||
                       reason == reason::kSnapshotUnreadable ||
                       reason == reason::kVersionUnsupported;
    // Whose it is is not known. The content can be looked at all the same.
    if (caller.is_root() && there) {
      return {absl::OkStatus(), manifest.status()};
    }
    return {manifest.status(), absl::OkStatus()};
  }
  absl::Status allowed =
      CheckSnapshotAccess(caller, manifest->snapshot().owner_uid(), name);
  if (!allowed.ok()) return {allowed, absl::OkStatus()};
  auto images = catalog.OpenImages(name);
  if (!images.ok()) return {absl::OkStatus(), images.status()};
  absl::Status complete = CheckImages(*manifest, name, images->get());
  if (!complete.ok()) return {absl::OkStatus(), complete};
  auto set = ReadImageSet(images->get());
  if (absl::IsDataLoss(set.status())) {
    return {
        absl::OkStatus(),
        MakeError({.code = absl::StatusCode::kDataLoss,
                   .reason = reason::kSnapshotDamaged,
                   .message = absl::StrCat("snapshot ", name, " is damaged: ",
                                           set.status().message()),
                   .hint = "restore an older one",
                   .metadata = {{"name", name}, {"path", "images"}}})};
  }
  if (!set.ok()) {
    return {absl::OkStatus(), Unreadable(name, "images", set.status())};
  }
  return {};
}

// The files are those of one directory: it may have been deleted meanwhile, and
// another may have its name.
absl::Status CheckStillThere(const Catalog& catalog, const std::string& name,
                             int directory) {
  auto now = catalog.Open(name);
  if (!now.ok()) return now.status();
  struct stat before;
  struct stat after;
  if (fstat(directory, &before) == 0 && fstat(now->get(), &after) == 0 &&
      before.st_ino == after.st_ino) {
    return absl::OkStatus();
  }
  return MakeError({.code = absl::StatusCode::kNotFound,
                    .reason = reason::kSnapshotMissing,
                    .message = absl::StrCat("snapshot ", name,
                                            " was deleted meanwhile; another "
                                            "one has its name"),
                    .hint = "verify that one",
                    .metadata = {{"name", name}}});
}

absl::Status MakeChecksums(const Pool& pool, const Caller& caller,
                           const VerifyEvents& events,
                           const Cancellation& cancellation) {
  if (!caller.is_root()) {
    return MakeError({.code = absl::StatusCode::kPermissionDenied,
                      .reason = reason::kPermissionDenied,
                      .message = absl::StrCat(
                          "uid ", caller.uid,
                          " may not have checksums of the whole pool made"),
                      .hint = "run the command as root, or do without",
                      .metadata = {{"uid", absl::StrCat(caller.uid)}}});
  }
  if (events.progress) events.progress(v1::PROGRESS_PHASE_SUMMING, 0, 0);
  absl::Status made = pool.MakeChecksums(cancellation);
  // What there is can be read, and the end says what is missing.
  if (ErrorReasonOf(made) == reason::kChecksumsMissing) return absl::OkStatus();
  return made;
}

}  // namespace

absl::StatusOr<VerifyOutcome> VerifyFiles(const Pool& pool,
                                          const std::string& name,
                                          int directory, VerifyScope scope,
                                          const VerifyEvents& events,
                                          const Cancellation& cancellation) {
  return Verifier(pool, name, events, cancellation).Run(directory, scope);
}

absl::Status CheckVerified(const std::string& name,
                           const VerifyOutcome& outcome, std::string hint) {
  if (!outcome.first_damaged.has_value()) return absl::OkStatus();
  const v1::FileVerification& file = *outcome.first_damaged;
  const v1::DamagedRange& range = file.damaged(0);
  std::string message = absl::StrFormat(
      "snapshot %s is damaged: %d bytes of %s from %#x on are not what was "
      "stored",
      name, range.length(), file.path(), range.offset());
  const uint64_t more = outcome.totals.bytes_damaged() - range.length();
  if (more > 0) absl::StrAppend(&message, ", and ", more, " bytes elsewhere");
  return MakeError(
      {.code = absl::StatusCode::kDataLoss,
       .reason = reason::kSnapshotDamaged,
       .message = std::move(message),
       .hint = std::move(hint),
       .metadata = {
           {"name", name},
           {"path", file.path()},
           {"offset", absl::StrCat(range.offset())},
           {"length", absl::StrCat(range.length())},
           {"bytes_damaged", absl::StrCat(outcome.totals.bytes_damaged())}}});
}

absl::Status VerifySnapshot(const Pool& pool, const Catalog& catalog,
                            const Caller& caller,
                            const v1::VerifySnapshotRequest& request,
                            const VerifyEvents& events,
                            const Cancellation& cancellation) {
  const std::string& name = request.name();
  if (events.progress) events.progress(v1::PROGRESS_PHASE_CHECKING, 0, 0);
  auto directory = catalog.Open(name);
  if (!directory.ok()) return directory.status();
  const Metadata metadata = CheckMetadata(catalog, caller, name);
  if (!metadata.access.ok()) return metadata.access;
  if (request.make_checksums()) {
    absl::Status made = MakeChecksums(pool, caller, events, cancellation);
    if (!made.ok()) return made;
  }
  auto outcome = VerifyFiles(pool, name, directory->get(), VerifyScope::kAll,
                             events, cancellation);
  if (!outcome.ok()) return outcome.status();
  absl::Status there = CheckStillThere(catalog, name, directory->get());
  if (!there.ok()) return there;
  v1::VerifySnapshotResult result;
  *result.mutable_verification() = outcome->totals;
  if (events.result) events.result(std::move(result));
  absl::Status status = CheckVerified(
      name, *outcome,
      "restore an older one; what is whole of this one can be read until it is "
      "deleted");
  if (!status.ok()) return status;
  if (!metadata.holds.ok()) return metadata.holds;
  return CheckComplete(pool, name, outcome->totals);
}

}  // namespace daxsnap
