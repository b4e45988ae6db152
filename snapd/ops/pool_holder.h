// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_
#define DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/shared_work.h"
#include "host/task/proc.h"
#include "snapd/engine/engine.h"
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

// The pool of this snapd. It is opened, and what an earlier snapd left of its
// operations finished or undone, when it is first asked for; if that fails it
// is tried again the next time, so that a pool can be attached while snapd
// runs. One thread opens it, and holds no lock meanwhile: a device or a CRIU
// that hangs is in nobody else's way. Thread-safe.
class PoolHolder {
 public:
  using Opener = std::function<absl::StatusOr<std::unique_ptr<Pool>>()>;

  // `engine` outlives this. Who comes while the pool is being opened waits for
  // `patience`.
  PoolHolder(Opener opener, ProcFs proc, Engine* engine,
             absl::Duration patience = absl::Seconds(5))
      : opener_(std::move(opener)),
        proc_(std::move(proc)),
        engine_(engine),
        patience_(patience) {}

  // The pool, valid as long as the holder. FAILED_PRECONDITION, POOL_MISSING;
  // UNAVAILABLE, POOL_MISSING while another thread is opening it.
  absl::StatusOr<OpenPool*> Get();

 private:
  // Null until it is open.
  OpenPool* open() const;
  absl::StatusOr<OpenPool*> Open();

  const Opener opener_;
  const ProcFs proc_;
  Engine* const engine_;
  const absl::Duration patience_;
  SharedWork<absl::StatusOr<OpenPool*>> opening_;
  mutable std::mutex mutex_;
  std::unique_ptr<OpenPool> open_;  // guarded by mutex_; set once
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_POOL_HOLDER_H_
