// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_POOL_OPENING_H_
#define DAXSNAP_SNAPD_OPS_POOL_OPENING_H_

#include <functional>
#include <future>
#include <thread>

#include "absl/time/time.h"
#include "snapd/ops/pool_holder.h"

namespace daxsnap {

// The first attempt to open the pool, on a thread of its own: a device or a
// CRIU that hangs must not keep snapd from listening. Used by one thread.
class PoolOpening {
 public:
  // Begins. `ended` is called by that thread when the pool is open, or the
  // attempt has failed. `pools` outlives this.
  PoolOpening(PoolHolder* pools, std::function<void()> ended);
  PoolOpening(const PoolOpening&) = delete;
  PoolOpening& operator=(const PoolOpening&) = delete;
  // Waits for the end. Who must not hang asks AwaitEnd() first, and ends the
  // process without destructors if need be: the thread uses `pools`.
  ~PoolOpening();

  // Whether it has ended, `ended` included; waits for that no longer than
  // `patience`.
  bool AwaitEnd(absl::Duration patience) const;

 private:
  std::promise<void> end_;
  const std::shared_future<void> ended_ = end_.get_future().share();
  std::thread thread_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_POOL_OPENING_H_
