// SPDX-License-Identifier: Apache-2.0
#include "host/task/machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/unit/base/testing.h"

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

TEST(Machine, NodesWithMemoryAreAMask) {
  const TempDirectory sysfs;
  // A kernel without NUMA.
  EXPECT_EQ(*ReadMemoryNodes(sysfs.path()), 1u);
  const std::string nodes = sysfs.path() + "/devices/system/node";
  ASSERT_TRUE(EnsureDirectories(nodes).ok());
  const auto read = [&](const char* text) {
    EXPECT_TRUE(ReplaceFileAt(AT_FDCWD, nodes + "/has_memory", text).ok());
    return ReadMemoryNodes(sysfs.path());
  };
  EXPECT_EQ(*read("0\n"), 1u);
  EXPECT_EQ(*read("0-1,3\n"), 0b1011u);
  EXPECT_EQ(*read("0,62-70\n"), uint64_t{0b11} << 62 | 1);
  EXPECT_FALSE(read("zero\n").ok());
  EXPECT_FALSE(read("1-x\n").ok());
}

}  // namespace
}  // namespace daxsnap
