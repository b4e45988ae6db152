// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/base/testing.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace daxsnap {

TempDirectory::TempDirectory() {
  const char* base = std::getenv("TMPDIR");
  path_ = absl::StrCat(base == nullptr ? "/tmp" : base, "/snapd-test-XXXXXX");
  EXPECT_NE(mkdtemp(path_.data()), nullptr);
}

TempDirectory::~TempDirectory() {
  EXPECT_TRUE(RemoveTree(AT_FDCWD, path_).ok());
}

NoDescriptors::NoDescriptors() {
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
  rlimit none = before_;
  // Those that are open stay so.
  none.rlim_cur = 0;
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
}

NoDescriptors::~NoDescriptors() {
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0);
}

ScopedFileFault::Fault FailWith(int error, const std::string& call,
                                const std::string& name) {
  return [=](absl::string_view made, const std::string& on) {
    return made == call && absl::EndsWith(on, name) ? error : 0;
  };
}

}  // namespace daxsnap
