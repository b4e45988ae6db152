// SPDX-License-Identifier: Apache-2.0
// Protocols with one mistake in them: the model must see each.
#ifndef DAXSNAP_TESTS_CRASH_MUTANT_H_
#define DAXSNAP_TESTS_CRASH_MUTANT_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <ostream>

namespace daxsnap::crash {

template <typename Mistake>
struct MutantOf {
  const char* name;
  Mistake mistake;
};

template <typename Mistake>
void PrintTo(const MutantOf<Mistake>& mutant, std::ostream* out) {
  *out << mutant.name;
}

// Fails unless run(seed, mistake) tells of a violation for one of the first
// `patience` seeds.
template <typename Run, typename Mistake>
void ExpectSeen(Run run, const Mistake& mistake, uint64_t patience) {
  for (uint64_t seed = 1; seed <= patience; seed++) {
    const auto result = run(seed, mistake);
    if (result.violation.empty()) continue;
    std::cout << "seed " << seed << ", state " << result.coverage.states << ": "
              << result.violation << "\n";
    return;
  }
  FAIL() << "the crash tests would pass without this rule";
}

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_MUTANT_H_
