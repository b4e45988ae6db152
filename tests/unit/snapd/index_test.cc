// SPDX-License-Identifier: Apache-2.0
//
// What List and Get have in memory is what the pool holds, whatever has
// happened.
#include "snapd/store/index.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/uuid.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "snapd/store/catalog.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kSettle = absl::Seconds(2);

class IndexTest : public testing::Test {
 protected:
  IndexTest()
      : pool_(TestPool::Open(temp_.path())),
        catalog_(pool_.get(), absl::Seconds(10), kSettle,
                 [this] { return now_; }) {}

  StagedSnapshot Stage(const std::string& name) {
    internal::Operation operation;
    operation.set_uid(NewUuid());
    operation.set_name(name);
    auto staged = catalog_.Begin(operation);
    EXPECT_TRUE(staged.ok()) << staged.status();
    v1::Manifest manifest;
    manifest.set_format_version(1);
    manifest.mutable_snapshot()->set_uid(operation.uid());
    EXPECT_TRUE(catalog_.WriteManifest(staged->directory.get(), manifest).ok());
    return *std::move(staged);
  }

  static std::string Text(const absl::Status& status) {
    return status.ToString(absl::StatusToStringMode::kWithNoExtraData);
  }

  // What List and Get see, and that it is what is read. All of it is in memory
  // then.
  std::vector<std::string> Seen() {
    std::vector<std::string> seen = SeenNow();
    Remember();
    return seen;
  }

  std::vector<std::string> SeenNow() {
    std::vector<std::string> seen;
    const auto names = catalog_.List("");
    for (const std::string& name : *names) {
      auto described = catalog_.Describe(name);
      auto read = catalog_.Read(name);
      EXPECT_EQ(Text(described.status()), Text(read.status()));
      if (!described.ok()) {
        seen.push_back(
            absl::StrCat(name, " ", ErrorReasonOf(described.status())));
        continue;
      }
      if (read.ok()) {
        EXPECT_EQ((*described)->SerializeAsString(),
                  read->snapshot().SerializeAsString());
      }
      seen.push_back(name);
    }
    return seen;
  }

  // Lets the clock run until all is kept.
  void Remember() {
    // The next change has another time, also where clocks tick slowly.
    const timespec times[] = {{.tv_sec = ++modified_, .tv_nsec = 0},
                              {.tv_sec = modified_, .tv_nsec = 0}};
    ASSERT_EQ(futimens(pool_->snapshots(), times), 0);
    for (int i = 0; i < 2; ++i) {
      const auto names = catalog_.List("");
      for (const std::string& name : *names) (void)catalog_.Describe(name);
      now_ += kSettle;
    }
  }

  // Calls but stat that are made for List and Describe.
  int CallsToSee() {
    int calls = 0;
    const ScopedFileFault count(
        [&](absl::string_view call, const std::string&) {
          if (call != "stat") ++calls;
          return 0;
        });
    const auto names = catalog_.List("");
    for (const std::string& name : *names) (void)catalog_.Describe(name);
    return calls;
  }

  // Nothing is opened or read for it.
  std::vector<std::string> SeenFromMemory() {
    int calls = 0;
    const ScopedFileFault count(
        [&](absl::string_view call, const std::string&) {
          if (call != "stat") ++calls;
          return 0;
        });
    std::vector<std::string> seen;
    const auto names = catalog_.List("");
    for (const std::string& name : *names) {
      seen.push_back((*catalog_.Describe(name))->name());
    }
    EXPECT_EQ(calls, 0);
    return seen;
  }

  std::string Path(const std::string& below) const {
    return absl::StrCat(temp_.path(), "/snapshots/", below);
  }

  TempDirectory temp_;
  std::unique_ptr<TestPool> pool_;
  absl::Duration now_;
  time_t modified_ = 0;
  Catalog catalog_;
};

TEST_F(IndexTest, WhatWasReadOnceIsInMemory) {
  AddSnapshot(&catalog_, "a", 0);
  AddSnapshot(&catalog_, "b", 0);
  EXPECT_THAT(Seen(), ElementsAre("a", "b"));
  EXPECT_THAT(SeenFromMemory(), ElementsAre("a", "b"));
}

TEST_F(IndexTest, ANewCatalogFindsAll) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  Catalog again(pool_.get());
  EXPECT_THAT(*again.List(""), ElementsAre("a"));
  EXPECT_TRUE(again.Describe("a").ok());
}

TEST_F(IndexTest, PublicationIsSeenWhenItIsFinished) {
  EXPECT_THAT(Seen(), IsEmpty());
  StagedSnapshot staged = Stage("a");
  EXPECT_THAT(Seen(), IsEmpty());
  ASSERT_TRUE(catalog_.Publish(&staged).ok());
  EXPECT_THAT(Seen(), IsEmpty());
  EXPECT_EQ(ErrorReasonOf(catalog_.Describe("a").status()),
            reason::kSnapshotMissing);
  ASSERT_TRUE(catalog_.Finish(std::move(staged)).ok());
  EXPECT_THAT(Seen(), ElementsAre("a"));
}

TEST_F(IndexTest, PublicationThatFailsIsNeverSeen) {
  AddSnapshot(&catalog_, "other", 0);
  EXPECT_THAT(Seen(), ElementsAre("other"));
  StagedSnapshot staged = Stage("a");
  pool_->on_commit = [](int) { return absl::UnavailableError("no"); };
  EXPECT_FALSE(catalog_.Publish(&staged).ok());
  EXPECT_THAT(Seen(), ElementsAre("other"));
  pool_->on_commit = nullptr;
  ASSERT_TRUE(catalog_.Discard(std::move(staged)).ok());
  EXPECT_THAT(Seen(), ElementsAre("other"));
}

TEST_F(IndexTest, PublicationThatIsTakenBackIsNeverSeen) {
  StagedSnapshot staged = Stage("a");
  ASSERT_TRUE(catalog_.Publish(&staged).ok());
  ASSERT_TRUE(catalog_.Discard(std::move(staged)).ok());
  EXPECT_THAT(Seen(), IsEmpty());
}

TEST_F(IndexTest, UnfinishedIsNobodysSnapshotUntilItIs) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  catalog_.AddUnfinished(catalog_.Read("a")->snapshot().uid(), "a");
  EXPECT_THAT(Seen(), ElementsAre("a SNAPSHOT_UNREADABLE"));
  catalog_.RemoveUnfinished((*catalog_.Unfinished("a").begin()));
  EXPECT_THAT(Seen(), ElementsAre("a"));
}

TEST_F(IndexTest, DeletedIsGoneUnlessThatFails) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  pool_->on_commit = [](int) { return absl::UnavailableError("no"); };
  EXPECT_FALSE(catalog_.Delete("a").ok());
  EXPECT_THAT(Seen(), ElementsAre("a"));
  pool_->on_commit = nullptr;
  ASSERT_TRUE(catalog_.Delete("a").ok());
  EXPECT_THAT(Seen(), IsEmpty());
  EXPECT_EQ(ErrorReasonOf(catalog_.Describe("a").status()),
            reason::kSnapshotMissing);
}

// Its manifest may have the inode, the size and the times of the one before.
TEST_F(IndexTest, NameThatIsUsedAgainIsAnotherSnapshot) {
  for (unsigned owner = 0; owner < 100; ++owner) {
    AddSnapshot(&catalog_, "a", owner % 2);
    EXPECT_THAT(SeenNow(), ElementsAre("a"));
    ASSERT_TRUE(catalog_.Delete("a").ok());
    EXPECT_THAT(SeenNow(), IsEmpty());
  }
}

TEST_F(IndexTest, ManifestThatIsCompletedIsReadAgain) {
  StagedSnapshot staged = Stage("a");
  ASSERT_TRUE(catalog_.Publish(&staged).ok());
  v1::Manifest manifest;
  manifest.set_format_version(1);
  manifest.mutable_snapshot()->set_uid(staged.uid);
  for (unsigned owner = 0; owner < 100; ++owner) {
    manifest.mutable_snapshot()->set_owner_uid(owner % 2);
    ASSERT_TRUE(catalog_.WriteManifest(staged.directory.get(), manifest).ok());
    if (owner == 0) {
      const UniqueFd directory(
          fcntl(staged.directory.get(), F_DUPFD_CLOEXEC, 0));
      ASSERT_TRUE(catalog_.Finish(std::move(staged)).ok());
      staged.directory.reset(fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
    }
    EXPECT_EQ((*catalog_.Describe("a"))->owner_uid(), owner % 2);
  }
}

// A file system may give the next change the same time.
TEST_F(IndexTest, WhatMayHaveJustChangedIsNotKept) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_GT(CallsToSee(), 0);
  now_ += kSettle - absl::Nanoseconds(1);
  EXPECT_GT(CallsToSee(), 0);
  now_ += absl::Nanoseconds(1);
  // Read once more, and kept.
  EXPECT_GT(CallsToSee(), 0);
  EXPECT_EQ(CallsToSee(), 0);
  // Another mark begins anew.
  ASSERT_EQ(truncate(Path("a/manifest.pb").c_str(), 1), 0);
  EXPECT_GT(CallsToSee(), 0);
  ASSERT_EQ(mkdir(Path("b").c_str(), 0700), 0);
  EXPECT_GT(CallsToSee(), 0);
}

// Between the look and the read there may have been a change of the same mark.
TEST_F(IndexTest, WhoIsHeldUpWhileReadingKeepsNothing) {
  AddSnapshot(&catalog_, "a", 0);
  {
    const ScopedFileFault held_up(
        [&](absl::string_view call, const std::string&) {
          if (call != "stat") now_ += absl::Hours(1);
          return 0;
        });
    EXPECT_THAT(*catalog_.List(""), ElementsAre("a"));
    EXPECT_TRUE(catalog_.Describe("a").ok());
  }
  EXPECT_GT(CallsToSee(), 0);
  EXPECT_EQ(CallsToSee(), 0);
}

// The mark was another one, or none, when the reader began.
TEST_F(IndexTest, WhatIsReadIsNotKeptUnderALaterMark) {
  AddSnapshot(&catalog_, "a", 0);
  Index index(pool_->snapshots(), kSettle, [this] { return now_; });
  EXPECT_FALSE(index.Look("a").mark.has_value());
  now_ += kSettle;
  const Index::Sight early = index.Look("a");
  ASSERT_TRUE(early.mark.has_value());
  ASSERT_EQ(truncate(Path("a/manifest.pb").c_str(), 1), 0);
  EXPECT_FALSE(index.Look("a").mark.has_value());
  index.Keep("a", *early.mark, std::make_shared<const v1::Snapshot>());
  now_ += kSettle;
  const Index::Sight late = index.Look("a");
  EXPECT_TRUE(late.mark.has_value());
  EXPECT_EQ(late.entry, nullptr);
  index.Drop("a");
  index.Keep("a", *late.mark, std::make_shared<const v1::Snapshot>());
  EXPECT_EQ(index.Look("a").entry, nullptr);
}

// The clock was set back, or the pool comes from a machine that is ahead.
TEST_F(IndexTest, WhatIsOfTheFutureIsKept) {
  AddSnapshot(&catalog_, "a", 0);
  const time_t ahead = absl::ToTimeT(absl::Now() + absl::Hours(1));
  const timespec times[] = {{.tv_sec = ahead, .tv_nsec = 0},
                            {.tv_sec = ahead, .tv_nsec = 0}};
  for (const char* path : {"a/manifest.pb", ""}) {
    ASSERT_EQ(utimensat(AT_FDCWD, Path(path).c_str(), times, 0), 0);
  }
  EXPECT_GT(CallsToSee(), 0);
  now_ += kSettle;
  EXPECT_GT(CallsToSee(), 0);
  EXPECT_THAT(SeenFromMemory(), ElementsAre("a"));
}

TEST(IndexMark, EachThingThatChangesMakesAnother) {
  const struct stat info = {};
  const auto differs = [&info](auto change) {
    struct stat changed = info;
    change(&changed);
    return Index::Mark::Of(changed) != Index::Mark::Of(info);
  };
  EXPECT_FALSE(differs([](struct stat*) {}));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_dev = 1; }));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_ino = 1; }));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_nlink = 1; }));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_size = 1; }));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_mtim.tv_nsec = 1; }));
  EXPECT_TRUE(differs([](struct stat* of) { of->st_ctim.tv_nsec = 1; }));
}

TEST(IndexClock, RunsOn) {
  const absl::Duration before = Index::Monotonic();
  EXPECT_GT(before, absl::ZeroDuration());
  EXPECT_GE(Index::Monotonic(), before);
}

TEST_F(IndexTest, DamageIsSeenAndSoIsItsRepair) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  const std::string manifest = Path("a/manifest.pb");
  ASSERT_EQ(rename(manifest.c_str(), Path("a/kept").c_str()), 0);
  EXPECT_THAT(Seen(), ElementsAre("a SNAPSHOT_DAMAGED"));
  ASSERT_EQ(rename(Path("a/kept").c_str(), manifest.c_str()), 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  ASSERT_EQ(truncate(manifest.c_str(), 1), 0);
  EXPECT_THAT(Seen(), ElementsAre("a SNAPSHOT_DAMAGED"));
}

TEST_F(IndexTest, WhatOthersWriteInPlaceIsSeen) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  auto manifest = catalog_.Read("a");
  ASSERT_TRUE(manifest.ok());
  // As long as before.
  std::string uid = manifest->snapshot().uid();
  uid[0] = uid[0] == '0' ? '1' : '0';
  manifest->mutable_snapshot()->set_uid(uid);
  const std::string bytes = manifest->SerializeAsString();
  const UniqueFd fd(open(Path("a/manifest.pb").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), 0),
            static_cast<ssize_t>(bytes.size()));
  // A clock tick later.
  const timespec times[] = {{.tv_sec = 1, .tv_nsec = 0},
                            {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(futimens(fd.get(), times), 0);
  EXPECT_EQ((*catalog_.Describe("a"))->uid(), uid);
}

TEST_F(IndexTest, WhatOthersMoveIsSeen) {
  AddSnapshot(&catalog_, "a", 0);
  AddSnapshot(&catalog_, "b", 1);
  EXPECT_THAT(Seen(), ElementsAre("a", "b"));
  ASSERT_EQ(rename(Path("a").c_str(), Path("c").c_str()), 0);
  EXPECT_THAT(*catalog_.List(""), ElementsAre("b", "c"));
  EXPECT_EQ((*catalog_.Describe("c"))->name(), "c");
  EXPECT_EQ(ErrorReasonOf(catalog_.Describe("a").status()),
            reason::kSnapshotMissing);
  // Another one under that name.
  ASSERT_EQ(rename(Path("b").c_str(), Path("a").c_str()), 0);
  EXPECT_EQ((*catalog_.Describe("a"))->owner_uid(), 1u);
}

TEST_F(IndexTest, WhatCannotBeLookedAtIsNotTakenFromMemory) {
  AddSnapshot(&catalog_, "a", 0);
  EXPECT_THAT(Seen(), ElementsAre("a"));
  const ScopedFileFault fail(
      [](absl::string_view, const std::string&) { return EIO; });
  EXPECT_EQ(ErrorReasonOf(catalog_.Describe("a").status()),
            reason::kSnapshotUnreadable);
  EXPECT_FALSE(catalog_.List("").ok());
}

}  // namespace
}  // namespace daxsnap
