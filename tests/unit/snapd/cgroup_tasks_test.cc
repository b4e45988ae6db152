// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/cgroup_tasks.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// Directories with the files of cgroups in them.
class CgroupTasksTest : public testing::Test {
 protected:
  void Write(const std::string& cgroup, const std::string& file,
             const std::string& text) const {
    auto directory = EnsureDirectories(absl::StrCat(temp_.path(), "/", cgroup));
    ASSERT_TRUE(directory.ok()) << directory.status();
    ASSERT_TRUE(ReplaceFileAt(directory->get(), file, text).ok());
  }

  const TempDirectory temp_;
  // Relative to /sys/fs/cgroup.
  const CgroupTasks tasks_ = CgroupTasks("/../../.." + temp_.path());
};

TEST_F(CgroupTasksTest, ThoseInCgroupsBelowAreListed) {
  EXPECT_THAT(*tasks_.List(), IsEmpty());
  Write(".", "cgroup.procs", "3\n4\n");
  Write("a.scope", "cgroup.procs", "");
  Write("a.scope/b", "cgroup.procs", "5\n");
  Write("c", "cgroup.procs", "6\n");
  EXPECT_THAT(*tasks_.List(), UnorderedElementsAre(3, 4, 5, 6));
  Write("c", "cgroup.procs", "x\n");
  EXPECT_FALSE(tasks_.List().ok());
}

// The kernel lists the processes of such a cgroup elsewhere.
TEST_F(CgroupTasksTest, ThoseOfAThreadedCgroupAreListed) {
  Write(".", "cgroup.procs", "");
  Write(".", "cgroup.threads", absl::StrCat(getpid(), "\n", getpid(), "\n"));
  for (const int error : {EOPNOTSUPP, EIO}) {
    const ScopedFileFault fault(FailWith(error, "read", "cgroup.procs"));
    const auto pids = tasks_.List();
    ASSERT_EQ(pids.ok(), error == EOPNOTSUPP) << pids.status();
    if (pids.ok()) {
      EXPECT_THAT(*pids, ElementsAre(getpid()));
    }
  }
}

}  // namespace
}  // namespace daxsnap
