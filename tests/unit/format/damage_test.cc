// SPDX-License-Identifier: Apache-2.0
//
// One damaged page does not hide what is whole: with a callback for damage, a
// walk loses just what only that page leads to, and says what that is.
#include <endian.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"
#include "tests/unit/format/sample.h"

namespace daxsnap::format {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

struct Loss {
  uint64_t page = 0;
  uint64_t ino = 0;
  uint64_t at = 0;
  uint64_t count = 0;

  auto operator<=>(const Loss&) const =
      default;  // NOLINT(modernize-use-nullptr)
};

void PrintTo(const Loss& loss, std::ostream* out) {
  *out << "page " << loss.page << " of inode " << loss.ino << ": " << loss.count
       << " from " << loss.at;
}

// All that a walk reports, taken apart as far as it can be lost.
struct Report {
  int error = 0;
  std::string why;
  std::multiset<uint64_t> meta;
  std::set<uint64_t> inodes;
  std::set<uint64_t> links;
  std::map<uint64_t, std::map<uint64_t, uint64_t>> pages;  // ino, file page
  std::set<std::tuple<uint64_t, uint64_t, uint64_t, uint64_t>> segments;
  std::set<uint64_t> sums;  // leaves
  std::vector<Loss> losses;
  std::vector<std::string> reasons;
  bool with_seen = true;
};

Report* Of(void* ctx) { return static_cast<Report*>(ctx); }

int OnMeta(void* ctx, __u64 page, kmemfs_page_kind kind, __u32) {
  const bool first = !Of(ctx)->meta.contains(page);
  Of(ctx)->meta.insert(page);
  const bool file = kind == KMEMFS_KIND_SEGMENT || kind == KMEMFS_KIND_NODE;
  return file && !first && Of(ctx)->with_seen ? KMEMFS_SEEN : 0;
}

int OnDamage(void* ctx, __u64 page, __u64 ino, __u64 at, __u64 count,
             const char* why) {
  Of(ctx)->losses.push_back(
      {.page = page, .ino = ino, .at = at, .count = count});
  Of(ctx)->reasons.emplace_back(why);
  return 0;
}

kmemfs_visitor Visitor() {
  kmemfs_visitor visitor = {};
  visitor.meta = OnMeta;
  visitor.inode = [](void* ctx, const kmemfs_inode_record* record) {
    Of(ctx)->inodes.insert(le64toh(record->ino));
    return 0;
  };
  visitor.link = [](void* ctx, const kmemfs_inode_record* record) {
    Of(ctx)->links.insert(le64toh(record->ino));
    return 0;
  };
  visitor.run = [](void* ctx, __u64 ino, __u64 at, __u64 count, __u64 page) {
    for (uint64_t i = 0; i < count; i++)
      EXPECT_TRUE(Of(ctx)->pages[ino].emplace(at + i, page + i).second);
    return 0;
  };
  visitor.segment = [](void* ctx, __u64 ino, __u64 page, __u32, __u64 at,
                       __u64 count, __u32) {
    Of(ctx)->segments.emplace(ino, page, at, count);
    return 0;
  };
  visitor.sums = [](void* ctx, __u64 leaf, __u64, const kmemfs_sums*) {
    Of(ctx)->sums.insert(leaf);
    return 0;
  };
  visitor.damage = OnDamage;
  return visitor;
}

Report Walk(const Image& image, const kmemfs_root_info& root) {
  Report report;
  kmem_persist_why why = {};
  const kmemfs_visitor visitor = Visitor();
  report.error = kmemfs_walk(&image.media(), &root, &visitor, &report, &why);
  report.why = why.text;
  return report;
}

class Damage : public testing::TestWithParam<uint32_t> {
 protected:
  Damage() : image_(kSamplePages, GetParam()), root_(CommitSample(&image_)) {
    good_ = Walk(image_, root_);
    metadata_ = std::set<uint64_t>(good_.meta.begin(), good_.meta.end());
  }

  kmemfs_page_head Head(uint64_t page) {
    return *image_.As<kmemfs_page_head>(page);
  }

  uint64_t Records(uint64_t ino, const Loss& loss) {
    const uint64_t leaf = ino / KMEMFS_INODES_PER_PAGE;
    return !loss.ino && leaf >= loss.at && leaf < loss.at + loss.count;
  }

  // Of all that is said to be lost: whether it covers this.
  bool LostRecord(const Report& report, uint64_t ino) {
    return std::any_of(report.losses.begin(), report.losses.end(),
                       [&](const Loss& loss) { return Records(ino, loss); });
  }
  static bool LostPage(const Report& report, uint64_t ino, uint64_t at) {
    return std::any_of(
        report.losses.begin(), report.losses.end(), [&](const Loss& loss) {
          return loss.ino == ino && at >= loss.at && at - loss.at < loss.count;
        });
  }
  static bool LostSums(const Report& report, uint64_t leaf) {
    return LostPage(report, KMEMFS_INO_SUMS, leaf);
  }

  // What is missing is what is said to be lost, and nothing else is.
  void ExpectExplained(const Report& report) {
    for (const uint64_t ino : good_.inodes)
      EXPECT_NE(report.inodes.contains(ino), LostRecord(report, ino)) << ino;
    for (const uint64_t ino : good_.links)
      EXPECT_NE(report.links.contains(ino), LostRecord(report, ino)) << ino;
    for (const auto& [ino, pages] : good_.pages) {
      if (!report.inodes.contains(ino)) {
        EXPECT_FALSE(report.pages.contains(ino));
        continue;
      }
      const auto found = report.pages.find(ino);
      for (const auto& [at, page] : pages) {
        const bool there =
            found != report.pages.end() && found->second.contains(at);
        EXPECT_NE(there, LostPage(report, ino, at)) << ino << " at " << at;
        if (there) {
          EXPECT_EQ(found->second.at(at), page);
        }
      }
    }
    for (const uint64_t leaf : good_.sums)
      EXPECT_NE(report.sums.contains(leaf), LostSums(report, leaf)) << leaf;
    EXPECT_TRUE(std::includes(good_.meta.begin(), good_.meta.end(),
                              report.meta.begin(), report.meta.end()));
  }

  // What only this page leads to, read from the whole image.
  std::vector<Loss> Below(uint64_t page) {
    const kmemfs_page_head head = Head(page);
    const uint64_t owner = le64toh(head.owner);
    switch (le32toh(head.kind)) {
      case KMEMFS_KIND_INODES:
        return {{page, 0, le64toh(head.first) / KMEMFS_INODES_PER_PAGE, 1}};
      case KMEMFS_KIND_SUMS:
        return {{page, KMEMFS_INO_SUMS,
                 le64toh(head.first) / KMEMFS_SUMS_PER_PAGE, 1}};
      case KMEMFS_KIND_XATTRS:
        return {{page, owner, 0, 0}};
      case KMEMFS_KIND_INDEX:
        return {BelowIndex(page)};
      case KMEMFS_KIND_EXTENTS:
        return {BelowExtents(page)};
      default: {
        std::vector<Loss> losses;
        for (const auto& [ino, at_page, at, count] : good_.segments)
          if (at_page == page) losses.push_back({page, ino, at, count});
        return losses;
      }
    }
  }

  // No table of the sample has a third level, so all leaves are below the top.
  Loss BelowIndex(uint64_t page) {
    const uint64_t owner = le64toh(Head(page).owner);
    if (owner == KMEMFS_OWNER_INODES)
      return BelowLevel1(page, 0, root_.nr_inode_pages);
    if (GetParam() == 2)
      return BelowLevel1(page, KMEMFS_INO_SUMS, root_.nr_sums_pages);
    return {page, owner, 0, good_.pages[owner].rbegin()->first + 1};
  }

  Loss BelowLevel1(uint64_t page, uint64_t ino, uint64_t leaves) {
    const uint64_t first = le64toh(Head(page).first);
    const uint64_t rest = leaves - first;
    if (le32toh(Head(page).level) > 1) return {page, ino, first, rest};
    return {page, ino, first, rest < 504 ? rest : 504};
  }

  // From the end of the run before the leaf to the first one behind it.
  Loss BelowExtents(uint64_t page) {
    const auto* leaf = image_.As<kmemfs_extents>(page);
    const uint64_t ino = le64toh(leaf->head.owner);
    const auto& pages = good_.pages[ino];
    const kmemfs_run& first = leaf->run[0];
    const kmemfs_run& last = leaf->run[le32toh(leaf->head.nr) - 1];
    const auto begin = pages.lower_bound(le32toh(first.file_page));
    const auto end =
        pages.lower_bound(le32toh(last.file_page) + le32toh(last.count));
    const uint64_t from =
        begin == pages.begin() ? 0 : std::prev(begin)->first + 1;
    const uint64_t to =
        end == pages.end() ? pages.rbegin()->first + 1 : end->first;
    return {page, ino, from, to - from};
  }

  Image image_;
  kmemfs_root_info root_;
  Report good_;
  std::set<uint64_t> metadata_;
};

INSTANTIATE_TEST_SUITE_P(Version, Damage, testing::Values(1U, 2U),
                         [](const auto& info) {
                           return std::to_string(info.param);
                         });

TEST_P(Damage, IsNotReportedOfWhatIsWhole) {
  ASSERT_EQ(good_.error, 0) << good_.why;
  EXPECT_THAT(good_.losses, IsEmpty());
  EXPECT_EQ(metadata_.size(), root_.nr_meta_pages);
  EXPECT_THAT(Recover(image_.media()), Taken());
}

TEST_P(Damage, OfAnyPageLosesWhatOnlyThatPageLeadsTo) {
  for (const uint64_t page : metadata_) {
    SCOPED_TRACE("page " + std::to_string(page));
    std::vector<Loss> expected = Below(page);
    image_.As<uint8_t>(page)[100] ^= 1;
    const Report report = Walk(image_, root_);
    image_.As<uint8_t>(page)[100] ^= 1;
    ASSERT_EQ(report.error, 0) << report.why;
    std::vector<Loss> losses = report.losses;
    std::sort(losses.begin(), losses.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(losses, expected);
    EXPECT_FALSE(losses.empty());
    EXPECT_EQ(report.reasons[0],
              "page " + std::to_string(page) + ": wrong crc");
    EXPECT_FALSE(report.meta.contains(page));
    ExpectExplained(report);
  }
}

TEST_P(Damage, OfAPageThatCannotBeReadIsTheSame) {
  static uint64_t bad;
  static const void* (*read)(const kmemfs_media*, __u64);
  read = image_.media().page;
  image_.mutable_media().page = [](const kmemfs_media* m, __u64 page) {
    return page == bad ? nullptr : read(m, page);
  };
  for (const uint64_t page : metadata_) {
    SCOPED_TRACE("page " + std::to_string(page));
    bad = page;
    const Report report = Walk(image_, root_);
    ASSERT_EQ(report.error, 0) << report.why;
    ASSERT_FALSE(report.losses.empty());
    EXPECT_EQ(report.reasons[0],
              "page " + std::to_string(page) + ": cannot be read");
    ExpectExplained(report);
  }
}

// Any two pages at once; what one of them hides is not said of the other.
TEST_P(Damage, OfTwoPagesIsExplained) {
  const std::vector<uint64_t> pages(metadata_.begin(), metadata_.end());
  for (size_t i = 0; i < pages.size(); i++) {
    for (size_t j = i + 1; j < pages.size(); j++) {
      SCOPED_TRACE(std::to_string(pages[i]) + ", " + std::to_string(pages[j]));
      image_.As<uint8_t>(pages[i])[100] ^= 1;
      image_.As<uint8_t>(pages[j])[100] ^= 1;
      const Report report = Walk(image_, root_);
      image_.As<uint8_t>(pages[i])[100] ^= 1;
      image_.As<uint8_t>(pages[j])[100] ^= 1;
      ASSERT_EQ(report.error, 0) << report.why;
      ExpectExplained(report);
    }
  }
}

TEST_P(Damage, OfARecordLosesThatRecordOnly) {
  for (const uint64_t ino : good_.inodes) {
    for (const uint64_t page : metadata_) {
      const kmemfs_page_head head = Head(page);
      if (le32toh(head.kind) != KMEMFS_KIND_INODES ||
          ino / KMEMFS_INODES_PER_PAGE !=
              le64toh(head.first) / KMEMFS_INODES_PER_PAGE)
        continue;
      auto* record =
          &image_.As<kmemfs_inodes>(page)->record[ino % KMEMFS_INODES_PER_PAGE];
      const __le32 mode = record->mode;
      record->mode = htole32(0777);
      image_.Seal(page);
      const Report report = Walk(image_, root_);
      record->mode = mode;
      image_.Seal(page);
      ASSERT_EQ(report.error, 0) << report.why;
      EXPECT_THAT(report.losses, ElementsAre(Loss{0, ino, 0, 0}));
      std::set<uint64_t> rest = good_.inodes;
      rest.erase(ino);
      EXPECT_EQ(report.inodes, rest);
      EXPECT_EQ(report.links, good_.links);
      EXPECT_FALSE(report.pages.contains(ino));
    }
  }
}

TEST_P(Damage, OfCountsLosesNothing) {
  const uint64_t leaf = [&] {
    for (const uint64_t page : metadata_)
      if (le32toh(Head(page).kind) == KMEMFS_KIND_INODES && !Head(page).first)
        return page;
    return uint64_t{0};
  }();
  auto* record = &image_.As<kmemfs_inodes>(leaf)->record[2];
  record->nr_pages = htole64(6);
  image_.Seal(leaf);
  const Report report = Walk(image_, root_);
  EXPECT_THAT(report.losses,
              ElementsAre(Loss{le64toh(record->extents), 2, 0, 0}));
  EXPECT_EQ(report.pages, good_.pages);
  EXPECT_THAT(Recover(image_.media()), Refused(EUCLEAN, "wrong counts"));
}

TEST_P(Damage, OfWhichACallbackTells) {
  kmemfs_visitor visitor = Visitor();
  visitor.meta = [](void*, __u64, kmemfs_page_kind kind, __u32) {
    return kind == KMEMFS_KIND_INODES ? -EUCLEAN : 0;
  };
  Report report;
  EXPECT_EQ(kmemfs_walk(&image_.media(), &root_, &visitor, &report, nullptr),
            0);
  EXPECT_THAT(report.losses, SizeIs(testing::Ge(3U)));
  EXPECT_THAT(report.inodes, IsEmpty());
  EXPECT_THAT(report.reasons, testing::Each(""));
}

TEST_P(Damage, EndsTheWalkIfTheCallbackSaysSo) {
  image_.As<uint8_t>(*metadata_.begin())[100] ^= 1;
  kmemfs_visitor visitor = Visitor();
  visitor.damage = [](void*, __u64, __u64, __u64, __u64, const char*) {
    return -5;
  };
  Report report;
  EXPECT_EQ(kmemfs_walk(&image_.media(), &root_, &visitor, &report, nullptr),
            -5);
  report = {};
  visitor.damage = nullptr;
  EXPECT_EQ(kmemfs_walk(&image_.media(), &root_, &visitor, &report, nullptr),
            -EUCLEAN);
}

// Extent trees say nowhere how much of the file is below an index page.
TEST(DamageOfExtents, ReachesUpToTheNextRunThatIsThere) {
  constexpr uint64_t kLeaves = 504 * 2 + 3;
  Image image(kLeaves + 20);
  const uint64_t data = image.Allocate();
  Inode file = File(2, "f", {});
  for (uint64_t i = 0; i < kLeaves * KMEMFS_RUNS_PER_PAGE; i++)
    file.runs.push_back({.file_page = 2 * i, .page = data});
  file.size = (2 * kLeaves * KMEMFS_RUNS_PER_PAGE + 10) * KMEMFS_PAGE_SIZE;
  const kmemfs_root_info root = image.Commit({RootDirectory(), file});
  const Recovery recovery = Recover(image.media());
  ASSERT_THAT(recovery, Taken());
  const uint64_t leaf_pages = uint64_t{2} * KMEMFS_RUNS_PER_PAGE;
  const auto* top = image.As<kmemfs_index>(
      le64toh(image.As<kmemfs_inodes>(data + 1)->record[2].extents));
  ASSERT_EQ(le32toh(top->head.nr), 3U);
  const auto child = [&](const kmemfs_index* index, uint64_t i) {
    return le64toh(index->page[i]);
  };
  const auto* second = image.As<kmemfs_index>(child(top, 1));

  // Two leaves in a row, then the index page in the middle.
  const uint64_t lost = child(second, 7);
  image.As<uint8_t>(lost)[100] ^= 1;
  image.As<uint8_t>(child(second, 8))[100] ^= 1;
  Report report = Walk(image, root);
  EXPECT_EQ(report.error, 0) << report.why;
  EXPECT_THAT(
      report.losses,
      ElementsAre(Loss{child(second, 8), 2, 511 * leaf_pages - 1, 0},
                  Loss{lost, 2, 511 * leaf_pages - 1, 2 * leaf_pages + 1}));
  image.As<uint8_t>(child(top, 1))[100] ^= 1;
  report = Walk(image, root);
  EXPECT_EQ(report.error, 0) << report.why;
  EXPECT_THAT(report.losses,
              ElementsAre(Loss{child(top, 1), 2, 504 * leaf_pages - 1,
                               504 * leaf_pages + 1}));
  EXPECT_EQ(report.pages[2].size(), (504 + 3) * KMEMFS_RUNS_PER_PAGE);

  // The last leaf: up to the end of the file.
  const auto* third = image.As<kmemfs_index>(child(top, 2));
  image.As<uint8_t>(child(third, 2))[100] ^= 1;
  report = Walk(image, root);
  ASSERT_THAT(report.losses, SizeIs(2));
  EXPECT_EQ(report.losses[1],
            (Loss{child(third, 2), 2, (kLeaves - 1) * leaf_pages - 1,
                  leaf_pages + 11}));
}

// A tree that leads to the same pages again and again loses what is too much,
// and no other tree anything.
TEST(DamageOfSharedTrees, LosesWhatIsReachedTooOften) {
  struct Light {
    std::set<uint64_t> seen;
    uint64_t pages = 0;
    uint64_t others = 0;
    uint64_t lost = 0;
  };
  Image image(64, 2);
  const uint64_t data = image.Allocate(3);
  std::vector<Extent> runs;
  for (uint64_t i = 0; i < KMEMFS_SRUNS_PER_PAGE - 4; i++)
    runs.push_back({i, 1, data + i % 2 * 2});
  const Rope rope = image.WriteSharedRope(runs, 3);
  const uint64_t length = rope.nr_pages;
  ASSERT_GT(length, KMEMFS_MAX_AGAIN);
  Inode file = File(2, "file", {});
  file.rope = rope;
  file.size = length * KMEMFS_PAGE_SIZE;
  const kmemfs_root_info root = image.Commit(
      {RootDirectory(), file, File(3, "whole", {{0, 1, image.Allocate()}})});
  kmemfs_visitor visitor = {};
  visitor.meta = [](void* ctx, __u64 at, kmemfs_page_kind kind, __u32) {
    const bool first = static_cast<Light*>(ctx)->seen.insert(at).second;
    const bool shared = kind == KMEMFS_KIND_SEGMENT || kind == KMEMFS_KIND_NODE;
    return shared && !first ? KMEMFS_SEEN : 0;
  };
  visitor.run = [](void* ctx, __u64 ino, __u64, __u64 count, __u64) {
    auto* light = static_cast<Light*>(ctx);
    (ino == 2 ? light->pages : light->others) += count;
    return 0;
  };
  visitor.damage = [](void* ctx, __u64, __u64 ino, __u64, __u64 count,
                      const char* why) {
    EXPECT_EQ(ino, 2u);
    EXPECT_THAT(why, testing::HasSubstr("too many pages of shared trees"));
    static_cast<Light*>(ctx)->lost += count;
    return 0;
  };
  Light light;
  kmem_persist_why why = {};
  EXPECT_EQ(kmemfs_walk(&image.media(), &root, &visitor, &light, &why), 0)
      << why.text;
  EXPECT_GT(light.pages, 0u);
  EXPECT_GT(light.lost, 0u);
  EXPECT_EQ(light.pages + light.lost, length);
  EXPECT_EQ(light.others, 1u);
}

}  // namespace
}  // namespace daxsnap::format
