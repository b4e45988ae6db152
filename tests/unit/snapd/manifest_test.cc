// SPDX-License-Identifier: Apache-2.0
#include "snapd/manifest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "snapd/errors.h"
#include "snapd/files.h"
#include "tests/unit/snapd/child.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

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

TEST_F(ManifestTest, UnchangedFilesPass) {
  EXPECT_TRUE(CheckFiles(Mapping("/bin/sh")).ok());
}

TEST_F(ManifestTest, ChangedFilesAreRefused) {
  const std::string path = temp_.path() + "/data";
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "12345").ok());
  const v1::Manifest manifest = Mapping(path);
  EXPECT_TRUE(CheckFiles(manifest).ok());

  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "123456").ok());
  absl::Status status = CheckFiles(manifest);
  EXPECT_EQ(ErrorReasonOf(status), reason::kFileChanged);
  EXPECT_EQ(ErrorMetadataOf(status)["path"], path);

  // The same size, another time.
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, path, "54321").ok());
  const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 0},
                             {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(ErrorReasonOf(CheckFiles(manifest)), reason::kFileChanged);

  ASSERT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(ErrorReasonOf(CheckFiles(manifest)), reason::kFileChanged);
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
  EXPECT_TRUE(CheckFiles(manifest).ok());
  ASSERT_EQ(unlink(path.c_str()), 0);
  const absl::Status gone = CheckFiles(manifest);
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
  EXPECT_EQ(ErrorReasonOf(CheckFiles(manifest)), reason::kFileChanged);

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
  EXPECT_TRUE(CheckFiles(manifest).ok());
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
