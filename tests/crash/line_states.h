// SPDX-License-Identifier: Apache-2.0
//
// What a crash may leave of lines that are not certain yet.
#ifndef DAXSNAP_TESTS_CRASH_LINE_STATES_H_
#define DAXSNAP_TESTS_CRASH_LINE_STATES_H_

#include <cstddef>
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

// Makes crash states of the media that it is over, a line of it at a time, and
// has each checked: all of them if few lines are uncertain, else each page of
// them alone, and random ones. Deterministic.
class LineStates {
 public:
  // Of so many random lines each alone, too, where there are too many for all
  // subsets.
  explicit LineStates(uint64_t seed, uint64_t single_lines = 0)
      : random_(seed), single_lines_(single_lines) {}
  virtual ~LineStates() = default;

  // The first one; nothing is checked after it.
  const std::string& violation() const { return violation_; }
  const Coverage& coverage() const { return coverage_; }

 protected:
  // The media is as it is for certain; afterwards as in some crash state.
  void ExploreLines(const std::vector<DirtyLine>& lines);
  // One random crash state.
  void Scatter(const std::vector<DirtyLine>& lines);
  void CheckUnlessViolated();
  uint64_t Below(uint64_t n) { return random_() % n; }

  virtual void SetLine(size_t index, const Line& bytes) = 0;
  // What is wrong with recovering from the media as it is; "" if nothing.
  virtual std::string CheckNow() = 0;
  // Whether a page is zeroed before it is filled, so that its words may be
  // zero.
  virtual bool ZeroesFirst() const = 0;

  Coverage coverage_;
  std::string violation_;

 private:
  enum class Choice { kOld, kNew, kTorn };

  void Put(const DirtyLine& line, Choice choice);
  void Exhaust(const std::vector<DirtyLine>& lines);
  void OnePage(const std::vector<DirtyLine>& lines);
  void OneLine(const std::vector<DirtyLine>& lines);
  void Sample(const std::vector<DirtyLine>& lines);

  std::mt19937_64 random_;
  const uint64_t single_lines_;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_LINE_STATES_H_
