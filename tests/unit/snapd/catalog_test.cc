// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/catalog.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/uuid.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

absl::Status CommitFailed() {
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kCommitFailed,
                    .message = "no",
                    .hint = "h"});
}

class CatalogTest : public testing::Test {
 protected:
  CatalogTest() : pool_(TestPool::Open(temp_.path())), catalog_(pool_.get()) {}

  absl::StatusOr<StagedSnapshot> Begin(const std::string& name) {
    internal::Operation operation;
    operation.set_uid(NewUuid());
    operation.set_name(name);
    return catalog_.Begin(operation);
  }

  TempDirectory temp_;
  std::unique_ptr<TestPool> pool_;
  Catalog catalog_;
};

TEST_F(CatalogTest, WhatIsStagedDoesNotExist) {
  auto staged = Begin("a");
  ASSERT_TRUE(staged.ok()) << staged.status();
  EXPECT_FALSE(*catalog_.Has("a"));
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  EXPECT_THAT(pool_->Staging(), SizeIs(2));
}

TEST_F(CatalogTest, PublicationThatNobodyWaitsForTakesItselfBack) {
  Catalog catalog(pool_.get(), absl::ZeroDuration());
  internal::Operation operation;
  operation.set_uid(NewUuid());
  operation.set_name("a");
  auto staged = catalog.Begin(operation);
  ASSERT_TRUE(staged.ok()) << staged.status();
  std::promise<void> answer;
  const std::shared_future<void> answered = answer.get_future().share();
  pool_->on_commit = [&](int) {
    answered.wait();
    return absl::OkStatus();
  };
  const Cancellation never;
  EXPECT_EQ(ErrorReasonOf(catalog.PublishInTime(&*staged, v1::Manifest(),
                                                absl::Milliseconds(50), never)),
            reason::kSyncTimeout);
  EXPECT_TRUE(absl::IsUnavailable(catalog.Discard(*std::move(staged))));
  EXPECT_THAT(pool_->Staging(), Not(IsEmpty()));
  EXPECT_EQ(ErrorReasonOf(catalog.CheckNotLate("a")), reason::kBusy);
  EXPECT_TRUE(catalog.CheckNotLate("b").ok());
  answer.set_value();
  while (!catalog.CheckNotLate("a").ok()) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
}

// In a directory they are not on the device yet.
TEST_F(CatalogTest, PublicationHasTheTimeThatItsImagesNeed) {
  auto staged = Begin("a");
  staged->image_bytes = uint64_t{960} << 20;
  pool_->on_commit = [](int) {
    absl::SleepFor(absl::Milliseconds(100));
    return absl::OkStatus();
  };
  const Cancellation never;
  const absl::Status status = catalog_.PublishInTime(
      &*staged, v1::Manifest(), absl::Milliseconds(1), never);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(pool_->Snapshots(), ElementsAre("a"));
}

TEST_F(CatalogTest, PublishCommitsAfterTheRename) {
  auto staged = Begin("a");
  std::vector<std::string> at_last_commit;
  pool_->on_commit = [&](int) {
    at_last_commit = pool_->Snapshots();
    return absl::OkStatus();
  };
  ASSERT_TRUE(catalog_.Publish(&*staged).ok());
  EXPECT_THAT(at_last_commit, ElementsAre("a"));
  // On a directory the data is durable before the name.
  EXPECT_EQ(pool_->commits(), 2);
}

TEST_F(CatalogTest, PublishedIsHiddenUntilFinished) {
  auto staged = Begin("a");
  v1::Manifest manifest;
  manifest.set_format_version(1);
  manifest.mutable_snapshot()->set_uid("u");
  ASSERT_TRUE(catalog_.WriteManifest(staged->directory.get(), manifest).ok());
  ASSERT_TRUE(catalog_.Publish(&*staged).ok());
  EXPECT_FALSE(*catalog_.Has("a"));
  EXPECT_THAT(*catalog_.List(""), IsEmpty());
  EXPECT_EQ(ErrorReasonOf(catalog_.Read("a").status()),
            reason::kSnapshotMissing);
  ASSERT_TRUE(catalog_.Finish(*std::move(staged)).ok());
  EXPECT_TRUE(catalog_.Read("a").ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
}

// Its task is dead by then: hidden, it would be lost to everybody.
TEST_F(CatalogTest, PublishedIsShownThoughItsRecordStays) {
  auto staged = Begin("a");
  ASSERT_TRUE(catalog_.Publish(&*staged).ok());
  const UniqueFd staging(fcntl(pool_->staging(), F_DUPFD_CLOEXEC, 0));
  // No directory: whatever is done below it fails.
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_GE(dup3(null.get(), pool_->staging(), O_CLOEXEC), 0);
  EXPECT_FALSE(catalog_.Finish(*std::move(staged)).ok());
  EXPECT_TRUE(*catalog_.Has("a"));
  ASSERT_GE(dup3(staging.get(), pool_->staging(), O_CLOEXEC), 0);
}

TEST_F(CatalogTest, FailedCommitTakesThePublicationBack) {
  for (const int failing : {1, 2}) {
    auto staged = Begin("a");
    const int before = pool_->commits();
    pool_->on_commit = [&](int number) {
      return number == before + failing ? CommitFailed() : absl::OkStatus();
    };
    const absl::Status status = catalog_.Publish(&*staged);
    EXPECT_EQ(ErrorReasonOf(status), reason::kCommitFailed) << failing;
    EXPECT_FALSE(staged->published);
    EXPECT_THAT(pool_->Snapshots(), IsEmpty());
    ASSERT_TRUE(catalog_.Discard(*std::move(staged)).ok());
    EXPECT_THAT(pool_->Staging(), IsEmpty());
  }
}

// The kernel tells of a file system, once, not of whose files.
TEST_F(CatalogTest, FailedCommitIsOneOfAllThatWereBegunBefore) {
  auto first = Begin("a"), second = Begin("b");
  pool_->on_commit = [](int number) {
    return number == 1 ? CommitFailed() : absl::OkStatus();
  };
  EXPECT_EQ(ErrorReasonOf(catalog_.Publish(&*first)), reason::kCommitFailed);
  EXPECT_EQ(ErrorReasonOf(catalog_.Publish(&*second)), reason::kCommitFailed);
  EXPECT_THAT(pool_->Snapshots(), IsEmpty());
  auto third = Begin("c");
  EXPECT_TRUE(catalog_.Publish(&*third).ok());
}

TEST_F(CatalogTest, PublishNeverReplaces) {
  AddSnapshot(&catalog_, "a", 0);
  auto staged = Begin("a");
  EXPECT_EQ(ErrorReasonOf(catalog_.Publish(&*staged)), reason::kNameTaken);
  ASSERT_TRUE(catalog_.Discard(*std::move(staged)).ok());
  EXPECT_TRUE(catalog_.Read("a").ok());
}

// It may be taken back yet.
TEST_F(CatalogTest, NameThatIsTakenDoesNotShowWhatIsHidden) {
  auto first = Begin("a"), second = Begin("a");
  ASSERT_TRUE(catalog_.Publish(&*first).ok());
  EXPECT_EQ(ErrorReasonOf(catalog_.Publish(&*second)), reason::kNameTaken);
  ASSERT_TRUE(catalog_.Discard(*std::move(second)).ok());
  EXPECT_FALSE(*catalog_.Has("a"));
  ASSERT_TRUE(catalog_.Finish(*std::move(first)).ok());
  EXPECT_TRUE(*catalog_.Has("a"));
}

// It is called while nothing can be cancelled yet.
TEST_F(CatalogTest, PoolThatDoesNotAnswerDoesNotHoldUpWhatBegins) {
  auto staged = Begin("a");
  std::promise<void> asked, answer;
  pool_->on_commit = [&](int number) {
    if (number == 1) {
      asked.set_value();
      answer.get_future().wait();
    }
    return absl::OkStatus();
  };
  auto publication = std::async(std::launch::async,
                                [&] { return catalog_.Publish(&*staged); });
  asked.get_future().wait();
  auto second = std::async(std::launch::async, [&] { return Begin("b"); });
  EXPECT_EQ(second.wait_for(std::chrono::seconds(10)),
            std::future_status::ready);
  answer.set_value();
  EXPECT_TRUE(second.get().ok());
  EXPECT_TRUE(publication.get().ok());
}

TEST_F(CatalogTest, DiscardOfThePublishedIsDurable) {
  auto staged = Begin("a");
  ASSERT_TRUE(catalog_.Publish(&*staged).ok());
  std::vector<size_t> snapshots_at_commit;
  pool_->on_commit = [&](int) {
    snapshots_at_commit.push_back(pool_->Snapshots().size());
    return absl::OkStatus();
  };
  ASSERT_TRUE(catalog_.Discard(*std::move(staged)).ok());
  EXPECT_THAT(snapshots_at_commit, ElementsAre(0, 0));
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  EXPECT_FALSE(*catalog_.Has("a"));
}

TEST_F(CatalogTest, DeleteCommitsBeforeItRemoves) {
  AddSnapshot(&catalog_, "a", 0);
  std::vector<size_t> staging_at_commit;
  pool_->on_commit = [&](int) {
    EXPECT_THAT(pool_->Snapshots(), IsEmpty());
    staging_at_commit.push_back(pool_->Staging().size());
    return absl::OkStatus();
  };
  ASSERT_TRUE(catalog_.Delete("a").ok());
  EXPECT_THAT(staging_at_commit, ElementsAre(1, 0));
}

TEST_F(CatalogTest, DeleteThatCannotCommitKeepsTheSnapshot) {
  AddSnapshot(&catalog_, "a", 0);
  pool_->on_commit = [](int) { return CommitFailed(); };
  EXPECT_EQ(ErrorReasonOf(catalog_.Delete("a")), reason::kCommitFailed);
  EXPECT_TRUE(catalog_.Read("a").ok());
  EXPECT_THAT(pool_->Staging(), IsEmpty());
  pool_->on_commit = nullptr;
  EXPECT_TRUE(catalog_.Delete("a").ok());
  EXPECT_EQ(ErrorReasonOf(catalog_.Delete("a")), reason::kSnapshotMissing);
}

TEST_F(CatalogTest, NamesAreCheckedBeforeThePool) {
  for (const std::string name : {"../staging", ".", "", "a/b"}) {
    EXPECT_EQ(ErrorReasonOf(catalog_.Read(name).status()),
              reason::kNameInvalid);
    EXPECT_EQ(ErrorReasonOf(catalog_.Delete(name)), reason::kNameInvalid);
  }
}

TEST_F(CatalogTest, DamagedManifestsAreDataLossAndCanBeDeleted) {
  AddSnapshot(&catalog_, "a", 0);
  auto directory = catalog_.Open("a");
  for (const std::string bytes : {"", "\xff\xff\xff"}) {
    ASSERT_TRUE(ReplaceFileAt(directory->get(), "manifest.pb", bytes).ok());
    const absl::Status status = catalog_.Read("a").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotDamaged);
  }
  EXPECT_TRUE(catalog_.Delete("a").ok());
}

// What says that something is damaged has it deleted.
TEST_F(CatalogTest, WhatCannotBeReadIsNotDamaged) {
  AddSnapshot(&catalog_, "a", 0);
  struct Case {
    const char* call;
    const char* name;
  };
  for (const Case& c :
       {Case{"stat", "a"}, Case{"open", "a"}, Case{"open", "manifest.pb"},
        Case{"read", "manifest.pb"}}) {
    for (const int error : {EIO, EMFILE, ENFILE, ENOMEM, EACCES}) {
      const ScopedFileFault fault(FailWith(error, c.call, c.name));
      const absl::Status status = catalog_.Read("a").status();
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotUnreadable);
      auto metadata = ErrorMetadataOf(status);
      EXPECT_EQ(metadata["error"], strerrorname_np(error));
      EXPECT_EQ(metadata["name"], "a");
      EXPECT_THAT(metadata["hint"], Not(HasSubstr("delete")));
    }
  }
  const NoDescriptors none;
  EXPECT_EQ(ErrorReasonOf(catalog_.Read("a").status()),
            reason::kSnapshotUnreadable);
}

TEST_F(CatalogTest, WhetherThereIsOneMayNotBeKnown) {
  AddSnapshot(&catalog_, "a", 0);
  {
    const ScopedFileFault fault(FailWith(EIO, "stat", "a"));
    EXPECT_EQ(ErrorReasonOf(catalog_.Has("a").status()),
              reason::kSnapshotUnreadable);
    EXPECT_EQ(ErrorReasonOf(catalog_.Delete("a")), reason::kSnapshotUnreadable);
  }
  EXPECT_TRUE(catalog_.Read("a").ok());
}

TEST_F(CatalogTest, ImagesThatCannotBeReadAreNotDamaged) {
  AddSnapshot(&catalog_, "a", 0);
  auto images = EnsureDirectory(catalog_.Open("a")->get(), "images");
  EXPECT_EQ(ErrorReasonOf(catalog_.OpenImages("a").status()),
            reason::kSnapshotDamaged);
  WriteImages(images->get(), 42, "/bin/sh");
  EXPECT_TRUE(catalog_.OpenImages("a").ok());
  for (const auto& [call, name] :
       {std::pair{"open", "images"}, std::pair{"stat", "inventory.img"},
        std::pair{"stat", "pstree.img"}}) {
    const ScopedFileFault fault(FailWith(EIO, call, name));
    const absl::Status status = catalog_.OpenImages("a").status();
    EXPECT_EQ(ErrorReasonOf(status), reason::kSnapshotUnreadable) << status;
    EXPECT_THAT(ErrorMetadataOf(status)["path"], HasSubstr(name));
  }
}

TEST_F(CatalogTest, HintOfTheDamagedSaysWhereTheRestIs) {
  AddSnapshot(&catalog_, "a", 0);
  ASSERT_TRUE(ReplaceFileAt(pool_->snapshots(), "a/manifest.pb", "").ok());
  EXPECT_THAT(ErrorMetadataOf(catalog_.Read("a").status())["hint"],
              HasSubstr(temp_.path() + "/snapshots/a"));
}

// Its other fields may be of other types.
TEST_F(CatalogTest, NewerFormatsNeedNotParse) {
  AddSnapshot(&catalog_, "a", 0);
  ASSERT_TRUE(ReplaceFileAt(pool_->snapshots(), "a/manifest.pb",
                            "\x08\x07\xff\xff\xff\xff")
                  .ok());
  const absl::Status status = catalog_.Read("a").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kVersionUnsupported) << status;
  EXPECT_EQ(ErrorMetadataOf(status)["version"], "7");
}

TEST_F(CatalogTest, NewerFormatIsRefused) {
  AddSnapshot(&catalog_, "a", 0);
  auto manifest = catalog_.Read("a");
  manifest->set_format_version(2);
  manifest->mutable_snapshot()->mutable_versions()->set_daxsnap("7.5.3");
  ASSERT_TRUE(
      catalog_.WriteManifest(catalog_.Open("a")->get(), *manifest).ok());
  const absl::Status status = catalog_.Read("a").status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kVersionUnsupported);
  EXPECT_EQ(ErrorMetadataOf(status)["version"], "2");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("made by daxsnap 7.5.3"));
  EXPECT_THAT(ErrorMetadataOf(status)["hint"], HasSubstr("7.5.3 or a later"));
}

TEST_F(CatalogTest, ListIsInOrderAndBeginsBehindAName) {
  for (const std::string name : {"b", "a", "C", "a.1", "a-1"}) {
    AddSnapshot(&catalog_, name, 0);
  }
  ASSERT_TRUE(EnsureDirectory(pool_->snapshots(), ".not-ours").ok());
  EXPECT_THAT(*catalog_.List(""), ElementsAre("C", "a", "a-1", "a.1", "b"));
  EXPECT_EQ(*catalog_.Count(), 5u);
  EXPECT_THAT(*catalog_.List("a-1"), ElementsAre("a.1", "b"));
  // The name itself may be gone meanwhile.
  EXPECT_THAT(*catalog_.List("a-2"), ElementsAre("a.1", "b"));
  EXPECT_THAT(*catalog_.List("b"), IsEmpty());
}

TEST_F(CatalogTest, SnapshotsAreForRootOnly) {
  AddSnapshot(&catalog_, "a", 0);
  struct stat info;
  ASSERT_EQ(fstatat(pool_->snapshots(), "a", &info, 0), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
  ASSERT_EQ(fstatat(pool_->snapshots(), "a/manifest.pb", &info, 0), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
}

TEST_F(CatalogTest, SecondSnapdIsKeptOut) {
  const absl::Status status = Pool::Open(temp_.path()).status();
  EXPECT_EQ(ErrorReasonOf(status), reason::kPoolMissing) << status;
}

// A file system may make the name durable before the content.
TEST_F(CatalogTest, ManifestOfADirectoryIsDurableBeforeItReplacesTheOldOne) {
  AddSnapshot(&catalog_, "a", 1);
  auto directory = catalog_.Open("a");
  auto manifest = catalog_.Read("a");
  ASSERT_TRUE(manifest.ok());
  manifest->mutable_snapshot()->set_owner_uid(2);
  std::vector<std::string> calls;
  {
    const ScopedFileFault record(
        [&](absl::string_view call, const std::string& name) {
          if (name == "manifest.pb") calls.emplace_back(call);
          return 0;
        });
    ASSERT_TRUE(catalog_.WriteManifest(directory->get(), *manifest).ok());
  }
  EXPECT_THAT(calls, ElementsAre("write", "sync", "rename"));
  manifest->mutable_snapshot()->set_owner_uid(3);
  {
    const ScopedFileFault fail(FailWith(EIO, "sync", "manifest.pb"));
    EXPECT_FALSE(catalog_.WriteManifest(directory->get(), *manifest).ok());
  }
  EXPECT_EQ(catalog_.Read("a")->snapshot().owner_uid(), 2u);
  EXPECT_THAT(*ListDirectory(directory->get()),
              ElementsAre("images", "manifest.pb"));
}

// What could be written and not read again would be lost.
TEST_F(CatalogTest, WhatIsTooLargeToBeReadIsNotWritten) {
  AddSnapshot(&catalog_, "a", 1);
  auto directory = catalog_.Open("a");
  v1::Manifest manifest = *catalog_.Read("a");
  manifest.set_cpu_model(std::string(size_t{64} << 20, 'x'));
  EXPECT_EQ(ErrnoNameOf(catalog_.WriteManifest(directory->get(), manifest)),
            "EFBIG");
  EXPECT_TRUE(catalog_.Read("a").ok());
  internal::Operation operation;
  operation.set_uid(NewUuid());
  // More tasks than a machine has PIDs for by default.
  for (int pid = 1; pid <= 100000; ++pid) {
    internal::Victim* victim = operation.add_victims();
    victim->set_pid(4000000 + pid);
    victim->set_start_ticks(uint64_t{1} << 40);
    victim->set_cpu_ticks(uint64_t{1} << 40);
  }
  ASSERT_TRUE(catalog_.records().Write(operation).ok());
  EXPECT_TRUE(catalog_.records().Read(operation.uid()).ok());
  operation.set_name(std::string(size_t{16} << 20, 'x'));
  EXPECT_EQ(ErrnoNameOf(catalog_.records().Write(operation)), "EFBIG");
  EXPECT_TRUE(catalog_.records().Read(operation.uid()).ok());
}

// A pool that cannot be changed, as far as this process sees it.
class ReadOnlyTest : public testing::Test {
 protected:
  // In a mount namespace of its own, as only root can; the exit status says
  // whether it opened.
  bool Opens() const {
    const pid_t child = fork();
    if (child == 0) {
      const char* path = temp_.path().c_str();
      if (unshare(CLONE_NEWNS) != 0 ||
          mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          mount(path, path, nullptr, MS_BIND, nullptr) != 0 ||
          mount(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY,
                nullptr) != 0) {
        _exit(2);
      }
      _exit(Pool::Open(temp_.path()).ok() ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_NE(WEXITSTATUS(status), 2) << "it cannot be mounted";
    return WEXITSTATUS(status) == 0;
  }
  std::string Path(const std::string& name) const {
    return temp_.path() + "/" + name;
  }
  TempDirectory temp_;
};

TEST_F(ReadOnlyTest, OpensIfNobodyElseCanHaveWrittenToIt) {
  ASSERT_EQ(geteuid(), 0u) << "only root can mount";
  ASSERT_TRUE(Pool::Open(temp_.path()).ok());
  const std::string snapshots = Path("snapshots");
  EXPECT_TRUE(Opens());
  ASSERT_EQ(chmod(snapshots.c_str(), 0755), 0);
  EXPECT_TRUE(Opens());
  ASSERT_EQ(chmod(snapshots.c_str(), 0770), 0);
  EXPECT_FALSE(Opens());
  ASSERT_EQ(chmod(snapshots.c_str(), 0700), 0);
  ASSERT_EQ(chown(snapshots.c_str(), 1000, 0), 0);
  EXPECT_FALSE(Opens());
  ASSERT_EQ(chown(snapshots.c_str(), 0, 0), 0);
  // Nothing is removed.
  ASSERT_EQ(mkdir(Path("staging/website").c_str(), 0700), 0);
  EXPECT_TRUE(Opens());
}

class ForeignTest : public testing::Test {
 protected:
  // It is refused, and what it holds is there yet.
  void ExpectRefused(const std::string& why) {
    const absl::Status status = Pool::Open(temp_.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ErrorReasonOf(status), reason::kPoolMissing);
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  }
  std::string Path(const std::string& name) const {
    return temp_.path() + "/" + name;
  }
  TempDirectory temp_;
};

TEST_F(ForeignTest, DirectoriesThatOthersMayUseAreRefused) {
  for (const char* name : {"snapshots", "staging"}) {
    ASSERT_TRUE(Pool::Open(temp_.path()).ok());
    ASSERT_EQ(chmod(Path(name).c_str(), 0755), 0);
    ExpectRefused("its mode is 0755");
    ASSERT_EQ(chmod(Path(name).c_str(), 0700), 0);
  }
  EXPECT_TRUE(Pool::Open(temp_.path()).ok());
}

TEST_F(ForeignTest, DirectoriesOfOthersAreRefused) {
  ASSERT_EQ(geteuid(), 0u) << "only root can give files away";
  for (const char* name : {"snapshots", "staging"}) {
    ASSERT_TRUE(Pool::Open(temp_.path()).ok());
    ASSERT_EQ(chown(Path(name).c_str(), 1000, 0), 0);
    ExpectRefused("its owner is uid 1000");
    ASSERT_EQ(chown(Path(name).c_str(), 0, 0), 0);
  }
}

TEST_F(ForeignTest, WhatIsNoDirectoryIsRefused) {
  ASSERT_EQ(symlink("/tmp", Path("snapshots").c_str()), 0);
  ExpectRefused("it is no directory");
}

// It would be emptied.
TEST_F(ForeignTest, StagingWithoutSnapshotsIsRefused) {
  const std::string left = Path("staging/") + NewUuid();
  ASSERT_EQ(mkdir(Path("staging").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(left.c_str(), 0700), 0);
  ExpectRefused("no snapshots/ is beside it");
  // However often it is tried.
  ExpectRefused("no snapshots/ is beside it");
  ASSERT_EQ(rmdir(left.c_str()), 0);
  EXPECT_TRUE(Pool::Open(temp_.path()).ok());
}

TEST_F(ForeignTest, StagingWithOtherNamesIsRefused) {
  for (const char* name : {"website", "u.operation", ".operation",
                           "01234567-89AB-cdef-0123-456789abcdef"}) {
    ASSERT_TRUE(Pool::Open(temp_.path()).ok());
    const std::string path = Path("staging/") + name;
    ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
    ExpectRefused(std::string("nothing called ") + name);
    ExpectRefused(std::string("nothing called ") + name);
    ASSERT_EQ(rmdir(path.c_str()), 0);
  }
  for (const char* suffix : {"", ".operation", ".operation.new"}) {
    ASSERT_EQ(mkdir((Path("staging/") + NewUuid() + suffix).c_str(), 0700), 0);
  }
  EXPECT_TRUE(Pool::Open(temp_.path()).ok());
}

// As in a repository of a backup program.
TEST_F(ForeignTest, SnapshotsOfAnotherProgramAreRefused) {
  ASSERT_EQ(mkdir(Path("snapshots").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(Path("snapshots/0123abcd").c_str(), 0700), 0);
  ExpectRefused("no staging/ is beside it");
  ExpectRefused("no staging/ is beside it");
  // One that was copied there.
  ASSERT_EQ(mkdir(Path("snapshots/copied").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(Path("snapshots/copied/manifest.pb").c_str(), 0700), 0);
  EXPECT_TRUE(Pool::Open(temp_.path()).ok());
}

TEST(Pool, MissingDirectoryIsPoolMissing) {
  const absl::Status status = Pool::Open("/nonexistent").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReasonOf(status), reason::kPoolMissing);
  EXPECT_EQ(ErrorMetadataOf(status)["path"], "/nonexistent");
}

TEST(Pool, DirectoryIsToldFromKmemfs) {
  const TempDirectory temp;
  auto pool = Pool::Open(temp.path());
  ASSERT_TRUE(pool.ok()) << pool.status();
  EXPECT_FALSE((*pool)->is_kmemfs());
  auto info = (*pool)->Info();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->node(), -1);
  EXPECT_GT(info->total_pages(), 0u);
  EXPECT_TRUE((*pool)->Commit().ok());
}

}  // namespace
}  // namespace daxsnap
