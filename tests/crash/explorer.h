// SPDX-License-Identifier: Apache-2.0
//
// What a crash may leave, and whether it is what it may.
#ifndef DAXSNAP_TESTS_CRASH_EXPLORER_H_
#define DAXSNAP_TESTS_CRASH_EXPLORER_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/crash/device.h"
#include "tests/crash/model_fs.h"

namespace daxsnap::crash {

// What was seen so far; tests ask whether it was enough.
struct Coverage {
  uint64_t points = 0;      // moments of a crash
  uint64_t exhaustive = 0;  // of them, with every subset of lines
  uint64_t states = 0;      // images recovered
  uint64_t old_state = 0;   // while a root was being written: recovered old
  uint64_t new_state = 0;   // recovered new
  uint64_t torn_slot = 0;   // a slot was neither old nor new
};

// Makes crash states of a device and recovers from each. Deterministic.
class Explorer {
 public:
  explicit Explorer(uint64_t seed) : random_(seed) {}

  // Crashes `device` in many ways, as it is now. The first violation is kept
  // and nothing is done after it.
  void Explore(const Device& device, const ModelFs& fs);

  // One random crash state, to go on from; checked like the others.
  Bytes RandomCrash(const Device& device, const ModelFs& fs);

  const std::string& violation() const { return violation_; }
  const Coverage& coverage() const { return coverage_; }

 private:
  enum class Choice { kOld, kNew, kTorn };

  void Put(const DirtyLine& line, Choice choice);
  void Exhaust(const std::vector<DirtyLine>& lines, const ModelFs& fs);
  void OnePage(const std::vector<DirtyLine>& lines, const ModelFs& fs);
  void Sample(const std::vector<DirtyLine>& lines, const ModelFs& fs);
  void Scatter(const std::vector<DirtyLine>& lines);
  void Check(const ModelFs& fs);
  void CheckAgain(const format::Recovery& first, const kmemfs_media& media);
  uint64_t Below(uint64_t n) { return random_() % n; }

  std::mt19937_64 random_;
  Bytes image_;
  std::string violation_;
  Coverage coverage_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_EXPLORER_H_
