// SPDX-License-Identifier: Apache-2.0
// What the filesystem tests share: a directory of their own, and files.
#ifndef DAXSNAP_TESTS_VM_FS_MATRIX_SUPPORT_H_
#define DAXSNAP_TESTS_VM_FS_MATRIX_SUPPORT_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {

inline constexpr size_t kPage = 4096;

// The filesystem under test; main() sets it.
void SetRoot(std::string path);

// Mounts the filesystem of a directory anew, with what is on media.
void MountAgain(const std::string& dir);

class FsTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  const std::string& dir() const { return dir_; }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  UniqueFd Open(const std::string& name, int flags = O_RDWR | O_CREAT,
                mode_t mode = 0644);
  // Pseudo-random bytes that follow from the seed.
  static std::vector<char> Bytes(size_t size, uint64_t seed = 1);
  void Write(int fd, const std::vector<char>& bytes, off_t at = 0);
  std::vector<char> Read(int fd, size_t size, off_t at = 0);
  // Writes from there on until there is no space; returns where the file ends.
  off_t FillUp(int fd, off_t at = 0);
  // Bytes allocated to the file.
  static int64_t Allocated(int fd);
  static int64_t Size(int fd);

 private:
  std::string dir_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_FS_MATRIX_SUPPORT_H_
