// SPDX-License-Identifier: Apache-2.0
// A node that is full of snapshots: who needs memory of it fails, nothing
// stored is lost, and the rest of the system does not notice.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 91;
constexpr size_t kLeft = 64 * kMiB, kHog = 192 * kMiB;
// Pages that are looked at: every so many-th.
constexpr size_t kStep = 31;

void Touch(const Mapping& memory) {
  for (size_t i = 0; i < memory.pages(); ++i) {
    *reinterpret_cast<size_t*>(memory.page(i)) = i + kOld;
  }
}

class OutOfMemory : public PoolTest {
 protected:
  long CountWrong(int fd, size_t pages) {
    long wrong = 0;
    for (size_t i = 0; i < pages; i += kStep) {
      size_t word = 0;
      wrong += pread(fd, &word, sizeof(word), static_cast<off_t>(i * kPage)) !=
                   static_cast<ssize_t>(sizeof(word)) ||
               word != i + kOld;
    }
    return wrong;
  }
};

TEST_F(OutOfMemory, OnANodeFullOfSnapshotsLosesNothingStored) {
  const size_t free = static_cast<size_t>(FreePagesWithLists(node())) * kPage;
  ASSERT_GT(free, kLeft + kHog);
  Mapping memory((free - kLeft) / (2 * kMiB) * (2 * kMiB), node(),
                 Mapping::Pages::kHuge);
  // Else another node helps out when this one has memory, but not enough whole
  // huge pages.
  memory.Bind(node());
  UniqueFd file = NewFile();
  {
    Child source({{"fill", [&] {
                     Touch(memory);
                     return 0L;
                   }}});
    source.Do("fill");
    const auto c =
        Capture(file.get(), source.pidfd(), memory.data(), memory.bytes());
    EXPECT_GE(c.pages_by_reference, memory.pages() * 99 / 100);
    EXPECT_LT(FreePagesWithLists(node()), static_cast<long>(kHog / kPage));
  }
  Commit();
  const uint64_t stored = Info().file_pages;

  Mapping bound(kHog, node()), preferred(kHog, node());
  bound.Bind(node());
  const Child::Steps steps = {
      {"bound",
       [&] {
         WriteFile("/proc/self/oom_score_adj", "1000");
         Touch(bound);
         return 0L;
       }},
      {"preferred", [&] {
         Touch(preferred);
         long wrong = 0;
         for (size_t i = 0; i < preferred.pages(); ++i) {
           wrong += *reinterpret_cast<size_t*>(preferred.page(i)) != i + kOld;
         }
         return wrong;
       }}};
  const long kills = VmStat("oom_kill");
  {
    Child hog(steps);
    EXPECT_TRUE(hog.DiesIn("bound", SIGKILL)) << "there was memory after all";
  }
  EXPECT_EQ(VmStat("oom_kill") - kills, 1) << "somebody else was killed";
  {
    Child hog(steps);
    EXPECT_EQ(hog.Do("preferred"), 0) << "it may have memory of other nodes";
  }
  EXPECT_EQ(VmStat("oom_kill") - kills, 1);

  EXPECT_EQ(Info().file_pages, stored);
  EXPECT_EQ(CountWrong(file.get(), memory.pages()), 0);
  UniqueFd small = NewFile("small");
  EXPECT_EQ(write(small.get(), "small", 5), 5);
  Commit();
}

}  // namespace
}  // namespace daxsnap::vmtest
