// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <gtest/gtest.h>

namespace daxsnap {
namespace {

TEST(Uuid, Differs) {
  const std::string one = NewUuid();
  EXPECT_EQ(one.size(), 36u);
  EXPECT_NE(one, NewUuid());
}

}  // namespace
}  // namespace daxsnap
