// SPDX-License-Identifier: Apache-2.0
#include "host/task/stat_paths.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/host/fuse_tree.h"

namespace daxsnap {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(200);

TEST(StatPaths, SaysOfEachPathWhatStatFileSays) {
  const std::vector<std::string> paths = {"/", "/proc/self/stat/x",
                                          "/no/such/file", "/dev/null",
                                          std::string(5000, 'x')};
  auto found = StatPaths(paths);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), paths.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    struct statx info = {};
    EXPECT_EQ((*found)[i].status(), StatFile(paths[i], &info)) << paths[i];
    if (!(*found)[i].ok()) continue;
    EXPECT_EQ((*found)[i]->stx_ino, info.stx_ino);
    EXPECT_EQ((*found)[i]->stx_mode, info.stx_mode);
  }
  EXPECT_TRUE(StatPaths({})->empty());
}

TEST(StatPaths, FailuresAreOfTheirPath) {
  const ScopedFileFault fault(FailWith(EIO, "stat", "/null"));
  auto found = StatPaths({"/dev/null", "/dev/zero"});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(ErrnoNameOf((*found)[0].status()), "EIO");
  EXPECT_TRUE((*found)[1].ok());
}

TEST(StatPaths, ServerThatStandsStillIsNamedInTime) {
  const FuseTree tree([](const std::string&) {});
  const std::vector<std::string> paths = {"/", tree.path() + "/x"};
  EXPECT_TRUE((*StatPaths(paths))[1].ok());
  tree.Stop();
  const absl::Status late = StatPaths(paths, {}, kShort).status();
  EXPECT_TRUE(absl::IsUnavailable(late)) << late;
  EXPECT_EQ(ErrorReasonOf(late), reason::kOverloaded);
  EXPECT_EQ(ErrorMetadataOf(late)["path"], paths[1]);
  // Under the name that the caller has for it.
  const absl::Status named = StatPaths(paths, {"a", "b"}, kShort).status();
  EXPECT_EQ(ErrorMetadataOf(named)["path"], "b");
}

}  // namespace
}  // namespace daxsnap
