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

TEST(Uuid, IsToldFromOtherNames) {
  const std::string uuid = NewUuid();
  EXPECT_TRUE(IsUuid(uuid));
  EXPECT_FALSE(IsUuid(""));
  EXPECT_FALSE(IsUuid(uuid + "0"));
  EXPECT_FALSE(IsUuid(uuid.substr(1)));
  EXPECT_FALSE(IsUuid("g" + uuid.substr(1)));
  EXPECT_FALSE(IsUuid("A" + uuid.substr(1)));
  EXPECT_FALSE(IsUuid("-" + uuid.substr(1)));
  EXPECT_FALSE(IsUuid("0123456789abcdef0123456789abcdef0123"));
}

}  // namespace
}  // namespace daxsnap
