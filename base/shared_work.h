// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_SHARED_WORK_H_
#define DAXSNAP_BASE_SHARED_WORK_H_

#include <algorithm>
#include <chrono>
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
  // nullopt if that has none within `patience` of its beginning, or has thrown.
  // So who comes late to work that hangs does not wait. Who does the work waits
  // for nobody.
  template <typename Work>
  std::optional<Result> Do(absl::Duration patience, Work work) {
    std::promise<std::optional<Result>> promise;
    std::shared_future<std::optional<Result>> other;
    std::chrono::steady_clock::time_point began;
    {
      const std::lock_guard lock(mutex_);
      if (under_way_.valid()) {
        other = under_way_;
        began = began_;
      } else {
        under_way_ = promise.get_future().share();
        began_ = std::chrono::steady_clock::now();
      }
    }
    if (other.valid()) {
      // Clocks overflow with what is for ever.
      const absl::Duration wait = std::min(patience, absl::Hours(24 * 365));
      if (other.wait_until(began + absl::ToChronoMilliseconds(wait)) !=
          std::future_status::ready) {
        return std::nullopt;
      }
      return other.get();
    }
    std::optional<Result> result;
    try {
      result = work();
    } catch (...) {
      End(&promise, std::nullopt);
      throw;
    }
    End(&promise, result);
    return result;
  }

 private:
  void End(std::promise<std::optional<Result>>* promise,
           const std::optional<Result>& result) {
    {
      const std::lock_guard lock(mutex_);
      under_way_ = {};
    }
    promise->set_value(result);
  }

  std::mutex mutex_;
  // Both guarded by mutex_.
  std::shared_future<std::optional<Result>> under_way_;
  std::chrono::steady_clock::time_point began_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_SHARED_WORK_H_
