// SPDX-License-Identifier: Apache-2.0
//
// What a crash may leave of a device.
#ifndef DAXSNAP_TESTS_CRASH_CRASH_STATES_H_
#define DAXSNAP_TESTS_CRASH_CRASH_STATES_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/crash/device.h"

namespace daxsnap::crash {

// What was seen so far; tests ask whether it was enough.
struct Coverage {
  uint64_t points = 0;      // moments of a crash
  uint64_t exhaustive = 0;  // of them, with every subset of lines
  uint64_t states = 0;      // images recovered
  uint64_t old_state = 0;   // while something was being written: recovered old
  uint64_t new_state = 0;   // recovered new
  uint64_t torn_slot = 0;   // a root slot was neither old nor new
  uint64_t refused = 0;     // the ruling root was damaged: nothing recovered
  uint64_t fell_back = 0;   // the one before it recovered, whole
};

// Makes crash states of a device and has each checked. Deterministic.
class CrashStates {
 public:
  explicit CrashStates(uint64_t seed) : random_(seed) {}
  virtual ~CrashStates() = default;

  // The first one; nothing is checked after it.
  const std::string& violation() const { return violation_; }
  const Coverage& coverage() const { return coverage_; }

 protected:
  // Crashes `device` in many ways, as it is now.
  void Explore(const Device& device);

  // One random crash state, to go on from; checked like the others.
  Bytes RandomCrash(const Device& device);

  // What is wrong with recovering from `image`; "" if nothing.
  virtual std::string Check(const Bytes& image) = 0;

  // Whether a page is zeroed before it is filled, so that its words may be
  // zero.
  virtual bool ZeroesFirst() const = 0;

  Coverage coverage_;

 private:
  enum class Choice { kOld, kNew, kTorn };

  void Put(const DirtyLine& line, Choice choice);
  void Exhaust(const std::vector<DirtyLine>& lines);
  void OnePage(const std::vector<DirtyLine>& lines);
  void Sample(const std::vector<DirtyLine>& lines);
  void Scatter(const std::vector<DirtyLine>& lines);
  void CheckUnlessViolated();
  uint64_t Below(uint64_t n) { return random_() % n; }

  std::mt19937_64 random_;
  Bytes image_;
  std::string violation_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_CRASH_STATES_H_
