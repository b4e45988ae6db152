// SPDX-License-Identifier: Apache-2.0
//
// Publications of a catalog that have an end, though the pool may not answer.
#include <fcntl.h>
#include <poll.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/store/catalog.h"

namespace daxsnap {
namespace {

// What a device of a pool in a directory writes at least.
constexpr double kBytesPerSecond = 16 << 20;

// Whether `event` fires before the other one and the timeout.
bool AwaitEither(const Cancellation& event, const Cancellation* other,
                 absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  pollfd fds[] = {{.fd = event.fd(), .events = POLLIN, .revents = 0},
                  {.fd = other == nullptr ? -1 : other->fd(),
                   .events = POLLIN,
                   .revents = 0}};
  for (;;) {
    const int ready = poll(fds, 2, MillisecondsUntil(deadline));
    if (event.cancelled()) return true;
    if (ready > 0 || absl::Now() >= deadline) return false;
  }
}

}  // namespace

// Of a thread of its own, which keeps what it needs.
struct Catalog::Publication {
  std::string name;
  StagedSnapshot staged;  // with a copy of its directory
  std::function<absl::Status(StagedSnapshot*)> work;
  std::thread thread;
  // Fires at its end.
  Cancellation ended;
  std::mutex mutex;
  std::optional<absl::Status> result;  // guarded by mutex
  bool abandoned = false;              // guarded by mutex
  // Nobody waited for it, and it has done all it could; guarded by the
  // catalog's mutex_.
  bool over = false;
};

Catalog::~Catalog() {
  for (auto& [uid, publication] : late_) publication->thread.join();
}

void Catalog::RunPublication(Publication* publication) {
  StagedSnapshot& staged = publication->staged;
  absl::Status status = publication->work(&staged);
  {
    const std::lock_guard lock(publication->mutex);
    publication->result = std::move(status);
    if (!publication->abandoned) {
      publication->ended.Cancel();
      return;
    }
  }
  absl::Status gone = Discard(std::move(staged));
  LogWarning(absl::StrCat("snapshot ", publication->name,
                          ", which took too long to commit, ",
                          gone.ok() ? "is taken back" : gone.message()));
  const std::lock_guard lock(mutex_);
  publication->over = true;
}

absl::Status Catalog::PublishInTime(StagedSnapshot* staged,
                                    const v1::Manifest& manifest,
                                    absl::Duration timeout,
                                    const Cancellation& cancellation) {
  const auto publish = [this, manifest](StagedSnapshot* of) {
    absl::Status written = WriteManifest(of->directory.get(), manifest);
    return written.ok() ? Publish(of) : written;
  };
  if (pool_->is_kmemfs()) {
    return DoInTime(staged, publish, timeout, cancellation);
  }
  // Images are not on the device yet, and one commit waits for the other.
  const uint64_t bytes = committing_bytes_ += staged->image_bytes;
  timeout += absl::Seconds(static_cast<double>(bytes) / kBytesPerSecond);
  absl::Status published = DoInTime(staged, publish, timeout, cancellation);
  committing_bytes_ -= staged->image_bytes;
  return published;
}

absl::Status Catalog::RecordInTime(StagedSnapshot* staged,
                                   const internal::Operation& operation,
                                   absl::Duration timeout,
                                   const Cancellation& cancellation) {
  const auto record = [this, operation](StagedSnapshot*) {
    return records_.Write(operation);
  };
  return DoInTime(staged, record, timeout, cancellation);
}

absl::Status Catalog::DoInTime(
    StagedSnapshot* staged, std::function<absl::Status(StagedSnapshot*)> work,
    absl::Duration timeout, const Cancellation& cancellation) {
  JoinEnded();
  auto publication = std::make_shared<Publication>();
  publication->name = staged->name;
  publication->staged.uid = staged->uid;
  publication->staged.name = staged->name;
  publication->staged.published = staged->published;
  publication->staged.failed_commits = staged->failed_commits;
  publication->staged.directory.reset(
      fcntl(staged->directory.get(), F_DUPFD_CLOEXEC, 0));
  if (!publication->staged.directory.valid()) {
    return ErrnoError(errno, absl::StrCat("cannot publish ", staged->name));
  }
  publication->work = std::move(work);
  // Without it nothing can be published in time.
  try {
    publication->thread =
        std::thread([this, of = publication.get()] { RunPublication(of); });
  } catch (const std::system_error& error) {
    return ErrnoError(error.code().value(), "cannot start a thread");
  }
  if (AwaitEither(publication->ended, &cancellation, timeout)) {
    publication->thread.join();
    staged->published = publication->staged.published;
    return *std::move(publication->result);
  }
  {
    const std::lock_guard lock(mutex_);
    late_[staged->uid] = std::move(publication);
  }
  if (cancellation.cancelled()) return CancelledError();
  const int64_t seconds = absl::ToInt64Seconds(timeout);
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncTimeout,
       .message =
           absl::StrCat("snapshot ", staged->name, " was not committed within ",
                        seconds, " s; the tasks run on"),
       .hint = "check the device of the pool and the kernel log; if it is just "
               "slow, try again or give more time (--sync-timeout)",
       .metadata = {{"path", pool_->path()},
                    {"seconds", absl::StrCat(seconds)}}});
}

absl::Status Catalog::AwaitLate(StagedSnapshot* staged) {
  JoinEnded();
  std::shared_ptr<Publication> late;
  {
    const std::lock_guard lock(mutex_);
    const auto found = late_.find(staged->uid);
    if (found != late_.end()) late = found->second;
  }
  if (late == nullptr || late->thread.get_id() == std::this_thread::get_id()) {
    return absl::OkStatus();
  }
  (void)AwaitEither(late->ended, nullptr, late_patience_);
  {
    const std::lock_guard lock(late->mutex);
    if (!late->result.has_value()) {
      late->abandoned = true;
      staged->published = false;
      return absl::UnavailableError("its commit has not ended yet");
    }
  }
  late->thread.join();
  staged->published = late->staged.published;
  const std::lock_guard lock(mutex_);
  late_.erase(staged->uid);
  return absl::OkStatus();
}

absl::Status Catalog::CheckNotLate(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [uid, publication] : late_) {
    if (publication->over || publication->name != name) continue;
    return MakeError(
        {.code = absl::StatusCode::kAborted,
         .reason = reason::kBusy,
         .message = absl::StrCat("a snapshot called ", name,
                                 ", which took too long to commit, is not "
                                 "taken back yet"),
         .hint = "check the device of the pool, and try again",
         .metadata = {{"name", name}}});
  }
  return absl::OkStatus();
}

void Catalog::JoinEnded() {
  std::vector<std::shared_ptr<Publication>> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = late_.begin(); at != late_.end();) {
      if (!at->second->over) {
        ++at;
        continue;
      }
      ended.push_back(std::move(at->second));
      at = late_.erase(at);
    }
  }
  for (const auto& publication : ended) publication->thread.join();
}

}  // namespace daxsnap
