// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_FORMAT_CHANGE_H_
#define DAXSNAP_TESTS_UNIT_FORMAT_CHANGE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <ostream>

#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {

// A change of a sample that makes it one to be refused. Crcs are made right
// again after it, so it is never the crc that refuses.
template <typename Sample>
struct SampleChange {
  const char* name;
  std::function<void(Sample*)> change;
  const char* reason;
};

template <typename Sample>
void PrintTo(const SampleChange<Sample>& change, std::ostream* out) {
  *out << change.name;
}

template <typename Sample>
void ExpectRefused(const SampleChange<Sample>& change) {
  Sample sample;
  ASSERT_THAT(Recover(sample.image.media()), Taken());
  change.change(&sample);
  sample.SealAll();
  EXPECT_THAT(Recover(sample.image.media()), Refused(EUCLEAN, change.reason));
}

inline constexpr auto kNameOfChange = [](const auto& info) {
  return info.param.name;
};

}  // namespace daxsnap::format

#endif  // DAXSNAP_TESTS_UNIT_FORMAT_CHANGE_H_
