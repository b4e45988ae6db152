// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/manifest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "host/task/build_id.h"
#include "tests/unit/base/child.h"
#include "tests/unit/host/fuse_tree.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

absl::Status Check(const v1::Manifest& manifest,
                   v1::FilesPolicy policy = v1::FILES_POLICY_UNSPECIFIED) {
  return CheckFiles(manifest, policy);
}

class ManifestTest : public testing::Test {
 protected:
  // A manifest of a task that maps `path`.
  v1::Manifest Mapping(const std::string& path) {
    struct stat info;
    EXPECT_EQ(stat(path.c_str(), &info), 0);
    return Mapping(path, static_cast<uint64_t>(info.st_size));
  }

  v1::Manifest Mapping(const std::string& path, uint64_t size) {
    ImageSet images;
    images.tasks = {{.pid = 42, .parent_pid = 0, .thread_ids = {42, 43}}};
    images.files = {
        {.path = path, .size = size, .regular = true, .mapped = true}};
    ManifestInput input;
    input.name = "s";
    input.owner = 1000;
    return MakeManifest(input, images).value();
  }

  TempDirectory temp_;
};

TEST_F(ManifestTest, RecordsWhatALaterReaderMustCheck) {
  const v1::Manifest manifest = Mapping("/bin/sh");
  EXPECT_EQ(manifest.format_version(), 1u);
  EXPECT_FALSE(manifest.snapshot().versions().daxsnap().empty());
  EXPECT_FALSE(manifest.snapshot().versions().kernel().empty());
  EXPECT_GT(manifest.cpu_features_size(), 0);
  EXPECT_EQ(manifest.snapshot().owner_uid(), 1000u);
  ASSERT_EQ(manifest.files_size(), 1);
  EXPECT_EQ(manifest.files(0).build_id().size(), 40u);
  EXPECT_EQ(PidsOf(manifest), (std::vector<pid_t>{42, 43}));
}

// The manifest is made while the tasks stand still.
TEST_F(ManifestTest, ServerThatStandsStillIsNamedInTime) {
  const FuseTree tree([](const std::string&) {});
  const std::vector<std::string> paths = {"/bin/sh", tree.path() + "/x"};
  auto files = LookAtMappedFiles(paths);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)[0]->build_id, Mapping("/bin/sh").files(0).build_id());
  EXPECT_EQ((*files)[1]->build_id, "");
  EXPECT_EQ((*files)[1]->info.st_size, 4096);
  tree.Stop();
  const absl::Status late =
      LookAtMappedFiles(paths, absl::Milliseconds(300)).status();
  EXPECT_EQ(ErrorReasonOf(late), reason::kOverloaded) << late;
  EXPECT_EQ(ErrorMetadataOf(late)["path"], paths[1]);
}

TEST_F(ManifestTest, UnchangedFilesPass) {
  EXPECT_TRUE(Check(Mapping("/bin/sh")).ok());
}

TEST_F(ManifestTest, ChangedFilesAreRefused) {
  const std::string path = temp_.path() + "/data";
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "12345").ok());
  const v1::Manifest manifest = Mapping(path);
  EXPECT_TRUE(Check(manifest).ok());

  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "123456").ok());
  absl::Status status = Check(manifest);
  EXPECT_EQ(ErrorReasonOf(status), reason::kFileChanged);
  EXPECT_EQ(ErrorMetadataOf(status)["path"], path);

  // The same size, another time.
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "54321").ok());
  const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 0},
                             {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(ErrorReasonOf(Check(manifest)), reason::kFileChanged);

  ASSERT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(ErrorReasonOf(Check(manifest)), reason::kFileChanged);
}

TEST_F(ManifestTest, WhatCannotBeReadHasNotChanged) {
  const v1::Manifest manifest = Mapping("/bin/sh");
  for (const int error : {EIO, EMFILE, ENOMEM}) {
    const ScopedFileFault fault(FailWith(error, "open", "/bin/sh"));
    const absl::Status status = Check(manifest);
    EXPECT_NE(ErrorReasonOf(status), reason::kFileChanged) << status;
    EXPECT_EQ(ErrnoNameOf(status), strerrorname_np(error));
  }
}

// A manifest of a task that can write `path`, as it is now.
class WritableTest : public ManifestTest {
 protected:
  WritableTest() { Write("12345"); }

  const std::string& path() const { return path_; }

  void Write(const std::string& content) {
    const UniqueFd fd(
        open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_EQ(write(fd.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
  }

  // Seconds since 1970.
  void SetTime(time_t seconds) {
    const timespec times[2] = {{.tv_sec = seconds, .tv_nsec = 0},
                               {.tv_sec = seconds, .tv_nsec = 7}};
    ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  }

  v1::Manifest Writing(bool append_only, bool size_checked,
                       bool unsettled = false) {
    ImageSet images;
    images.tasks = {{.pid = 42, .parent_pid = 0, .thread_ids = {42}}};
    auto state = ReadFileState(path_);
    EXPECT_TRUE(state.ok()) << state.status();
    state->unsettled = unsettled;
    images.files = {{.path = path_,
                     .size = size_checked ? state->size : 0,
                     .regular = true,
                     .mapped = false,
                     .size_checked = size_checked}};
    ManifestInput input;
    input.written_files[path_] = {.state = *state, .append_only = append_only};
    return MakeManifest(input, images).value();
  }

  void ExpectRefused(const v1::Manifest& manifest, v1::FilesPolicy policy) {
    const absl::Status status = Check(manifest, policy);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ErrorReasonOf(status), reason::kFileChanged);
    EXPECT_EQ(ErrorMetadataOf(status)["path"], path_);
    const bool offered = ErrorMetadataOf(status)["hint"].find(
                             "--files=accept") != std::string::npos;
    EXPECT_EQ(offered, Check(manifest, v1::FILES_POLICY_ACCEPT).ok()) << status;
  }

 private:
  const std::string path_ = temp_.path() + "/data";
};

TEST_F(WritableTest, RecordIsOfTheFileThatWasOpen) {
  SetTime(1000);
  const v1::Manifest manifest = Writing(false, true);
  ASSERT_EQ(manifest.files_size(), 1);
  const v1::FileRecord& file = manifest.files(0);
  EXPECT_TRUE(file.writable());
  EXPECT_FALSE(file.append_only());
  EXPECT_EQ(file.size(), 5u);
  EXPECT_EQ(file.modify_time().seconds(), 1000);
  EXPECT_EQ(file.modify_time().nanos(), 7);
  EXPECT_NE(file.inode(), 0u);
  EXPECT_TRUE(Check(manifest).ok());
}

TEST_F(WritableTest, SameSizeAndAnotherTimeIsRefusedUnlessAccepted) {
  const v1::Manifest manifest = Writing(false, true);
  Write("54321");
  SetTime(1000);
  ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
  EXPECT_TRUE(Check(manifest, v1::FILES_POLICY_ACCEPT).ok());
}

// Its time may be the same though it was written since.
TEST_F(WritableTest, WrittenWhileItWasRecordedIsRefusedUnlessAccepted) {
  const v1::Manifest manifest = Writing(false, true, /*unsettled=*/true);
  ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
  EXPECT_TRUE(Check(manifest, v1::FILES_POLICY_ACCEPT).ok());
}

TEST_F(WritableTest, AnotherSizeIsRefusedWhateverIsAsked) {
  const v1::Manifest manifest = Writing(false, true);
  for (const std::string content : {"1234", "123456"}) {
    Write(content);
    ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
    ExpectRefused(manifest, v1::FILES_POLICY_ACCEPT);
  }
  ASSERT_EQ(unlink(path().c_str()), 0);
  ExpectRefused(manifest, v1::FILES_POLICY_ACCEPT);
  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
  ExpectRefused(manifest, v1::FILES_POLICY_ACCEPT);
}

// From a backup, as the hint says.
TEST_F(WritableTest, FilesPutBackWithTheirTimePass) {
  SetTime(1000);
  const v1::Manifest manifest = Writing(false, true);
  ASSERT_EQ(rename(path().c_str(), (path() + ".old").c_str()), 0);
  Write("12345");
  ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
  SetTime(1000);
  EXPECT_TRUE(Check(manifest).ok());
}

TEST_F(WritableTest, LogsMayGrow) {
  const v1::Manifest manifest = Writing(true, false);
  EXPECT_TRUE(manifest.files(0).append_only());
  EXPECT_EQ(manifest.files(0).size(), 5u);
  Write("1234567");
  EXPECT_TRUE(Check(manifest).ok()) << Check(manifest);
  Write("12");
  ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
  EXPECT_TRUE(Check(manifest, v1::FILES_POLICY_ACCEPT).ok());
}

TEST_F(WritableTest, LogsThatWereReplacedAreRefusedUnlessAccepted) {
  const v1::Manifest manifest = Writing(true, false);
  ASSERT_EQ(rename(path().c_str(), (path() + ".1").c_str()), 0);
  Write("1234567");
  ExpectRefused(manifest, v1::FILES_POLICY_REFUSE);
  EXPECT_TRUE(Check(manifest, v1::FILES_POLICY_ACCEPT).ok());
}

// CRIU wants the size of those that something else reads.
TEST_F(WritableTest, LogsWhoseSizeCriuChecksMayNotGrow) {
  const v1::Manifest manifest = Writing(true, true);
  EXPECT_FALSE(manifest.files(0).append_only());
  Write("1234567");
  ExpectRefused(manifest, v1::FILES_POLICY_ACCEPT);
}

TEST_F(WritableTest, WhatCannotBeStattedHasNotChanged) {
  const v1::Manifest manifest = Writing(false, true);
  const ScopedFileFault fault(FailWith(EIO, "stat", "/data"));
  EXPECT_EQ(ErrnoNameOf(Check(manifest)), "EIO");
}

// Manifests of earlier versions say nothing of files that were written.
TEST_F(WritableTest, ManifestsWithoutRecordsRestoreAsBefore) {
  v1::Manifest manifest = Writing(false, true);
  v1::FileRecord* file = manifest.mutable_files(0);
  file->clear_writable();
  file->clear_inode();
  file->clear_birth_time();
  Write("54321");
  SetTime(1000);
  EXPECT_TRUE(Check(manifest).ok());
}

// protobuf writes strings that are not UTF-8, but does not read them again.
TEST_F(ManifestTest, NamesThatAreNoTextCanBeReadAgain) {
  const std::string path = temp_.path() + "/caf\xe9";
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "12345").ok());
  ManifestInput input;
  input.root.comm = "gr\xc3\xb6\xc3";
  input.root.exe = path;
  ImageSet images;
  images.tasks = {{.pid = 42, .parent_pid = 0, .thread_ids = {42}}};
  images.files = {{.path = path, .size = 5, .regular = true, .mapped = true}};
  input.tasks[42] = input.root;
  v1::Manifest manifest;
  ASSERT_TRUE(manifest.ParseFromString(
      MakeManifest(input, images)->SerializeAsString()));
  EXPECT_EQ(manifest.snapshot().root_task().comm(), "gr\xc3\xb6\\xc3");
  EXPECT_EQ(manifest.snapshot().root_task().exe(), temp_.path() + "/caf\\xe9");
  EXPECT_EQ(manifest.files(0).path(), path);
  EXPECT_TRUE(Check(manifest).ok());
  ASSERT_EQ(unlink(path.c_str()), 0);
  const absl::Status gone = Check(manifest);
  EXPECT_EQ(ErrorReasonOf(gone), reason::kFileChanged);
  EXPECT_EQ(ErrorMetadataOf(gone)["path"], temp_.path() + "/caf\\xe9");
}

// Tasks choose their paths, and opening a device or FIFO has effects.
TEST_F(ManifestTest, WhatIsNoRegularFileIsNotOpened) {
  const std::string fifo = temp_.path() + "/fifo";
  const std::string link = temp_.path() + "/link";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  ASSERT_EQ(symlink(fifo.c_str(), link.c_str()), 0);
  const UniqueFd watch(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(inotify_add_watch(watch.get(), fifo.c_str(), IN_OPEN), 0);

  v1::Manifest manifest = Mapping(link, 0);
  EXPECT_FALSE(manifest.files(0).has_modify_time());
  manifest.mutable_files(0)->mutable_modify_time()->set_seconds(1);
  EXPECT_EQ(ErrorReasonOf(Check(manifest)), reason::kFileChanged);

  char events[256];
  EXPECT_EQ(read(watch.get(), events, sizeof(events)), -1) << "it was opened";
  EXPECT_EQ(errno, EAGAIN);
  // The watch would have seen it.
  const UniqueFd opened(open(link.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  EXPECT_GT(read(watch.get(), events, sizeof(events)), 0);
}

TEST_F(ManifestTest, AnotherTimeIsFineForTheSameBuild) {
  const std::string path = temp_.path() + "/program";
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path,
                            *ReadFileAt(AT_FDCWD, "/bin/sh", size_t{1} << 30))
                  .ok());
  const v1::Manifest manifest = Mapping(path);
  const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 0},
                             {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_TRUE(Check(manifest).ok());
}

TEST_F(ManifestTest, PidsInUseAreRefused) {
  const Child child;
  v1::Manifest manifest;
  manifest.add_tasks()->mutable_task()->set_pid(child.pid());
  const absl::Status status = CheckPidsFree(manifest, ProcFs());
  EXPECT_EQ(ErrorReasonOf(status), reason::kPidInUse);
  EXPECT_EQ(ErrorMetadataOf(status)["pid"], absl::StrCat(child.pid()));
  EXPECT_FALSE(ErrorMetadataOf(status)["comm"].empty());
}

TEST_F(ManifestTest, MissingCpuFeaturesAreNamed) {
  v1::Manifest manifest;
  manifest.add_cpu_features("avx");
  manifest.add_cpu_features("avx9000");
  const absl::Status status =
      CheckCpu(manifest, {.model = "m", .features = {"avx"}});
  EXPECT_EQ(ErrorReasonOf(status), reason::kCpuFeatureMissing);
  EXPECT_EQ(ErrorMetadataOf(status)["features"], "avx9000");
  EXPECT_TRUE(
      CheckCpu(manifest, {.model = "m", .features = {"avx", "avx9000"}}).ok());
}

TEST_F(ManifestTest, MissingNodesAreNamed) {
  constexpr uint32_t kBind = 2;
  constexpr uint32_t kStatic = 1u << 15;
  constexpr uint32_t kRelative = 1u << 14;
  v1::Manifest manifest;
  manifest.set_memory_node(1);
  EXPECT_TRUE(CheckNodes(manifest, {{kBind, 0b11}}, 0b11, 1).ok());
  absl::Status status =
      CheckNodes(manifest, {{kBind, 0b1}, {kBind, 0b1100}}, 0b111, 1);
  EXPECT_EQ(ErrorReasonOf(status), reason::kNodeMissing);
  EXPECT_EQ(ErrorMetadataOf(status)["nodes"], "3");
  // The pool is on another node now, or on none.
  for (const int pool_node : {2, -1}) {
    status = CheckNodes(manifest, {{kBind, 0b10}}, 0b111, pool_node);
    EXPECT_EQ(ErrorMetadataOf(status)["nodes"], "1") << pool_node;
    EXPECT_TRUE(CheckNodes(manifest, {{kBind, 0b1}}, 0b111, pool_node).ok());
  }
  // Nodes that may never have been there, and numbers that are no nodes.
  EXPECT_TRUE(CheckNodes(manifest, {{kBind | kStatic, 0b1001}}, 0b11, 1).ok());
  EXPECT_FALSE(CheckNodes(manifest, {{kBind | kStatic, 0b1000}}, 0b11, 1).ok());
  EXPECT_TRUE(
      CheckNodes(manifest, {{kBind | kRelative, 0b1000}}, 0b11, 1).ok());
}

TEST_F(ManifestTest, StatisticsLeaveOutTheCallback) {
  auto directory = OpenDirectory(AT_FDCWD, temp_.path());
  auto images = EnsureDirectory(directory->get(), "images");
  WriteStats(directory->get(), 5, 1000, 77);
  v1::Manifest manifest;
  AddStatistics(directory->get(), 300, &manifest);
  EXPECT_EQ(manifest.snapshot().times().frozen_us(), 700u);
  EXPECT_EQ(manifest.snapshot().pages().copied(), 77u);
  WritePageCounts(images->get(), 70, 4, 2, 1);
  AddStatistics(directory->get(), 300, &manifest);
  EXPECT_EQ(manifest.snapshot().pages().by_reference(), 70u);
  EXPECT_EQ(manifest.snapshot().pages().copied(), 2u);
}

}  // namespace
}  // namespace daxsnap
