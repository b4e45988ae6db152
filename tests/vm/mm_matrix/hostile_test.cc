// SPDX-License-Identifier: Apache-2.0
// Random requests by somebody who knows what good ones look like: whatever the
// answers, nobody is harmed. The seed is fixed; DAXSNAP_HOSTILE_SECONDS makes
// a longer run, with a new seed each time.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <random>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr size_t kArea = 48 * kPage;
constexpr int kRequests = 3000;
constexpr uint64_t kContent = 97;

class Hostile : public PoolTest {
 protected:
  // Memory of every kind, side by side.
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    area_ = std::make_unique<Mapping>(kArea, node());
    Fill(area_->data(), kArea, kContent);
    foreign_ = NewFile("mapped");
    ASSERT_EQ(ftruncate(foreign_.get(), 8 * kPage), 0);
    Place(8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    Place(16, PROT_READ, MAP_PRIVATE, foreign_.get());
    Place(24, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    munmap(area_->page(32), 4 * kPage);
    // No read goes on into memory behind it.
    Place(44, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (size_t i = 0; i < fds_.size(); ++i) {
      fds_[i] = NewFile("file" + std::to_string(i));
    }
    self_ = SelfPidFd();
    child_ = std::make_unique<Child>(Child::Steps{
        {"check",
         [this] { return CountBad(area_->data(), 8 * kPage, kContent); }},
        {"write", [this] {
           Fill(area_->data(), 8 * kPage, kContent);
           return 0;
         }}});
  }
  void TearDown() override {
    child_.reset();
    area_.reset();
    PoolTest::TearDown();
  }

  void Place(size_t page, int protection, int flags, int fd) {
    ASSERT_NE(mmap(area_->page(page), 4 * kPage, protection, flags | MAP_FIXED,
                   fd, 0),
              MAP_FAILED);
  }

  size_t Below(size_t n) { return random_() % n; }
  uint64_t Odd() {
    constexpr std::array<uint64_t, 10> kOdd = {0,
                                               1,
                                               kPage - 1,
                                               kPage,
                                               1u << 31,
                                               0xffffffff,
                                               uint64_t{1} << 47,
                                               uint64_t{1} << 63,
                                               ~uint64_t{0},
                                               ~uint64_t{0} - kPage + 1};
    return Below(2) == 0 ? kOdd[Below(kOdd.size())] : random_();
  }
  // Mostly good, so that the others are reached.
  uint64_t Number(uint64_t good) { return Below(12) == 0 ? Odd() : good; }
  int AnyFd() {
    return static_cast<int>(
        Number(static_cast<uint64_t>(fds_[Below(fds_.size())].get())));
  }
  uint64_t Offset() { return Number(Below(96) * kPage); }
  uint64_t Length() { return Number((1 + Below(20)) * kPage); }
  uint64_t Address() {
    return Number(reinterpret_cast<uintptr_t>(area_->page(Below(48))));
  }

  void Capture() {
    kmemfs_capture c = {};
    c.pidfd = static_cast<int>(Number(
        static_cast<uint64_t>(Below(2) == 0 ? child_->pidfd() : self_.get())));
    c.flags = static_cast<uint32_t>(Below(16) == 0 ? random_() : 0);
    c.addr = Address();
    c.len = Length();
    c.offset = Offset();
    const int done = ioctl(AnyFd(), KMEMFS_IOC_CAPTURE, &c);
    if (done == 0) {
      EXPECT_EQ(
          c.pages_by_reference + c.pages_shared + c.pages_copied + c.pages_hole,
          c.len / kPage);
      ++good_;
    }
  }

  void Request() {
    switch (Below(10)) {
      case 0: {
        file_clone_range range = {.src_fd = AnyFd(),
                                  .src_offset = Offset(),
                                  .src_length = Length(),
                                  .dest_offset = Offset()};
        good_ += ioctl(AnyFd(), FICLONERANGE, &range) == 0;
        break;
      }
      case 1: {
        // Where pages are allocated, not so many that the pool is full.
        const int mode = static_cast<int>(Below(128));
        const bool frees = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
        const uint64_t at = frees ? Offset() : Offset() % (96 * kPage);
        const uint64_t size = frees ? Length() : Length() % (32 * kPage);
        good_ += fallocate(AnyFd(), mode, static_cast<off_t>(at),
                           static_cast<off_t>(size)) == 0;
        break;
      }
      case 2:
        good_ += ftruncate(AnyFd(),
                           static_cast<off_t>(Offset() % (96 * kPage))) == 0;
        break;
      case 3: {
        const iovec to = {reinterpret_cast<void*>(Address()), Length()};
        good_ += preadv(AnyFd(), &to, 1, static_cast<off_t>(Offset())) > 0;
        break;
      }
      case 4: {
        Mapping fresh(32 * kPage, node());
        mprotect(fresh.page(28), 4 * kPage, PROT_NONE);
        const iovec to = {fresh.page(Below(4)), Length()};
        good_ += preadv(AnyFd(), &to, 1, static_cast<off_t>(Offset())) > 0;
        break;
      }
      case 5: {
        // Never more than the pool has: what is asked for is small.
        const iovec from = {reinterpret_cast<void*>(Address()),
                            Below(8 * kPage)};
        good_ += pwritev(AnyFd(), &from, 1,
                         static_cast<off_t>(Offset() % (96 * kPage))) > 0;
        break;
      }
      case 6: {
        std::array<char, 256> argument;
        for (char& byte : argument) byte = static_cast<char>(random_());
        ioctl(AnyFd(), _IOC(Below(4), 0xdb, Below(256), Below(256)),
              Below(8) == 0 ? reinterpret_cast<void*>(Odd()) : argument.data());
        break;
      }
      default:
        Capture();
    }
  }

  std::mt19937_64 random_;
  std::unique_ptr<Mapping> area_;
  UniqueFd foreign_, self_;
  std::array<UniqueFd, 4> fds_;
  std::unique_ptr<Child> child_;
  long good_ = 0;
};

TEST_F(Hostile, RandomRequestsHarmNobody) {
  const char* seconds = std::getenv("DAXSNAP_HOSTILE_SECONDS");
  using Clock = std::chrono::steady_clock;
  const auto end =
      Clock::now() + std::chrono::seconds(seconds ? std::atol(seconds) : 0);
  uint64_t seed = 1;
  long requests = 0;
  do {
    random_.seed(seed++);
    for (int i = 0; i < kRequests; ++i, ++requests) {
      Request();
      if (i % 100 == 0) {
        // The other process and its memory are as they were.
        ASSERT_EQ(child_->Do("check"), 0) << "seed " << seed - 1;
        ASSERT_EQ(child_->Do("write"), 0);
      }
    }
    Commit();
  } while (Clock::now() < end);
  EXPECT_TRUE(child_->Finish());
  // If next to nothing was good, next to nothing was tried.
  EXPECT_GT(good_, requests / 8);
  RecordProperty("good", std::to_string(good_));
}

}  // namespace
}  // namespace daxsnap::vmtest
