// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_STOPWATCH_H_
#define DAXSNAP_BASE_STOPWATCH_H_

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace daxsnap {

inline uint64_t MicrosecondsSince(absl::Time start) {
  return static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - start));
}

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_STOPWATCH_H_
