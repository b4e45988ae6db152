// SPDX-License-Identifier: Apache-2.0
// fallocate in all its modes, against a model in memory.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

class Ranges : public FsTest {
 protected:
  static constexpr size_t kMax =
      3000 * kPage;  // three chunks of the page table

  void Expect(const std::vector<char>& expected, const char* after) {
    ASSERT_EQ(Size(fd_.get()), static_cast<int64_t>(expected.size())) << after;
    ASSERT_TRUE(Read(fd_.get(), expected.size()) == expected) << after;
  }

  UniqueFd fd_;
};

TEST_F(Ranges, CollapseAndInsertMoveWhatFollows) {
  fd_ = Open("a");
  std::vector<char> expected = Bytes(2500 * kPage + 100);
  Write(fd_.get(), expected);
  ASSERT_EQ(fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      1000 * kPage, 100 * kPage),
            0);
  std::memset(&expected[1000 * kPage], 0, 100 * kPage);
  ASSERT_EQ(fsync(fd_.get()), 0);
  const int64_t allocated = Allocated(fd_.get());
  ASSERT_EQ(
      fallocate(fd_.get(), FALLOC_FL_COLLAPSE_RANGE, 7 * kPage, 1020 * kPage),
      0)
      << std::strerror(errno);
  expected.erase(expected.begin() + 7 * kPage, expected.begin() + 1027 * kPage);
  Expect(expected, "collapse");
  EXPECT_EQ(Allocated(fd_.get()),
            allocated - static_cast<int64_t>((1020 - 27) * kPage));
  ASSERT_EQ(
      fallocate(fd_.get(), FALLOC_FL_INSERT_RANGE, 3 * kPage, 1025 * kPage), 0)
      << std::strerror(errno);
  expected.insert(expected.begin() + 3 * kPage, 1025 * kPage, 0);
  Expect(expected, "insert");
  ASSERT_EQ(fsync(fd_.get()), 0);
  Expect(expected, "commit");
}

TEST_F(Ranges, ThatMakeNoSenseAreRefused) {
  fd_ = Open("a");
  const std::vector<char> bytes = Bytes(4 * kPage);
  Write(fd_.get(), bytes);
  const auto refused = [&](int mode, off_t at, off_t len) {
    return fallocate(fd_.get(), mode, at, len) == -1 ? errno : 0;
  };
  EXPECT_EQ(refused(FALLOC_FL_COLLAPSE_RANGE, 0, 100), EINVAL);
  EXPECT_EQ(refused(FALLOC_FL_COLLAPSE_RANGE, 10, kPage), EINVAL);
  EXPECT_EQ(refused(FALLOC_FL_COLLAPSE_RANGE, kPage, 3 * kPage), EINVAL);
  EXPECT_EQ(refused(FALLOC_FL_INSERT_RANGE, 4 * kPage, kPage), EINVAL);
  EXPECT_EQ(refused(FALLOC_FL_INSERT_RANGE, 0, off_t{1} << 44), EFBIG);
  EXPECT_EQ(refused(FALLOC_FL_UNSHARE_RANGE, 0, kPage), EOPNOTSUPP);
  EXPECT_EQ(refused(FALLOC_FL_KEEP_SIZE, 0, 8 * kPage), EOPNOTSUPP)
      << "pages beyond the end have no place in the format";
  Expect(bytes, "refusals");
}

TEST_F(Ranges, AllModesFollowTheModel) {
  std::mt19937_64 random(20);
  fd_ = Open("a");
  std::vector<char> model;
  const auto below = [&](size_t n) { return n ? random() % n : 0; };
  for (int step = 0; step < 400; ++step) {
    const size_t at = below(model.size() + 20 * kPage) % kMax;
    const size_t len = 1 + below(below(3) ? 3 * kPage : 1100 * kPage);
    const size_t end = std::min(at + len, kMax);
    const size_t page_at = at / kPage * kPage,
                 page_len = (len + kPage - 1) / kPage * kPage;
    const auto off = static_cast<off_t>(at),
               size = static_cast<off_t>(end - at);
    const char* what = "";
    switch (below(8)) {
      case 0:
      case 1: {
        what = "write";
        const std::vector<char> bytes = Bytes(end - at, random());
        Write(fd_.get(), bytes, off);
        model.resize(std::max(model.size(), end));
        std::copy(bytes.begin(), bytes.end(), model.begin() + off);
        break;
      }
      case 2:
        what = "truncate";
        ASSERT_EQ(ftruncate(fd_.get(), off), 0);
        model.resize(at);
        break;
      case 3:
        what = "punch";
        ASSERT_EQ(
            fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      off, size),
            0);
        for (size_t i = at; i < std::min(end, model.size()); ++i) model[i] = 0;
        break;
      case 4:
        what = "zero";
        ASSERT_EQ(fallocate(fd_.get(), FALLOC_FL_ZERO_RANGE, off, size), 0);
        model.resize(std::max(model.size(), end));
        std::memset(&model[at], 0, end - at);
        break;
      case 5:
        what = "allocate";
        ASSERT_EQ(fallocate(fd_.get(), 0, off, size), 0);
        model.resize(std::max(model.size(), end));
        break;
      case 6:
        what = "collapse";
        if (page_at + page_len >= model.size()) continue;
        ASSERT_EQ(fallocate(fd_.get(), FALLOC_FL_COLLAPSE_RANGE,
                            static_cast<off_t>(page_at),
                            static_cast<off_t>(page_len)),
                  0);
        model.erase(model.begin() + static_cast<off_t>(page_at),
                    model.begin() + static_cast<off_t>(page_at + page_len));
        break;
      default:
        what = "insert";
        if (page_at >= model.size() || model.size() + page_len > kMax) continue;
        ASSERT_EQ(fallocate(fd_.get(), FALLOC_FL_INSERT_RANGE,
                            static_cast<off_t>(page_at),
                            static_cast<off_t>(page_len)),
                  0);
        model.insert(model.begin() + static_cast<off_t>(page_at), page_len, 0);
    }
    if (step % 50 == 49) {
      ASSERT_EQ(fsync(fd_.get()), 0);
    }
    if (step % 4 == 0) Expect(model, what);
    if (HasFatalFailure()) return;
  }
  Expect(model, "all");
}

}  // namespace
}  // namespace daxsnap::vmtest
