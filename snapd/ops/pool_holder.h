// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_
#define DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "host/task/proc.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"

namespace daxsnap {

// A pool with its catalog.
struct OpenPool {
  explicit OpenPool(std::unique_ptr<Pool> opened)
      : pool(std::move(opened)), catalog(pool.get()) {}

  std::unique_ptr<Pool> pool;
  Catalog catalog;
};

// The pool of this snapd. It is opened, and its staging reconciled, when it is
// first asked for; if that fails it is tried again the next time, so that a
// pool can be attached while snapd runs. Thread-safe.
class PoolHolder {
 public:
  using Opener = std::function<absl::StatusOr<std::unique_ptr<Pool>>()>;

  PoolHolder(Opener opener, ProcFs proc, WaitGone wait_gone)
      : opener_(std::move(opener)),
        proc_(std::move(proc)),
        wait_gone_(std::move(wait_gone)) {}

  // The pool, valid as long as the holder; FAILED_PRECONDITION, POOL_MISSING.
  absl::StatusOr<OpenPool*> Get();

 private:
  const Opener opener_;
  const ProcFs proc_;
  const WaitGone wait_gone_;
  std::mutex mutex_;
  std::unique_ptr<OpenPool> open_;  // guarded by mutex_; set once
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_
