// SPDX-License-Identifier: Apache-2.0
#include "host/pool/pool.h"

#include <endian.h>
#include <fcntl.h>
#include <format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/kmem_blk_format.h>
#include <linux/kmem_persist_header.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "host/pool/device.h"
#include "host/pool/kernel_log.h"

namespace daxsnap::pool {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr std::uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr std::uint64_t kSize = 64 * kPage;

// A device's bytes in a file, mapped as snapctl maps the device.
class PoolFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/pool.XXXXXX";
    fd_ = mkstemp(name.data());
    ASSERT_GE(fd_, 0);
    unlink(name.c_str());
    ASSERT_EQ(ftruncate(fd_, kSize), 0);
    base_ = static_cast<char*>(
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    ASSERT_NE(base_, MAP_FAILED);
    // What a device that was used before holds.
    std::memset(base_, 0xa5, kSize);
  }
  void TearDown() override {
    munmap(base_, kSize);
    close(fd_);
  }

  absl::StatusOr<Header> Write(const CreateOptions& options) {
    return WriteEmptyPool(base_, kSize, options, FlushCpuCaches);
  }

  // What the kernel says of the header in the file.
  int Verify(kmem_persist_why* why) const {
    kmem_persist_header header;
    EXPECT_EQ(pread(fd_, &header, sizeof(header), 0),
              static_cast<ssize_t>(sizeof(header)));
    return kmem_persist_header_verify(&header, kSize, why);
  }

  int fd_ = -1;
  char* base_ = nullptr;
};

const void* PageOf(const kmemfs_media* media, __u64 page) {
  return page < media->nr_pages
             ? static_cast<const char*>(media->ctx) + page * kPage
             : nullptr;
}

kmemfs_media Media(char* base) {
  kmemfs_media media = {};
  media.page = PageOf;
  media.ctx = base;
  media.nr_pages = kSize / kPage;
  media.first = KMEM_PERSIST_HEAD_PAGES;
  media.end = media.nr_pages;
  std::memcpy(media.uuid, reinterpret_cast<kmem_persist_header*>(base)->uuid,
              16);
  return media;
}

TEST_F(PoolFileTest, EmptyFsPoolIsOneTheKernelAccepts) {
  absl::StatusOr<Header> header =
      Write({.type = PoolType::kFs, .label = "tier \xc3\xa4"});
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->label, "tier \xc3\xa4");
  EXPECT_EQ(header->range_size, kSize);
  EXPECT_THAT(header->uuid,
              MatchesRegex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"));

  kmem_persist_why why = {};
  EXPECT_EQ(Verify(&why), 0) << why.text;
  const kmemfs_media media = Media(base_);
  unsigned slot = 9;
  kmemfs_root_info root;
  EXPECT_EQ(kmemfs_root_pick(&media, &slot, &root, &why), 0) << why.text;
  EXPECT_EQ(root.generation, 1U);
  EXPECT_EQ(root.nr_inodes, 0U);
}

TEST_F(PoolFileTest, WritesNothingBeyondTheHeadPages) {
  ASSERT_TRUE(Write({}).ok());
  const std::vector<char> untouched(kSize - KMEM_PERSIST_HEAD_PAGES * kPage,
                                    '\xa5');
  EXPECT_EQ(std::memcmp(base_ + KMEM_PERSIST_HEAD_PAGES * kPage,
                        untouched.data(), untouched.size()),
            0);
}

TEST_F(PoolFileTest, TypeNoneHasNoRoots) {
  absl::StatusOr<Header> header = Write({.type = PoolType::kNone});
  ASSERT_TRUE(header.ok()) << header.status();
  kmem_persist_why why = {};
  EXPECT_EQ(Verify(&why), 0) << why.text;
  EXPECT_EQ(le32toh(reinterpret_cast<kmem_persist_header*>(base_)->type),
            KMEM_PERSIST_NONE);
  const std::vector<char> zero(2 * kPage);
  EXPECT_EQ(std::memcmp(base_ + kPage, zero.data(), zero.size()), 0);
}

TEST_F(PoolFileTest, RefusesToOverwriteAPoolUnlessForced) {
  absl::StatusOr<Header> first = Write({});
  ASSERT_TRUE(first.ok());
  const std::string before(base_, kSize);
  absl::StatusOr<Header> second = Write({});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--force"));
  EXPECT_EQ(before, std::string(base_, kSize))
      << "a refused create changed the device";

  absl::StatusOr<Header> forced = Write({.overwrite = Overwrite::kForce});
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_NE(forced->uuid, first->uuid);
}

TEST_F(PoolFileTest, RefusesToOverwriteADamagedPool) {
  ASSERT_TRUE(Write({}).ok());
  base_[200] ^= 1;
  EXPECT_EQ(Write({}).status().code(), absl::StatusCode::kAlreadyExists);
}

// The state of the device at each flush, as a power cut there would leave it.
std::vector<std::string>* g_states;
char* g_device;

void RecordFlush(const void*, std::size_t) {
  g_states->emplace_back(g_device, kSize);
}

// What may be left of page 0, by a medium that loses a line or a page, or by
// somebody who writes there.
std::vector<std::string> Destroyed(const char* header) {
  const std::string good(header, kPage);
  return {std::string(64, '\0') + good.substr(64),
          std::string(64, 'x') + good.substr(64), std::string(kPage, '\0'),
          std::string(kPage, '\xa5')};
}

TEST_F(PoolFileTest, RefusesToOverwriteAPoolWhoseHeaderIsDestroyed) {
  for (const PoolType type : {PoolType::kFs, PoolType::kBlk}) {
    ASSERT_TRUE(Write({.type = type, .overwrite = Overwrite::kForce}).ok());
    for (const std::string& left : Destroyed(base_)) {
      left.copy(base_, kPage);
      ASSERT_FALSE(kmem_persist_header_present(base_));
      const std::string before(base_, kSize);
      const absl::Status status = Write({}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
      EXPECT_EQ(before, std::string(base_, kSize));
    }
  }
  EXPECT_TRUE(Write({.overwrite = Overwrite::kForce}).ok());
}

TEST_F(PoolFileTest, OverwritesWhatOnlyLooksLikeARoot) {
  ASSERT_TRUE(Write({}).ok());
  std::memset(base_, 0, kPage);
  base_[kPage + 100] ^= 1;
  EXPECT_TRUE(Write({}).ok());
}

class RepairTest : public PoolFileTest {
 protected:
  absl::StatusOr<Header> Repair(const std::string& label = "") const {
    return RepairHeader(base_, kSize, label, FlushCpuCaches);
  }
};

TEST_F(RepairTest, MakesADestroyedHeaderAnew) {
  for (const PoolType type : {PoolType::kFs, PoolType::kBlk}) {
    absl::StatusOr<Header> made =
        Write({.type = type, .label = "old", .overwrite = Overwrite::kForce});
    ASSERT_TRUE(made.ok()) << made.status();
    const std::string whole(base_, kSize);
    for (const std::string& left : Destroyed(whole.data())) {
      left.copy(base_, kPage);
      absl::StatusOr<Header> repaired = Repair("old");
      ASSERT_TRUE(repaired.ok()) << repaired.status();
      EXPECT_EQ(repaired->uuid, made->uuid);
      EXPECT_EQ(repaired->type, type);
      EXPECT_EQ(whole, std::string(base_, kSize));
    }
  }
}

TEST_F(RepairTest, KeepsWhatAHeaderWithoutItsMagicSays) {
  ASSERT_TRUE(Write({.type = PoolType::kNone, .label = "kept"}).ok());
  const std::string whole(base_, kSize);
  base_[3] ^= 1;
  absl::StatusOr<Header> repaired = Repair("another");
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_EQ(repaired->label, "kept");
  EXPECT_EQ(whole, std::string(base_, kSize));
}

TEST_F(RepairTest, TakesOneWithDamageBehindTheMagic) {
  ASSERT_TRUE(Write({}).ok());
  const std::string whole(base_, kSize);
  base_[50] ^= 1;
  ASSERT_TRUE(Repair().ok());
  EXPECT_EQ(whole, std::string(base_, kSize));
}

TEST_F(RepairTest, RefusesWhatIsNotItsToRepair) {
  const auto refused = [&](absl::StatusCode code, const std::string& why) {
    const std::string before(base_, kSize);
    const absl::Status status = Repair().status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
    EXPECT_EQ(before, std::string(base_, kSize));
  };
  refused(absl::StatusCode::kFailedPrecondition, "nothing on the device says");
  ASSERT_TRUE(Write({}).ok());
  refused(absl::StatusCode::kFailedPrecondition, "nothing to repair");
  EXPECT_EQ(Repair("a\nb").status().code(), absl::StatusCode::kInvalidArgument);

  // One that is whole, but of a device of another size.
  EXPECT_EQ(RepairHeader(base_, kSize / 2, "", FlushCpuCaches).status().code(),
            absl::StatusCode::kFailedPrecondition);
  base_[0] ^= 1;
  EXPECT_EQ(RepairHeader(base_, kSize / 2, "", FlushCpuCaches).status().code(),
            absl::StatusCode::kDataLoss);

  // A creation that was cut off between two roots.
  const std::string other(base_ + kPage, kPage);
  ASSERT_TRUE(Write({.overwrite = Overwrite::kForce}).ok());
  std::memset(base_, 0, kPage);
  other.copy(base_ + 2 * kPage, kPage);
  refused(absl::StatusCode::kDataLoss, "roots of two pools");
}

TEST_F(RepairTest, CrashWhileItIsMadeAnewLeavesOneThatIsRefusedOrWhole) {
  ASSERT_TRUE(Write({}).ok());
  const std::string whole(base_, kSize);
  std::memset(base_, 'x', kPage);
  std::vector<std::string> states;
  g_states = &states;
  g_device = base_;
  ASSERT_TRUE(RepairHeader(base_, kSize, "", RecordFlush).ok());
  ASSERT_GE(states.size(), 2U);
  for (const std::string& state : states) {
    if (state == whole) continue;
    state.copy(base_, kSize);
    EXPECT_NE(Verify(nullptr), 0);
    ASSERT_TRUE(Repair().ok());
    EXPECT_EQ(whole, std::string(base_, kSize));
  }
  EXPECT_EQ(states.back(), whole);
}

TEST(Attach, GivesPoolsToKernelsWithTheSeriesAlone) {
  const std::string root =
      ::testing::TempDir() + "/kernel-" + std::to_string(getpid());
  std::filesystem::create_directories(root + "/proc");
  EXPECT_FALSE(KernelKeepsPools(root)) << "nothing can be read";
  std::ofstream(root + "/proc/filesystems") << "nodev\tsysfs\n\text4\n";
  EXPECT_FALSE(KernelKeepsPools(root));
  std::ofstream(root + "/proc/filesystems") << "nodev\tmykmemfs\n";
  EXPECT_FALSE(KernelKeepsPools(root));
  std::ofstream(root + "/proc/filesystems") << "nodev\tkmemfs\n";
  EXPECT_TRUE(KernelKeepsPools(root));
  // Built with type blk alone.
  std::ofstream(root + "/proc/filesystems") << "\text4\n";
  std::filesystem::create_directories(root + "/sys/module/kmem_persist_bad");
  EXPECT_TRUE(KernelKeepsPools(root));
  std::filesystem::remove_all(root);
}

TEST_F(PoolFileTest, RefusesLabelsThatDoNotFitOrCannotBeShown) {
  EXPECT_EQ(Write({.label = std::string(64, 'x')}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Write({.label = "a\nb"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Write({.label = std::string(63, 'x')}).ok());
}

TEST_F(PoolFileTest, RefusesSizesThatCannotBeAPool) {
  for (const std::uint64_t size : {std::uint64_t{0}, 3 * kPage, kSize - 1}) {
    EXPECT_EQ(WriteEmptyPool(base_, size, {}, FlushCpuCaches).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
}

// The blocks that the kernel finds stored on the device; -1: it is refused.
int StoredBlocks(const char* base, kmem_blk_layout* layout,
                 kmem_persist_why* why) {
  if (kmem_blk_layout_read(base, kSize / kPage, layout, why) != 0) return -1;
  std::vector<unsigned long> used(kSize / kPage);
  __u64 stored = 0;
  const auto* map =
      reinterpret_cast<const __le64*>(base + KMEM_BLK_MAP_PAGE * kPage);
  if (kmem_blk_map_verify(layout, map, used.data(), &stored, why) != 0)
    return -1;
  return static_cast<int>(stored);
}

TEST_F(PoolFileTest, EmptyBlockPoolIsOneTheKernelAccepts) {
  absl::StatusOr<Header> header = Write({.type = PoolType::kBlk});
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->type, PoolType::kBlk);
  kmem_persist_why why = {};
  EXPECT_EQ(Verify(&why), 0) << why.text;
  kmem_blk_layout layout;
  EXPECT_EQ(StoredBlocks(base_, &layout, &why), 0) << why.text;
  EXPECT_EQ(layout.nr_blocks, kSize / kPage - KMEM_PERSIST_HEAD_PAGES - 1);
  const std::string untouched(kSize - 4 * kPage, '\xa5');
  EXPECT_EQ(EmptyPoolBytes(kSize, {.type = PoolType::kBlk}), 4 * kPage);
  EXPECT_EQ(std::string(base_ + 4 * kPage, untouched.size()), untouched);
}

TEST_F(PoolFileTest, BlockPoolHasTheCapacityThatWasAskedFor) {
  ASSERT_TRUE(Write({.type = PoolType::kBlk, .capacity = 7 * kPage}).ok());
  kmem_persist_why why = {};
  kmem_blk_layout layout;
  EXPECT_EQ(StoredBlocks(base_, &layout, &why), 0) << why.text;
  EXPECT_EQ(layout.nr_blocks, 7U);
}

TEST_F(PoolFileTest, RefusesCapacitiesThatArePossibleNowhere) {
  for (const std::uint64_t capacity :
       {kPage - 1, 61 * kPage, ~std::uint64_t{0}}) {
    EXPECT_EQ(
        Write({.type = PoolType::kBlk, .capacity = capacity}).status().code(),
        absl::StatusCode::kInvalidArgument)
        << capacity;
  }
  EXPECT_EQ(Write({.type = PoolType::kFs, .capacity = kPage}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PoolFileTest, CrashWhileItIsWrittenLeavesNoPoolThatLooksGoodAndIsNot) {
  ASSERT_TRUE(Write({.label = "old"}).ok());
  std::vector<std::string> states;
  g_states = &states;
  g_device = base_;
  absl::StatusOr<Header> header = WriteEmptyPool(
      base_, kSize, {.label = "new", .overwrite = Overwrite::kForce},
      RecordFlush);
  ASSERT_TRUE(header.ok()) << header.status();

  ASSERT_GE(states.size(), 3U);
  EXPECT_FALSE(kmem_persist_header_present(states.front().data()))
      << "the old header was not taken away first";
  for (std::size_t i = 0; i + 1 < states.size(); ++i) {
    kmem_persist_why why = {};
    EXPECT_NE(
        kmem_persist_header_verify(
            reinterpret_cast<const kmem_persist_header*>(states[i].data()),
            kSize, &why),
        0)
        << "at flush " << i << " the header is valid already";
  }
  kmem_persist_why why = {};
  EXPECT_EQ(Verify(&why), 0) << why.text;
}

TEST_F(PoolFileTest, CrashWhileABlockPoolIsWrittenLeavesTheMapOrNoPool) {
  ASSERT_TRUE(Write({.label = "old"}).ok());
  std::vector<std::string> states;
  g_states = &states;
  g_device = base_;
  ASSERT_TRUE(
      WriteEmptyPool(base_, kSize,
                     {.type = PoolType::kBlk, .overwrite = Overwrite::kForce},
                     RecordFlush)
          .ok());
  ASSERT_GE(states.size(), 3U);
  for (std::size_t i = 0; i < states.size(); ++i) {
    kmem_persist_why why = {};
    const int header = kmem_persist_header_verify(
        reinterpret_cast<const kmem_persist_header*>(states[i].data()), kSize,
        &why);
    EXPECT_EQ(header == 0, i + 1 == states.size()) << "at flush " << i;
  }
  kmem_persist_why why = {};
  kmem_blk_layout layout;
  EXPECT_EQ(StoredBlocks(states.back().data(), &layout, &why), 0) << why.text;
}

// A sysfs with one block device.
class BlockDeviceTest : public ::testing::Test {
 protected:
  BlockDeviceTest()
      : sysfs_(::testing::TempDir() + "/sysfs-" + std::to_string(getpid())) {
    std::filesystem::create_directories(sysfs_ + "/block/kmem1/kmem");
    Put("size", "2097152\n");
    Put("kmem/device", "dax0.0\n");
    Put("kmem/mapped", "12\n");
    Put("kmem/free", "1000\n");
    Put("kmem/discarded", "3\n");
  }
  ~BlockDeviceTest() override { std::filesystem::remove_all(sysfs_); }

  void Put(const std::string& file, const std::string& text) const {
    std::ofstream(sysfs_ + "/block/kmem1/" + file) << text;
  }

  absl::StatusOr<std::optional<BlockDevice>> Find(const std::string& name,
                                                  int node) const {
    Device device;
    device.name = name;
    device.target_node = node;
    return FindBlockDevice(device, sysfs_);
  }

  std::string sysfs_;
};

TEST_F(BlockDeviceTest, IsFoundByItsNode) {
  const auto block = Find("dax0.0", 1);
  ASSERT_TRUE(block.ok()) << block.status();
  ASSERT_TRUE(block->has_value());
  EXPECT_EQ((*block)->path, "/dev/kmem1");
  EXPECT_EQ((*block)->capacity, std::uint64_t{1} << 30);
  EXPECT_EQ((*block)->mapped, 12U);
  EXPECT_EQ((*block)->free, 1000U);
  EXPECT_EQ((*block)->discarded, 3U);
}

TEST_F(BlockDeviceTest, OfAnotherDeviceIsNotTaken) {
  for (const auto& [name, node] :
       {std::pair("dax1.0", 1), std::pair("dax0.0", 2)}) {
    const auto block = Find(name, node);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_FALSE(block->has_value()) << name;
  }
}

TEST_F(BlockDeviceTest, ThatCannotBeReadIsAnError) {
  Put("kmem/mapped", "many\n");
  EXPECT_EQ(Find("dax0.0", 1).status().code(), absl::StatusCode::kDataLoss);
}

TEST(PoolTypeTest, NamesAndTypesMatch) {
  for (const PoolType type : {PoolType::kNone, PoolType::kBlk, PoolType::kFs}) {
    absl::StatusOr<PoolType> parsed = ParsePoolType(PoolTypeName(type));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, type);
  }
  EXPECT_EQ(ParsePoolType("FS").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(FindDeviceTest, UnknownDeviceSaysWhatThereIs) {
  const absl::Status status = FindDevice("dax99.99").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("dax99.99"));
}

TEST(ReadHeaderTest, NeedsTheDeviceDaxDriver) {
  Device device;
  device.name = "dax0.0";
  device.driver = Driver::kKmem;
  const absl::Status status = ReadHeader(device).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
}

TEST(DetachTest, SaysThatNothingIsMounted) {
  const absl::Status status = Detach("/nowhere");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere"));
}

TEST(KernelLogTest, FindsTheReasonBehindTheDeviceName) {
  EXPECT_EQ(
      ReasonInRecord(
          "3,512,99,-;kmem dax0.0: header crc mismatch\n DEVICE=+dax:dax0.0\n",
          "dax0.0"),
      "header crc mismatch");
  EXPECT_EQ(ReasonInRecord("3,512,99,-;kmem dax0.0: x\n", "dax1.0"), "");
  EXPECT_EQ(ReasonInRecord("3,512,99,-;kmem xdax0.0: x\n", "dax0.0"), "");
  EXPECT_EQ(ReasonInRecord("no record at all", "dax0.0"), "");
  EXPECT_EQ(ReasonInRecord("3,512,99,-;kmem dax0.0: probe with driver kmem "
                           "failed with error -17\n",
                           "dax0.0"),
            "")
      << "the driver core's line hides the driver's";
}

TEST(Utf8Test, AcceptsTextAndRefusesTheRest) {
  EXPECT_TRUE(IsPrintableUtf8(""));
  EXPECT_TRUE(IsPrintableUtf8("a b\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7"));
  EXPECT_FALSE(IsPrintableUtf8("\x1b[31m"));
  EXPECT_FALSE(IsPrintableUtf8("\x7f"));
  EXPECT_FALSE(IsPrintableUtf8("\xc2\x85"));          // a C1 control character
  EXPECT_FALSE(IsPrintableUtf8("\xc0\xaf"));          // overlong
  EXPECT_FALSE(IsPrintableUtf8("\xed\xa0\x80"));      // a surrogate
  EXPECT_FALSE(IsPrintableUtf8("\xf4\x90\x80\x80"));  // beyond U+10FFFF
  EXPECT_FALSE(IsPrintableUtf8("\xe2\x82"));          // cut off
  EXPECT_FALSE(IsPrintableUtf8("\x80"));
  EXPECT_FALSE(IsPrintableUtf8(absl::string_view("a\0b", 3)));
}

TEST(Utf8Test, WhatIsNotTextIsEscaped) {
  EXPECT_EQ(ToPrintableUtf8("caf\xc3\xa9 \\"), "caf\xc3\xa9 \\");
  EXPECT_EQ(ToPrintableUtf8("caf\xe9!"), "caf\\xe9!");
  EXPECT_EQ(ToPrintableUtf8("a\n\xe2\x82"), "a\\x0a\\xe2\\x82");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(3, static_cast<char>(byte));
    EXPECT_TRUE(IsPrintableUtf8(ToPrintableUtf8(text))) << byte;
  }
}

}  // namespace
}  // namespace daxsnap::pool
