// SPDX-License-Identifier: Apache-2.0
#include "host/task/machine.h"

#include <gtest/gtest.h>

namespace daxsnap {
namespace {

TEST(CpuInfo, TakesTheFirstCpusInstructions) {
  const CpuInfo cpu = ParseCpuInfo(
      "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n"
      "flags\t\t: fpu sse2 avx512f ibrs avx retpoline\nbugs\t: x\n\n"
      "processor\t: 1\nmodel name\t: Other\nflags\t\t: avx2\n");
  EXPECT_EQ(cpu.model, "Some CPU @ 2GHz");
  EXPECT_EQ(cpu.features, (std::vector<std::string>{"avx", "avx512f", "sse2"}));
}

TEST(CpuInfo, MissingFeaturesAreThoseThatAreNeeded) {
  EXPECT_EQ(MissingFeatures({"avx", "avx2", "sse2"}, {"avx", "sse2", "vaes"}),
            std::vector<std::string>{"avx2"});
  EXPECT_TRUE(MissingFeatures({}, {"avx"}).empty());
}

TEST(Machine, UuidsDiffer) {
  const std::string one = NewUuid();
  EXPECT_EQ(one.size(), 36u);
  EXPECT_NE(one, NewUuid());
}

}  // namespace
}  // namespace daxsnap
