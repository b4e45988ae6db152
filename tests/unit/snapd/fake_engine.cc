// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/snapd/fake_engine.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include "base/errors.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {

absl::StatusOr<DumpOutcome> FakeEngine::Dump(const DumpRequest& request,
                                             const DumpCallbacks& callbacks,
                                             Cancellation* cancellation) {
  ++dumps;
  dumping_ = cancellation;
  auto self = ProcFs().ReadTask(getpid());
  if (!self.ok()) return self.status();
  absl::Status status = callbacks.started(self->id);
  if (!status.ok()) return status;
  Point("started");
  child_->Stop();
  WriteImages(request.images, request.task.pid, "/bin/sh", open_files);
  Point("images");
  if (callbacks.working) callbacks.working();
  if (status.ok()) status = fail;
  if (status.ok() && cancellation->cancelled()) status = CancelledError();
  if (status.ok()) status = callbacks.images_complete();
  if (status.ok() && !fail_late.ok()) {
    status = fail_late;
    if (die_killing) {
      child_->Kill();
      return status;
    }
  }
  if (!status.ok() || request.options.leave_running()) {
    if (child_->State() == 'T') child_->Continue();
    Point("resumed");
  } else {
    child_->Kill();
    Point("killed");
  }
  if (!status.ok()) return status;
  WriteStats(request.work, 5, 1000, 77);
  WritePageCounts(request.images, 70, 4, 2, 1);
  return DumpOutcome{.dump_us = 2000, .callback_us = 300};
}

void FakeEngine::AwaitCancelled() {
  pollfd poll_for = {
      .fd = dumping_.load()->fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&poll_for, 1, -1), 1);
}

absl::StatusOr<RestoreOutcome> FakeEngine::Restore(
    const RestoreRequest& request, const RestoreCallbacks& callbacks,
    Cancellation* cancellation) {
  restored = request;
  RestoreOutcome outcome;
  outcome.pid = restored_pid;
  outcome.placement = {.scope = "daxsnap-test.scope",
                       .cgroup = "/daxsnap.slice/daxsnap-test.scope"};
  outcome.restore_us = 55;
  auto self = ProcFs().ReadTask(getpid());
  if (!self.ok()) return self.status();
  absl::Status status = callbacks.started(self->id, outcome.placement);
  if (!status.ok()) return status;
  Point("restore");
  if (callbacks.working) callbacks.working();
  if (cancellation->cancelled()) return CancelledError();
  if (!fail.ok()) return fail;
  status = callbacks.resuming();
  if (!status.ok()) return status;
  Point("resuming");
  if (!fail_resuming.ok()) return fail_resuming;
  return outcome;
}

}  // namespace daxsnap
