// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <gtest/gtest.h>
#include <linux/kmem_blk_format.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "format.h"

namespace daxsnap::format {
namespace {

constexpr uint64_t kSize = 1ULL << 30;
constexpr uint8_t kUuid[16] = {1, 2, 3};

kmem_persist_header Header(const char* label = "pool") {
  kmem_persist_header header;
  std::memset(&header, 0xa5, sizeof(header));
  kmem_persist_header_init(&header, KMEM_PERSIST_FS, kUuid, label, kSize);
  return header;
}

// The crc of what is before its field, one bit at a time.
void Seal(kmem_persist_header* header) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(header);
  uint32_t crc = ~0U;
  for (size_t i = 0; i < offsetof(kmem_persist_header, crc); i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++)
      crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78U : 0);
  }
  header->crc = htole32(~crc);
}

struct Refusal {
  const char* name;
  std::function<void(kmem_persist_header*)> change;
  int error;
  const char* reason;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

class HeaderRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(HeaderRefuses, WithItsReason) {
  kmem_persist_header header = Header();
  GetParam().change(&header);
  Seal(&header);
  kmem_persist_why why = {};
  EXPECT_EQ(kmem_persist_header_verify(&header, kSize, &why),
            -GetParam().error);
  EXPECT_NE(std::string(why.text).find(GetParam().reason), std::string::npos)
      << why.text;
}

INSTANTIATE_TEST_SUITE_P(
    Format, HeaderRefuses,
    testing::Values(
        Refusal{"Magic", [](auto* h) { h->magic[0] ^= 1; }, EUCLEAN,
                "wrong magic"},
        Refusal{"VersionZero", [](auto* h) { h->version = 0; }, EUCLEAN,
                "version 0"},
        Refusal{"NewerVersion", [](auto* h) { h->version = htole32(2); },
                EOPNOTSUPP, "version 2, at most 1"},
        Refusal{"UnknownIncompat",
                [](auto* h) { h->incompat = htole64(1ULL << 40); }, EOPNOTSUPP,
                "0x10000000000"},
        Refusal{"TypeZero", [](auto* h) { h->type = 0; }, EOPNOTSUPP,
                "unknown type 0"},
        Refusal{"UnknownType", [](auto* h) { h->type = htole32(4); },
                EOPNOTSUPP, "unknown type 4"},
        Refusal{"UuidLength", [](auto* h) { h->uuid_len = htole32(15); },
                EUCLEAN, "uuid length 15, expected 16"},
        Refusal{"RangeSize",
                [](auto* h) { h->range_size = htole64(kSize + 4096); }, EUCLEAN,
                "written for 1073745920 bytes, but the device has 1073741824"},
        Refusal{"LabelWithoutEnd",
                [](auto* h) { std::memset(h->label, 'x', 64); }, EUCLEAN,
                "label"},
        Refusal{"LabelPadding", [](auto* h) { h->label[63] = 'x'; }, EUCLEAN,
                "label"},
        Refusal{"Reserved0", [](auto* h) { h->reserved0 = htole32(1); },
                EUCLEAN, "reserved"},
        Refusal{"FirstReserved", [](auto* h) { h->reserved[0] = 1; }, EUCLEAN,
                "reserved"},
        Refusal{"LastReserved",
                [](auto* h) { h->reserved[sizeof(h->reserved) - 1] = 1; },
                EUCLEAN, "reserved"}),
    [](const auto& info) { return info.param.name; });

TEST(Header, IsTakenAsInitWritesIt) {
  for (const uint32_t type :
       {KMEM_PERSIST_NONE, KMEM_PERSIST_BLK, KMEM_PERSIST_FS}) {
    kmem_persist_header header;
    kmem_persist_header_init(&header, type, kUuid, nullptr, kSize);
    EXPECT_EQ(kmem_persist_header_verify(&header, kSize, nullptr), 0) << type;
  }
}

TEST(Header, IgnoresCompatFeatures) {
  kmem_persist_header header = Header();
  header.compat = htole64(~0ULL);
  Seal(&header);
  EXPECT_EQ(kmem_persist_header_verify(&header, kSize, nullptr), 0);
}

TEST(Header, CutsALongLabel) {
  const kmem_persist_header header = Header(std::string(100, 'x').c_str());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(header.label)),
            std::string(63, 'x'));
  EXPECT_EQ(kmem_persist_header_verify(&header, kSize, nullptr), 0);
}

TEST(Header, RefusesEveryFlippedBit) {
  const kmem_persist_header good = Header();
  for (size_t bit = 0; bit < 8 * sizeof(good); bit++) {
    kmem_persist_header bad = good;
    reinterpret_cast<uint8_t*>(&bad)[bit / 8] ^=
        static_cast<uint8_t>(1U << (bit % 8));
    ASSERT_EQ(kmem_persist_header_verify(&bad, kSize, nullptr), -EUCLEAN)
        << bit;
  }
}

TEST(Header, IsPresentHoweverOnePlaceIsDamaged) {
  const kmem_persist_header good = Header();
  EXPECT_TRUE(kmem_persist_header_present(&good));
  for (size_t byte = 0; byte < sizeof(good); byte++) {
    kmem_persist_header bad = good;
    reinterpret_cast<uint8_t*>(&bad)[byte] ^= 0xff;
    ASSERT_TRUE(kmem_persist_header_present(&bad)) << byte;
  }
  kmem_persist_header no_magic = good;
  std::memset(no_magic.magic, 0, sizeof(no_magic.magic));
  EXPECT_TRUE(kmem_persist_header_present(&no_magic));
}

// A page that begins as the root of each type does, sealed.
std::vector<uint8_t> Root(uint32_t kind) {
  std::vector<uint8_t> page(4096, 0);
  kmem_persist_root root = {};
  root.kind = htole32(kind);
  std::memcpy(root.uuid, kUuid, sizeof(root.uuid));
  std::memcpy(page.data(), &root, sizeof(root));
  page[4000] = 7;
  root.crc = htole32(kmem_persist_page_crc(page.data(), 4));
  std::memcpy(page.data(), &root, sizeof(root));
  return page;
}

TEST(Header, IsTestifiedByTheRootOfEachType) {
  EXPECT_EQ(kmem_persist_root_type(Root(0x544f4f52).data()), KMEM_PERSIST_FS);
  EXPECT_EQ(kmem_persist_root_type(Root(0x4b4c424b).data()), KMEM_PERSIST_BLK);

  std::vector<uint8_t> pages(6 * 4096);
  kmemfs_mkfs(reinterpret_cast<kmemfs_root*>(pages.data()), kUuid, 2, 0);
  EXPECT_EQ(kmem_persist_root_type(pages.data()), KMEM_PERSIST_FS);
  EXPECT_EQ(kmem_persist_root_type(pages.data() + 4096), 0U) << "empty slot";
  kmem_blk_mkfs(pages.data(), kUuid, 600);
  EXPECT_EQ(kmem_persist_root_type(pages.data()), KMEM_PERSIST_BLK);
  EXPECT_EQ(
      std::memcmp(pages.data() + offsetof(kmem_persist_root, uuid), kUuid, 16),
      0);
}

TEST(Header, IsNotTestifiedByAnythingElse) {
  for (const uint32_t kind : {0x44544552U, 0x58444e49U, 0U, ~0U})
    EXPECT_EQ(kmem_persist_root_type(Root(kind).data()), 0U) << kind;
  const std::vector<uint8_t> good = Root(0x544f4f52);
  for (size_t byte = 0; byte < good.size(); byte++) {
    std::vector<uint8_t> bad = good;
    bad[byte] ^= 1;
    ASSERT_EQ(kmem_persist_root_type(bad.data()), 0U) << byte;
  }
  for (const int fill : {0, 0xff, 0xa5})
    EXPECT_EQ(kmem_persist_root_type(std::vector<uint8_t>(4096, fill).data()),
              0U);
}

TEST(Header, IsAbsentOnADeviceOfSomebodyElse) {
  alignas(8) uint8_t page[4096];
  for (const int fill : {0, 0xff, 0xa5}) {
    std::memset(page, fill, sizeof(page));
    EXPECT_FALSE(kmem_persist_header_present(page)) << fill;
  }
}

}  // namespace
}  // namespace daxsnap::format
