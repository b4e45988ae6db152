// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_SHARED_WORK_H_
#define DAXSNAP_BASE_SHARED_WORK_H_

#include <algorithm>
#include <future>
#include <mutex>
#include <optional>

#include "absl/time/time.h"

namespace daxsnap {

// Work of which one piece at a time is done, for all who want its result. No
// lock is held meanwhile, so work that hangs costs one thread, not all who
// come. Thread-safe.
template <typename Result>
class SharedWork {
 public:
  // Does the work, or waits for the result of a thread that is at it already:
  // nullopt if that has none within `patience`. Who does the work waits for
  // nobody.
  template <typename Work>
  std::optional<Result> Do(absl::Duration patience, Work work) {
    std::promise<Result> promise;
    std::shared_future<Result> other;
    {
      const std::lock_guard lock(mutex_);
      if (under_way_.valid()) {
        other = under_way_;
      } else {
        under_way_ = promise.get_future().share();
      }
    }
    if (other.valid()) {
      // Clocks overflow with what is for ever.
      const absl::Duration wait = std::min(patience, absl::Hours(24 * 365));
      if (other.wait_for(absl::ToChronoMilliseconds(wait)) !=
          std::future_status::ready) {
        return std::nullopt;
      }
      return other.get();
    }
    Result result = work();
    {
      const std::lock_guard lock(mutex_);
      under_way_ = {};
    }
    promise.set_value(result);
    return result;
  }

 private:
  std::mutex mutex_;
  std::shared_future<Result> under_way_;  // guarded by mutex_
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_SHARED_WORK_H_
