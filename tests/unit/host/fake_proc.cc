// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/host/fake_proc.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/files.h"

namespace daxsnap {

std::string FakeProc::Place(const std::string& path) const {
  const std::string whole = absl::StrCat(temp_.path(), "/", path);
  EXPECT_TRUE(EnsureDirectories(whole.substr(0, whole.rfind('/'))).ok());
  return whole;
}

void FakeProc::AddTask(pid_t pid, const std::string& stat,
                       const std::string& status) const {
  Place(absl::StrCat(pid, "/task/x"));
  AddFile(absl::StrCat(pid, "/stat"), stat);
  AddFile(absl::StrCat(pid, "/status"), status);
}

void FakeProc::AddFile(const std::string& path, const std::string& text) const {
  EXPECT_TRUE(ReplaceFileAt(AT_FDCWD, Place(path), text).ok());
}

void FakeProc::AddLink(const std::string& path,
                       const std::string& target) const {
  EXPECT_EQ(symlink(target.c_str(), Place(path).c_str()), 0);
}

}  // namespace daxsnap
