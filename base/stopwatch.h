// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_STOPWATCH_H_
#define DAXSNAP_BASE_STOPWATCH_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace daxsnap {

// For poll(): 0 if it is over, and never less than what is left.
inline int MillisecondsUntil(absl::Time deadline) {
  const absl::Duration left =
      std::clamp(deadline - absl::Now(), absl::ZeroDuration(),
                 absl::Milliseconds(std::numeric_limits<int>::max()));
  return static_cast<int>(
      absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))));
}

inline uint64_t MicrosecondsSince(absl::Time start) {
  return static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - start));
}

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_STOPWATCH_H_
