// SPDX-License-Identifier: Apache-2.0
#include "host/task/volatile_place.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "tests/unit/base/testing.h"
#include "tests/unit/host/fake_proc.h"

namespace daxsnap {
namespace {

// A file on a mount of the test's own making, on a machine whose own mounts are
// the real ones.
class VolatilePlacesTest : public testing::Test {
 protected:
  std::string WhereLost(const UsedFile& file) {
    const ProcFs proc;
    VolatilePlaces places(proc, rules_, kAnswerTimeout, sys_.path());
    auto where = places.WhereLost(file);
    EXPECT_TRUE(where.ok()) << where.status();
    return where.value_or("?");
  }

  static UsedFile File(const std::string& type, dev_t device = 0) {
    UsedFile file;
    file.path = "/mnt/a/b";
    file.mode = S_IFREG | 0600;
    file.mount_point = "/mnt";
    file.file_system = type;
    file.mount_device = device;
    return file;
  }

  // "devices/virtual/block/zram0/x"; the directories above it as well.
  void AddToSys(const std::string& path, const std::string& text) const {
    const std::string full = absl::StrCat(sys_.path(), "/", path);
    MakeAll(full.substr(0, full.rfind('/')));
    ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, full, text).ok());
  }
  void LinkInSys(const std::string& path, const std::string& target) const {
    const std::string full = absl::StrCat(sys_.path(), "/", path);
    MakeAll(full.substr(0, full.rfind('/')));
    ASSERT_EQ(
        symlink(absl::StrCat(sys_.path(), "/", target).c_str(), full.c_str()),
        0);
  }

  static void MakeAll(const std::string& path) {
    ASSERT_TRUE(EnsureDirectories(path).ok());
  }

  TmpfilesRules rules_;
  const TempDirectory sys_;
};

TEST_F(VolatilePlacesTest, MemoryByName) {
  for (const char* type : {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}) {
    EXPECT_EQ(WhereLost(File(type)), absl::StrCat("on ", type));
  }
  for (const char* type : {"ext4", "xfs", "nfs4", "fuse.sshfs", "proc"}) {
    EXPECT_EQ(WhereLost(File(type)), "") << type;
  }
}

TEST_F(VolatilePlacesTest, BlockDevicesThatAreMemory) {
  AddToSys("devices/zram0/size", "");
  AddToSys("devices/ram1/size", "");
  AddToSys("devices/vda/vda2/partition", "2");
  AddToSys("devices/ram1/ram1p1/partition", "1");
  AddToSys("devices/dm-0/slaves/vda2/x", "");
  LinkInSys("devices/dm-1/slaves/ram1p1", "devices/ram1/ram1p1");
  LinkInSys("dev/block/252:0", "devices/zram0");
  LinkInSys("dev/block/1:1", "devices/ram1");
  LinkInSys("dev/block/8:2", "devices/vda/vda2");
  LinkInSys("dev/block/253:0", "devices/dm-0");
  LinkInSys("dev/block/253:1", "devices/dm-1");
  LinkInSys("class/block/zram0", "devices/zram0");
  EXPECT_EQ(WhereLost(File("ext4", makedev(252, 0))),
            "on zram0, which is memory");
  EXPECT_EQ(WhereLost(File("ext4", makedev(1, 1))), "on ram1, which is memory");
  EXPECT_EQ(WhereLost(File("ext4", makedev(8, 2))), "");
  EXPECT_EQ(WhereLost(File("ext4", makedev(253, 0))), "");
  EXPECT_EQ(WhereLost(File("ext4", makedev(253, 1))),
            "on ram1, which is memory");
  EXPECT_EQ(WhereLost(File("ext4", makedev(7, 9))), "") << "no such device";
  UsedFile btrfs = File("btrfs", makedev(0, 40));
  btrfs.mount_source = "/dev/zram0";
  EXPECT_EQ(WhereLost(btrfs), "on zram0, which is memory");
}

TEST_F(VolatilePlacesTest, LoopDevicesByTheirFile) {
  const std::string memory = absl::StrCat("/dev/shm/", getpid(), ".img");
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, memory, "x").ok());
  const TempDirectory disk;
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, disk.path() + "/img", "x").ok());
  const auto where = [&](int number, const std::string& file) {
    AddToSys(absl::StrCat("devices/loop", number, "/loop/backing_file"),
             file + "\n");
    LinkInSys(absl::StrCat("dev/block/7:", number),
              absl::StrCat("devices/loop", number));
    return WhereLost(File("ext4", makedev(7, static_cast<unsigned>(number))));
  };
  EXPECT_EQ(where(0, memory),
            absl::StrCat("on loop0, whose file ", memory, " is on tmpfs"));
  EXPECT_EQ(where(1, disk.path() + "/img"), "");
  EXPECT_EQ(where(2, "/srv/img (deleted)"), "on loop2, whose file was deleted");
  rules_.Add(absl::StrCat("D ", disk.path(), "\n"), "t.conf");
  EXPECT_NE(where(3, disk.path() + "/img").find("systemd-tmpfiles"),
            std::string::npos);
  unlink(memory.c_str());
}

TEST_F(VolatilePlacesTest, OverlaysByTheirUpperLayer) {
  std::string memory = "/dev/shm/daxsnap-upper-XXXXXX";
  ASSERT_NE(mkdtemp(memory.data()), nullptr);
  const TempDirectory lower;
  const TempDirectory disk;
  MakeAll(memory + "/a/new");
  MakeAll(lower.path() + "/a");
  ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, memory + "/a/b", "x").ok());
  UsedFile file = File("overlay");
  const auto upper = [&](const std::string& layer) {
    file.mount_options = absl::StrCat("rw,lowerdir=/none:", lower.path(),
                                      ",upperdir=", layer, ",workdir=/w");
  };
  // Of containers, and of others whose layers cannot be seen from here.
  upper(disk.path());
  EXPECT_EQ(WhereLost(file), "");
  upper("/no/such/layer");
  EXPECT_EQ(WhereLost(file), "");
  upper(memory);
  const std::string lost =
      absl::StrCat("on an overlay, whose upper layer ", memory, " is on tmpfs");
  EXPECT_EQ(WhereLost(file), lost);
  file.path = "/mnt/a/lower";
  EXPECT_EQ(WhereLost(file), "") << "what came with the image";
  file.writable = true;
  EXPECT_EQ(WhereLost(file), lost) << "opened for writing: copied up";
  file.mode = S_IFDIR | 0700;
  file.path = "/mnt/a";
  EXPECT_EQ(WhereLost(file), "");
  file.path = "/mnt";
  EXPECT_EQ(WhereLost(file), "");
  file.path = "/mnt/a/new";
  EXPECT_EQ(WhereLost(file), lost);
  upper(disk.path());
  file.mount_options += ",volatile";
  EXPECT_EQ(WhereLost(file), "on an overlay that is mounted with \"volatile\"");
  EXPECT_TRUE(RemoveTree(AT_FDCWD, memory).ok());
}

TEST_F(VolatilePlacesTest, InitramfsKeepsWhatCameWithIt) {
  UsedFile file = File("rootfs");
  EXPECT_EQ(WhereLost(file), "");
  file.writable = true;
  EXPECT_EQ(WhereLost(file), "on the initramfs");
  file.mode = S_IFDIR | 0700;
  EXPECT_EQ(WhereLost(file), "");
}

TEST_F(VolatilePlacesTest, ControlGroupsThatEndWithTheirTasks) {
  UsedFile file = File("cgroup2");
  file.mount_point = "/sys/fs/cgroup";
  for (const char* path :
       {"/memory.pressure", "/init.scope/cpu.pressure",
        "/system.slice/memory.pressure", "/system.slice/a.service/x/io.stat"}) {
    file.path = file.mount_point + path;
    EXPECT_EQ(WhereLost(file), "") << path;
  }
  file.path = "/sys/fs/cgroup/user.slice/a.scope/memory.pressure";
  EXPECT_EQ(WhereLost(file), "of the cgroup a.scope");
  file.path = "/sys/fs/cgroup/mine/memory.pressure";
  EXPECT_EQ(WhereLost(file), "of the cgroup mine");
  file.path = "/sys/fs/cgroup/mine";
  file.mode = S_IFDIR | 0755;
  EXPECT_EQ(WhereLost(file), "of the cgroup mine");
}

TEST(OverlayOption, IsFoundWithItsEscapesUndone) {
  const std::string options = R"(rw,upperdir=/a\054b\040c,x,lowerdir=/l:/m)";
  EXPECT_EQ(OverlayOption(options, "upperdir"), "/a,b c");
  EXPECT_EQ(OverlayOption(options, "lowerdir"), "/l:/m");
  EXPECT_EQ(OverlayOption(options, "x"), "");
  EXPECT_EQ(OverlayOption(options, "upper"), std::nullopt);
  EXPECT_EQ(OverlayOption("", "x"), std::nullopt);
}

}  // namespace
}  // namespace daxsnap
