// SPDX-License-Identifier: Apache-2.0
// Several names for one inode, inodes that are neither file nor directory, and
// files without a name. Format version 2.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

// RENAME_* of linux/fs.h
constexpr unsigned kNoReplace = 1, kExchange = 2, kWhiteout = 4;
constexpr nlink_t kLinkMax = 65000;

class Names : public FsTest {
 protected:
  struct stat Stat(const std::string& name) {
    struct stat stat = {};
    EXPECT_EQ(lstat(Path(name).c_str(), &stat), 0)
        << name << ": " << std::strerror(errno);
    return stat;
  }
  void ExpectSame(const std::string& a, const std::string& b, nlink_t links) {
    const struct stat one = Stat(a), other = Stat(b);
    EXPECT_EQ(one.st_ino, other.st_ino) << a << " and " << b;
    EXPECT_EQ(one.st_nlink, links) << a;
    EXPECT_EQ(other.st_nlink, links) << b;
  }
  int Link(const std::string& from, const std::string& to) {
    return link(Path(from).c_str(), Path(to).c_str());
  }
  int Unlink(const std::string& name) { return unlink(Path(name).c_str()); }
  int Rename(const std::string& from, const std::string& to, unsigned flags) {
    return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, Path(from).c_str(),
                                    AT_FDCWD, Path(to).c_str(), flags));
  }
  bool Exists(const std::string& name) {
    struct stat stat;
    return lstat(Path(name).c_str(), &stat) == 0;
  }
  void Commit() {
    UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(syncfs(fd.get()), 0) << std::strerror(errno);
  }
};

TEST_F(Names, AllOfAnInodeShowTheSame) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  UniqueFd fd = Open("a");
  Write(fd.get(), {'x'});
  const struct stat before = Stat("a");
  timespec now;
  do {  // the clock of inodes ticks
    ASSERT_EQ(clock_gettime(CLOCK_REALTIME_COARSE, &now), 0);
  } while (now.tv_sec == before.st_ctim.tv_sec &&
           now.tv_nsec <= before.st_ctim.tv_nsec);
  ASSERT_EQ(Link("a", "d/b"), 0) << std::strerror(errno);
  ExpectSame("a", "d/b", 2);
  EXPECT_TRUE(Stat("a").st_ctim.tv_sec > before.st_ctim.tv_sec ||
              Stat("a").st_ctim.tv_nsec != before.st_ctim.tv_nsec);
  UniqueFd other = Open("d/b", O_RDWR);
  Write(other.get(), {'y', 'z'});
  EXPECT_EQ(Read(fd.get(), 10), (std::vector<char>{'y', 'z'}));
  ASSERT_EQ(chmod(Path("d/b").c_str(), 0600), 0);
  EXPECT_EQ(Stat("a").st_mode & 07777, 0600u);
  EXPECT_EQ(Link("a", "d/b"), -1);
  EXPECT_EQ(errno, EEXIST);
}

TEST_F(Names, AnyOfThemMayGoFirst) {
  for (const int gone : {0, 1, 2}) {
    const std::vector<std::string> names = {"a", "b", "c"};
    Write(Open("a").get(), Bytes(3 * kPage));
    ASSERT_EQ(Link("a", "b"), 0);
    Commit();
    ASSERT_EQ(Link("b", "c"), 0);
    const ino_t ino = Stat("a").st_ino;
    ASSERT_EQ(Unlink(names[gone]), 0);
    EXPECT_FALSE(Exists(names[gone]));
    Commit();
    nlink_t left = 2;
    for (int i = 0; i < 3; ++i) {
      if (i == gone) continue;
      EXPECT_EQ(Stat(names[i]).st_nlink, left--);
      EXPECT_EQ(Stat(names[i]).st_ino, ino);
      EXPECT_EQ(Read(Open(names[i], O_RDONLY).get(), 3 * kPage),
                Bytes(3 * kPage));
      ASSERT_EQ(Unlink(names[i]), 0);
    }
    Commit();
  }
}

// A number that a name has given back goes to somebody else.
TEST_F(Names, NumbersOfNamesAreUsedAgain) {
  Open("a");
  for (int round = 0; round < 50; ++round) {
    const std::string n = std::to_string(round);
    ASSERT_EQ(Link("a", "link" + n), 0);
    Write(Open("file" + n).get(), {'f'});
    if (round % 3 == 0) {
      ASSERT_EQ(Unlink("link" + n), 0);
    }
    if (round % 7 == 0) Commit();
    if (round % 5 == 0) {
      ASSERT_EQ(Unlink("a"), 0);
      ASSERT_EQ(Link("file" + n, "a"), 0);
    }
  }
  Commit();
  for (int round = 0; round < 50; ++round) {
    const std::string n = std::to_string(round);
    EXPECT_EQ(Exists("link" + n), round % 3 != 0) << n;
    EXPECT_EQ(Size(Open("file" + n, O_RDONLY).get()), 1) << n;
  }
}

TEST_F(Names, RenameMovesOneOfThem) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  Open("a");
  Open("victim");
  ASSERT_EQ(Link("a", "b"), 0);
  ASSERT_EQ(Link("victim", "other"), 0);
  ASSERT_EQ(Rename("b", "d/moved", 0), 0);
  ExpectSame("a", "d/moved", 2);
  ASSERT_EQ(Rename("a", "victim", 0), 0);
  ExpectSame("victim", "d/moved", 2);
  EXPECT_EQ(Stat("other").st_nlink, 1u);
  // On a name of itself: nothing.
  ASSERT_EQ(Rename("victim", "d/moved", 0), 0);
  ExpectSame("victim", "d/moved", 2);
  EXPECT_EQ(Rename("victim", "other", kNoReplace), -1);
  EXPECT_EQ(errno, EEXIST);
  ASSERT_EQ(Rename("d/moved", "other", kExchange), 0);
  ExpectSame("victim", "other", 2);
  EXPECT_EQ(Stat("d/moved").st_nlink, 1u);
  ASSERT_EQ(Rename("d", "other", kExchange), 0);
  ExpectSame("victim", "d", 2);
  EXPECT_TRUE(S_ISDIR(Stat("other").st_mode));
  EXPECT_EQ(Stat("other/moved").st_nlink, 1u);
  Commit();
  ExpectSame("victim", "d", 2);
}

TEST_F(Names, BadOnesAreRefused) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  EXPECT_EQ(Link("d", "e"), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(Link("none", "e"), -1);
  EXPECT_EQ(errno, ENOENT);
  Open("a");
  EXPECT_EQ(Link("a", std::string(256, 'n')), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  EXPECT_EQ(Link("a", std::string(255, 'n')), 0);
  EXPECT_EQ(link(Path("a").c_str(), "/var/tmp/a"), -1);
  EXPECT_EQ(errno, EXDEV);
  EXPECT_EQ(Stat("a").st_nlink, 2u);
}

TEST_F(Names, AnInodeHasSoManyAndNoMore) {
  Open("a");
  UniqueFd d(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  for (nlink_t i = 1; i < kLinkMax; ++i) {
    ASSERT_EQ(linkat(d.get(), "a", d.get(), std::to_string(i).c_str(), 0), 0)
        << i << ": " << std::strerror(errno);
  }
  EXPECT_EQ(Link("a", "more"), -1);
  EXPECT_EQ(errno, EMLINK);
  EXPECT_EQ(Stat("a").st_nlink, kLinkMax);
  ASSERT_EQ(syncfs(d.get()), 0);
  ASSERT_EQ(Unlink("a"), 0);
  EXPECT_EQ(Link("1", "more"), 0) << std::strerror(errno);
}

TEST_F(Names, OpenFilesOutliveTheLast) {
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(2 * kPage));
  ASSERT_EQ(Link("a", "b"), 0);
  ASSERT_EQ(Unlink("a"), 0);
  ASSERT_EQ(Unlink("b"), 0);
  Commit();
  EXPECT_EQ(Read(fd.get(), 2 * kPage), Bytes(2 * kPage));
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  EXPECT_EQ(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, Path("c").c_str(),
                   AT_SYMLINK_FOLLOW),
            -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Names, AFileWithoutOneGetsItByLink) {
  UniqueFd fd(open(dir().c_str(), O_TMPFILE | O_RDWR, 0640));
  ASSERT_TRUE(fd.valid()) << std::strerror(errno);
  Write(fd.get(), Bytes(5 * kPage));
  struct stat stat;
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_EQ(stat.st_nlink, 0u);
  Commit();
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  ASSERT_EQ(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, Path("a").c_str(),
                   AT_SYMLINK_FOLLOW),
            0)
      << std::strerror(errno);
  ASSERT_EQ(Link("a", "b"), 0);
  Commit();
  ExpectSame("a", "b", 2);
  EXPECT_EQ(Read(Open("b", O_RDONLY).get(), 5 * kPage), Bytes(5 * kPage));
  UniqueFd excl(open(dir().c_str(), O_TMPFILE | O_RDWR | O_EXCL, 0640));
  ASSERT_TRUE(excl.valid()) << std::strerror(errno);
  const std::string other = "/proc/self/fd/" + std::to_string(excl.get());
  EXPECT_EQ(linkat(AT_FDCWD, other.c_str(), AT_FDCWD, Path("c").c_str(),
                   AT_SYMLINK_FOLLOW),
            -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Names, FilesWithoutOneLeaveNothing) {
  Commit();
  struct statvfs before, after;
  ASSERT_EQ(statvfs(dir().c_str(), &before), 0);
  {
    UniqueFd fd(open(dir().c_str(), O_TMPFILE | O_RDWR, 0640));
    ASSERT_TRUE(fd.valid()) << std::strerror(errno);
    Write(fd.get(), Bytes(2048 * kPage));
    Commit();
  }
  Commit();
  ASSERT_EQ(statvfs(dir().c_str(), &after), 0);
  EXPECT_GE(after.f_bfree + 512, before.f_bfree);  // others free and take some
}

TEST_F(Names, SpecialInodesAreWhatTheyAre) {
  ASSERT_EQ(mknod(Path("null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0)
      << std::strerror(errno);
  ASSERT_EQ(mknod(Path("block").c_str(), S_IFBLK | 0600, makedev(259, 70000)),
            0);
  ASSERT_EQ(mknod(Path("whiteout").c_str(), S_IFCHR, 0), 0);
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  ASSERT_EQ(chdir(dir().c_str()), 0);  // the path would be too long
  std::strcpy(address.sun_path, "socket");
  ASSERT_EQ(bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(address)),
            0)
      << std::strerror(errno);
  ASSERT_EQ(chdir("/"), 0);
  Commit();
  EXPECT_TRUE(S_ISCHR(Stat("null").st_mode));
  EXPECT_EQ(Stat("null").st_rdev, makedev(1, 3));
  EXPECT_TRUE(S_ISBLK(Stat("block").st_mode));
  EXPECT_EQ(Stat("block").st_rdev, makedev(259, 70000));
  EXPECT_EQ(Stat("whiteout").st_rdev, 0u);
  EXPECT_TRUE(S_ISFIFO(Stat("fifo").st_mode));
  EXPECT_TRUE(S_ISSOCK(Stat("socket").st_mode));
  UniqueFd fifo = Open("fifo", O_RDWR | O_NONBLOCK);
  char c = 'p';
  ASSERT_EQ(write(fifo.get(), &c, 1), 1);
  ASSERT_EQ(read(fifo.get(), &c, 1), 1);
  EXPECT_EQ(c, 'p');
  ASSERT_EQ(Link("fifo", "fifo2"), 0);
  ExpectSame("fifo", "fifo2", 2);
  ASSERT_EQ(Unlink("fifo"), 0);
  Commit();
  EXPECT_TRUE(S_ISFIFO(Stat("fifo2").st_mode));
}

TEST_F(Names, ADeviceFileIsTheDevice) {
  ASSERT_EQ(mknod(Path("zero").c_str(), S_IFCHR | 0666, makedev(1, 5)), 0);
  UniqueFd fd(open(Path("zero").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() && errno == EACCES) {
    struct statvfs vfs;
    ASSERT_EQ(statvfs(dir().c_str(), &vfs), 0);
    EXPECT_TRUE(vfs.f_flag & ST_NODEV);
    return;
  }
  ASSERT_TRUE(fd.valid()) << std::strerror(errno);
  EXPECT_EQ(Read(fd.get(), 4), std::vector<char>(4));
}

TEST_F(Names, WhiteoutStaysWhereTheNameWas) {
  Write(Open("a").get(), {'a'});
  ASSERT_EQ(Rename("a", "b", kWhiteout), 0) << std::strerror(errno);
  EXPECT_TRUE(S_ISCHR(Stat("a").st_mode));
  EXPECT_EQ(Stat("a").st_rdev, 0u);
  EXPECT_EQ(Size(Open("b", O_RDONLY).get()), 1);
  Commit();
  EXPECT_TRUE(S_ISCHR(Stat("a").st_mode));
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(Rename("d", "e", kWhiteout), 0);
  EXPECT_TRUE(S_ISCHR(Stat("d").st_mode));
  EXPECT_TRUE(S_ISDIR(Stat("e").st_mode));
  EXPECT_EQ(Rename("b", "a", kWhiteout | kNoReplace), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(Rename("b", "a", kWhiteout | kExchange), -1);
  EXPECT_EQ(errno, EINVAL);
  ASSERT_EQ(Rename("b", "a", kWhiteout), 0);
  EXPECT_EQ(Size(Open("a", O_RDONLY).get()), 1);
  EXPECT_TRUE(S_ISCHR(Stat("b").st_mode));
}

}  // namespace
}  // namespace daxsnap::vmtest
