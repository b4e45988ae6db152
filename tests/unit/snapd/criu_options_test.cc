// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_options.h"

#include <gtest/gtest.h>

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

TEST(CriuOptions, OfADump) {
  DumpRequest request;
  request.task = {.pid = 42, .start_ticks = 1};
  request.images = 7;
  request.work = 8;
  for (const bool leave_running : {false, true}) {
    request.options.set_leave_running(leave_running);
    const pb::Request criu = ToCriu(request, 3);
    EXPECT_EQ(criu.type(), pb::DUMP);
    EXPECT_EQ(criu.opts().pid(), 42);
    EXPECT_EQ(criu.opts().images_dir_fd(), 7);
    EXPECT_EQ(criu.opts().work_dir_fd(), 8);
    EXPECT_EQ(criu.opts().log_level(), 3);
    EXPECT_EQ(criu.opts().log_file(), kCriuDumpLog);
    EXPECT_EQ(criu.opts().leave_running(), leave_running);
    // snapd stands in the way of the kill there.
    EXPECT_TRUE(criu.opts().notify_scripts());
    EXPECT_FALSE(criu.opts().tcp_established());
    EXPECT_FALSE(criu.opts().shell_job());
  }
}

TEST(CriuOptions, OfARestore) {
  RestoreRequest request;
  request.images = 7;
  const pb::Request criu = ToCriu(request, 8, 2);
  EXPECT_EQ(criu.type(), pb::RESTORE);
  EXPECT_EQ(criu.opts().images_dir_fd(), 7);
  EXPECT_EQ(criu.opts().work_dir_fd(), 8);
  EXPECT_EQ(criu.opts().log_file(), kCriuRestoreLog);
  EXPECT_FALSE(criu.opts().has_pid());
  EXPECT_TRUE(criu.opts().notify_scripts());
  // What a dump has stored that way comes back only so.
  EXPECT_TRUE(criu.opts().link_remap());
  EXPECT_TRUE(criu.opts().file_locks());
}

}  // namespace
}  // namespace daxsnap
