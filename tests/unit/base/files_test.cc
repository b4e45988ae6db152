// SPDX-License-Identifier: Apache-2.0
#include "base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/errors.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {
namespace {

class FilesTest : public testing::Test {
 protected:
  FilesTest() : top_(OpenDirectory(AT_FDCWD, temp_.path()).value()) {}

  TempDirectory temp_;
  UniqueFd top_;
};

TEST_F(FilesTest, RemoveTreeDoesNotFollowSymlinks) {
  ASSERT_TRUE(EnsureDirectory(top_.get(), "kept").ok());
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "kept/file", "x").ok());
  auto doomed = EnsureDirectory(top_.get(), "doomed");
  ASSERT_TRUE(doomed.ok());
  ASSERT_TRUE(EnsureDirectory(doomed->get(), "a").ok());
  ASSERT_TRUE(ReplaceFileAt(doomed->get(), "a/b", "y").ok());
  ASSERT_EQ(symlinkat("../kept", doomed->get(), "link"), 0);
  EXPECT_TRUE(RemoveTree(top_.get(), "doomed").ok());
  EXPECT_FALSE(*Exists(top_.get(), "doomed"));
  EXPECT_TRUE(*Exists(top_.get(), "kept/file"));
}

TEST_F(FilesTest, RemoveTreeOfNothingIsOk) {
  EXPECT_TRUE(RemoveTree(top_.get(), "nothing").ok());
}

TEST_F(FilesTest, DirectoriesAreForTheirOwnerOnly) {
  auto directory = EnsureDirectory(top_.get(), "d");
  ASSERT_TRUE(directory.ok());
  struct stat info;
  ASSERT_EQ(fstat(directory->get(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
}

TEST_F(FilesTest, OpenDirectoryRefusesSymlinks) {
  ASSERT_EQ(symlinkat("/tmp", top_.get(), "link"), 0);
  EXPECT_FALSE(OpenDirectory(top_.get(), "link").ok());
  EXPECT_FALSE(EnsureDirectory(top_.get(), "link").ok());
}

TEST_F(FilesTest, ReadFileHasALimit) {
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", std::string(100, 'x')).ok());
  EXPECT_EQ(ReadFileAt(top_.get(), "f", 100)->size(), 100u);
  EXPECT_TRUE(
      absl::IsFailedPrecondition(ReadFileAt(top_.get(), "f", 99).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadFileAt(top_.get(), "g", 99).status()));
}

TEST_F(FilesTest, ReplaceLeavesNoTemporaryFile) {
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", "old").ok());
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", "new").ok());
  EXPECT_EQ(*ReadFileAt(top_.get(), "f", 10), "new");
  EXPECT_EQ(*ListDirectory(top_.get()), std::vector<std::string>{"f"});
}

TEST_F(FilesTest, WhetherSomethingExistsMayNotBeKnown) {
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", "x").ok());
  EXPECT_FALSE(*Exists(top_.get(), "g"));
  for (const int error : {EIO, ENOMEM, EACCES}) {
    const ScopedFileFault fault(FailWith(error, "stat", "f"));
    EXPECT_FALSE(Exists(top_.get(), "f").ok()) << error;
  }
  EXPECT_TRUE(*Exists(top_.get(), "f"));
}

TEST_F(FilesTest, WithoutDescriptorsNothingIsSaidToBeGone) {
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", "x").ok());
  const NoDescriptors none;
  struct stat info;
  for (const absl::Status& status :
       {ReadFileAt(top_.get(), "f", 10).status(),
        OpenDirectory(top_.get(), ".").status(),
        ListDirectory(top_.get()).status(),
        OpenRegular(temp_.path() + "/f", &info).status()}) {
    EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded) << status;
    EXPECT_EQ(ErrnoNameOf(status), "EMFILE");
  }
}

TEST_F(FilesTest, FailedReadsAreNoEnds) {
  ASSERT_TRUE(ReplaceFileAt(top_.get(), "f", "x").ok());
  {
    const ScopedFileFault fault(FailWith(EIO, "read", "f"));
    EXPECT_EQ(ErrnoNameOf(ReadFileAt(top_.get(), "f", 10).status()), "EIO");
  }
  const ScopedFileFault fault(FailWith(EIO, "list", ""));
  EXPECT_EQ(ErrnoNameOf(ListDirectory(top_.get()).status()), "EIO");
}

}  // namespace
}  // namespace daxsnap
