// SPDX-License-Identifier: Apache-2.0
#include "host/pool/origin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace daxsnap::pool {
namespace {

// A sysfs with one DAX device.
class OriginTest : public ::testing::Test {
 protected:
  OriginTest()
      : sysfs_(::testing::TempDir() + "/origin-" + std::to_string(getpid())) {
    std::filesystem::create_directories(sysfs_ + "/bus/dax/devices");
    Put("/firmware/memmap/0/type", "System RAM\n");
    Put("/firmware/memmap/0/start", "0x0\n");
    Put("/firmware/memmap/0/end", "0x7fffffff\n");
  }
  ~OriginTest() override { std::filesystem::remove_all(sysfs_); }

  void Put(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = sysfs_ + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  // Below /devices; an nvdimm region if `devtype` is not empty.
  void AddDevice(const std::string& parent, const std::string& devtype) const {
    const std::string region = "/devices/" + parent;
    Put(region + "/dax0.0/resource", "0x100000000\n");
    Put(region + "/dax0.0/size", "1073741824\n");
    if (!devtype.empty()) {
      Put(region + "/devtype", devtype + "\n");
      Put(region + "/resource", "0x100000000\n");
      Put(region + "/size", "0x80000000\n");
    }
    std::filesystem::create_symlink("../../.." + region + "/dax0.0",
                                    sysfs_ + "/bus/dax/devices/dax0.0");
  }

  // Of `memmap=1G!1G`, or of firmware of before the NFIT.
  void AddLegacy() const {
    AddDevice("platform/e820_pmem/ndbus0/region0", "nd_pmem");
    Put("/devices/platform/e820_pmem/ndbus0/region0/resource", "0x40000000\n");
    Put("/devices/platform/e820_pmem/ndbus0/region0/size", "1073741824\n");
  }

  std::string sysfs_;
};

TEST_F(OriginTest, NvdimmOfTheFirmwareIsPersistent) {
  AddDevice("LNXSYSTM:00/ACPI0012:00/ndbus0/region0", "nd_pmem");
  // Not a word of it, as in many machines.
  Put("/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0/persistence_domain",
      "\n");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_TRUE(origin->persistent);
  EXPECT_EQ(origin->set_aside, PhysicalRange{});
  EXPECT_EQ(origin->range, (PhysicalRange{4ULL << 30, 6ULL << 30}));
  EXPECT_FALSE(origin->soft_reserved);
  EXPECT_THAT(origin->drivers, ::testing::Contains("CONFIG_ACPI_NFIT"));
}

TEST_F(OriginTest, VirtioPmemIsPersistent) {
  AddDevice("pci0000:00/virtio3/ndbus0/region0", "nd_pmem");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_TRUE(origin->persistent);
  EXPECT_THAT(origin->drivers, ::testing::Contains("CONFIG_VIRTIO_PMEM"));
}

TEST_F(OriginTest, VolatileRegionOfTheFirmwareIsNot) {
  AddDevice("LNXSYSTM:00/ACPI0012:00/ndbus0/region0", "nd_volatile");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_FALSE(origin->persistent);
}

TEST_F(OriginTest, RamThatTheCommandLineSetsAsideIsNot) {
  AddLegacy();
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_FALSE(origin->persistent);
  EXPECT_EQ(origin->set_aside, (PhysicalRange{1U << 30, 2U << 30}));
}

TEST_F(OriginTest, LegacyMemoryThatTheFirmwareListsIsPersistent) {
  AddLegacy();
  Put("/firmware/memmap/1/type", "Persistent Memory (legacy)\n");
  Put("/firmware/memmap/1/start", "0x40000000\n");
  Put("/firmware/memmap/1/end", "0x7fffffff\n");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_TRUE(origin->persistent);
  EXPECT_EQ(origin->set_aside, PhysicalRange{});
}

TEST_F(OriginTest, MemoryForASpecialPurposeIsNotAndNeedsWhatLeavesItAlone) {
  AddDevice("platform/hmem.0", "");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_FALSE(origin->persistent);
  EXPECT_TRUE(origin->soft_reserved);
  EXPECT_EQ(origin->range, (PhysicalRange{4ULL << 30, 5ULL << 30}));
  EXPECT_THAT(origin->drivers,
              ::testing::UnorderedElementsAre("CONFIG_DEV_DAX_HMEM",
                                              "CONFIG_EFI_SOFT_RESERVE"));
}

TEST_F(OriginTest, VolatileMemoryOfCxlNeedsItsDrivers) {
  AddDevice("platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0", "");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_FALSE(origin->persistent);
  EXPECT_FALSE(origin->soft_reserved);
  EXPECT_THAT(origin->drivers, ::testing::IsSupersetOf({"CONFIG_CXL_REGION",
                                                        "CONFIG_DEV_DAX_CXL"}));
  Put("/firmware/memmap/1/type", "Soft Reserved\n");
  Put("/firmware/memmap/1/start", "0x100000000\n");
  Put("/firmware/memmap/1/end", "0x1ffffffff\n");
  const auto listed = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_TRUE(listed->soft_reserved);
  EXPECT_THAT(listed->drivers, ::testing::Contains("CONFIG_EFI_SOFT_RESERVE"));
}

TEST_F(OriginTest, PersistentMemoryOfCxlIsNotOfTheNfit) {
  AddDevice("platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus0/region0",
            "nd_pmem");
  const auto origin = FindOrigin("dax0.0", sysfs_);
  ASSERT_TRUE(origin.ok()) << origin.status();
  EXPECT_TRUE(origin->persistent);
  EXPECT_THAT(origin->drivers,
              ::testing::IsSupersetOf({"CONFIG_CXL_PMEM", "CONFIG_CXL_REGION",
                                       "CONFIG_DEV_DAX_PMEM"}));
  EXPECT_THAT(origin->drivers,
              ::testing::Not(::testing::Contains("CONFIG_ACPI_NFIT")));
}

TEST_F(OriginTest, WhatIsNotThereCannotBeTold) {
  EXPECT_TRUE(absl::IsUnavailable(FindOrigin("dax0.0", sysfs_).status()));
  EXPECT_FALSE(FindOrigin("", sysfs_ + "/none").ok());
  AddDevice("platform/e820_pmem/ndbus0/region0", "nd_pmem");
  std::filesystem::remove(sysfs_ +
                          "/devices/platform/e820_pmem/ndbus0/region0/size");
  EXPECT_TRUE(absl::IsUnavailable(FindOrigin("dax0.0", sysfs_).status()))
      << "where is the region?";
}

}  // namespace
}  // namespace daxsnap::pool
