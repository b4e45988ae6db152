// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/claims.h"

#include <gtest/gtest.h>

#include <optional>

#include "base/errors.h"

namespace daxsnap {
namespace {

TEST(Claims, SecondClaimOfANameIsAborted) {
  Claims claims;
  auto first = claims.ClaimName("a");
  ASSERT_TRUE(first.ok());
  const absl::Status second = claims.ClaimName("a").status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ErrorReasonOf(second), reason::kBusy);
  EXPECT_TRUE(claims.ClaimName("b").ok());
}

TEST(Claims, NameIsFreeWhenTheClaimGoes) {
  Claims claims;
  {
    const auto claim = claims.ClaimName("a");
    ASSERT_TRUE(claim.ok());
  }
  EXPECT_TRUE(claims.ClaimName("a").ok());
}

TEST(Claims, PidsConflictWholeTreesAtOnce) {
  Claims claims;
  auto first = claims.ClaimName("a");
  auto second = claims.ClaimName("b");
  ASSERT_TRUE(first->AddPids({1, 2, 3}).ok());
  const absl::Status busy = second->AddPids({9, 3});
  EXPECT_EQ(busy.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ErrorMetadataOf(busy)["pid"], "3");
  // Nothing of a refused set is taken.
  EXPECT_TRUE(first->AddPids({9}).ok());
}

TEST(Claims, PidsAreFreeWhenTheClaimGoes) {
  Claims claims;
  {
    auto first = claims.ClaimName("a");
    ASSERT_TRUE(first->AddPids({1}).ok());
    const Claims::Claim moved = *std::move(first);
  }
  auto second = claims.ClaimName("a");
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(second->AddPids({1}).ok());
}

}  // namespace
}  // namespace daxsnap
