// SPDX-License-Identifier: Apache-2.0
// What any good filesystem does.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <thread>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr unsigned kNoReplace = 1, kExchange = 2;  // RENAME_*

class Posix : public FsTest {
 protected:
  int Rename(const std::string& from, const std::string& to, unsigned flags) {
    return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, Path(from).c_str(),
                                    AT_FDCWD, Path(to).c_str(), flags));
  }
  void Make(const std::string& name, const std::string& content) {
    UniqueFd fd = Open(name, O_WRONLY | O_CREAT | O_TRUNC);
    Write(fd.get(), {content.begin(), content.end()});
  }
  std::string Content(const std::string& name) {
    UniqueFd fd = Open(name, O_RDONLY);
    const std::vector<char> bytes = Read(fd.get(), 4096);
    return {bytes.begin(), bytes.end()};
  }
  std::set<std::string> Names() {
    std::set<std::string> names;
    DIR* d = opendir(dir().c_str());
    while (const dirent* entry = readdir(d)) names.insert(entry->d_name);
    closedir(d);
    return names;
  }
};

TEST_F(Posix, WritesOfAllShapesReadBack) {
  UniqueFd fd = Open("file");
  std::vector<char> model;
  uint64_t seed = 1;
  const auto put = [&](size_t at, size_t size) {
    const std::vector<char> bytes = Bytes(size, ++seed);
    Write(fd.get(), bytes, static_cast<off_t>(at));
    if (model.size() < at + size) model.resize(at + size, 0);
    std::copy(bytes.begin(), bytes.end(),
              model.begin() + static_cast<ptrdiff_t>(at));
  };
  for (const auto& [at, size] :
       std::vector<std::pair<size_t, size_t>>{{0, 1},
                                              {4095, 2},
                                              {100, 8192},
                                              {kPage * 5 + 7, 3 * kPage},
                                              {kPage * 64, kPage},
                                              {kPage * 63 + 1, 2 * kPage - 2},
                                              {0, kPage},
                                              {200000, 300000},
                                              {1, 1},
                                              {kPage * 100, 0}}) {
    put(at, size);
    ASSERT_EQ(Size(fd.get()), static_cast<int64_t>(model.size()));
    ASSERT_EQ(Read(fd.get(), model.size() + 10), model) << at << " " << size;
  }
}

TEST_F(Posix, AppendGoesToTheEnd) {
  UniqueFd a = Open("file", O_WRONLY | O_CREAT | O_APPEND);
  UniqueFd b = Open("file", O_WRONLY | O_APPEND);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(write(a.get(), "aaa", 3), 3);
    ASSERT_EQ(write(b.get(), "bb", 2), 2);
  }
  EXPECT_EQ(Size(a.get()), 250);
  EXPECT_EQ(Content("file").substr(0, 10), "aaabbaaabb");
}

TEST_F(Posix, TruncateShrinksGrowsAndZeroes) {
  UniqueFd fd = Open("file");
  const std::vector<char> bytes = Bytes(5 * kPage);
  Write(fd.get(), bytes);
  ASSERT_EQ(ftruncate(fd.get(), kPage + 5), 0);
  ASSERT_EQ(ftruncate(fd.get(), 5 * kPage), 0);
  std::vector<char> expected(bytes.begin(), bytes.begin() + kPage + 5);
  expected.resize(5 * kPage, 0);
  EXPECT_EQ(Read(fd.get(), 6 * kPage), expected);
  ASSERT_EQ(ftruncate(fd.get(), 0), 0);
  EXPECT_EQ(Allocated(fd.get()), 0);
  ASSERT_EQ(ftruncate(fd.get(), -1), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Posix, PunchedHolesAreZeroAndFree) {
  UniqueFd fd = Open("file");
  const std::vector<char> bytes = Bytes(64 * kPage);
  Write(fd.get(), bytes);
  const int64_t before = Allocated(fd.get());
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      8 * kPage + 100, 16 * kPage),
            0)
      << std::strerror(errno);
  std::vector<char> expected = bytes;
  std::fill(expected.begin() + 8 * kPage + 100,
            expected.begin() + 24 * kPage + 100, 0);
  EXPECT_EQ(Read(fd.get(), bytes.size()), expected);
  EXPECT_EQ(before - Allocated(fd.get()), static_cast<int64_t>(15 * kPage));
  EXPECT_EQ(Size(fd.get()), static_cast<int64_t>(bytes.size()));
}

TEST_F(Posix, SparseFilesTakeWhatIsWritten) {
  UniqueFd fd = Open("file");
  const off_t far = off_t{1} << 36;
  Write(fd.get(), Bytes(kPage), far);
  EXPECT_EQ(Size(fd.get()), far + static_cast<int64_t>(kPage));
  EXPECT_LE(Allocated(fd.get()), static_cast<int64_t>(2 * kPage));
  EXPECT_EQ(Read(fd.get(), kPage, far / 2), std::vector<char>(kPage, 0));
  EXPECT_EQ(lseek(fd.get(), 0, SEEK_DATA), far);
  EXPECT_EQ(lseek(fd.get(), far, SEEK_HOLE), far + static_cast<off_t>(kPage));
  EXPECT_EQ(lseek(fd.get(), 0, SEEK_HOLE), 0);
  EXPECT_EQ(lseek(fd.get(), far + static_cast<off_t>(kPage), SEEK_DATA), -1);
  EXPECT_EQ(errno, ENXIO);
}

TEST_F(Posix, RenameReplacesAtomically) {
  Make("a", "new");
  Make("b", "old");
  UniqueFd old = Open("b", O_RDONLY);
  ASSERT_EQ(Rename("a", "b", 0), 0);
  EXPECT_EQ(Content("b"), "new");
  EXPECT_EQ(Read(old.get(), 10), (std::vector<char>{'o', 'l', 'd'}));
  EXPECT_EQ(access(Path("a").c_str(), F_OK), -1);
}

TEST_F(Posix, RenameNoReplaceRefuses) {
  Make("a", "a");
  Make("b", "b");
  EXPECT_EQ(Rename("a", "b", kNoReplace), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(Content("b"), "b");
  EXPECT_EQ(Rename("a", "c", kNoReplace), 0);
  EXPECT_EQ(Content("c"), "a");
}

TEST_F(Posix, RenameExchangeSwapsFilesAndDirectories) {
  Make("a", "a");
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  Make("d/inside", "i");
  ASSERT_EQ(Rename("a", "d", kExchange), 0) << std::strerror(errno);
  EXPECT_EQ(Content("d"), "a");
  EXPECT_EQ(Content("a/inside"), "i");
  EXPECT_EQ(Rename("a", "missing", kExchange), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(Rename("a", "d", kNoReplace | kExchange), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Posix, RenameOfDirectoriesKeepsTheRules) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(mkdir(Path("d/e").c_str(), 0755), 0);
  ASSERT_EQ(mkdir(Path("full").c_str(), 0755), 0);
  Make("full/x", "x");
  Make("file", "f");
  EXPECT_EQ(Rename("d", "d/e/f", 0), -1) << "into itself";
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(Rename("d", "full", 0), -1);
  EXPECT_TRUE(errno == ENOTEMPTY || errno == EEXIST) << std::strerror(errno);
  EXPECT_EQ(Rename("d", "file", 0), -1);
  EXPECT_EQ(errno, ENOTDIR);
  EXPECT_EQ(Rename("file", "d", 0), -1);
  EXPECT_EQ(errno, EISDIR);
  EXPECT_EQ(Rename("d", "moved", 0), 0);
  EXPECT_EQ(access(Path("moved/e").c_str(), F_OK), 0);
  struct stat stat;
  ASSERT_EQ(::stat(dir().c_str(), &stat), 0);
  const auto links = stat.st_nlink;
  EXPECT_EQ(Rename("moved/e", "e", 0), 0);
  ASSERT_EQ(::stat(dir().c_str(), &stat), 0);
  EXPECT_EQ(stat.st_nlink, links + 1);
}

TEST_F(Posix, UnlinkedOpenFilesLive) {
  UniqueFd fd = Open("file");
  Write(fd.get(), Bytes(10 * kPage));
  ASSERT_EQ(unlink(Path("file").c_str()), 0);
  struct stat stat;
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_EQ(stat.st_nlink, 0u);
  EXPECT_EQ(Read(fd.get(), 10 * kPage), Bytes(10 * kPage));
  Write(fd.get(), Bytes(kPage, 9), 20 * kPage);
  ASSERT_EQ(fsync(fd.get()), 0);
  EXPECT_EQ(Read(fd.get(), kPage, 20 * kPage), Bytes(kPage, 9));
  Make("file", "another");
  EXPECT_EQ(Content("file"), "another");
}

TEST_F(Posix, DirectoriesCountAndRefuse) {
  struct stat before, stat;
  ASSERT_EQ(::stat(dir().c_str(), &before), 0);
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(::stat(dir().c_str(), &stat), 0);
  EXPECT_EQ(stat.st_nlink, before.st_nlink + 1);
  EXPECT_EQ(mkdir(Path("d").c_str(), 0755), -1);
  EXPECT_EQ(errno, EEXIST);
  Make("d/x", "x");
  EXPECT_EQ(rmdir(Path("d").c_str()), -1);
  EXPECT_TRUE(errno == ENOTEMPTY || errno == EEXIST);
  EXPECT_EQ(unlink(Path("d").c_str()), -1);
  EXPECT_TRUE(errno == EISDIR || errno == EPERM);
  EXPECT_EQ(rmdir(Path("d/x").c_str()), -1);
  EXPECT_EQ(errno, ENOTDIR);
  ASSERT_EQ(unlink(Path("d/x").c_str()), 0);
  ASSERT_EQ(rmdir(Path("d").c_str()), 0);
  EXPECT_EQ(rmdir(Path("d").c_str()), -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Posix, ManyNamesAreListedOnce) {
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 1500; ++i) {
    const std::string name = "name." + std::to_string(i * 7919 % 10007);
    Make(name, "");
    expected.insert(name);
  }
  EXPECT_EQ(Names(), expected);
  for (int i = 0; i < 1500; i += 2) {
    const std::string name = "name." + std::to_string(i * 7919 % 10007);
    ASSERT_EQ(unlink(Path(name).c_str()), 0);
    expected.erase(name);
  }
  EXPECT_EQ(Names(), expected);
}

// rm -r of a large directory: entries go while they are being listed.
TEST_F(Posix, ListingWhileDeletingMissesNothing) {
  for (int i = 0; i < 1000; ++i) Make("f" + std::to_string(i), "");
  DIR* d = opendir(dir().c_str());
  size_t seen = 0;
  while (const dirent* entry = readdir(d)) {
    if (entry->d_name[0] == '.') continue;
    ++seen;
    ASSERT_EQ(unlink(Path(entry->d_name).c_str()), 0);
  }
  closedir(d);
  EXPECT_EQ(seen, 1000u);
  EXPECT_EQ(Names().size(), 2u);
}

TEST_F(Posix, NamesUpTo255Bytes) {
  const std::string longest(255, 'n'), too_long(256, 'n');
  Make(longest, "long");
  EXPECT_EQ(Content(longest), "long");
  EXPECT_TRUE(Names().count(longest));
  EXPECT_EQ(open(Path(too_long).c_str(), O_CREAT | O_WRONLY, 0644), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  EXPECT_EQ(mkdir(Path(too_long).c_str(), 0755), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  const std::string odd = "sp ace\tnew\nline\xff\x01";
  Make(odd, "odd");
  EXPECT_TRUE(Names().count(odd));
}

TEST_F(Posix, SymlinksReadAndFollow) {
  Make("target", "t");
  ASSERT_EQ(symlink("target", Path("link").c_str()), 0);
  EXPECT_EQ(Content("link"), "t");
  char buffer[4097];
  ASSERT_EQ(readlink(Path("link").c_str(), buffer, sizeof(buffer)), 6);
  EXPECT_EQ(std::string(buffer, 6), "target");
  const std::string longest(4000, 'x');
  ASSERT_EQ(symlink(longest.c_str(), Path("long").c_str()), 0)
      << std::strerror(errno);
  ASSERT_EQ(readlink(Path("long").c_str(), buffer, sizeof(buffer)), 4000);
  EXPECT_EQ(std::string(buffer, 4000), longest);
  UniqueFd dir(open(this->dir().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(openat(dir.get(), "link", O_RDONLY | O_NOFOLLOW), -1);
  EXPECT_EQ(errno, ELOOP);
  struct stat stat;
  ASSERT_EQ(lstat(Path("link").c_str(), &stat), 0);
  EXPECT_TRUE(S_ISLNK(stat.st_mode));
  EXPECT_EQ(stat.st_size, 6);
}

TEST_F(Posix, ModesOwnersAndTimesStay) {
  Make("file", "x");
  ASSERT_EQ(chmod(Path("file").c_str(), 04751), 0);
  ASSERT_EQ(chown(Path("file").c_str(), 1234, 5678), 0);
  struct stat stat;
  ASSERT_EQ(::stat(Path("file").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_uid, 1234u);
  EXPECT_EQ(stat.st_gid, 5678u);
  EXPECT_EQ(stat.st_mode & 0777, 0751u);
  const timespec times[2] = {{1000000001, 123456789}, {1700000000, 987654321}};
  ASSERT_EQ(utimensat(AT_FDCWD, Path("file").c_str(), times, 0), 0);
  ASSERT_EQ(::stat(Path("file").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mtim.tv_sec, times[1].tv_sec);
  EXPECT_EQ(stat.st_mtim.tv_nsec, times[1].tv_nsec);
  EXPECT_EQ(stat.st_atim.tv_sec, times[0].tv_sec);
  const auto ctime = stat.st_ctim;
  Make("file", "y");
  ASSERT_EQ(::stat(Path("file").c_str(), &stat), 0);
  EXPECT_GT(stat.st_mtim.tv_sec, times[1].tv_sec);
  EXPECT_GE(stat.st_ctim.tv_sec, ctime.tv_sec);
}

TEST_F(Posix, PermissionsAreEnforced) {
  Make("secret", "s");
  ASSERT_EQ(chmod(Path("secret").c_str(), 0600), 0);
  ASSERT_EQ(chmod(dir().c_str(), 0755), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setresgid(65534, 65534, 65534) != 0 ||
        setresuid(65534, 65534, 65534) != 0) {
      _exit(1);
    }
    if (open(Path("secret").c_str(), O_RDONLY) != -1) _exit(2);
    if (errno != EACCES) _exit(3);
    if (open(Path("new").c_str(), O_CREAT | O_WRONLY, 0644) != -1) _exit(4);
    if (unlink(Path("secret").c_str()) != -1) _exit(5);
    if (chmod(Path("secret").c_str(), 0666) != -1) _exit(6);
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "step " << WEXITSTATUS(status);
}

TEST_F(Posix, PrivateMapsSeeTheFileAndKeepTheirWrites) {
  UniqueFd fd = Open("file");
  const std::vector<char> bytes = Bytes(8 * kPage);
  Write(fd.get(), bytes);
  char* map = static_cast<char*>(mmap(
      nullptr, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED) << std::strerror(errno);
  EXPECT_EQ(std::memcmp(map, bytes.data(), bytes.size()), 0);
  map[kPage + 3] = static_cast<char>(bytes[kPage + 3] + 1);
  EXPECT_EQ(Read(fd.get(), bytes.size()), bytes);
  munmap(map, 8 * kPage);
}

TEST_F(Posix, ReadOnlySharedMapsFollowWrites) {
  UniqueFd fd = Open("file");
  Write(fd.get(), Bytes(8 * kPage));
  const char* map = static_cast<char*>(
      mmap(nullptr, 8 * kPage, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED) << std::strerror(errno);
  EXPECT_EQ(std::memcmp(map, Bytes(8 * kPage).data(), 8 * kPage), 0);
  Write(fd.get(), {'n', 'e', 'w'}, 2 * kPage + 5);
  EXPECT_EQ(map[2 * kPage + 5], 'n') << "the map is stale after a write";
  Write(fd.get(), Bytes(3 * kPage, 7), kPage);
  EXPECT_EQ(std::memcmp(map + kPage, Bytes(3 * kPage, 7).data(), 3 * kPage), 0);
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      4 * kPage, kPage),
            0);
  EXPECT_EQ(map[4 * kPage], 0) << "the map is stale after a punch";
  EXPECT_EQ(map[5 * kPage - 1], 0);
  ASSERT_EQ(ftruncate(fd.get(), 2 * kPage), 0);
  const pid_t child = fork();
  if (child == 0) _exit(map[3 * kPage]);  // beyond the end: SIGBUS
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  munmap(const_cast<char*>(map), 8 * kPage);
}

TEST_F(Posix, ParallelWritersOfOneFileLoseNothing) {
  UniqueFd fd = Open("file");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::vector<char> bytes(kPage / 2, static_cast<char>('a' + t));
      for (int i = 0; i < 200; ++i) {
        if (pwrite(fd.get(), bytes.data(), bytes.size(),
                   static_cast<off_t>((i * 4 + t) * bytes.size())) !=
            static_cast<ssize_t>(bytes.size())) {
          ADD_FAILURE() << "pwrite";
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const std::vector<char> all = Read(fd.get(), 200 * 4 * kPage / 2);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i], 'a' + static_cast<char>(i / (kPage / 2) % 4)) << i;
  }
}

TEST_F(Posix, ParallelTreesComeAndGo) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        const std::string d = "d" + std::to_string(t);
        mkdir(Path(d).c_str(), 0755);
        Make(d + "/f", d);
        if (i % 2 == 0) Rename(d, "shared", 0);
        unlink(Path(d + "/f").c_str());
        unlink(Path("shared/f").c_str());
        rmdir(Path("shared").c_str());
        rmdir(Path(d).c_str());
        if (i % 20 == 0) {
          UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
          EXPECT_EQ(syncfs(fd.get()), 0);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace daxsnap::vmtest
