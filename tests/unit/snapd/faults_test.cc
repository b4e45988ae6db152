// SPDX-License-Identifier: Apache-2.0
//
// Checkpoint, restore and delete that meet an error, or whose snapd is killed,
// at each of the system calls and transitions on their way, once for each: the
// task lives or its snapshot is whole, the catalog is right after a restart,
// and nothing is left over.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "tests/unit/base/child.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::IsEmpty;

constexpr Caller kRoot = {.uid = 0, .gid = 0};

// In the place of an errno: the process is killed.
constexpr int kKilled = -1;

// What CRIU is at; shared with the process that is killed, which it outlives.
struct CriuState {
  bool dumping = false;
  bool restoring = false;
  // It waits for the last answer, and fails without it.
  bool asking = false;
  // snapd has let it go on to the end.
  bool agreed = false;
};

// One shared CriuState.
class SharedState {
 public:
  SharedState()
      : state_(new (mmap(nullptr, sizeof(CriuState), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0)) CriuState()) {}
  SharedState(const SharedState&) = delete;
  SharedState& operator=(const SharedState&) = delete;
  ~SharedState() { munmap(state_, sizeof(CriuState)); }
  CriuState* operator->() const { return state_; }
  CriuState* get() const { return state_; }

 private:
  CriuState* const state_;
};

// A CRIU with one task, which it stops, kills or lets go on by signals. What it
// does when its snapd is killed is in EndOfSnapd().
class SignalEngine : public Engine {
 public:
  SignalEngine(const Child* task, CriuState* state)
      : task_(task->pid()), state_(state) {}

  absl::StatusOr<DumpOutcome> Dump(const DumpRequest& request,
                                   const DumpCallbacks& callbacks,
                                   Cancellation* /*cancellation*/) override {
    auto self = ProcFs().ReadTask(getpid());
    if (!self.ok()) return self.status();
    absl::Status status = callbacks.started(self->id);
    if (!status.ok()) return status;
    state_->dumping = true;
    kill(task_, SIGSTOP);
    WriteImages(request.images, request.task.pid, "/bin/sh");
    status = callbacks.images_complete();
    state_->agreed = status.ok();
    EndOfSnapd(request.options.leave_running());
    if (!status.ok()) return status;
    WriteStats(request.work, 5, 1000, 77);
    return DumpOutcome{.dump_us = 2000, .callback_us = 300};
  }

  absl::StatusOr<RestoreOutcome> Restore(
      const RestoreRequest& /*request*/, const RestoreCallbacks& callbacks,
      Cancellation* /*cancellation*/) override {
    RestoreOutcome outcome;
    // The one that there is: who asks again is told of it.
    outcome.pid = task_;
    outcome.placement.cgroup = "/c";
    auto self = ProcFs().ReadTask(getpid());
    if (!self.ok()) return self.status();
    absl::Status status = callbacks.started(self->id, outcome.placement);
    if (!status.ok()) return status;
    state_->restoring = true;
    state_->asking = true;
    status = callbacks.resuming();
    state_->agreed = status.ok();
    if (!status.ok()) {
      state_->restoring = false;
      return status;
    }
    return outcome;
  }

  // What CRIU does with its tasks at the end of a dump, or of its snapd. At a
  // restore it may not have come to where it hears of that.
  void EndOfSnapd(bool leave_running) {
    if (state_->asking && !state_->agreed) state_->restoring = false;
    if (!state_->dumping) return;
    state_->dumping = false;
    kill(task_, state_->agreed && !leave_running ? SIGKILL : SIGCONT);
  }

  // It has ended with its snapd.
  bool EndDump(const TaskId& /*worker*/) override { return true; }
  bool AwaitWorker(const TaskId& /*worker*/) override { return true; }
  bool EndTasks(const TaskId& /*worker*/, const Placement& placement) override {
    EXPECT_FALSE(state_->agreed) << "they may have run";
    EXPECT_TRUE(placement.cgroup == "/c" || placement.cgroup.empty());
    state_->restoring = false;
    return true;
  }
  absl::StatusOr<TasksLeft> LookAtTasks(
      const Placement& /*placement*/) override {
    return state_->restoring ? TasksLeft::kRun : TasksLeft::kNone;
  }
  absl::StatusOr<bool> HasLetGo(int /*work*/) override {
    return !state_->agreed;
  }
  absl::StatusOr<std::string> Version() override { return "9.9"; }

 private:
  const pid_t task_;
  CriuState* const state_;
};

// The calls on the way of `work`, by number, each failing once.
class Faults {
 public:
  // A call that can be made fail.
  struct Call {
    std::string call;
    std::string name;
  };

  // All that `work` makes.
  static std::vector<Call> Of(const std::function<void()>& work) {
    std::vector<Call> calls;
    const ScopedFileFault fault(
        [&](absl::string_view call, const std::string& name) {
          if (IsOurs(call, name)) calls.push_back({std::string(call), name});
          return 0;
        });
    work();
    return calls;
  }

  // Makes the `at`-th fail, or kills the process there.
  static ScopedFileFault::Fault At(size_t at, int error) {
    auto left = std::make_shared<size_t>(at);
    return [left, error](absl::string_view call, const std::string& name) {
      if (!IsOurs(call, name) || (*left)-- != 0) return 0;
      if (error == kKilled) raise(SIGKILL);
      return error;
    };
  }

 private:
  // Those of snapd, not of the engine.
  static bool IsOurs(absl::string_view call, const std::string& name) {
    const bool changes =
        call == "create" || call == "write" || call == "rename";
    return !changes || !(absl::StrContains(name, ".img") ||
                         absl::StrContains(name, "stats-dump"));
  }
};

// What of /proc cannot be read is tried with one error: it is the same code.
std::vector<int> ErrorsFor(const Faults::Call& call) {
  if (absl::StartsWith(call.name, "/proc")) return {EMFILE, kKilled};
  return {EIO, ENOSPC, EMFILE, ENOMEM, kKilled};
}

// The inside of a snapd on a pool, which it opens at once, if it can.
struct Snapd {
  Snapd(const std::string& path, Engine* engine)
      : holder([path] { return Pool::Open(path); }, ProcFs(), engine),
        operations(
            &holder, engine, ProcFs(),
            {.sync = [](const std::vector<SyncTarget>&, absl::Duration,
                        const Cancellation&, int) { return absl::OkStatus(); },
             .find = [](const ProcFs&, const std::vector<TaskInfo>&,
                        const std::vector<UsedFile>&, const FindingsInput&)
                 -> absl::StatusOr<std::vector<v1::Finding>> {
               return std::vector<v1::Finding>();
             }}) {
    (void)holder.Get();
  }

  Catalog& catalog() { return (*holder.Get())->catalog; }
  std::vector<std::string> Staging() {
    return *ListDirectory((*holder.Get())->pool->staging());
  }

  PoolHolder holder;
  Operations operations;
};

using Work = std::function<absl::Status(Operations*)>;

// A pool and a task, made anew for each fault.
class World {
 public:
  World() : engine_(&task_, state_.get()) {}

  // The calls of a snapd on the way of `work`.
  std::vector<Faults::Call> CallsOf(const Work& work) {
    Snapd snapd(temp_.path(), &engine_);
    absl::Status done;
    auto calls = Faults::Of([&] { done = work(&snapd.operations); });
    EXPECT_TRUE(done.ok()) << done;
    return calls;
  }

  // Does it with a fault. Killed there, it has no result. A call that is not
  // made this time, as some depend on the clock, is no fault.
  std::optional<absl::Status> Try(size_t at, int error, const Work& work) {
    const auto run = [&] {
      Snapd snapd(temp_.path(), &engine_);
      const ScopedFileFault fault(Faults::At(at, error));
      return work(&snapd.operations);
    };
    if (error != kKilled) return run();
    const pid_t pid = fork();
    if (pid == 0) _exit(run().ok() ? 0 : 1);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return std::nullopt;
    EXPECT_EQ(status, 0);
    return absl::OkStatus();
  }

  std::unique_ptr<Snapd> Restart() {
    return std::make_unique<Snapd>(temp_.path(), &engine_);
  }

  // A snapshot of a task that is gone.
  void AddWhole() {
    const auto snapd = Restart();
    AddSnapshot(&snapd->catalog(), "a", 0);
    const auto images =
        EnsureDirectory(snapd->catalog().Open("a")->get(), "images");
    WriteImages(images->get(), 4242, "/bin/sh");
  }

  bool TaskRuns() const {
    return *ProcFs().IsAlive(task_.id()) && task_.State() != 'T';
  }

  const Child& task() const { return task_; }
  SignalEngine& engine() { return engine_; }
  const CriuState& criu() const { return *state_.get(); }

 private:
  TempDirectory temp_;
  Child task_;
  SharedState state_;
  SignalEngine engine_;
};

bool IsWhole(Snapd& snapd) {
  return snapd.catalog().Read("a").ok() && snapd.catalog().OpenImages("a").ok();
}

std::string Where(const Faults::Call& call, int error) {
  return absl::StrCat(call.call, " ", call.name, ": ",
                      error == kKilled ? "SIGKILL" : strerrorname_np(error));
}

class CheckpointFaults : public testing::TestWithParam<bool> {
 protected:
  static Work Checkpoint(const World& world) {
    return [pid = world.task().pid()](Operations* operations) {
      v1::CreateSnapshotRequest request;
      request.set_pid(pid);
      request.set_name("a");
      request.mutable_options()->set_leave_running(GetParam());
      Cancellation never;
      return operations
          ->Create(
              kRoot, request, [](v1::ProgressPhase) {}, &never)
          .status();
    };
  }

  static std::vector<Faults::Call> Calls() {
    World world;
    return world.CallsOf(Checkpoint(world));
  }

  // What holds once a snapd has come to its end or was killed, and the next has
  // started.
  static void CheckOneIsThere(World* world) {
    const auto snapd = world->Restart();
    const bool runs = world->TaskRuns();
    const bool whole = IsWhole(*snapd);
    EXPECT_TRUE(runs || whole) << "both are lost";
    if (!GetParam()) {
      EXPECT_NE(runs, whole);
    }
    EXPECT_EQ(*snapd->catalog().Count(), whole ? 1u : 0u);
    EXPECT_THAT(snapd->Staging(), IsEmpty());
  }
};

TEST_P(CheckpointFaults, TaskLivesOrItsSnapshotIsWhole) {
  const std::vector<Faults::Call> calls = Calls();
  ASSERT_GT(calls.size(), 20u);
  for (size_t at = 0; at < calls.size(); ++at) {
    for (const int error : ErrorsFor(calls[at])) {
      SCOPED_TRACE(Where(calls[at], error));
      World world;
      const auto result = world.Try(at, error, Checkpoint(world));
      if (!result.has_value()) world.engine().EndOfSnapd(GetParam());
      CheckOneIsThere(&world);
      if (!result.has_value()) continue;
      EXPECT_EQ(IsWhole(*world.Restart()), result->ok()) << *result;
      if (!result->ok()) {
        EXPECT_TRUE(world.TaskRuns()) << *result;
      }
    }
  }
}

// What a restart cannot do is left to the next, and lost by none.
TEST_P(CheckpointFaults, RestartsThatFailLoseNothing) {
  const std::vector<Faults::Call> calls = Calls();
  const auto killed_at = [](size_t at) {
    auto world = std::make_shared<World>();
    (void)world->Try(at, kKilled, Checkpoint(*world));
    world->engine().EndOfSnapd(GetParam());
    return world;
  };
  for (size_t at = 0; at < calls.size(); ++at) {
    // Where most of what is there is different.
    if (calls[at].call != "point" && calls[at].call != "commit") continue;
    const size_t restart_calls =
        Faults::Of([world = killed_at(at)] { (void)world->Restart(); }).size();
    for (size_t again = 0; again < restart_calls; ++again) {
      SCOPED_TRACE(absl::StrCat(Where(calls[at], kKilled), ", then ", again));
      const auto world = killed_at(at);
      {
        const ScopedFileFault fault(Faults::At(again, EIO));
        (void)world->Restart();
      }
      CheckOneIsThere(world.get());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, CheckpointFaults, testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "LeftRunning" : "Killed";
                         });

class RestoreFaults : public testing::TestWithParam<bool> {};

TEST_P(RestoreFaults, SnapshotStaysAndTasksRunOrAreGone) {
  const Work restore = [](Operations* operations) {
    v1::RestoreSnapshotRequest request;
    request.set_name("a");
    if (GetParam()) request.set_request_id("r");
    Cancellation never;
    return operations
        ->Restore(
            kRoot, request, [](v1::ProgressPhase) {}, &never)
        .status();
  };
  World dry;
  dry.AddWhole();
  const std::vector<Faults::Call> calls = dry.CallsOf(restore);
  ASSERT_GT(calls.size(), 10u);
  for (size_t at = 0; at < calls.size(); ++at) {
    for (const int error : ErrorsFor(calls[at])) {
      SCOPED_TRACE(Where(calls[at], error));
      World world;
      world.AddWhole();
      const auto result = world.Try(at, error, restore);
      if (!result.has_value()) world.engine().EndOfSnapd(false);
      const auto next = world.Restart();
      EXPECT_TRUE(IsWhole(*next));
      // Nothing, or the result that the next snapd has found.
      const auto kept = next->catalog().records().List();
      for (const std::string& uid : *kept) {
        EXPECT_TRUE(next->catalog().records().Read(uid)->has_result());
      }
      EXPECT_LE(kept->size(), GetParam() && !result.has_value() ? 1u : 0u);
      EXPECT_EQ(next->Staging().size(), kept->size());
      // None that has not run is left, and none that has run was ended.
      EXPECT_EQ(world.criu().restoring, world.criu().agreed);
      if (result.has_value()) {
        EXPECT_EQ(world.criu().agreed, result->ok()) << *result;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ids, RestoreFaults, testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "WithId" : "WithoutId";
                         });

TEST(DeleteFaults, SnapshotIsWholeOrGone) {
  const Work remove = [](Operations* operations) {
    v1::DeleteSnapshotRequest request;
    request.set_name("a");
    return operations->Delete(kRoot, request).status();
  };
  World dry;
  dry.AddWhole();
  const std::vector<Faults::Call> calls = dry.CallsOf(remove);
  ASSERT_GT(calls.size(), 5u);
  for (size_t at = 0; at < calls.size(); ++at) {
    for (const int error : ErrorsFor(calls[at])) {
      SCOPED_TRACE(Where(calls[at], error));
      World world;
      world.AddWhole();
      const auto result = world.Try(at, error, remove);
      const auto next = world.Restart();
      const bool whole = IsWhole(*next);
      EXPECT_EQ(*next->catalog().Count(), whole ? 1u : 0u);
      EXPECT_THAT(next->Staging(), IsEmpty());
      if (result.has_value()) {
        EXPECT_EQ(whole, !result->ok()) << *result;
      }
    }
  }
}

}  // namespace
}  // namespace daxsnap
