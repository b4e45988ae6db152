// SPDX-License-Identifier: Apache-2.0
//
// Pools that an earlier version made are read by the format code of today.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/golden/device_file.h"

namespace daxsnap::golden {
namespace {

using ::testing::HasSubstr;

// More than any version that this project is likely to see.
constexpr uint32_t kFarVersion = 1000;
constexpr uint64_t kUnknownFeature = uint64_t{1} << 61;

struct Golden {
  std::string format;  // directory
  std::string name;    // of the device in it
};

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class GoldenFormat : public ::testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    const std::filesystem::path directory =
        std::filesystem::path(DAXSNAP_GOLDEN) / GetParam().format;
    const std::string& name = GetParam().name;
    std::string scratch =
        (std::filesystem::temp_directory_path() / "golden.XXXXXX").string();
    ASSERT_NE(mkdtemp(scratch.data()), nullptr);
    scratch_ = scratch;
    const std::string unpack = "tar -C " + scratch + " -xJf " +
                               (directory / (name + ".tar.xz")).string();
    ASSERT_EQ(std::system(unpack.c_str()), 0) << unpack;
    const auto facts =
        nlohmann::json::parse(ReadFile(directory / "golden.json"));
    device_ = std::make_unique<DeviceFile>(scratch + "/" + name + ".img",
                                           facts.at(name + "_offset"));
    list_ = ReadFile(directory / (name + ".list"));
    ASSERT_FALSE(list_.empty());
  }
  void TearDown() override {
    device_.reset();
    std::filesystem::remove_all(scratch_);
  }

  // Refused with `why`, and well again once it is undone.
  void ExpectNewer(uint64_t page, const std::function<void(void*)>& change,
                   const std::string& why) {
    std::string before(static_cast<const char*>(device_->Page(page)),
                       KMEM_PERSIST_PAGE_SIZE);
    change(device_->Page(page));
    const Verdict verdict = device_->Verify();
    EXPECT_EQ(verdict.error, -EOPNOTSUPP) << verdict.why;
    EXPECT_THAT(verdict.why, HasSubstr(why));
    std::memcpy(device_->Page(page), before.data(), before.size());
    EXPECT_EQ(device_->Verify().error, 0);
  }

  bool IsBlk() { return le32toh(device_->header()->type) == KMEM_PERSIST_BLK; }

  // Pages 1 and 2 that count: the one that rules, or BLK's superblock.
  uint64_t RulingPage() {
    if (IsBlk()) return KMEM_BLK_SUPER_PAGE;
    const auto generation = [&](uint64_t page) {
      const auto* root = static_cast<const kmemfs_root*>(device_->Page(page));
      return le32toh(root->head.kind) == KMEMFS_KIND_ROOT
                 ? le64toh(root->head.generation)
                 : 0;
    };
    return generation(1) > generation(2) ? 1 : 2;
  }

  std::filesystem::path scratch_;
  std::unique_ptr<DeviceFile> device_;
  std::string list_;
};

// A header's crc is that of what is before it, one bit at a time.
void SealHeader(kmem_persist_header* header) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(header);
  uint32_t crc = ~0U;
  for (size_t i = 0; i < offsetof(kmem_persist_header, crc); i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++)
      crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78U : 0);
  }
  header->crc = htole32(~crc);
}

// Root slots and BLK's superblock have theirs at the same place.
void SealPage(void* page) {
  const __le32 crc = htole32(kmem_persist_page_crc(page, 4));
  std::memcpy(static_cast<char*>(page) + 4, &crc, sizeof(crc));
}

TEST_P(GoldenFormat, IsTakenAndHasAllThatWasStored) {
  const Verdict verdict = device_->Verify();
  ASSERT_EQ(verdict.error, 0) << verdict.why;
  EXPECT_EQ(device_->List(), list_);
}

TEST_P(GoldenFormat, OfANewerVersionIsRefusedByName) {
  ExpectNewer(
      0,
      [](void* page) {
        auto* header = static_cast<kmem_persist_header*>(page);
        header->version = htole32(kFarVersion);
        SealHeader(header);
      },
      "header: version 1000, at most ");
}

TEST_P(GoldenFormat, OfATypeThatIsNotKnownIsRefusedByName) {
  ExpectNewer(
      0,
      [](void* page) {
        auto* header = static_cast<kmem_persist_header*>(page);
        header->type = htole32(kFarVersion);
        SealHeader(header);
      },
      "header: unknown type 1000");
}

TEST_P(GoldenFormat, WithAnUnknownFeatureIsRefusedByName) {
  ExpectNewer(
      0,
      [](void* page) {
        auto* header = static_cast<kmem_persist_header*>(page);
        header->incompat = htole64(kUnknownFeature);
        SealHeader(header);
      },
      "header: unknown incompatible features 0x2000000000000000");
  ExpectNewer(
      RulingPage(),
      [this](void* page) {
        if (IsBlk())
          static_cast<kmem_blk_super*>(page)->incompat =
              htole64(kUnknownFeature);
        else
          static_cast<kmemfs_root*>(page)->incompat = htole64(kUnknownFeature);
        SealPage(page);
      },
      "unknown incompatible features 0x2000000000000000");
}

// A feature that a reader may ignore is ignored.
TEST_P(GoldenFormat, WithAnUnknownCompatibleFeatureIsTaken) {
  auto* header = static_cast<kmem_persist_header*>(device_->Page(0));
  header->compat = htole64(kUnknownFeature);
  SealHeader(header);
  void* page = device_->Page(RulingPage());
  if (IsBlk())
    static_cast<kmem_blk_super*>(page)->compat = htole64(kUnknownFeature);
  else
    static_cast<kmemfs_root*>(page)->compat = htole64(kUnknownFeature);
  SealPage(page);
  EXPECT_EQ(device_->Verify().error, 0) << device_->Verify().why;
  EXPECT_EQ(device_->List(), list_);
}

// As make wrote them down.
TEST(GoldenFiles, AreAsTheyWereMade) {
  for (const std::string format : {"v1", "v2"}) {
    const auto directory = std::filesystem::path(DAXSNAP_GOLDEN) / format;
    const auto facts =
        nlohmann::json::parse(ReadFile(directory / "golden.json"));
    std::string sums;
    for (const auto& [name, sum] : facts.at("sha256").items())
      sums += sum.get<std::string>() + "  " + name + "\n";
    EXPECT_FALSE(sums.empty());
    const std::string command = "cd " + directory.string() +
                                " && sha256sum --quiet -c <<END\n" + sums +
                                "END\n";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenFormat,
                         ::testing::Values(Golden{"v1", "kmemfs"},
                                           Golden{"v1", "blk"},
                                           Golden{"v2", "kmemfs"},
                                           Golden{"v2", "blk"}),
                         [](const ::testing::TestParamInfo<Golden>& info) {
                           return info.param.format + "_" + info.param.name;
                         });

}  // namespace
}  // namespace daxsnap::golden
