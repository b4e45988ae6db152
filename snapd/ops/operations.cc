// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/operations.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/log.h"
#include "snapd/ops/checkpoint.h"
#include "snapd/ops/deletion.h"
#include "snapd/ops/restore.h"
#include "snapd/store/names.h"

namespace daxsnap {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
// A page ends after so many bytes, well below what gRPC clients accept.
constexpr size_t kMaxPageBytes = size_t{1} << 20;
// What a page token begins with before it is encoded: its format.
constexpr absl::string_view kTokenPrefix = "after:";

std::string MakePageToken(const std::string& last) {
  return absl::WebSafeBase64Escape(absl::StrCat(kTokenPrefix, last));
}

absl::StatusOr<std::string> ParsePageToken(const std::string& token) {
  if (token.empty()) return std::string();
  std::string text;
  absl::string_view name;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    name = text;
    if (absl::ConsumePrefix(&name, kTokenPrefix) &&
        ValidateSnapshotName(std::string(name)).ok()) {
      return std::string(name);
    }
  }
  return MakeError({.code = absl::StatusCode::kInvalidArgument,
                    .reason = reason::kPageTokenInvalid,
                    .message = "the page token is not one of ours",
                    .hint = "start again without a token"});
}

absl::StatusOr<size_t> ParsePageSize(int32_t size) {
  if (size < 0) {
    return MakeError({.code = absl::StatusCode::kInvalidArgument,
                      .reason = reason::kPageSizeInvalid,
                      .message = absl::StrCat("page_size is ", size),
                      .hint = "pass 0 for the default, or 1 to 1000"});
  }
  return static_cast<size_t>(size == 0 ? kDefaultPageSize
                                       : std::min(size, kMaxPageSize));
}

// What a caller gets to see of a snapshot in a list.
struct Entry {
  enum Kind { kHidden, kIntact, kDamaged, kUnlisted, kPerhapsTheirs };
  Kind kind = kHidden;
  Index::Entry snapshot;
  v1::UnlistedSnapshot unlisted;
};

// An error if snapd is short of something just now: it would befall each.
absl::StatusOr<Entry> ReadFor(const Caller& caller, const Catalog& catalog,
                              const std::string& name) {
  auto snapshot = catalog.Describe(name);
  Entry entry;
  if (snapshot.ok()) {
    if (CheckSnapshotAccess(caller, (*snapshot)->owner_uid(), name).ok()) {
      entry.kind = Entry::kIntact;
      entry.snapshot = *std::move(snapshot);
    }
    return entry;
  }
  const absl::Status& error = snapshot.status();
  const std::string reason = ErrorReasonOf(error);
  std::map<std::string, std::string> metadata = ErrorMetadataOf(error);
  if (reason == reason::kSnapshotMissing) return entry;
  for (const char* shortage : {"EMFILE", "ENFILE", "ENOMEM", "EAGAIN"}) {
    if (metadata["error"] != shortage) continue;
    return MakeError({.code = absl::StatusCode::kUnavailable,
                      .reason = reason::kOverloaded,
                      .message = absl::StrCat(
                          "the snapshots cannot be read now: ", shortage),
                      .hint = metadata["hint"],
                      .metadata = {{"error", shortage}}});
  }
  // Whose it is is not known.
  if (!caller.is_root()) {
    entry.kind = Entry::kPerhapsTheirs;
  } else if (reason == reason::kSnapshotDamaged) {
    entry.kind = Entry::kDamaged;
  } else {
    entry.kind = Entry::kUnlisted;
    entry.unlisted.set_name(name);
    entry.unlisted.set_reason(reason);
    entry.unlisted.set_message(std::string(error.message()));
    entry.unlisted.set_hint(metadata["hint"]);
  }
  return entry;
}

}  // namespace

OperationParts Operations::PartsOn(OpenPool* open) {
  return {.proc = &proc_,
          .host = &host_,
          .engine = engine_,
          .pool = open->pool.get(),
          .catalog = &open->catalog,
          .claims = &claims_,
          .sync_failures = &sync_failures_,
          .kept_results = &kept_results_};
}

absl::StatusOr<v1::CreateSnapshotResult> Operations::Create(
    const Caller& caller, const v1::CreateSnapshotRequest& request,
    const ProgressSink& progress, Cancellation* cancellation,
    const PagesSink& pages) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  if (absl::Status status = (*open)->pool->CheckWritable(); !status.ok())
    return status;
  // Waits a while now, before any task stands still. What comes later is not
  // too late for the manifest.
  (void)criu_version_.Get();
  Checkpoint checkpoint(
      PartsOn(*open), caller, request, progress, cancellation,
      [this] { return criu_version_.Known(); }, pages);
  auto result = checkpoint.Run();
  // The kernel makes checksums when it has nothing else to do, and brings them
  // to the device later. Where nothing else will tell that the memory has
  // changed they are worth more haste, though nobody need wait for them.
  const Pool* pool = (*open)->pool.get();
  if (result.ok() && pool->persistence() == Persistence::kNotPromised) {
    checksums_.Request(pool);
  }
  return result;
}

absl::StatusOr<v1::RestoreSnapshotResult> Operations::Restore(
    const Caller& caller, const v1::RestoreSnapshotRequest& request,
    const ProgressSink& progress, Cancellation* cancellation,
    const VerifyEvents& verify_events) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  return daxsnap::Restore(PartsOn(*open), caller, request, progress,
                          cancellation, verify_events)
      .Run();
}

absl::Status Operations::Verify(const Caller& caller,
                                const v1::VerifySnapshotRequest& request,
                                const VerifyEvents& events,
                                const Cancellation& cancellation) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  return VerifySnapshot(*(*open)->pool, (*open)->catalog, caller, request,
                        events, cancellation);
}

absl::StatusOr<v1::GetSnapshotResponse> Operations::Get(
    const Caller& caller, const v1::GetSnapshotRequest& request) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  auto snapshot = (*open)->catalog.Describe(request.name());
  if (!snapshot.ok()) return snapshot.status();
  absl::Status allowed =
      CheckSnapshotAccess(caller, (*snapshot)->owner_uid(), request.name());
  if (!allowed.ok()) return allowed;
  v1::GetSnapshotResponse response;
  *response.mutable_snapshot() = **snapshot;
  return response;
}

absl::StatusOr<v1::ListSnapshotsResponse> Operations::List(
    const Caller& caller, const v1::ListSnapshotsRequest& request) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  auto limit = ParsePageSize(request.page_size());
  if (!limit.ok()) return limit.status();
  auto after = ParsePageToken(request.page_token());
  if (!after.ok()) return after.status();
  auto names = (*open)->catalog.List(*after);
  if (!names.ok()) return names.status();
  v1::ListSnapshotsResponse response;
  size_t bytes = 0;
  // A token names a snapshot that its caller may see.
  std::string last = *after;
  for (const std::string& name : *names) {
    auto entry = ReadFor(caller, (*open)->catalog, name);
    if (!entry.ok()) return entry.status();
    if (entry->kind == Entry::kPerhapsTheirs) response.set_incomplete(true);
    if (entry->kind == Entry::kHidden || entry->kind == Entry::kPerhapsTheirs) {
      continue;
    }
    // One more than fits: there is a next page.
    const size_t listed = static_cast<size_t>(response.snapshots_size()) +
                          static_cast<size_t>(response.damaged_size()) +
                          static_cast<size_t>(response.unlisted_size());
    if (listed == *limit || bytes > kMaxPageBytes) {
      response.set_next_page_token(MakePageToken(last));
      break;
    }
    if (entry->kind == Entry::kIntact) {
      bytes += entry->snapshot->ByteSizeLong();
      *response.add_snapshots() = *entry->snapshot;
    } else if (entry->kind == Entry::kDamaged) {
      response.add_damaged(name);
    } else {
      bytes += entry->unlisted.ByteSizeLong();
      *response.add_unlisted() = std::move(entry->unlisted);
    }
    last = name;
  }
  return response;
}

absl::StatusOr<v1::DeleteSnapshotResponse> Operations::Delete(
    const Caller& caller, const v1::DeleteSnapshotRequest& request) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  if (absl::Status status = (*open)->pool->CheckWritable(); !status.ok())
    return status;
  const ProgressSink nobody = [](v1::ProgressPhase) {};
  absl::Status deleted =
      Deletion(PartsOn(*open), caller, nobody).Run(request.name());
  if (!deleted.ok()) return deleted;
  return v1::DeleteSnapshotResponse();
}

absl::StatusOr<v1::GetPoolResponse> Operations::GetPool(
    const v1::GetPoolRequest& /*request*/) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  auto info = (*open)->pool->Info();
  if (!info.ok()) return info.status();
  auto count = (*open)->catalog.Count();
  if (!count.ok()) return count.status();
  v1::GetPoolResponse response;
  *response.mutable_pool() = *std::move(info);
  response.mutable_pool()->set_snapshot_count(*count);
  return response;
}

}  // namespace daxsnap
