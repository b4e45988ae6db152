// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/fs_matrix/support.h"

#include <mntent.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

namespace daxsnap::vmtest {
namespace {

std::string& RootStorage() {
  static std::string path;
  return path;
}

}  // namespace

void SetRoot(std::string path) { RootStorage() = std::move(path); }

void FsTest::SetUp() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  dir_ = RootStorage() + "/fs_matrix." + info->test_suite_name() + "." +
         info->name();
  std::filesystem::remove_all(dir_);
  ASSERT_EQ(mkdir(dir_.c_str(), 0755), 0) << std::strerror(errno);
}

void FsTest::TearDown() {
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
  EXPECT_FALSE(error) << error.message();
  EXPECT_FALSE(std::filesystem::exists(dir_));
  // The next test may want what a commit frees, and be no store.
  UniqueFd root(open(RootStorage().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
}

UniqueFd FsTest::Open(const std::string& name, int flags, mode_t mode) {
  UniqueFd fd(open(Path(name).c_str(), flags | O_CLOEXEC, mode));
  EXPECT_TRUE(fd.valid()) << name << ": " << std::strerror(errno);
  return fd;
}

std::vector<char> FsTest::Bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<char> bytes(size);
  for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(&bytes[at], &word, std::min(sizeof(word), size - at));
  }
  return bytes;
}

void FsTest::Write(int fd, const std::vector<char>& bytes, off_t at) {
  EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), at),
            static_cast<ssize_t>(bytes.size()))
      << std::strerror(errno);
}

std::vector<char> FsTest::Read(int fd, size_t size, off_t at) {
  std::vector<char> bytes(size);
  const ssize_t n = pread(fd, bytes.data(), size, at);
  EXPECT_GE(n, 0) << std::strerror(errno);
  bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return bytes;
}

off_t FsTest::FillUp(int fd, off_t at) {
  const std::vector<char> chunk = Bytes(256 * kPage);
  ssize_t n;
  while ((n = pwrite(fd, chunk.data(), chunk.size(), at)) > 0) at += n;
  EXPECT_EQ(errno, ENOSPC) << std::strerror(errno);
  return at;
}

int64_t FsTest::Allocated(int fd) {
  struct stat stat;
  EXPECT_EQ(fstat(fd, &stat), 0);
  return stat.st_blocks * 512;
}

int64_t FsTest::Size(int fd) {
  struct stat stat;
  EXPECT_EQ(fstat(fd, &stat), 0);
  return stat.st_size;
}

void MountAgain(const std::string& dir) {
  FILE* mounts = setmntent("/proc/self/mounts", "r");
  ASSERT_NE(mounts, nullptr);
  std::string device, where;
  while (const mntent* entry = getmntent(mounts)) {
    if (dir.starts_with(entry->mnt_dir) &&
        entry->mnt_type == std::string("kmemfs")) {
      device = entry->mnt_fsname;
      where = entry->mnt_dir;
    }
  }
  endmntent(mounts);
  // snapd has the pool open; tests that need it start it.
  ASSERT_EQ(std::system("systemctl stop snapd"), 0);
  ASSERT_EQ(umount(where.c_str()), 0) << where << ": " << std::strerror(errno);
  ASSERT_EQ(mount(device.c_str(), where.c_str(), "kmemfs", 0, "commit=0"), 0)
      << std::strerror(errno);
}

}  // namespace daxsnap::vmtest
