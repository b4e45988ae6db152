// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/sync_failures.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "base/utf8.h"

namespace daxsnap {
namespace {

constexpr char kLost[] = "lost";
constexpr char kRecordPrefix[] = "sync.";
constexpr size_t kMaxFile = size_t{64} << 20;
constexpr int kLookEachMs = 100;
constexpr char kKilled[] = "the process that synced it was killed";

// The tasks above the first of a tree, from its parent on.
std::vector<TaskId> AncestorsOf(const ProcFs& proc,
                                const std::vector<TaskInfo>& tree) {
  std::vector<TaskId> ancestors;
  for (pid_t pid = tree.front().parent_pid; pid > 0;) {
    const auto task = proc.ReadTask(pid);
    if (!task.ok()) break;
    ancestors.push_back(task->id);
    pid = task->parent_pid;
  }
  return ancestors;
}

using TaskSet = std::set<std::pair<pid_t, uint64_t>>;

void PutTasks(const TaskSet& tasks, internal::SyncedFileSystem* of) {
  for (const auto& [pid, start_ticks] : tasks) {
    internal::SyncTask* task = of->add_tasks();
    task->set_pid(pid);
    task->set_start_ticks(start_ticks);
  }
}

void AddTasks(const internal::SyncedFileSystem& of, TaskSet* tasks) {
  for (const internal::SyncTask& task : of.tasks()) {
    tasks->emplace(task.pid(), task.start_ticks());
  }
}

absl::Status CannotRecord(const std::string& directory, int error) {
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kOverloaded,
       .message = absl::StrCat("cannot write down a sync in ", directory, ": ",
                               std::strerror(error)),
       .hint = "make room there, and try again",
       .metadata = {{"path", directory}, {"error", std::strerror(error)}}});
}

// A record's header, and what its process has written since.
struct Record {
  internal::Syncs header;
  std::vector<SyncStep> steps;
};

// Nothing if the header is not whole: then no process was started.
std::optional<Record> ParseRecord(const std::string& bytes) {
  Record record;
  uint32_t size = 0;
  if (bytes.size() < sizeof(size)) return std::nullopt;
  std::memcpy(&size, bytes.data(), sizeof(size));
  size_t at = sizeof(size);
  if (bytes.size() - at < size ||
      !record.header.ParseFromArray(&bytes[at], static_cast<int>(size))) {
    return std::nullopt;
  }
  for (at += size; bytes.size() - at >= sizeof(SyncStep);
       at += sizeof(SyncStep)) {
    std::memcpy(&record.steps.emplace_back(), &bytes[at], sizeof(SyncStep));
  }
  return record;
}

}  // namespace

SyncFailures::SyncFailures(std::string directory, ProcFs proc)
    : directory_(std::move(directory)), proc_(std::move(proc)) {
  boot_id_ = proc_.BootId().value_or("");
  const std::lock_guard lock(mutex_);
  Load();
}

int SyncFailures::Sync::record() const {
  const std::lock_guard lock(failures_->mutex_);
  const UniqueFd& record = failures_->pending_.at(name_).record;
  return record.valid() ? record.get() : -1;
}

void SyncFailures::Sync::Ended(const std::vector<LostWrites>& lost) {
  if (name_.empty()) return;
  failures_->End(std::exchange(name_, {}), lost);
}

// Whose lock tells that its process is there.
absl::StatusOr<std::string> SyncFailures::MakeRecord(Pending* pending) {
  auto directory = EnsureDirectories(directory_);
  if (!directory.ok()) return directory.status();
  internal::Syncs header;
  header.set_boot_id(boot_id_);
  for (const LostWrites& target : pending->targets) {
    internal::SyncedFileSystem* one = header.add_file_systems();
    one->set_device(target.device);
    one->set_mount_point(target.mount_point);
    PutTasks(pending->tasks, one);
  }
  const std::string content = header.SerializeAsString();
  const auto size = static_cast<uint32_t>(content.size());
  const std::string bytes =
      std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + content;
  std::string path = absl::StrCat(directory_, "/", kRecordPrefix, "XXXXXX");
  pending->record.reset(mkostemp(path.data(), O_APPEND | O_CLOEXEC));
  if (!pending->record.valid()) return CannotRecord(directory_, errno);
  const int fd = pending->record.get();
  const ssize_t written = flock(fd, LOCK_EX | LOCK_NB) == 0
                              ? write(fd, bytes.data(), bytes.size())
                              : -1;
  if (written != static_cast<ssize_t>(bytes.size())) {
    absl::Status failed =
        CannotRecord(directory_, written < 0 ? errno : ENOSPC);
    unlink(path.c_str());
    return failed;
  }
  return path.substr(directory_.size() + 1);
}

absl::StatusOr<SyncFailures::Sync> SyncFailures::Begin(
    const std::vector<TaskInfo>& tree, const std::vector<SyncTarget>& targets) {
  Pending pending;
  for (const SyncTarget& target : targets) {
    pending.targets.push_back({.device = target.device,
                               .mount_point = target.mount_point,
                               .error = ""});
  }
  for (const TaskInfo& task : tree) {
    pending.tasks.emplace(task.id.pid, task.id.start_ticks);
  }
  pending.ended = std::make_shared<Cancellation>();
  const std::lock_guard lock(mutex_);
  std::string name = absl::StrCat(++nameless_);
  if (!directory_.empty()) {
    auto made = MakeRecord(&pending);
    if (!made.ok()) return made.status();
    name = *std::move(made);
  }
  pending_[name] = std::move(pending);
  return Sync(this, std::move(name));
}

void SyncFailures::End(const std::string& name,
                       const std::vector<LostWrites>& lost) {
  const std::lock_guard lock(mutex_);
  const auto at = pending_.find(name);
  Pending& pending = at->second;
  for (const LostWrites& one : lost) AddLost(pending.tasks, one, TicksNow());
  pending.ended->Cancel();
  pending.ended = nullptr;
  // The lock is its process's alone from here on.
  pending.record.reset();
  Settle(at);
}

void SyncFailures::AddLost(const Tasks& tasks, const LostWrites& lost,
                           uint64_t ticks) {
  Failure& failure = failures_[lost.device];
  failure.mount_point = lost.mount_point;
  failure.error = lost.error;
  failure.at_ticks = std::max(failure.at_ticks, ticks);
  failure.tasks.insert(tasks.begin(), tasks.end());
}

SyncFailures::Pendings::iterator SyncFailures::Settle(Pendings::iterator at) {
  if (directory_.empty()) return pending_.erase(at);
  Pending& pending = at->second;
  const std::string path = absl::StrCat(directory_, "/", at->first);
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid() && errno == ENOENT) return pending_.erase(at);
  // Before it is read.
  const bool alive = !file.valid() || flock(file.get(), LOCK_EX | LOCK_NB) != 0;
  const auto bytes = ReadFileAt(AT_FDCWD, path, kMaxFile);
  std::optional<Record> record;
  if (bytes.ok()) record = ParseRecord(*bytes);
  if (!record.has_value()) {
    if (!std::exchange(pending.told, true)) {
      LogWarning(absl::StrCat(
          "cannot read ", path,
          ": what a sync has lost is not known: ", bytes.status().message()));
    }
    return alive || !bytes.ok() ? std::next(at) : pending_.erase(at);
  }
  std::map<uint32_t, SyncStep> last;
  for (const SyncStep& step : record->steps) last[step.target] = step;
  std::vector<LostWrites> unknown;
  for (const auto& [number, step] : last) {
    const auto target = static_cast<int>(number);
    if (target >= record->header.file_systems_size()) continue;
    const auto& of = record->header.file_systems(target);
    LostWrites lost = {.device = of.device(),
                       .mount_point = of.mount_point(),
                       .error = kKilled};
    if (step.state == SyncStep::kBegins) {
      if (alive) {
        unknown.push_back(std::move(lost));
      } else {
        AddLost(pending.tasks, lost, TicksNow());
      }
    } else if (step.error != 0) {
      lost.error = std::strerror(step.error);
      AddLost(pending.tasks, lost, step.ticks);
    }
  }
  pending.targets = std::move(unknown);
  if (!pending.targets.empty() || !Save()) return std::next(at);
  unlink(path.c_str());
  return pending_.erase(at);
}

void SyncFailures::SettleAll() {
  for (auto at = pending_.begin(); at != pending_.end();) {
    at = at->second.ended == nullptr ? Settle(at) : std::next(at);
  }
}

bool SyncFailures::Save() {
  if (failures_.empty()) return true;
  internal::Syncs syncs;
  syncs.set_boot_id(boot_id_);
  for (auto& [device, failure] : failures_) {
    // Nobody comes from those that are gone but who is known already.
    std::erase_if(failure.tasks, [&](const auto& task) {
      return !proc_.IsAlive({.pid = task.first, .start_ticks = task.second})
                  .value_or(true);
    });
    internal::SyncedFileSystem* one = syncs.add_file_systems();
    one->set_device(device);
    one->set_mount_point(failure.mount_point);
    one->set_error(failure.error);
    one->set_at_ticks(failure.at_ticks);
    PutTasks(failure.tasks, one);
  }
  auto directory = EnsureDirectories(directory_);
  absl::Status saved = directory.status();
  if (saved.ok()) {
    saved = ReplaceFileAt(directory->get(), kLost, syncs.SerializeAsString());
  }
  if (saved.ok()) return true;
  LogError(absl::StrCat("a snapd that comes after this one will not know what ",
                        "syncs have lost: ", saved.message()));
  return false;
}

void SyncFailures::Load() {
  struct stat info;
  if (directory_.empty() || stat(directory_.c_str(), &info) != 0) return;
  auto directory = EnsureDirectories(directory_);
  auto names =
      directory.ok()
          ? ListDirectory(directory->get())
          : absl::StatusOr<std::vector<std::string>>(directory.status());
  if (!names.ok()) {
    LogWarning(absl::StrCat("what syncs have lost before is not known: ",
                            names.status().message()));
    return;
  }
  internal::Syncs syncs;
  const auto lost = ReadFileAt(directory->get(), kLost, kMaxFile);
  if (lost.ok() && syncs.ParseFromString(*lost) &&
      syncs.boot_id() == boot_id_) {
    for (const auto& one : syncs.file_systems()) {
      Tasks tasks;
      AddTasks(one, &tasks);
      AddLost(tasks,
              {.device = one.device(),
               .mount_point = one.mount_point(),
               .error = one.error()},
              one.at_ticks());
    }
  }
  for (const std::string& name : *names) {
    if (absl::StartsWith(name, kRecordPrefix)) {
      LoadPending(directory->get(), name);
    }
  }
  SettleAll();
}

void SyncFailures::LoadPending(int directory, const std::string& name) {
  const auto bytes = ReadFileAt(directory, name, kMaxFile);
  std::optional<Record> record;
  if (bytes.ok()) record = ParseRecord(*bytes);
  if (!record.has_value() || record->header.boot_id() != boot_id_) {
    (void)RemoveTree(directory, name);
    return;
  }
  Pending& pending = pending_[name];
  for (const auto& one : record->header.file_systems()) {
    AddTasks(one, &pending.tasks);
  }
}

absl::StatusOr<std::vector<SyncFailures::Suspicion>> SyncFailures::Check(
    const std::vector<TaskInfo>& tree, const std::vector<SyncTarget>& targets,
    absl::Time deadline, const Cancellation& cancellation) {
  if (deadline == absl::InfinitePast()) {
    const std::lock_guard lock(mutex_);
    SettleAll();
    return SuspicionsOf(tree, targets, {});
  }
  std::set<dev_t> devices;
  for (const SyncTarget& target : targets) devices.insert(target.device);
  std::vector<std::pair<dev_t, std::shared_ptr<Cancellation>>> others;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, pending] : pending_) {
      if (pending.ended == nullptr) continue;
      for (const LostWrites& target : pending.targets) {
        if (devices.count(target.device) != 0) {
          others.emplace_back(target.device, pending.ended);
        }
      }
    }
  }
  std::set<dev_t> unknown;
  for (const auto& [device, ended] : others) {
    while (!ended->cancelled() && absl::Now() < deadline) {
      pollfd poll_for[] = {
          {.fd = ended->fd(), .events = POLLIN, .revents = 0},
          {.fd = cancellation.fd(), .events = POLLIN, .revents = 0}};
      (void)poll(poll_for, 2, MillisecondsUntil(deadline));
      if (cancellation.cancelled()) return CancelledError();
    }
    if (!ended->cancelled()) unknown.insert(device);
  }
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      SettleAll();
      const std::set<dev_t> left = LeftBehind(devices);
      if (left.empty() || absl::Now() >= deadline) {
        unknown.insert(left.begin(), left.end());
        return SuspicionsOf(tree, targets, unknown);
      }
    }
    // Nothing but their locks and records tells of their ends.
    pollfd poll_for = {.fd = cancellation.fd(), .events = POLLIN, .revents = 0};
    (void)poll(&poll_for, 1,
               std::min(MillisecondsUntil(deadline), kLookEachMs));
    if (cancellation.cancelled()) return CancelledError();
  }
}

std::set<dev_t> SyncFailures::LeftBehind(const std::set<dev_t>& devices) const {
  std::set<dev_t> left;
  for (const auto& [name, pending] : pending_) {
    if (pending.ended != nullptr) continue;
    for (const LostWrites& target : pending.targets) {
      if (devices.count(target.device) != 0) left.insert(target.device);
    }
  }
  return left;
}

std::vector<SyncFailures::Suspicion> SyncFailures::SuspicionsOf(
    const std::vector<TaskInfo>& tree, const std::vector<SyncTarget>& targets,
    const std::set<dev_t>& unknown) const {
  std::vector<Suspicion> suspicions;
  std::optional<std::vector<TaskId>> ancestors;
  std::set<dev_t> seen;
  for (const SyncTarget& target : targets) {
    if (!seen.insert(target.device).second) continue;
    const auto found = failures_.find(target.device);
    pid_t pid = 0;
    if (found != failures_.end()) {
      const Failure& failure = found->second;
      const auto older =
          std::find_if(tree.begin(), tree.end(), [&](const TaskInfo& task) {
            return task.id.start_ticks <= failure.at_ticks;
          });
      if (!ancestors.has_value()) ancestors = AncestorsOf(proc_, tree);
      const bool descends = std::any_of(
          ancestors->begin(), ancestors->end(), [&](const TaskId& id) {
            return failure.tasks.count({id.pid, id.start_ticks}) != 0;
          });
      if (older != tree.end()) {
        pid = older->id.pid;
      } else if (descends) {
        pid = tree.front().id.pid;
      }
    }
    if (pid != 0) {
      suspicions.push_back({.mount_point = found->second.mount_point,
                            .error = found->second.error,
                            .pid = pid});
    } else if (unknown.count(target.device) != 0) {
      suspicions.push_back({.mount_point = target.mount_point,
                            .error = "",
                            .pid = tree.front().id.pid});
    }
  }
  return suspicions;
}

namespace {

// The message, and what to do.
std::pair<std::string, std::string> Say(
    const SyncFailures::Suspicion& suspicion) {
  if (suspicion.error.empty()) {
    return {absl::StrCat("an earlier sync of the file system on ",
                         suspicion.mount_point, ", which pid ", suspicion.pid,
                         " uses, has not ended: whether what was written there "
                         "is lost is not known"),
            "check the device of that file system, and try again"};
  }
  return {absl::StrCat("an earlier sync of the file system on ",
                       suspicion.mount_point, ", which pid ", suspicion.pid,
                       " uses, failed (", suspicion.error,
                       "): what was written there may be lost, though the "
                       "kernel does not say so again"),
          "start the program anew, so that it finds out what its files have"};
}

}  // namespace

absl::Status RefuseSuspicion(const SyncFailures::Suspicion& suspicion) {
  const bool known = !suspicion.error.empty();
  auto [message, hint] = Say(suspicion);
  ErrorDetails details{
      .code = absl::StatusCode::kUnavailable,
      .reason = known ? reason::kSyncFailed : reason::kSyncTimeout,
      .message = absl::StrCat(message, "; the tasks run on"),
      .hint = absl::StrCat(hint, "; --force takes the snapshot all the same"),
      .metadata = {{"path", suspicion.mount_point}}};
  if (known) details.metadata["error"] = suspicion.error;
  return MakeError(details);
}

v1::Finding FindingOf(const SyncFailures::Suspicion& suspicion) {
  auto [message, hint] = Say(suspicion);
  v1::Finding finding;
  finding.set_reason(suspicion.error.empty() ? v1::ERROR_REASON_SYNC_TIMEOUT
                                             : v1::ERROR_REASON_SYNC_FAILED);
  finding.set_consequence(v1::FINDING_CONSEQUENCE_LOST);
  finding.set_pid(suspicion.pid);
  finding.set_path(ToPrintableUtf8(suspicion.mount_point));
  finding.set_message(ToPrintableUtf8(message));
  finding.set_hint(hint);
  return finding;
}

}  // namespace daxsnap
