// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/deeds.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {

std::vector<Deed> AllDeeds() {
  std::vector<Deed> all;
  for (const auto& part :
       {DeedsOfMapping(), DeedsOfTransfer(), DeedsOfOthers()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

void ExpectHolds(const Memory& memory, After after) {
  const char* data = memory.data;
  const size_t bytes = memory.bytes;
  switch (after) {
    case After::kOld:
      EXPECT_EQ(CountBad(data, bytes, kOldSeed), 0) << "not the old content";
      break;
    case After::kNew:
      EXPECT_EQ(CountBad(data, bytes, kNewSeed), 0) << "a write is lost";
      break;
    case After::kZeroes:
      EXPECT_EQ(CountNonZero(data, bytes), 0) << "not zeroes";
      break;
    case After::kOldOrZeroes:
      for (size_t i = 0; i < bytes / kPage; ++i) {
        const char* page = data + i * kPage;
        EXPECT_TRUE(CountBad(page, kPage, kOldSeed, i) == 0 ||
                    CountNonZero(page, kPage) == 0)
            << "page " << i << " is neither old nor zero";
      }
      break;
    case After::kNoMemory:
      break;
  }
}

void ByAnother(const Memory& memory, const std::function<bool(pid_t)>& deed) {
  const pid_t caller = getpid();
  std::fflush(nullptr);
  const pid_t other = fork();
  ASSERT_GE(other, 0) << std::strerror(errno);
  if (other == 0) {
    const bool done = munmap(memory.data, memory.bytes) == 0 && deed(caller);
    if (!done) std::perror("another process");
    std::fflush(nullptr);
    _exit(done ? 0 : 1);
  }
  int status = -1;
  while (waitpid(other, &status, 0) < 0 && errno == EINTR) {
  }
  EXPECT_EQ(status, 0) << "another process could not do it";
}

}  // namespace daxsnap::vmtest
