// SPDX-License-Identifier: Apache-2.0
//
// What a crash may leave of a device.
#ifndef DAXSNAP_TESTS_CRASH_CRASH_STATES_H_
#define DAXSNAP_TESTS_CRASH_CRASH_STATES_H_

#include <string>

#include "tests/crash/device.h"
#include "tests/crash/line_states.h"

namespace daxsnap::crash {

// Makes crash states of a device and has each checked. Deterministic.
class CrashStates : public LineStates {
 public:
  using LineStates::LineStates;

 protected:
  // Crashes `device` in many ways, as it is now.
  void Explore(const Device& device);

  // One random crash state, to go on from; checked like the others.
  Bytes RandomCrash(const Device& device);

  // What is wrong with recovering from `image`; "" if nothing.
  virtual std::string Check(const Bytes& image) = 0;

 private:
  void SetLine(size_t index, const Line& bytes) override;
  std::string CheckNow() override { return Check(image_); }

  Bytes image_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_CRASH_STATES_H_
