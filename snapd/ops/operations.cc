// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/operations.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/log.h"
#include "daxsnap/v1/manifest.pb.h"
#include "host/task/machine.h"
#include "snapd/ops/checkpoint.h"
#include "snapd/ops/manifest.h"
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
  v1::Snapshot snapshot;
  v1::UnlistedSnapshot unlisted;
};

// An error if snapd is short of something just now: it would befall each.
absl::StatusOr<Entry> ReadFor(const Caller& caller, const Catalog& catalog,
                              const std::string& name) {
  auto manifest = catalog.Read(name);
  Entry entry;
  if (manifest.ok()) {
    v1::Snapshot* snapshot = manifest->mutable_snapshot();
    if (CheckSnapshotAccess(caller, snapshot->owner_uid(), name).ok()) {
      entry.kind = Entry::kIntact;
      entry.snapshot = std::move(*snapshot);
    }
    return entry;
  }
  const absl::Status& error = manifest.status();
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

uint64_t MicrosecondsSince(absl::Time start) {
  return static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - start));
}

v1::PoolPersistence ToProto(Persistence persistence) {
  switch (persistence) {
    case Persistence::kUnknown:
      return v1::POOL_PERSISTENCE_UNSPECIFIED;
    case Persistence::kPromised:
      return v1::POOL_PERSISTENCE_PROMISED;
    case Persistence::kNotPromised:
      return v1::POOL_PERSISTENCE_NOT_PROMISED;
  }
  return v1::POOL_PERSISTENCE_UNSPECIFIED;
}

void FillPool(const OpenPool& open, const PoolInfo& from, v1::Pool* pool) {
  pool->set_path(open.pool->path());
  pool->set_kind(open.pool->is_kmemfs() ? v1::POOL_KIND_KMEMFS
                                        : v1::POOL_KIND_DIRECTORY);
  pool->set_device(open.pool->device());
  pool->set_uuid(from.uuid);
  pool->set_label(from.label);
  pool->set_generation(from.generation);
  pool->set_format_version(from.format_version);
  pool->set_persistence(ToProto(open.pool->persistence()));
  pool->set_dirty(from.dirty);
  pool->set_node(from.node);
  pool->set_page_size(from.page_size);
  pool->set_total_pages(from.total_pages);
  pool->set_free_pages(from.free_pages);
  pool->set_file_pages(from.file_pages);
  pool->set_meta_pages(from.meta_pages);
  if (!open.pool->is_kmemfs()) return;
  v1::PoolCounters* counters = pool->mutable_counters();
  counters->set_captured_by_reference(from.captured_by_reference);
  counters->set_captured_shared(from.captured_shared);
  counters->set_captured_copied(from.captured_copied);
  counters->set_read_installed(from.read_installed);
  counters->set_read_copied(from.read_copied);
  counters->set_flushed_pages(from.flushed_pages);
}

absl::Status UnknownPolicy(const std::string& field, int value) {
  return MakeError(
      {.code = absl::StatusCode::kInvalidArgument,
       .reason = reason::kOptionInvalid,
       .message = absl::StrCat(field, " is ", value,
                               ", a policy that this snapd does not know"),
       .hint = "update daxsnap, or use another policy",
       .metadata = {{"field", field}}});
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

// Whether what is restored is what was stored. nullopt if nobody asks.
absl::StatusOr<std::optional<v1::Verification>> VerifyBeforeRestore(
    const OpenPool& open, const v1::RestoreSnapshotRequest& request,
    const VerifyEvents& events, const Cancellation& cancellation) {
  if (!WantsVerification(request.verify(), *open.pool)) return std::nullopt;
  const std::string& name = request.name();
  auto directory = open.catalog.Open(name);
  if (!directory.ok()) return directory.status();
  auto outcome = VerifyFiles(*open.pool, name, directory->get(),
                             VerifyScope::kRestored, events, cancellation);
  if (!outcome.ok()) return outcome.status();
  absl::Status status = CheckVerified(
      name, *outcome,
      "restore an older one; `snapctl verify` lists all that is damaged, and "
      "`snapctl restore --verify=never` starts the tasks with what is there");
  if (!status.ok()) return status;
  return std::move(outcome->totals);
}

}  // namespace

std::string Operations::CriuVersion() {
  const std::lock_guard lock(mutex_);
  if (criu_version_.empty()) {
    auto version = engine_->Version();
    if (version.ok()) {
      criu_version_ = *std::move(version);
    } else {
      LogWarning(
          absl::StrCat("no version of CRIU: ", version.status().message()));
    }
  }
  return criu_version_;
}

absl::StatusOr<v1::CreateSnapshotResult> Operations::Create(
    const Caller& caller, const v1::CreateSnapshotRequest& request,
    const ProgressSink& progress, Cancellation* cancellation) {
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  Checkpoint checkpoint({.proc = &proc_,
                         .host = &host_,
                         .engine = engine_,
                         .pool = (*open)->pool.get(),
                         .catalog = &(*open)->catalog,
                         .claims = &claims_,
                         .sync_failures = &sync_failures_,
                         .criu_version = CriuVersion()},
                        caller, request, progress, cancellation);
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
  progress(v1::PROGRESS_PHASE_CHECKING);
  const absl::Time start = absl::Now();
  const std::string& name = request.name();
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  const Catalog& catalog = (*open)->catalog;
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  if (!v1::FilesPolicy_IsValid(request.files())) {
    return UnknownPolicy("files", request.files());
  }
  if (!v1::VerifyPolicy_IsValid(request.verify())) {
    return UnknownPolicy("verify", request.verify());
  }
  auto claim = claims_.ClaimName(name);
  if (!claim.ok()) return claim.status();
  auto manifest = catalog.Read(name);
  if (!manifest.ok()) return manifest.status();
  absl::Status status =
      CheckSnapshotAccess(caller, manifest->snapshot().owner_uid(), name);
  if (status.ok()) status = claim->AddPids(PidsOf(*manifest));
  auto cpu = ReadCpuInfo();
  if (status.ok()) status = cpu.status();
  if (status.ok()) status = CheckCpu(*manifest, *cpu);
  if (status.ok()) status = CheckRemappedLinks(*manifest);
  const auto check_machine = [&] {
    absl::Status files = CheckFiles(*manifest, request.files());
    return files.ok() ? CheckPidsFree(*manifest, proc_) : files;
  };
  if (status.ok()) status = check_machine();
  if (!status.ok()) return status;
  auto images = catalog.OpenImages(name);
  if (!images.ok()) return images.status();
  status = CheckImages(*manifest, name, images->get());
  if (!status.ok()) return status;
  auto verified =
      VerifyBeforeRestore(**open, request, verify_events, *cancellation);
  if (!verified.ok()) return verified.status();
  if (verified->has_value()) {  // which may have taken minutes
    status = check_machine();
    if (!status.ok()) return status;
  }
  auto before = (*open)->pool->Info();
  if (!before.ok()) return before.status();
  if (cancellation->cancelled()) return CancelledError();

  v1::RestoreSnapshotResult result;
  if (verified->has_value()) *result.mutable_verification() = **verified;
  result.mutable_times()->set_check_us(MicrosecondsSince(start));
  progress(v1::PROGRESS_PHASE_RESTORING);
  RestoreRequest restore;
  restore.name = name;
  restore.images = images->get();
  // The node of the pool now; it may have had another number then.
  if (before->node >= 0) restore.memory_node = before->node;
  auto outcome = engine_->Restore(restore, cancellation);
  if (!outcome.ok()) return outcome.status();
  result.set_pid(outcome->pid);
  result.set_scope(outcome->scope);
  result.set_cgroup(outcome->cgroup);
  result.mutable_times()->set_restore_us(outcome->restore_us);
  if (auto after = (*open)->pool->Info(); after.ok()) {
    v1::RestorePages* pages = result.mutable_pages();
    pages->set_installed(after->read_installed - before->read_installed);
    pages->set_copied(after->read_copied - before->read_copied);
  }
  return result;
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
  auto manifest = (*open)->catalog.Read(request.name());
  if (!manifest.ok()) return manifest.status();
  absl::Status allowed = CheckSnapshotAccess(
      caller, manifest->snapshot().owner_uid(), request.name());
  if (!allowed.ok()) return allowed;
  v1::GetSnapshotResponse response;
  *response.mutable_snapshot() = std::move(*manifest->mutable_snapshot());
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
      bytes += entry->snapshot.ByteSizeLong();
      *response.add_snapshots() = std::move(entry->snapshot);
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
  const std::string& name = request.name();
  auto open = pools_->Get();
  if (!open.ok()) return open.status();
  if (absl::Status valid = ValidateSnapshotName(name); !valid.ok()) {
    return valid;
  }
  auto claim = claims_.ClaimName(name);
  if (!claim.ok()) return claim.status();
  if (!caller.is_root()) {
    auto manifest = (*open)->catalog.Read(name);
    if (!manifest.ok()) return manifest.status();
    absl::Status allowed =
        CheckSnapshotAccess(caller, manifest->snapshot().owner_uid(), name);
    if (!allowed.ok()) return allowed;
  }
  if (absl::Status gone = (*open)->catalog.Delete(name); !gone.ok()) {
    return gone;
  }
  LogInfo(absl::StrCat("deleted snapshot ", name));
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
  FillPool(**open, *info, response.mutable_pool());
  response.mutable_pool()->set_snapshot_count(*count);
  return response;
}

}  // namespace daxsnap
