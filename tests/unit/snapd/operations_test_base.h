// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_SNAPD_OPERATIONS_TEST_BASE_H_
#define DAXSNAP_TESTS_UNIT_SNAPD_OPERATIONS_TEST_BASE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "tests/unit/base/child.h"
#include "tests/unit/snapd/fake_engine.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {

// The inside of a snapd: the calls, on a pool and with an engine that the test
// sees into, and a task to work on.
class OperationsTestBase : public testing::Test {
 protected:
  // What the task runs; empty: `sleep infinity`.
  explicit OperationsTestBase(const std::string& script = "")
      : task_(script.empty() ? Child() : Child(script)),
        engine_(&task_),
        holder_(
            [this]() -> absl::StatusOr<std::unique_ptr<Pool>> {
              auto pool = TestPool::Open(temp_.path());
              pool_ = pool.get();
              return pool;
            },
            ProcFs(), &engine_),
        operations_(&holder_, &engine_, ProcFs(), Host()) {
    EXPECT_TRUE(holder_.Get().ok());
  }

  // What takes the place of this machine.
  HostActions Host() {
    return {.sync =
                [this](const std::vector<SyncTarget>& targets,
                       absl::Duration timeout, const Cancellation&, int) {
                  return on_sync ? on_sync(targets, timeout) : SyncOutcome();
                },
            .find = [this](const ProcFs&, const std::vector<TaskInfo>&,
                           const std::vector<UsedFile>&, const FindingsInput&)
                -> absl::StatusOr<std::vector<v1::Finding>> {
              return on_find ? on_find() : std::vector<v1::Finding>();
            }};
  }

  Catalog& catalog() { return (*holder_.Get())->catalog; }

  v1::CreateSnapshotRequest Request(const std::string& name) {
    v1::CreateSnapshotRequest request;
    request.set_pid(task_.pid());
    request.set_name(name);
    return request;
  }

  // Called in place of a sync of the file systems of the task.
  std::function<SyncOutcome(const std::vector<SyncTarget>&, absl::Duration)>
      on_sync;

  // Called in place of the look for what does not come back: the task is not
  // one that `snapctl run` has started.
  std::function<std::vector<v1::Finding>()> on_find;

  Child task_;
  TempDirectory temp_;
  FakeEngine engine_;
  TestPool* pool_ = nullptr;
  PoolHolder holder_;
  Operations operations_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_SNAPD_OPERATIONS_TEST_BASE_H_
