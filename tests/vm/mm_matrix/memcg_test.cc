// SPDX-License-Identifier: Apache-2.0
// Memory cgroups: who is charged for what is captured, stored and installed.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "tests/vm/mm_matrix/memory_group.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 61, kNew = 62;
constexpr size_t kBytes = 16 * kMiB;
// Charges ahead, page tables, the process's own pages.
constexpr double kOverhead = 2 * kMiB;

// The kernel shows sums of what processors counted, which are as old as its
// last flush: of every two seconds, if readers of other groups were in the way.
bool AnonBecomes(const MemoryGroup& group, size_t bytes, double tolerance) {
  return WaitFor([&] {
    return std::abs(static_cast<double>(group.Field("memory.stat", "anon")) -
                    static_cast<double>(bytes)) <= tolerance;
  });
}

void ExpectCharged(const MemoryGroup& group, size_t bytes, const char* when) {
  EXPECT_NEAR(static_cast<double>(group.Current()), static_cast<double>(bytes),
              kOverhead)
      << when;
  EXPECT_TRUE(AnonBecomes(group, bytes, kOverhead))
      << group.Field("memory.stat", "anon") << ", not " << bytes << ": "
      << when;
}

class MemoryGroups : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    group_ = std::make_unique<MemoryGroup>();
    // Never touched here: what fork() shares of a VMA is one family.
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
    vmtest::ExpectCharged(group(), bytes, when);
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

TEST_F(MemoryGroups, InstalledPagesAreChargedToWhoMapsThem) {
  UniqueFd file = NewCapture(kBytes, kOld);
  ASSERT_TRUE(group().Set("memory.max", std::to_string(kBytes + kBytes / 2)));
  auto reader =
      Member({{"read",
               [&] {
                 return static_cast<long>(pread(file.get(), data(), kBytes, 0));
               }},
              {"bad", [&] { return CountBad(data(), kBytes, kOld); }},
              {"write",
               [&] {
                 Fill(data(), kBytes, kNew);
                 return 0L;
               }},
              {"again", [&] {
                 return static_cast<long>(
                     pread(file.get(), data() + kBytes, kBytes, 0));
               }}});
  EXPECT_EQ(reader->Do("read"), static_cast<long>(kBytes));
  EXPECT_EQ(reader->Do("bad"), 0);
  ExpectCharged(kBytes, "installed");
  reader->Do("write");
  ExpectCharged(kBytes, "written");
  EXPECT_EQ(group().Field("memory.events", "oom_kill"), 0);
  EXPECT_TRUE(reader->DiesIn("again", SIGKILL)) << "the limit does not hold";
  EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOld), 0);
}

// A file that is deleted gives the pages to who maps them.
TEST_F(MemoryGroups, WhatCameThroughADeletedFileIsChargedToWhoMapsIt) {
  ASSERT_TRUE(group().Set("memory.max", std::to_string(kBytes + 8 * kMiB)));
  auto hoarder = Member({{"hoard", [&] {
                            Mapping* more = new Mapping(kBytes, node());
                            UniqueFd file = NewFile("hoard");
                            std::vector<char> page(kPage);
                            for (size_t i = 0; i < more->pages(); ++i) {
                              Fill(page.data(), kPage, kOld, i);
                              if (write(file.get(), page.data(), kPage) !=
                                  static_cast<ssize_t>(kPage)) {
                                return -1L;
                              }
                            }
                            if (pread(file.get(), more->data(), kBytes, 0) !=
                                static_cast<ssize_t>(kBytes)) {
                              return -1L;
                            }
                            unlink(Path("hoard").c_str());
                            return CountBad(more->data(), kBytes, kOld);
                          }}});
  const kmemfs_info before = Info();
  EXPECT_EQ(hoarder->Do("hoard"), 0);
  EXPECT_EQ(Info().read_installed - before.read_installed, kBytes / kPage);
  Commit();
  EXPECT_EQ(Info().file_pages, before.file_pages);
  ExpectCharged(kBytes, "only mapped");
  EXPECT_TRUE(hoarder->DiesIn("hoard", SIGKILL)) << "the limit does not hold";
}

// Who maps a page is charged for it, and not for what others still map.
TEST_F(MemoryGroups, SourceIsNotChargedForWhatOnlyOthersMap) {
  MemoryGroup other("other");
  UniqueFd file = NewFile();
  ASSERT_TRUE(group().Set("memory.max", std::to_string(kBytes + 8 * kMiB)));
  auto source = Member({{"old",
                         [&] {
                           Fill(data(), kBytes, kOld);
                           return 0L;
                         }},
                        {"new", [&] {
                           Fill(data(), kBytes, kNew);
                           return CountBad(data(), kBytes, kNew);
                         }}});
  Child reader({{"read",
                 [&] {
                   return static_cast<long>(
                       pread(file.get(), data(), kBytes, 0));
                 }},
                {"bad", [&] { return CountBad(data(), kBytes, kOld); }}});
  other.Add(reader.pid());
  source->Do("old");
  Capture(file.get(), source->pidfd(), data(), kBytes);
  EXPECT_EQ(reader.Do("read"), static_cast<long>(kBytes));
  ExpectCharged(kBytes, "the source, while both map the pages");
  vmtest::ExpectCharged(other, kBytes, "the reader");
  EXPECT_EQ(source->Do("new"), 0);
  EXPECT_EQ(group().Field("memory.events", "oom_kill"), 0);
  ExpectCharged(kBytes, "the source, when it has pages of its own");
  EXPECT_EQ(reader.Do("bad"), 0);
  vmtest::ExpectCharged(other, kBytes, "the reader, alone with the pages");
  EXPECT_TRUE(reader.Finish());
  EXPECT_TRUE(WaitFor([&] { return other.Current() < kOverhead; }));
}

// A process that maps what a file has, and forks.
class Forker {
 public:
  Forker(const UniqueFd& file, char* data)
      : child_({{"read",
                 [this, &file, data] {
                   return static_cast<long>(pread(file.get(), data, kBytes, 0));
                 }},
                {"fill",
                 [data] {
                   Fill(data, kBytes, kOld);
                   return 0L;
                 }},
                {"unmap",
                 [data] {
                   return static_cast<long>(
                       madvise(data, kBytes, MADV_DONTNEED));
                 }},
                {"fork",
                 [this] {
                   const pid_t pid = fork();
                   if (pid == 0) {
                     prctl(PR_SET_PDEATHSIG, SIGKILL);
                     for (;;) pause();
                   }
                   forked_.push_back(pid);
                   return static_cast<long>(pid);
                 }},
                {"end", [this] {
                   const pid_t pid = forked_.back();
                   forked_.pop_back();
                   kill(pid, SIGKILL);
                   return waitpid(pid, nullptr, 0) == pid ? 0L : -1L;
                 }}}) {}
  Child* operator->() { return &child_; }

 private:
  std::vector<pid_t> forked_;  // in the child
  Child child_;
};

TEST_F(MemoryGroups, WhatForkSharesIsChargedOnce) {
  UniqueFd file = NewFile();
  Forker source(file, data());
  group().Add(source->pid());
  source->Do("fill");
  EXPECT_GT(source->Do("fork"), 0);
  const auto c = Capture(file.get(), source->pidfd(), data(), kBytes);
  EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
  for (const char* who : {"captured", "installed"}) {
    SCOPED_TRACE(who);
    EXPECT_GT(source->Do("fork"), 0);
    ExpectCharged(kBytes, "three map the pages");
    EXPECT_EQ(source->Do("end"), 0);
    EXPECT_EQ(source->Do("unmap"), 0);
    ExpectCharged(kBytes, "one maps the pages");
    EXPECT_EQ(source->Do("end"), 0);
    ExpectCharged(0, "nobody maps the pages");
    EXPECT_EQ(source->Do("read"), static_cast<long>(kBytes));
    EXPECT_GT(source->Do("fork"), 0);
  }
  EXPECT_EQ(source->Do("end"), 0);
  ExpectCharged(kBytes, "installed");
}

// Each mapping of what another family owns has a charge, until it ends.
TEST_F(MemoryGroups, FamiliesThatShareAPageAreChargedEach) {
  MemoryGroup other("other");
  UniqueFd file = NewCapture(kBytes, kOld);
  Forker owner(file, data()), guest(file, data());
  group().Add(owner->pid());
  other.Add(guest->pid());
  EXPECT_EQ(owner->Do("read"), static_cast<long>(kBytes));
  EXPECT_EQ(guest->Do("read"), static_cast<long>(kBytes));
  EXPECT_GT(guest->Do("fork"), 0);
  ExpectCharged(kBytes, "the owner");
  vmtest::ExpectCharged(other, 2 * kBytes, "the guest and its child");
  EXPECT_EQ(owner->Do("unmap"), 0);
  ExpectCharged(0, "the owner has gone");
  EXPECT_EQ(guest->Do("end"), 0);
  vmtest::ExpectCharged(other, kBytes, "the guest");
  ASSERT_TRUE(other.Set("memory.max", std::to_string(kBytes + kBytes / 2)));
  EXPECT_TRUE(guest->DiesIn("fork", SIGKILL)) << "the limit does not hold";
  EXPECT_TRUE(WaitFor([&] { return other.Current() < kOverhead; }));
  EXPECT_TRUE(AnonBecomes(other, 0, 0)) << other.Field("memory.stat", "anon");
  EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOld), 0);
}

// Charges do not move with a process, and are given back where they were made.
TEST_F(MemoryGroups, ChargesStayInTheGroupInWhichTheyWereMade) {
  UniqueFd file = NewCapture(kBytes, kOld);
  MemoryGroup from("from"), to("to");
  Forker owner(file, data()), guest(file, data());
  for (Forker* who : {&owner, &guest}) {
    from.Add((*who)->pid());
    EXPECT_EQ((*who)->Do("read"), static_cast<long>(kBytes));
  }
  for (Forker* who : {&owner, &guest}) to.Add((*who)->pid());
  vmtest::ExpectCharged(from, 2 * kBytes, "moved");
  vmtest::ExpectCharged(to, 0, "moved");
  for (Forker* who : {&owner, &guest}) EXPECT_EQ((*who)->Do("unmap"), 0);
  vmtest::ExpectCharged(from, 0, "unmapped");
  for (Forker* who : {&owner, &guest}) {
    EXPECT_EQ((*who)->Do("read"), static_cast<long>(kBytes));
  }
  vmtest::ExpectCharged(from, 0, "mapped again");
  vmtest::ExpectCharged(to, 2 * kBytes, "mapped again");
}

// Counts cannot tell whose a mapping was: while some are those of a guest, in
// the group of then, all that come are charged there; afterwards none is.
TEST_F(MemoryGroups, GuestThatMovesIsChargedWhereItWasUntilItMapsNothing) {
  UniqueFd shared = NewCapture(kBytes, kOld),
           alone = NewCapture(kBytes, kNew, "alone");
  MemoryGroup others("others"), to("to");
  Forker owner(shared, data());
  others.Add(owner->pid());
  EXPECT_EQ(owner->Do("read"), static_cast<long>(kBytes));
  const auto read_to = [](const UniqueFd& file, char* where) {
    return static_cast<long>(pread(file.get(), where, kBytes, 0));
  };
  auto guest = Member(
      {{"shared", [&] { return read_to(shared, data()); }},
       {"alone", [&] { return read_to(alone, data() + kBytes); }},
       {"unmap", [&] {
          return static_cast<long>(madvise(data(), 2 * kBytes, MADV_DONTNEED));
        }}});
  EXPECT_EQ(guest->Do("shared"), static_cast<long>(kBytes));
  to.Add(guest->pid());
  EXPECT_EQ(guest->Do("alone"), static_cast<long>(kBytes));
  ExpectCharged(2 * kBytes, "moved while it maps what another owns");
  vmtest::ExpectCharged(to, 0, "moved while it maps what another owns");
  const long dying = MemoryGroup::Dying();
  group().Remove();
  EXPECT_EQ(MemoryGroup::Dying(), dying + 1) << "its charges are nowhere";
  EXPECT_EQ(guest->Do("unmap"), 0);
  EXPECT_EQ(guest->Do("shared"), static_cast<long>(kBytes));
  EXPECT_EQ(guest->Do("alone"), static_cast<long>(kBytes));
  vmtest::ExpectCharged(to, 2 * kBytes, "after it had mapped nothing");
  EXPECT_TRUE(guest->Finish());
  EXPECT_TRUE(WaitFor([&] { return MemoryGroup::Dying() <= dying; }))
      << "the group is kept for nothing";
}

// Many mappings of the same pages begin and end in two groups at the same time.
TEST_F(MemoryGroups, BooksAreExactWhateverHappens) {
  constexpr size_t kShared = 256 * kPage;
  constexpr int kSteps = 400;
  UniqueFd file = NewCapture(kShared, kOld), own = NewFile("own");
  const auto walk = [&](unsigned seed) {
    std::mt19937 random(seed);
    UniqueFd self = SelfPidFd();
    for (int i = 0; i < kSteps; ++i) {
      const size_t at = random() % (kShared / kPage) * kPage;
      const size_t bytes = std::min(kShared - at, (random() % 64 + 1) * kPage);
      switch (random() % 8) {
        case 0:
        case 1:
        case 2:
          if (pread(file.get(), data() + at, bytes, static_cast<off_t>(at)) !=
              static_cast<ssize_t>(bytes)) {
            return -1L;
          }
          break;
        case 3:
        case 4:
          madvise(data() + at, bytes, MADV_DONTNEED);
          break;
        case 5:
          std::memset(data() + at, 1, bytes);
          break;
        case 6: {
          const pid_t pid = fork();
          if (pid == 0) {
            std::memset(data() + at, 2, bytes);
            _exit(pread(file.get(), data(), kShared, 0) ==
                          static_cast<ssize_t>(kShared)
                      ? 0
                      : 1);
          }
          if (random() % 2 == 0) madvise(data(), kShared, MADV_DONTNEED);
          int status;
          if (waitpid(pid, &status, 0) != pid || status != 0) return -2L;
          break;
        }
        case 7: {
          kmemfs_capture c = {};
          c.pidfd = self.get();
          c.addr = reinterpret_cast<uintptr_t>(data() + at);
          c.len = bytes;
          if (ioctl(own.get(), KMEMFS_IOC_CAPTURE, &c) != 0) return -3L;
        }
      }
    }
    return 0L;
  };
  MemoryGroup other("other");
  {
    auto one = Member({{"walk", [&] { return walk(1); }}});
    Child two({{"walk", [&] { return walk(2); }}});
    other.Add(two.pid());
    long result = -1;
    std::thread at_once([&] { result = one->Do("walk"); });
    EXPECT_EQ(two.Do("walk"), 0);
    at_once.join();
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(one->Finish());
    EXPECT_TRUE(two.Finish());
  }
  for (const MemoryGroup* each : {&group(), &other}) {
    EXPECT_TRUE(WaitFor([&] { return each->Current() < kOverhead; }))
        << each->Current();
    EXPECT_TRUE(AnonBecomes(*each, 0, 0)) << each->Field("memory.stat", "anon");
  }
  EXPECT_EQ(CountBadInFile(file.get(), kShared, kOld), 0);
}

}  // namespace
}  // namespace daxsnap::vmtest
