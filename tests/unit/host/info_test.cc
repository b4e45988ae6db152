// SPDX-License-Identifier: Apache-2.0
#include "host/pool/info.h"

#include <gtest/gtest.h>

#include <string>

namespace daxsnap::pool {
namespace {

TEST(PoolInfo, KernelStringsWithoutEndAreCut) {
  kmemfs_info info = {};
  for (__u8& c : info.label) c = 'x';
  info.uuid[0] = 0xab;
  info.node = 1;
  info.dirty = 2;
  info.version = 7;
  const v1::Pool pool = ToProto(info);
  EXPECT_EQ(pool.label(), std::string(64, 'x'));
  EXPECT_EQ(pool.uuid(), "ab000000-0000-0000-0000-000000000000");
  EXPECT_EQ(pool.node(), 1);
  EXPECT_TRUE(pool.dirty());
  EXPECT_EQ(pool.format_version(), 7u);
}

}  // namespace
}  // namespace daxsnap::pool
