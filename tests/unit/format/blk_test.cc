// SPDX-License-Identifier: Apache-2.0
//
// What a device of type BLK has on media, and that only that is taken.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/kmem_blk_format.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace daxsnap::format {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr uint64_t kPages = 4000;
constexpr uint64_t kBlocks = 1300;  // the last page of the map is not full
constexpr uint64_t kMapPages = 3;
constexpr uint64_t kFirst = KMEM_BLK_MAP_PAGE + kMapPages;
constexpr uint8_t kUuid[16] = {0xb1, 0x0c, 3, 4, 5, 6, 7, 8,
                               9,    10,   1, 2, 3, 4, 5, 6};

static_assert(sizeof(kmem_blk_super) == 4096);
static_assert(offsetof(kmem_blk_super, magic) == 0);
static_assert(offsetof(kmem_blk_super, crc) == 4);
static_assert(offsetof(kmem_blk_super, uuid) == 8);
static_assert(offsetof(kmem_blk_super, nr_blocks) == 24);
static_assert(offsetof(kmem_blk_super, incompat) == 32);
static_assert(offsetof(kmem_blk_super, compat) == 40);

// Header, superblock and map of a device with some blocks stored.
class Blk : public testing::Test {
 protected:
  Blk() : bytes_(kFirst * kPage) {
    kmem_persist_header_init(reinterpret_cast<kmem_persist_header*>(&bytes_[0]),
                             KMEM_PERSIST_BLK, kUuid, nullptr, kPages * kPage);
    kmem_blk_mkfs(&bytes_[kPage], kUuid, kBlocks);
    EXPECT_EQ(kmem_blk_layout_read(bytes_.data(), kPages, &layout_, nullptr),
              0);
    for (uint64_t block = 0; block < kBlocks; block += 7)
      Put(block, kFirst + 2 * block);
    Put(kBlocks - 1, kPages - 1);
  }

  kmem_blk_super* super() {
    return reinterpret_cast<kmem_blk_super*>(&bytes_[kPage]);
  }
  __le64* map() {
    return reinterpret_cast<__le64*>(&bytes_[KMEM_BLK_MAP_PAGE * kPage]);
  }
  void Put(uint64_t block, uint64_t page) {
    map()[block] = kmem_blk_entry(&layout_, block, static_cast<__u32>(page));
  }
  void Seal() {
    super()->crc =
        htole32(kmem_persist_page_crc(super(), offsetof(kmem_blk_super, crc)));
  }

  // 0 and stored_, or the error and why_.
  int Verify() {
    kmem_persist_why why = {};
    kmem_blk_layout layout;
    std::vector<unsigned long> used(kPages);
    int r = kmem_blk_layout_read(bytes_.data(), kPages, &layout, &why);
    if (r == 0)
      r = kmem_blk_map_verify(&layout, map(), used.data(), &stored_, &why);
    why_ = why.text;
    EXPECT_EQ(r == 0, why_.empty()) << why_;
    return r;
  }

  std::vector<uint8_t> bytes_;
  kmem_blk_layout layout_ = {};
  __u64 stored_ = 0;
  std::string why_;
};

TEST_F(Blk, IsTakenWithTheBlocksThatAreStored) {
  ASSERT_EQ(Verify(), 0) << why_;
  EXPECT_EQ(stored_, (kBlocks + 6) / 7 + 1);
  EXPECT_EQ(layout_.nr_blocks, kBlocks);
  EXPECT_EQ(layout_.map_pages, kMapPages);
  EXPECT_EQ(layout_.first, kFirst);
  EXPECT_EQ(layout_.end, kPages);
  for (uint64_t block = 0; block + 1 < kBlocks; block++) {
    const auto page = static_cast<uint64_t>(
        kmem_blk_entry_page(&layout_, block, map()[block]));
    ASSERT_EQ(page, block % 7 ? 0 : kFirst + 2 * block);
  }
}

// The bytes on media are a promise: a change here breaks every existing device.
TEST_F(Blk, HasTheBytesThatTheDocumentationSays) {
  EXPECT_EQ(std::memcmp(super(), "KBLK", 4), 0);
  EXPECT_EQ(map()[0], htole64(0x6201c64200000006)) << std::hex << map()[0];
  EXPECT_EQ(map()[1], htole64(0x2368b39f00000000)) << std::hex << map()[1];
}

TEST_F(Blk, CapacityLeavesRoomForTheMap) {
  for (uint64_t pages = 0; pages < 3000; pages++) {
    const uint64_t blocks = kmem_blk_max_blocks(pages);
    if (pages <= KMEM_BLK_MAP_PAGE + 1) {
      ASSERT_EQ(blocks, 0U) << pages;
      continue;
    }
    ASSERT_LE(KMEM_BLK_MAP_PAGE + kmem_blk_map_pages(blocks) + blocks, pages);
    ASSERT_GT(KMEM_BLK_MAP_PAGE + kmem_blk_map_pages(blocks + 1) + blocks + 1,
              pages);
  }
}

TEST_F(Blk, RefusesEveryFlippedBit) {
  std::mt19937_64 random(20260303);
  const auto flip_and_verify = [&](size_t bit) {
    bytes_[bit / 8] ^= static_cast<uint8_t>(1U << bit % 8);
    EXPECT_EQ(Verify(), -EUCLEAN) << "bit " << bit;
    bytes_[bit / 8] ^= static_cast<uint8_t>(1U << bit % 8);
  };
  for (size_t bit = 8 * kPage; bit < 8 * (kPage + 64); bit++)
    flip_and_verify(bit);
  for (int i = 0; i < 4000; i++)
    flip_and_verify(8 * kPage + random() % (8 * (kFirst - 1) * kPage));
  ASSERT_EQ(Verify(), 0) << why_;
}

TEST_F(Blk, RefusesZeroedAndSwappedAndCopiedEntries) {
  const std::vector<uint8_t> good = bytes_;
  const struct {
    const char* what;
    std::function<void()> damage;
  } cases[] = {
      {"a stored block's", [&] { map()[7] = 0; }},
      {"an empty block's", [&] { map()[8] = 0; }},
      {"two", [&] { std::swap(map()[7], map()[14]); }},
      {"a copy", [&] { map()[1] = map()[7]; }},
      {"a page",
       [&] { std::memset(&bytes_[KMEM_BLK_MAP_PAGE * kPage], 0, kPage); }},
      {"a page of another device",
       [&] {
         uint8_t uuid[16] = {1};
         std::vector<uint8_t> other(kFirst * kPage);
         kmem_blk_mkfs(&other[kPage], uuid, kBlocks);
         std::memcpy(map(), &other[KMEM_BLK_MAP_PAGE * kPage], kPage);
       }},
      {"two pages",
       [&] {
         std::swap_ranges(map(), map() + KMEM_BLK_MAP_ENTRIES,
                          map() + KMEM_BLK_MAP_ENTRIES);
       }},
  };
  for (const auto& [what, damage] : cases) {
    damage();
    EXPECT_EQ(Verify(), -EUCLEAN) << what;
    EXPECT_THAT(why_, HasSubstr("is damaged")) << what;
    bytes_ = good;
  }
}

// With right check bits, as a malicious device would have them.
TEST_F(Blk, RefusesAPageThatTwoBlocksHave) {
  Put(100, kFirst);
  EXPECT_EQ(Verify(), -EUCLEAN);
  EXPECT_THAT(why_, HasSubstr("of block 100 and of another"));
}

TEST_F(Blk, RefusesPagesThatCannotHoldBlocks) {
  for (const uint64_t page : {uint64_t{1}, uint64_t{KMEM_BLK_MAP_PAGE},
                              kFirst - 1, kPages, uint64_t{0xffffffff}}) {
    Put(100, page);
    EXPECT_EQ(Verify(), -EUCLEAN) << page;
    EXPECT_THAT(why_,
                HasSubstr("block 100 is in page " + std::to_string(page)));
  }
  kmem_persist_why why = {};
  std::vector<unsigned long> used(kPages);
  Put(100, 0);
  layout_.first = kFirst + 1;  // as a machine may have it
  EXPECT_EQ(kmem_blk_map_verify(&layout_, map(), used.data(), &stored_, &why),
            -EUCLEAN);
  EXPECT_THAT(why.text, HasSubstr("block 0 is in page"));
}

TEST_F(Blk, IsTakenOnlyIfTheRulesHold) {
  std::mt19937_64 random(20260304);
  const std::vector<uint8_t> good = bytes_;
  int taken = 0;
  for (int round = 0; round < 2000; round++) {
    for (uint64_t n = 1 + random() % 3; n > 0; n--)
      Put(random() % kBlocks, random() % (kPages + 8));
    std::set<uint64_t> pages;
    bool holds = true;
    for (uint64_t block = 0; block < kBlocks; block++) {
      const uint64_t page = le64toh(map()[block]) & 0xffffffff;
      if (page == 0) continue;
      holds &= page >= kFirst && page < kPages && pages.insert(page).second;
    }
    ASSERT_EQ(Verify() == 0, holds) << "round " << round << ": " << why_;
    if (holds) {
      ASSERT_EQ(stored_, pages.size());
      taken++;
    }
    bytes_ = good;
  }
  // Else the test would not test both.
  EXPECT_GT(taken, 500);
  EXPECT_LT(taken, 1990);
}

TEST_F(Blk, RefusesSuperblocksThatDoNotFit) {
  const std::vector<uint8_t> good = bytes_;
  const struct {
    const char* why;
    int error;
    std::function<void()> damage;
  } cases[] = {
      {"wrong magic", -EUCLEAN, [&] { super()->magic = 0; }},
      {"uuid is not that of the header", -EUCLEAN,
       [&] { super()->uuid[0] ^= 1; }},
      {"unknown incompatible features 0x10", -EOPNOTSUPP,
       [&] { super()->incompat = htole64(0x10); }},
      {"reserved bytes not zero", -EUCLEAN,
       [&] { super()->reserved[4000] = 1; }},
      {"0 blocks", -EUCLEAN, [&] { super()->nr_blocks = 0; }},
      {"3990 blocks on a device of 4000", -EUCLEAN,
       [&] { super()->nr_blocks = htole64(3990); }},
      {"18446744073709551615 blocks", -EUCLEAN,
       [&] { super()->nr_blocks = ~0ULL; }},
      {"page 2 is not zero", -EUCLEAN, [&] { bytes_[3 * kPage - 1] = 1; }},
      {"not zero behind the last entry", -EUCLEAN, [&] { map()[kBlocks] = 1; }},
  };
  for (const auto& [why, error, damage] : cases) {
    damage();
    Seal();
    EXPECT_EQ(Verify(), error) << why;
    EXPECT_THAT(why_, HasSubstr(why));
    bytes_ = good;
  }
  super()->compat = ~0ULL;
  Seal();
  EXPECT_EQ(Verify(), 0) << why_;
}

TEST_F(Blk, RefusesDevicesWithMorePagesThanAnEntryCanName) {
  kmem_persist_why why = {};
  EXPECT_EQ(kmem_blk_layout_read(bytes_.data(), KMEM_BLK_MAX_PAGES + 1,
                                 &layout_, &why),
            -EOPNOTSUPP);
  EXPECT_EQ(
      kmem_blk_layout_read(bytes_.data(), KMEM_BLK_MAX_PAGES, &layout_, &why),
      0);
}

}  // namespace
}  // namespace daxsnap::format
