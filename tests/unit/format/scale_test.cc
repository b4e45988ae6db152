// SPDX-License-Identifier: Apache-2.0
//
// The time of a verification: each page is read once, and a large pool takes
// no longer than its runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/unit/format/image.h"
#include "tests/unit/format/matchers.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

int64_t MicrosSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now() - start)
      .count();
}

class ScaleOf : public testing::TestWithParam<uint32_t> {};

INSTANTIATE_TEST_SUITE_P(Version, ScaleOf, testing::Values(1U, 2U),
                         [](const auto& info) {
                           return std::to_string(info.param);
                         });

TEST_P(ScaleOf, EachPageOfTwoMillionRunsIsReadOnce) {
  constexpr uint64_t kRuns = 2'000'000;
  // The data pages lie beyond the image's bytes: nobody may read them.
  Image image(8500, GetParam());
  Inode file = File(2, "f", {});
  for (uint64_t i = 0; i < kRuns; i++)
    file.runs.push_back({.file_page = i, .page = 10000 + 2 * i});
  file.size = kRuns * KMEMFS_PAGE_SIZE;
  const kmemfs_root_info root = image.Commit({RootDirectory(), file});
  image.mutable_media().nr_pages = 10000 + 2 * kRuns;
  image.mutable_media().end = 10000 + 2 * kRuns;

  const size_t words = image.media().nr_pages / 64 + 1;
  std::vector<unsigned long> meta(words), data(words);
  kmemfs_check check = {.meta = meta.data(),
                        .data = data.data(),
                        .owners = nullptr,
                        .max_owners = 0,
                        .alloc = std::calloc,
                        .free = std::free,
                        .lose_sums = false,
                        .sums_lost = false};
  kmem_persist_why why = {};
  const uint64_t reads = image.reads();
  const auto start = std::chrono::steady_clock::now();
  const int error = kmemfs_verify(&image.media(), &root, &check, &why);
  const int64_t micros = MicrosSince(start);
  ASSERT_EQ(error, 0) << why.text;
  // Once each, and the inodes a second time for the directories.
  EXPECT_EQ(image.reads() - reads, root.nr_meta_pages + 1);
  RecordProperty("verify_microseconds", static_cast<int>(micros));
  std::cout << "2000000 runs of a page in " << root.nr_meta_pages
            << " pages verified in " << micros << " us\n";
}

TEST(Scale, ManyFilesInOneDirectory) {
  constexpr uint64_t kFiles = 100'000;
  Image image(kFiles / 7 + 200);
  std::vector<Inode> inodes = {RootDirectory()};
  // Names that differ late, in an order that is not theirs.
  for (uint64_t i = 0; i < kFiles; i++)
    inodes.push_back(
        File(2 + i, std::string(100, 'n') + std::to_string((i * 7919) % kFiles),
             {}));
  image.Commit(inodes);
  const auto start = std::chrono::steady_clock::now();
  const Recovery recovery = Recover(image.media());
  std::cout << kFiles << " inodes recovered in " << MicrosSince(start)
            << " us\n";
  ASSERT_THAT(recovery, Taken());
  EXPECT_EQ(recovery.inodes.size(), kFiles + 1);
}

}  // namespace
}  // namespace daxsnap::format
