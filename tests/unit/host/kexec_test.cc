// SPDX-License-Identifier: Apache-2.0
#include "host/pool/kexec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace daxsnap::pool {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::uint64_t kGiB = 1ULL << 30;
constexpr char kRelease[] = "6.12.48-test";

class KernelImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/kexec.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    kernel_ = directory_ / "vmlinuz";
    WriteKernel(std::string(kRelease) + " (somebody@somewhere) #1");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // As boot.rst lays it out: the magic, and where the text is.
  void WriteKernel(const std::string& text) const {
    std::string image(0x1200, '\0');
    image.replace(0x202, 4, "HdrS");
    image[0x20e] = '\0';
    image[0x20f] = '\x0e';  // 0x200 + 0xe00
    image.replace(0x1000, text.size(), text);
    Write(kernel_, image);
  }

  static void Write(const std::filesystem::path& path,
                    const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  std::filesystem::path directory_;
  std::filesystem::path kernel_;
};

constexpr char kConfig[] =
    "#\n# Linux/x86 6.12.48 Kernel Configuration\n#\n"
    "CONFIG_LOCALVERSION=\"-test\"\nCONFIG_KMEM_PERSIST=y\n"
    "# CONFIG_KMEMFS_FS is not set\nCONFIG_DEV_DAX_PMEM=m\nCONFIG_HZ=250\n"
    "CONFIG_CMDLINE=\"x=\\\"a b\\\" memmap=1G!4G\"\n";

TEST_F(KernelImageTest, TellsReleaseAndOptions) {
  Write(directory_ / "config-6.12.48-test", kConfig);
  const auto image = ReadKernelImage(kernel_, "");
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->release, kRelease);
  EXPECT_THAT(image->options, Contains("CONFIG_KMEM_PERSIST"));
  EXPECT_THAT(image->options, Contains("CONFIG_DEV_DAX_PMEM"));
  EXPECT_THAT(image->options, Not(Contains("CONFIG_KMEMFS_FS")));
  EXPECT_THAT(image->options, Not(Contains("CONFIG_HZ")));
  EXPECT_EQ(image->built_in, "x=\"a b\" memmap=1G!4G");
}

TEST_F(KernelImageTest, WithoutConfigurationIsNotFound) {
  const auto image = ReadKernelImage(kernel_, "");
  EXPECT_EQ(image.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(image.status().message()), HasSubstr("--config"));
}

TEST_F(KernelImageTest, RefusesTheConfigurationOfAnotherKernel) {
  const std::string config = directory_ / "config";
  for (const char* text :
       {"", "# Linux/x86 6.12.4 Kernel Configuration\n",
        "# Linux/x86 6.13.0 Kernel Configuration\nCONFIG_LOCALVERSION=\"\"\n",
        "# Linux/x86 6.12.48 Kernel "
        "Configuration\nCONFIG_LOCALVERSION=\"-else\"\n"}) {
    Write(config, text);
    EXPECT_EQ(ReadKernelImage(kernel_, config).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST_F(KernelImageTest, RefusesWhatIsNoKernel) {
  for (const std::string& image :
       {std::string(), std::string("HdrS"), std::string(0x1200, '\0'),
        std::string(0x202, 'x') + "HdrS" + std::string(20, '\xff')}) {
    Write(kernel_, image);
    EXPECT_EQ(ReadKernelImage(kernel_, "").status().code(),
              absl::StatusCode::kInvalidArgument)
        << image.size();
  }
  WriteKernel("");
  EXPECT_EQ(ReadKernelImage(kernel_, "").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadKernelImage(directory_ / "none", "").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(MemoryParameters, AreReadAsTheKernelReadsThem) {
  const auto found = ParseMemoryParameters(
      "root=/dev/vda memmap=8G!16G,0x100000$0xf0000000 quiet memmap=exactmap "
      "memmap=64M x=\"a memmap=1G!1G\" memmap=1m%0x1000-1+2 "
      "numa_spare_nodes=2 -- memmap=2G!2G nokaslr");
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->entries.size(), 3U);
  EXPECT_EQ(found->entries[0].kind, '!');
  EXPECT_EQ(found->entries[0].range, (PhysicalRange{16 * kGiB, 24 * kGiB}));
  EXPECT_EQ(found->entries[1].kind, '$');
  EXPECT_EQ(found->entries[1].range, (PhysicalRange{0xf0000000, 0xf0100000}));
  EXPECT_EQ(found->entries[1].text, "memmap=0x100000$0xf0000000");
  EXPECT_EQ(found->entries[2].kind, '%');
  EXPECT_EQ(found->spare_nodes, 2U);
  EXPECT_TRUE(found->exact);
  EXPECT_FALSE(found->fixed);
}

TEST(MemoryParameters, RefusesWhatHasNoSense) {
  for (const char* line :
       {"memmap=", "memmap=G", "memmap=1G!", "memmap=1G!x", "memmap=1G?1G",
        "memmap=0!1G", "memmap=1G!1Gx", "memmap=1G!0xffffffffffffffff",
        "memmap=99999999999999999999!1G", "memmap=16E!1G", "memmap=1G!1G,",
        "numa_spare_nodes=", "numa_spare_nodes=many", "numa_spare_nodes=-1"}) {
    EXPECT_EQ(ParseMemoryParameters(line).status().code(),
              absl::StatusCode::kInvalidArgument)
        << line;
  }
}

class CheckKexecTest : public ::testing::Test {
 protected:
  CheckKexecTest()
      : kernel_{kRelease,
                {"CONFIG_KMEM_PERSIST", "CONFIG_KMEMFS_FS",
                 "CONFIG_X86_PMEM_LEGACY", "CONFIG_DEV_DAX_PMEM"},
                ""},
        pools_{{"dax0.0",
                PoolType::kFs,
                {"CONFIG_X86_PMEM_LEGACY", "CONFIG_DEV_DAX_PMEM"},
                {16 * kGiB, 24 * kGiB},
                {16 * kGiB, 24 * kGiB}}} {}

  std::string Refusal(const std::string& command_line,
                      const std::string& current = kLine) const {
    const absl::Status status =
        CheckKexec(pools_, kernel_, command_line, current);
    if (status.ok()) return "";
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    return std::string(status.message());
  }

  static constexpr char kLine[] = "memmap=8G!16G numa_spare_nodes=1";
  KernelImage kernel_;
  std::vector<PoolMemory> pools_;
};

TEST_F(CheckKexecTest, TakesTheSameLineAndMore) {
  EXPECT_THAT(Refusal(kLine), IsEmpty());
  EXPECT_THAT(Refusal("quiet numa_spare_nodes=3 memmap=0x200000000!0x400000000 "
                      "memmap=1G!1G"),
              IsEmpty());
}

TEST_F(CheckKexecTest, RefusesALineThatGivesTheMemoryAway) {
  for (const char* line :
       {"numa_spare_nodes=1", "memmap=8G!17G numa_spare_nodes=1",
        "memmap=4G!16G numa_spare_nodes=1", "memmap=8G@16G numa_spare_nodes=1",
        "memmap=8G!16G memmap=1G@20G numa_spare_nodes=1",
        "memmap=8G!16G,1M$16G numa_spare_nodes=1"}) {
    EXPECT_THAT(Refusal(line), HasSubstr("dax0.0: ")) << line;
  }
  EXPECT_THAT(Refusal("quiet"),
              HasSubstr("add memmap=0x200000000!0x400000000"));
}

TEST_F(CheckKexecTest, RefusesALineWithFewerSpareNodes) {
  EXPECT_THAT(Refusal("memmap=8G!16G"), HasSubstr("add numa_spare_nodes=1"));
  EXPECT_THAT(Refusal("memmap=8G!16G", "memmap=8G!16G"), IsEmpty());
}

TEST_F(CheckKexecTest, RefusesAKernelThatCannotUseThePool) {
  for (const char* option : {"CONFIG_KMEM_PERSIST", "CONFIG_KMEMFS_FS",
                             "CONFIG_X86_PMEM_LEGACY", "CONFIG_DEV_DAX_PMEM"}) {
    kernel_.options.erase(option);
    EXPECT_THAT(Refusal(kLine), HasSubstr(option));
    kernel_.options.insert(option);
  }
  pools_[0].type = PoolType::kBlk;
  EXPECT_THAT(Refusal(kLine), HasSubstr("CONFIG_KMEM_PERSIST_BLK"));
}

TEST_F(CheckKexecTest, RefusesAKernelThatMayPutItselfThere) {
  const std::string nodes = " numa_spare_nodes=1";
  const std::string three = "memmap=1M$1G,1M#2G memmap=1M!3G ";
  const std::string uncounted = "memmap=1M@4G,64M,1M%5G-1+2,1M$0 ";
  const std::string four = three + "memmap=1M!6G ";
  const std::vector<std::string> lost = {four + kLine,
                                         four + kLine + " -- nokaslr",
                                         "memmap=exactmap,8G!16G" + nodes};
  const std::vector<std::string> kept = {kLine, three + uncounted + kLine,
                                         four + "nokaslr " + kLine};
  for (const std::string& line : lost) EXPECT_THAT(Refusal(line), IsEmpty());
  kernel_.options.insert("CONFIG_RANDOMIZE_BASE");
  for (const std::string& line : kept) EXPECT_THAT(Refusal(line), IsEmpty());
  for (const std::string& line : lost)
    EXPECT_THAT(Refusal(line), HasSubstr("add nokaslr")) << line;
  pools_[0].set_aside = {};
  EXPECT_THAT(Refusal(lost[0]), IsEmpty());
}

TEST_F(CheckKexecTest, WantsNoLineForMemoryThatTheFirmwareTellsOf) {
  pools_[0].set_aside = {};
  EXPECT_THAT(Refusal("numa_spare_nodes=1"), IsEmpty());
}

TEST_F(CheckKexecTest, RefusesALineAboutMemoryThatTheFirmwareTellsOf) {
  pools_[0].set_aside = {};
  for (const char* line : {"memmap=8G!16G", "memmap=1G@20G", "memmap=1M$23G",
                           "memmap=64G#1G", "memmap=1G%16G-7+1"}) {
    EXPECT_THAT(Refusal(line, ""), HasSubstr("dax0.0: memmap=")) << line;
    EXPECT_THAT(Refusal(line, line), IsEmpty()) << "it is there with it now";
  }
  for (const char* line :
       {"memmap=8G!24G", "memmap=1G@15G", "memmap=8G", "efi=nosoftreserve"})
    EXPECT_THAT(Refusal(line, ""), IsEmpty()) << line;
}

TEST_F(CheckKexecTest, RefusesALineThatMakesRamOfWhatIsSetAsideByTheFirmware) {
  pools_[0].set_aside = {};
  pools_[0].soft_reserved = true;
  for (const char* line :
       {"efi=nosoftreserve", "quiet efi=debug,nosoftreserve,runtime"})
    EXPECT_THAT(Refusal(line, ""), HasSubstr("leave it out")) << line;
  for (const char* line : {"", "efi=debug", "efi=runtime -- efi=nosoftreserve",
                           "xefi=nosoftreserve"})
    EXPECT_THAT(Refusal(line, ""), IsEmpty()) << line;
}

TEST_F(CheckKexecTest, ReadsTheLineThatIsBuiltIn) {
  kernel_.built_in = "quiet memmap=1G@20G";
  EXPECT_THAT(Refusal(kLine), IsEmpty()) << "it is not used";
  kernel_.options.insert("CONFIG_CMDLINE_BOOL");
  EXPECT_THAT(Refusal(kLine), HasSubstr("memmap=1G@20G"));
  kernel_.built_in = "quiet";
  EXPECT_THAT(Refusal(kLine), IsEmpty());
  kernel_.options.insert("CONFIG_CMDLINE_OVERRIDE");
  EXPECT_THAT(Refusal(kLine), HasSubstr("CONFIG_CMDLINE, and no other"));
  kernel_.built_in = "memmap=8G!16G";
  EXPECT_THAT(Refusal(kLine), HasSubstr("CONFIG_CMDLINE, and no other"))
      << "no spare node";
  kernel_.built_in = kLine;
  EXPECT_THAT(Refusal(""), IsEmpty());
  // Its image is put somewhere before that line is read.
  kernel_.options.insert("CONFIG_RANDOMIZE_BASE");
  EXPECT_THAT(Refusal(""), HasSubstr("add nokaslr"));
  EXPECT_THAT(Refusal("nokaslr"), IsEmpty());
}

TEST_F(CheckKexecTest, HasNothingAgainstAKernelIfThereIsNoPool) {
  pools_.clear();
  kernel_.options.clear();
  EXPECT_THAT(Refusal(""), IsEmpty());
}

}  // namespace
}  // namespace daxsnap::pool
