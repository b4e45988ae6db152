// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/crash_states.h"

#include <cstring>

namespace daxsnap::crash {

void CrashStates::SetLine(size_t index, const Line& bytes) {
  std::memcpy(&image_[index * kLineSize], bytes.data(), kLineSize);
}

void CrashStates::Explore(const Device& device) {
  if (!violation().empty()) return;
  image_ = device.media();
  ExploreLines(device.DirtyLines());
}

Bytes CrashStates::RandomCrash(const Device& device) {
  image_ = device.media();
  Scatter(device.DirtyLines());
  CheckUnlessViolated();
  return image_;
}

}  // namespace daxsnap::crash
