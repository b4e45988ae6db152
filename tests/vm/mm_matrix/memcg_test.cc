// SPDX-License-Identifier: Apache-2.0
// Memory cgroups: who is charged for what is captured, stored and installed.
#include <fcntl.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/vm/mm_matrix/memory_group.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 61, kNew = 62;
constexpr size_t kBytes = 16 * kMiB;
// Charges ahead, page tables, the process's own pages.
constexpr double kOverhead = 2 * kMiB;

class MemoryGroups : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    group_ = std::make_unique<MemoryGroup>();
    memory_ = std::make_unique<Mapping>(2 * kBytes, node());
  }
  void TearDown() override {
    group_.reset();
    PoolTest::TearDown();
  }

  MemoryGroup& group() { return *group_; }
  char* data() const { return memory_->data(); }
  // In the group from its first page on.
  std::unique_ptr<Child> Member(Child::Steps steps) {
    auto child = std::make_unique<Child>(std::move(steps));
    group().Add(child->pid());
    return child;
  }
  void ExpectCharged(size_t bytes, const char* when) {
    EXPECT_NEAR(static_cast<double>(group().Current()),
                static_cast<double>(bytes), kOverhead)
        << when;
    EXPECT_NEAR(static_cast<double>(group().Field("memory.stat", "anon")),
                static_cast<double>(bytes), kOverhead)
        << when;
  }

 private:
  std::unique_ptr<MemoryGroup> group_;
  std::unique_ptr<Mapping> memory_;
};

TEST_F(MemoryGroups, CaptureChangesNothingOfWhatAGroupUses) {
  UniqueFd file = NewFile();
  auto source = Member({{"old",
                         [&] {
                           Fill(data(), kBytes, kOld);
                           return 0L;
                         }},
                        {"new", [&] {
                           Fill(data(), kBytes, kNew);
                           return CountBad(data(), kBytes, kNew);
                         }}});
  source->Do("old");
  ExpectCharged(kBytes, "before the capture");
  const auto c = Capture(file.get(), source->pidfd(), data(), kBytes);
  EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
  ExpectCharged(kBytes, "captured");
  EXPECT_EQ(source->Do("new"), 0);
  ExpectCharged(kBytes, "after the source wrote all of it");
  EXPECT_TRUE(source->Finish());
  EXPECT_TRUE(WaitFor([&] { return group().Current() < kOverhead; }))
      << "what is only stored is charged to the source's group: "
      << group().Current();
  const long dying = MemoryGroup::Dying();
  group().Remove();
  EXPECT_TRUE(WaitFor([&] { return MemoryGroup::Dying() <= dying; }))
      << "a stored page keeps the removed group";
  EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOld), 0);
}

// The limit is on what the processes have. What is stored of it is in the
// pool's books, and nowhere else.
TEST_F(MemoryGroups, CapturesAgainAndAgainStayBelowTheLimitAndAreSeen) {
  constexpr int kRounds = 3;
  ASSERT_TRUE(group().Set("memory.max", std::to_string(kBytes + 8 * kMiB)));
  uint64_t round = 0;
  auto source = Member({{"fill",
                         [&] {
                           Fill(data(), kBytes, ++round);
                           return 0L;
                         }},
                        {"more", [&] {
                           Fill(data() + kBytes, kBytes, kNew);
                           return 0L;
                         }}});
  const kmemfs_info before = Info();
  const long free_before = FreePagesWithLists(node());
  struct statvfs fs_before, fs_after;
  ASSERT_EQ(statvfs(MountPoint().c_str(), &fs_before), 0);
  for (int i = 1; i <= kRounds; ++i) {
    source->Do("fill");
    UniqueFd file = NewFile(std::to_string(i));
    const auto c = Capture(file.get(), source->pidfd(), data(), kBytes);
    EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
  }
  EXPECT_EQ(group().Field("memory.events", "oom_kill"), 0);
  ExpectCharged(kBytes, "after all captures");
  const long stored = kRounds * static_cast<long>(kBytes / kPage);
  EXPECT_EQ(static_cast<long>(Info().file_pages - before.file_pages), stored);
  ASSERT_EQ(statvfs(MountPoint().c_str(), &fs_after), 0);
  EXPECT_NEAR(static_cast<double>(fs_before.f_bfree - fs_after.f_bfree),
              static_cast<double>(stored), kOverhead / kPage);
  EXPECT_NEAR(static_cast<double>(free_before - FreePagesWithLists(node())),
              static_cast<double>(stored), kOverhead / kPage);
  EXPECT_TRUE(source->DiesIn("more", SIGKILL)) << "the limit does not hold";
  EXPECT_GE(group().Field("memory.events", "oom_kill"), 1);
  for (int i = 1; i <= kRounds; ++i) {
    UniqueFd file(open(Path(std::to_string(i)).c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(CountBadInFile(file.get(), kBytes, static_cast<uint64_t>(i)), 0);
  }
}

TEST_F(MemoryGroups, InstalledPagesAreChargedToWhoWritesThem) {
  UniqueFd file = NewCapture(kBytes, kOld);
  ASSERT_TRUE(group().Set("memory.max", std::to_string(kBytes / 2)));
  auto reader =
      Member({{"read",
               [&] {
                 return static_cast<long>(pread(file.get(), data(), kBytes, 0));
               }},
              {"bad", [&] { return CountBad(data(), kBytes, kOld); }},
              {"quarter",
               [&] {
                 Fill(data(), kBytes / 4, kNew);
                 return 0L;
               }},
              {"all", [&] {
                 Fill(data(), kBytes, kNew);
                 return 0L;
               }}});
  EXPECT_EQ(reader->Do("read"), static_cast<long>(kBytes));
  EXPECT_EQ(reader->Do("bad"), 0);
  ExpectCharged(0, "installed");
  reader->Do("quarter");
  ExpectCharged(kBytes / 4, "a quarter is written");
  EXPECT_TRUE(reader->DiesIn("all", SIGKILL)) << "the limit does not hold";
  EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOld), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
