// SPDX-License-Identifier: Apache-2.0
// Extended attributes and access control lists. Format version 2.
#include <fcntl.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr char kAccess[] = "system.posix_acl_access";
constexpr char kDefault[] = "system.posix_acl_default";
// All attributes of an inode: heads of 4 bytes, names behind the prefix,
// values.
constexpr size_t kMost = 4032;
constexpr uint32_t kNoId = UINT32_MAX;  // ACL_UNDEFINED_ID
constexpr uid_t kNobody = 65534, kFriend = 4242;

class Xattr : public FsTest {
 protected:
  int Set(const std::string& file, const std::string& name,
          const std::string& value, int flags = 0) {
    return lsetxattr(Path(file).c_str(), name.c_str(), value.data(),
                     value.size(), flags);
  }
  // The value, or "errno N".
  std::string Get(const std::string& file, const std::string& name) {
    std::string value(65536, 0);
    const ssize_t n =
        lgetxattr(Path(file).c_str(), name.c_str(), value.data(), value.size());
    if (n < 0) return "errno " + std::to_string(errno);
    value.resize(static_cast<size_t>(n));
    return value;
  }
  static std::string Errno(int number) {
    return "errno " + std::to_string(number);
  }
  std::set<std::string> List(const std::string& file) {
    std::string all(65536, 0);
    const ssize_t n = llistxattr(Path(file).c_str(), all.data(), all.size());
    EXPECT_GE(n, 0) << std::strerror(errno);
    std::set<std::string> names;
    for (size_t at = 0; at < static_cast<size_t>(n);) {
      names.insert(all.c_str() + at);
      at += std::strlen(all.c_str() + at) + 1;
    }
    return names;
  }
  mode_t Mode(const std::string& file) {
    struct stat stat = {};
    EXPECT_EQ(lstat(Path(file).c_str(), &stat), 0) << std::strerror(errno);
    return stat.st_mode & 07777;
  }
  void Commit() {
    UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(syncfs(fd.get()), 0) << std::strerror(errno);
  }

  struct Entry {
    uint16_t tag, perm;
    uint32_t id;
  };
  static std::string Acl(const std::vector<Entry>& entries) {
    std::string value(4, 0);
    value[0] = POSIX_ACL_XATTR_VERSION;
    for (const Entry& entry : entries) {
      char bytes[8];
      std::memcpy(bytes, &entry.tag, 2);
      std::memcpy(bytes + 2, &entry.perm, 2);
      std::memcpy(bytes + 4, &entry.id, 4);
      value.append(bytes, 8);
    }
    return value;
  }
  static std::string FriendMay(uint16_t perm, uint16_t mask) {
    return Acl({{ACL_USER_OBJ, 6, kNoId},
                {ACL_USER, perm, kFriend},
                {ACL_GROUP_OBJ, 4, kNoId},
                {ACL_MASK, mask, kNoId},
                {ACL_OTHER, 0, kNoId}});
  }
  // Whether what a process of this user does gives true.
  static bool As(uid_t user, const std::function<bool()>& what) {
    const pid_t pid = fork();
    if (pid == 0) {
      if (setgroups(0, nullptr) != 0 || setgid(user) != 0 ||
          setuid(user) != 0) {
        _exit(3);
      }
      _exit(what() ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2) << status;
    return status == 0;
  }
};

TEST_F(Xattr, AreSetReadListedAndRemoved) {
  Open("a");
  ASSERT_EQ(symlink("a", Path("link").c_str()), 0);
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(mknod(Path("whiteout").c_str(), S_IFCHR, 0), 0);
  for (const char* file : {"a", "d"}) {
    ASSERT_EQ(Set(file, "user.one", "1"), 0) << std::strerror(errno);
    ASSERT_EQ(Set(file, "user.empty", ""), 0);
  }
  for (const char* file : {"a", "d", "link", "whiteout"}) {
    ASSERT_EQ(Set(file, "trusted.two", std::string("2\0x", 3)), 0)
        << file << std::strerror(errno);
    ASSERT_EQ(Set(file, "security.three", "3"), 0) << std::strerror(errno);
  }
  Commit();
  const std::set<std::string> all = {"user.one", "user.empty", "trusted.two",
                                     "security.three"};
  EXPECT_EQ(List("a"), all);
  EXPECT_EQ(List("d"), all);
  EXPECT_EQ(List("link"),
            (std::set<std::string>{"trusted.two", "security.three"}));
  EXPECT_EQ(Get("a", "user.one"), "1");
  EXPECT_EQ(Get("a", "user.empty"), "");
  EXPECT_EQ(Get("a", "trusted.two"), std::string("2\0x", 3));
  EXPECT_EQ(Get("whiteout", "security.three"), "3");
  EXPECT_EQ(Get("a", "user.none"), Errno(ENODATA));
  ASSERT_EQ(Set("a", "user.one", "another value"), 0);
  EXPECT_EQ(Get("a", "user.one"), "another value");
  EXPECT_EQ(Set("a", "user.one", "x", XATTR_CREATE), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(Set("a", "user.none", "x", XATTR_REPLACE), -1);
  EXPECT_EQ(errno, ENODATA);
  ASSERT_EQ(removexattr(Path("a").c_str(), "user.one"), 0);
  EXPECT_EQ(removexattr(Path("a").c_str(), "user.one"), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(Get("a", "user.one"), Errno(ENODATA));
  EXPECT_EQ(List("a").size(), 3u);
}

TEST_F(Xattr, SmallBuffersAndBadNamesAreRefused) {
  Open("a");
  ASSERT_EQ(Set("a", "user.one", "12345"), 0);
  char small[4];
  EXPECT_EQ(getxattr(Path("a").c_str(), "user.one", small, 4), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(getxattr(Path("a").c_str(), "user.one", nullptr, 0), 5);
  EXPECT_EQ(listxattr(Path("a").c_str(), small, 4), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(listxattr(Path("a").c_str(), nullptr, 0), 9);
  for (const char* name :
       {"user.", "trusted.", "other.x", "nodot", "system.x"}) {
    EXPECT_EQ(Set("a", name, "x"), -1) << name;
    EXPECT_TRUE(errno == EINVAL || errno == EOPNOTSUPP) << name << errno;
  }
  EXPECT_EQ(Set("a", "user." + std::string(251, 'n'), "x"), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(Set("a", "user." + std::string(250, 'n'), "x"), 0);
  EXPECT_EQ(Get("a", "user." + std::string(250, 'n')), "x");
}

TEST_F(Xattr, TrustedOnesAreRootsOwn) {
  Open("a", O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(chmod(Path("a").c_str(), 0666), 0);
  ASSERT_EQ(Set("a", "trusted.x", "x"), 0);
  ASSERT_EQ(Set("a", "user.x", "x"), 0);
  // Nobody comes through the mount's directories: by descriptor.
  UniqueFd fd = Open("a", O_RDWR);
  EXPECT_TRUE(As(kNobody, [&] {
    char names[64];
    return flistxattr(fd.get(), names, sizeof(names)) == 7 &&
           std::strcmp(names, "user.x") == 0 &&
           fgetxattr(fd.get(), "trusted.x", names, 1) == -1 &&
           fsetxattr(fd.get(), "trusted.y", "y", 1, 0) == -1 &&
           errno == EPERM && fsetxattr(fd.get(), "user.y", "y", 1, 0) == 0;
  }));
}

// In an inode's record first, then in a page of their own, and back.
TEST_F(Xattr, ManyAndLargeOnesSurviveEachChange) {
  Open("a");
  std::vector<std::string> values;
  for (int i = 0; i < 20; ++i) {
    values.emplace_back(static_cast<size_t>(i) * 15,
                        static_cast<char>('a' + i));
    ASSERT_EQ(Set("a", "user." + std::to_string(i), values.back()), 0)
        << i << ": " << std::strerror(errno);
    if (i % 3 == 0) Commit();
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Get("a", "user." + std::to_string(i)), values[i]) << i;
  }
  for (int i = 19; i >= 0; --i) {
    ASSERT_EQ(
        removexattr(Path("a").c_str(), ("user." + std::to_string(i)).c_str()),
        0);
    if (i % 4 == 0) Commit();
    EXPECT_EQ(List("a").size(), static_cast<size_t>(i));
    if (i > 0) {
      EXPECT_EQ(Get("a", "user.1"), i > 1 ? values[1] : Errno(ENODATA)) << i;
    }
  }
}

TEST_F(Xattr, AllTogetherHaveALimit) {
  Open("a");
  ASSERT_EQ(Set("a", "user.x", std::string(kMost - 5, 'v')), 0)
      << std::strerror(errno);
  EXPECT_EQ(Set("a", "user.x", std::string(kMost - 4, 'w')), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(Set("a", "user.x", std::string(65536, 'w')), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(Set("a", "user.y", ""), -1);
  EXPECT_EQ(errno, ENOSPC);
  Commit();
  EXPECT_EQ(Get("a", "user.x"), std::string(kMost - 5, 'v'));
  ASSERT_EQ(Set("a", "user.x", std::string(kMost - 10, 'v')), 0);
  ASSERT_EQ(Set("a", "user.y", ""), 0) << std::strerror(errno);
  EXPECT_EQ(Set("a", "user.z", ""), -1);
  EXPECT_EQ(errno, ENOSPC);
  ASSERT_EQ(removexattr(Path("a").c_str(), "user.x"), 0);
  EXPECT_EQ(Set("a", "user.z", std::string(3000, 'z')), 0);
  Commit();
  EXPECT_EQ(Get("a", "user.z"), std::string(3000, 'z'));
}

TEST_F(Xattr, ReadersSeeOldOrNew) {
  Open("a");
  const std::string old(100, 'o'), now(3000, 'n');
  ASSERT_EQ(Set("a", "user.x", old), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    for (int i = 0; i < 3000; ++i) {
      if (Set("a", "user.x", i % 2 ? old : now) != 0) _exit(1);
    }
    _exit(0);
  }
  int status = -1;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    const std::string seen = Get("a", "user.x");
    ASSERT_TRUE(seen == old || seen == now) << seen;
  }
  EXPECT_EQ(status, 0);
}

TEST_F(Xattr, AclGivesAndTakes) {
  Open("a", O_RDWR | O_CREAT, 0640);
  ASSERT_EQ(chmod(dir().c_str(), 0755), 0);
  UniqueFd d(open(dir().c_str(), O_PATH | O_DIRECTORY));
  const auto may_read = [&] {
    return As(kFriend, [&] { return openat(d.get(), "a", O_RDONLY) >= 0; });
  };
  const auto may_write = [&] {
    return As(kFriend, [&] { return openat(d.get(), "a", O_WRONLY) >= 0; });
  };
  EXPECT_FALSE(may_read());
  ASSERT_EQ(Set("a", kAccess, FriendMay(6, 6)), 0) << std::strerror(errno);
  EXPECT_TRUE(may_read());
  EXPECT_TRUE(may_write());
  EXPECT_EQ(Mode("a"), 0660u) << "the group's bits are the mask";
  EXPECT_EQ(Get("a", kAccess), FriendMay(6, 6));
  EXPECT_EQ(List("a"), std::set<std::string>{kAccess});
  // chmod changes the mask.
  ASSERT_EQ(chmod(Path("a").c_str(), 0640), 0);
  EXPECT_EQ(Get("a", kAccess), FriendMay(6, 4));
  EXPECT_TRUE(may_read());
  EXPECT_FALSE(may_write());
  ASSERT_EQ(Set("a", kAccess, FriendMay(0, 6)), 0);
  EXPECT_FALSE(may_read());
  ASSERT_EQ(removexattr(Path("a").c_str(), kAccess), 0);
  EXPECT_EQ(Get("a", kAccess), Errno(ENODATA));
  EXPECT_TRUE(List("a").empty());
  // One that says no more than the mode does is the mode.
  ASSERT_EQ(Set("a", kAccess,
                Acl({{ACL_USER_OBJ, 7, kNoId},
                     {ACL_GROUP_OBJ, 5, kNoId},
                     {ACL_OTHER, 1, kNoId}})),
            0);
  EXPECT_EQ(Mode("a"), 0751u);
  EXPECT_TRUE(List("a").empty());
}

TEST_F(Xattr, BadAclsAreRefused) {
  Open("a");
  for (const std::string& acl :
       {std::string("x"), std::string(4, 0), Acl({{ACL_USER_OBJ, 6, 0}}),
        Acl({{ACL_USER_OBJ, 077, kNoId},
             {ACL_GROUP_OBJ, 4, kNoId},
             {ACL_OTHER, 0, kNoId}}),
        FriendMay(6, 6) + "x"}) {
    EXPECT_EQ(Set("a", kAccess, acl), -1);
    EXPECT_TRUE(errno == EINVAL || errno == EOPNOTSUPP) << errno;
  }
  EXPECT_EQ(Set("a", kDefault, FriendMay(6, 6)), -1) << "a file has no default";
  EXPECT_EQ(errno, EACCES);
  ASSERT_EQ(symlink("a", Path("link").c_str()), 0);
  EXPECT_EQ(Set("link", kAccess, FriendMay(6, 6)), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(Mode("a"), 0644u);
  EXPECT_TRUE(List("a").empty());
}

TEST_F(Xattr, DefaultAclIsInherited) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  ASSERT_EQ(Set("d", kDefault, FriendMay(6, 6)), 0) << std::strerror(errno);
  const mode_t old = umask(0077);
  Open("d/file", O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(mkdir(Path("d/sub").c_str(), 0777), 0);
  ASSERT_EQ(mkfifo(Path("d/fifo").c_str(), 0666), 0);
  ASSERT_EQ(symlink("x", Path("d/link").c_str()), 0);
  Open("plain", O_RDWR | O_CREAT, 0666);
  umask(old);
  Commit();
  // The umask gives way to the list where there is one.
  EXPECT_EQ(Mode("d/file"), 0660u);
  EXPECT_EQ(Mode("plain"), 0600u);
  EXPECT_EQ(Get("d/file", kAccess), FriendMay(6, 6));
  EXPECT_EQ(Get("d/fifo", kAccess), FriendMay(6, 6));
  EXPECT_EQ(Get("d/file", kDefault), Errno(ENODATA));
  EXPECT_EQ(Get("d/sub", kDefault), FriendMay(6, 6));
  EXPECT_TRUE(List("d/link").empty());
  Open("d/sub/deep", O_RDWR | O_CREAT, 0640);
  EXPECT_EQ(Get("d/sub/deep", kAccess), FriendMay(6, 4));
  ASSERT_EQ(removexattr(Path("d").c_str(), kDefault), 0);
  Open("d/later", O_RDWR | O_CREAT, 0640);
  EXPECT_TRUE(List("d/later").empty());
}

TEST_F(Xattr, WritingTakesCapabilitiesAway) {
  UniqueFd fd = Open("a");
  // VFS_CAP_REVISION_2 with cap_net_raw
  const std::string caps(
      "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
      "\x00\x00",
      20);
  ASSERT_EQ(Set("a", "security.capability", caps), 0) << std::strerror(errno);
  EXPECT_EQ(Get("a", "security.capability"), caps);
  Write(fd.get(), {'x'});
  EXPECT_EQ(Get("a", "security.capability"), Errno(ENODATA));
}

}  // namespace
}  // namespace daxsnap::vmtest
