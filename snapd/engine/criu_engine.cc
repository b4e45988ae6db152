// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_engine.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "base/uuid.h"
#include "daxsnap/internal/criu.pb.h"
#include "snapd/engine/cgroup_tasks.h"
#include "snapd/engine/criu_log.h"
#include "snapd/engine/criu_options.h"
#include "snapd/engine/criu_session.h"
#include "snapd/engine/restorer.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

constexpr size_t kMaxLog = size_t{64} << 20;
// How many logs of failed runs stay.
constexpr size_t kKeptLogs = 100;
// How long the killed tasks of a restore that failed, and the CRIU of a snapd
// that was killed, get to end.
constexpr absl::Duration kEndTimeout = absl::Seconds(30);
constexpr absl::Duration kUrgeEvery = absl::Milliseconds(100);

// From now on every write of that process to a file fails with EFBIG; it was
// started with SIGXFSZ ignored.
void FailWrites(pid_t pid) {
  const rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  if (prlimit(pid, RLIMIT_FSIZE, &none, nullptr) != 0 && errno != ESRCH) {
    LogWarning(absl::StrCat("cannot limit CRIU ", pid, ": errno ", errno));
  }
}

// Whether a line of CRIU's log, "(00.123456) Error (FILE:2081): MESSAGE", is
// such an error; any, if `message` is empty.
bool IsErrorOf(absl::string_view line, absl::string_view file,
               absl::string_view message) {
  const size_t time = line.find_first_not_of("(.0123456789");
  if (time == absl::string_view::npos) return false;
  line.remove_prefix(time);
  if (!absl::ConsumePrefix(&line, ") Error (") ||
      !absl::ConsumePrefix(&line, file) || !absl::ConsumePrefix(&line, ":")) {
    return false;
  }
  line.remove_prefix(
      std::min(line.find_first_not_of("0123456789"), line.size()));
  return absl::ConsumePrefix(&line, "): ") &&
         (message.empty() || line == message);
}

// Waits for the CRIU of a snapd that was killed. `urge` is called at once, and
// every tenth of a second.
bool AwaitEndOf(const TaskId& criu, const std::function<void()>& urge) {
  auto pidfd = OpenPidfd(ProcFs(), criu);
  if (!pidfd.ok()) return absl::IsNotFound(pidfd.status());
  LogInfo(absl::StrCat("waiting for CRIU (pid ", criu.pid,
                       ") of an earlier snapd to end"));
  const absl::Time deadline = absl::Now() + kEndTimeout;
  do {
    urge();
    if (AwaitTask(*pidfd, absl::Now() + kUrgeEvery)) return true;
  } while (absl::Now() < deadline);
  return false;
}

// Children that a restored task makes from now on must not get PIDs that the
// next boot uses itself, nor those next to it, which are other snapshots'.
void KeepPidsOfChildrenApart(const launch::PidRange& range) {
  const absl::Status status =
      launch::MovePidsTo(range, launch::RandomPid(range));
  if (!status.ok()) LogWarning(status.message());
}

absl::Status CannotStart(const absl::Status& cause) {
  const std::string message =
      absl::StrCat("cannot start CRIU: ", cause.message());
  // EAGAIN and EMFILE, from ErrnoToStatus() or from ErrnoError().
  if (absl::IsUnavailable(cause) || absl::IsResourceExhausted(cause)) {
    return MakeError({.code = absl::StatusCode::kUnavailable,
                      .reason = reason::kOverloaded,
                      .message = message,
                      .hint = std::string(kTryAgainHint)});
  }
  if (!absl::IsNotFound(cause)) {
    return MakeError({.code = absl::StatusCode::kInternal,
                      .reason = reason::kInternal,
                      .message = message,
                      .hint = "see the log of systemd, and report this"});
  }
  return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                    .reason = reason::kKernelUnsupported,
                    .message = message,
                    .hint = "install CRIU, or name it with snapd's --criu",
                    .metadata = {{"feature", "criu"}}});
}

constexpr char kLogTimeFormat[] = "%E4Y%m%dT%H%M%E3SZ";

// When the log was kept, "20261128T134400.123Z"; empty if the name is not one
// that Failure() gives: the directory holds the output of tasks, too.
std::string KeptLogTime(const std::string& name) {
  for (const char* file : {kCriuDumpLog, kCriuRestoreLog}) {
    absl::string_view stem = name;
    if (!absl::ConsumeSuffix(&stem, file) || !absl::ConsumeSuffix(&stem, ".")) {
      continue;
    }
    const size_t dash = stem.rfind('-');
    if (dash == absl::string_view::npos) return "";
    std::string time(stem.substr(dash + 1));
    absl::Time parsed;
    return absl::ParseTime(kLogTimeFormat, time, &parsed, /*err=*/nullptr)
               ? time
               : "";
  }
  return "";
}

// Removes all but the newest logs of CRIU.
absl::Status TrimLogs(int directory) {
  auto names = ListDirectory(directory);
  if (!names.ok()) return names.status();
  std::vector<std::pair<std::string, std::string>> logs;
  for (const std::string& name : *names) {
    std::string time = KeptLogTime(name);
    if (!time.empty()) logs.emplace_back(std::move(time), name);
  }
  if (logs.size() <= kKeptLogs) return absl::OkStatus();
  std::sort(logs.begin(), logs.end(), std::greater<>());
  for (size_t i = kKeptLogs; i < logs.size(); ++i) {
    // Somebody else's failure may trim at the same time.
    if (unlinkat(directory, logs[i].second.c_str(), 0) != 0 &&
        errno != ENOENT) {
      return ErrnoError(errno, absl::StrCat("cannot remove ", logs[i].second));
    }
  }
  return absl::OkStatus();
}

// A directory that is removed with the object.
class ScratchDirectory {
 public:
  static absl::StatusOr<ScratchDirectory> Make(const std::string& parent) {
    auto top = EnsureDirectories(parent);
    if (!top.ok()) return top.status();
    std::string name = NewUuid();
    auto directory = EnsureDirectory(top->get(), name);
    if (!directory.ok()) return directory.status();
    return ScratchDirectory(*std::move(top), std::move(name),
                            *std::move(directory));
  }
  ScratchDirectory(ScratchDirectory&&) noexcept = default;
  ScratchDirectory& operator=(ScratchDirectory&&) = delete;
  ~ScratchDirectory() {
    if (parent_.valid()) (void)RemoveTree(parent_.get(), name_);
  }
  int fd() const { return directory_.get(); }

 private:
  ScratchDirectory(UniqueFd parent, std::string name, UniqueFd directory)
      : parent_(std::move(parent)),
        name_(std::move(name)),
        directory_(std::move(directory)) {}

  UniqueFd parent_;
  std::string name_;
  UniqueFd directory_;
};

}  // namespace

launch::LaunchSpec CriuEngine::Spec(absl::string_view purpose,
                                    const std::string& name) const {
  launch::LaunchSpec spec;
  spec.argv = {options_.criu_path};
  spec.env = {absl::StrCat("CRIU_LIBS_DIR=", options_.plugin_directory),
              "PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  spec.log_path = absl::StrCat(options_.work_directory, "/criu.log");
  spec.scope = launch::ScopeName(
      purpose == "restore" ? name : absl::StrCat(purpose, "-", name));
  spec.description = absl::StrCat("daxsnap ", purpose, " ", name);
  return spec;
}

absl::Status CriuEngine::Failure(absl::string_view action, pid_t pid,
                                 const std::string& name, int directory,
                                 const std::string& message) const {
  const std::string file = action == "dump" ? kCriuDumpLog : kCriuRestoreLog;
  const std::string log = ReadFileAt(directory, file, kMaxLog).value_or("");
  const std::string kept_name = absl::StrCat(
      name, "-",
      absl::FormatTime(kLogTimeFormat, absl::Now(), absl::UTCTimeZone()), ".",
      file);
  auto logs = EnsureDirectories(options_.log_directory);
  absl::Status kept =
      logs.ok() ? ReplaceFileAt(logs->get(), kept_name, log) : logs.status();
  if (kept.ok()) kept = TrimLogs(logs->get());
  if (!kept.ok()) {
    LogWarning(absl::StrCat("cannot keep CRIU's log: ", kept.message()));
  }
  return CriuError(
      {.action = action,
       .pid = pid,
       .name = name,
       .log = log,
       .message = message,
       .log_path = absl::StrCat(options_.log_directory, "/", kept_name)});
}

absl::StatusOr<DumpOutcome> CriuEngine::Dump(const DumpRequest& request,
                                             const DumpCallbacks& callbacks,
                                             Cancellation* cancellation) {
  // env would say so on its standard error, which nobody reads.
  const std::string& criu_path = options_.criu_path;
  if (absl::StrContains(criu_path, '/') &&
      faccessat(AT_FDCWD, criu_path.c_str(), X_OK, AT_EACCESS) != 0) {
    if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) {
      return CannotStart(
          ErrnoError(errno, absl::StrCat("cannot look at ", criu_path)));
    }
    return CannotStart(absl::NotFoundError(
        absl::StrCat(criu_path, ": no such executable file")));
  }
  launch::LaunchSpec spec = Spec("dump", request.name);
  spec.argv.insert(spec.argv.begin(), {"env", "--ignore-signal=XFSZ"});
  // The policy of tasks that is CRIU's own as well is not in the images.
  spec.numa_node = request.memory_node;
  const absl::Time start = absl::Now();
  auto session = CriuSession::Start(std::move(spec));
  if (!session.ok()) return CannotStart(session.status());
  const pid_t criu_pid = session->task().pid;
  auto criu = ProcFs().ReadTask(criu_pid);
  if (!criu.ok()) return criu.status();
  if (absl::Status status = callbacks.started(criu->id); !status.ok()) {
    return status;
  }

  session->SetTick(callbacks.working);
  DumpOutcome outcome;
  absl::Status complete;
  bool completed = false;
  auto response = session->Run(
      ToCriu(request, options_.log_level),
      [&](const std::string& script) -> absl::Status {
        if (script != "post-dump") return absl::OkStatus();
        completed = true;
        const absl::Time begin = absl::Now();
        complete = callbacks.images_complete();
        outcome.callback_us = MicrosecondsSince(begin);
        if (complete.ok()) session->Agree();
        return complete;
      },
      cancellation, [criu_pid] { FailWrites(criu_pid); });
  outcome.dump_us = MicrosecondsSince(start) - outcome.callback_us;

  if (response.ok() && response->success() && completed) return outcome;
  // Either way CRIU has resumed the tasks, and so did the kernel if it died.
  if (!complete.ok()) return complete;
  if (!completed && cancellation->cancelled()) return CancelledError();
  return Failure("dump", request.task.pid, request.name, request.work,
                 response.ok() ? response->cr_errmsg()
                               : std::string(response.status().message()));
}

absl::StatusOr<RestoreOutcome> CriuEngine::Restore(
    const RestoreRequest& request, const RestoreCallbacks& callbacks,
    Cancellation* cancellation) {
  auto work = ScratchDirectory::Make(options_.work_directory);
  if (!work.ok()) return work.status();
  launch::LaunchSpec spec = Spec("restore", request.name);
  spec.numa_node = request.memory_node;
  // CRIU gives its tasks what they had, and leaves them what it has itself
  // where they had nothing of their own.
  spec.neutral = true;
  if (options_.child_pids) KeepPidsOfChildrenApart(*options_.child_pids);
  const absl::Time start = absl::Now();
  auto session = CriuSession::Start(std::move(spec));
  if (!session.ok()) return CannotStart(session.status());
  RestoreOutcome outcome;
  outcome.pid = request.root;
  outcome.placement = {.scope = session->task().scope,
                       .cgroup = session->task().cgroup};
  auto criu = ProcFs().ReadTask(session->task().pid);
  if (!criu.ok()) return criu.status();
  if (absl::Status status = callbacks.started(criu->id, outcome.placement);
      !status.ok()) {
    return status;
  }

  session->SetTick(callbacks.working);
  const CgroupTasks tasks(outcome.placement.cgroup);
  absl::Status resuming;
  // All is restored. What CRIU still does is to let go of the tasks, which the
  // kernel does if CRIU dies.
  bool complete = false;
  bool agreed = false;
  absl::Time cancelled_since = absl::InfiniteFuture();
  auto response = session->Run(
      ToCriu(request, work->fd(), options_.log_level),
      [&](const std::string& script) {
        // The last one whose answer CRIU heeds.
        if (script == "post-restore") {
          resuming = callbacks.resuming();
          agreed = resuming.ok();
          if (agreed) session->Agree();
        }
        complete =
            complete || script == "pre-resume" || script == "post-resume";
        return resuming;
      },
      cancellation,
      // The tasks have done nothing of their own yet. CRIU finds out, and takes
      // back what it has made elsewhere, files that were deleted for example.
      [&] {
        cancelled_since = std::min(cancelled_since, absl::Now());
        if (absl::Now() - cancelled_since > options_.tidy_timeout) {
          tasks.Kill();
        } else {
          tasks.KillAllBut(criu->id.pid);
        }
      });
  outcome.restore_us = MicrosecondsSince(start);
  if (response.ok() && response->success()) {
    outcome.pid = response->restore().pid();
    return outcome;
  }
  const std::string message = response.ok()
                                  ? response->cr_errmsg()
                                  : std::string(response.status().message());
  // What has run is not ended, if CRIU itself has not.
  if (agreed && !response.ok()) {
    if (complete) return outcome;
    auto left = LookAtTasks(outcome.placement);
    if (!left.ok() || *left == TasksLeft::kRun) {
      return RunsUnfinished(request.name, work->fd(), message, outcome);
    }
  }
  tasks.Kill();
  tasks.AwaitEnd(kEndTimeout);
  if (!resuming.ok()) return resuming;
  if (cancellation->cancelled()) return CancelledError();
  return Failure("restore", 0, request.name, work->fd(), message);
}

absl::Status CriuEngine::RunsUnfinished(const std::string& name, int directory,
                                        const std::string& message,
                                        const RestoreOutcome& outcome) const {
  const absl::Status failure = Failure("restore", 0, name, directory, message);
  std::map<std::string, std::string> metadata = ErrorMetadataOf(failure);
  metadata["pid"] = absl::StrCat(outcome.pid);
  metadata["scope"] = outcome.placement.scope;
  metadata["cgroup"] = outcome.placement.cgroup;
  return MakeError(
      {.code = failure.code(),
       .reason = ErrorReasonOf(failure),
       .message = absl::StrCat(
           "CRIU died when the tasks of ", name,
           " had begun to run, and before it was done with them: they run on "
           "in ",
           outcome.placement.cgroup, ": ", failure.message()),
       .hint = "see whether they are well; end them before another restore",
       .metadata = std::move(metadata)});
}

bool CriuEngine::EndDump(const TaskId& criu) {
  return AwaitEndOf(criu, [&criu] { FailWrites(criu.pid); });
}

bool CriuEngine::AwaitWorker(const TaskId& criu) {
  return AwaitEndOf(criu, [] {});
}

bool CriuEngine::EndTasks(const TaskId& criu, const Placement& placement) {
  const CgroupTasks tasks(placement.cgroup);
  if (criu.pid != 0) {
    AwaitEndOf(criu, [&] { tasks.KillAllBut(criu.pid); });
  }
  tasks.Kill();
  return tasks.AwaitEnd(kEndTimeout);
}

absl::StatusOr<TasksLeft> CriuEngine::LookAtTasks(const Placement& placement) {
  const CgroupTasks tasks(placement.cgroup);
  auto pids = tasks.List();
  if (!pids.ok()) return pids.status();
  return LookAtRestored(ProcFs(), *pids);
}

absl::StatusOr<bool> CriuEngine::HasLetGo(int work) {
  auto log = ReadFileAt(work, kCriuDumpLog, kMaxLog);
  if (absl::IsNotFound(log.status())) return false;
  if (!log.ok()) return log.status();
  // source: cr_dump_finish() in criu/cr-dump.c, dump_using_req() in
  // criu/cr-service.c: the last but for an answer that nobody takes.
  absl::string_view left = *log;
  while (absl::ConsumeSuffix(&left, "\n")) {
    const size_t end = left.rfind('\n');
    const absl::string_view line =
        end == absl::string_view::npos ? left : left.substr(end + 1);
    if (IsErrorOf(line, "criu/cr-dump.c", "Dumping FAILED.")) return true;
    if (!IsErrorOf(line, "criu/cr-service.c", "")) return false;
    left.remove_suffix(line.size());
  }
  return false;
}

absl::StatusOr<std::string> CriuEngine::Version() {
  auto session = CriuSession::Start(Spec("version", "criu"));
  if (!session.ok()) return CannotStart(session.status());
  // It has no task in its hands.
  session->SetDeadline(absl::Now() + options_.version_timeout);
  const CgroupTasks processes(session->task().cgroup);
  bool late = false;
  Cancellation never;
  auto response = session->Run(
      CriuVersionRequest(), [](const std::string&) { return absl::OkStatus(); },
      &never,
      [&] {
        late = true;
        processes.Kill();
      });
  if (late) {
    return MakeError(
        {.code = absl::StatusCode::kUnavailable,
         .reason = reason::kOverloaded,
         .message = absl::StrCat(
             options_.criu_path, " did not say its version within ",
             absl::FormatDuration(options_.version_timeout)),
         .hint = "run it with --version by hand"});
  }
  if (!response.ok()) return response.status();
  const pb::Version& version = response->version();
  std::string text =
      absl::StrCat(version.major_number(), ".", version.minor_number());
  if (version.sublevel() != 0) absl::StrAppend(&text, ".", version.sublevel());
  return text;
}

}  // namespace daxsnap
