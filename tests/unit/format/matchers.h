// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_FORMAT_MATCHERS_H_
#define DAXSNAP_TESTS_UNIT_FORMAT_MATCHERS_H_

#include <gmock/gmock.h>

#include <ostream>

#include "tests/unit/format/recovery.h"

namespace daxsnap::format {

inline void PrintTo(const Recovery& recovery, std::ostream* out) {
  if (recovery.ok()) {
    *out << "taken, generation " << recovery.root.generation << " of slot "
         << recovery.slot;
  } else {
    *out << "refused with " << recovery.error << ": " << recovery.why;
  }
}

MATCHER(Taken, "") { return arg.ok(); }

// Refused with -error, for a reason that contains `reason`.
MATCHER_P2(Refused, error, reason, "") {
  return arg.error == -error && arg.why.find(reason) != std::string::npos;
}

}  // namespace daxsnap::format

#endif  // DAXSNAP_TESTS_UNIT_FORMAT_MATCHERS_H_
