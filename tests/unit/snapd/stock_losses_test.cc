// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/stock_losses.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "daxsnap/internal/criu.pb.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

using Losses = std::vector<v1::StockCriuLoss>;

// Images of two tasks, 42 and its child 41, that have descriptors in common.
class StockLossesTest : public testing::Test {
 protected:
  StockLossesTest() : images_(OpenDirectory(AT_FDCWD, temp_.path()).value()) {
    for (const pid_t pid : {42, 41}) {
      set_.tasks.push_back({.pid = pid, .thread_ids = {pid, pid + 100}});
      const auto id = static_cast<uint32_t>(pid);
      pb::TaskIds ids;
      ids.set_files_id(id);
      Write("ids-", pid, ids);
      Write("mm-", pid, pb::Mm());
      Write("core-", pid, pb::Core());
      Write("core-", pid + 100, pb::Core());
      pb::Fdinfo fd;
      fd.set_id(kEpoll);
      Write("fdinfo-", pid, fd);
    }
    WriteFile(pb::FileEntry());
  }

  template <typename Entry>
  void Write(const std::string& prefix, int number, const Entry& entry) {
    WriteImage<Entry>(images_.get(), absl::StrCat(prefix, number, ".img"),
                      kCommonMagic, {entry});
  }

  void WriteFile(const pb::FileEntry& file) {
    WriteImage<pb::FileEntry>(images_.get(), "files.img", kCommonMagic, {file});
  }

  Losses Read() {
    auto losses = ReadStockLosses(images_.get(), set_);
    EXPECT_TRUE(losses.ok()) << losses.status();
    return losses.value_or(Losses());
  }

  static constexpr uint32_t kEpoll = 7;
  TempDirectory temp_;
  UniqueFd images_;
  ImageSet set_;
};

TEST_F(StockLossesTest, NothingIsLostOfImagesAsStockCriuWritesThem) {
  EXPECT_EQ(Read(), Losses());
}

TEST_F(StockLossesTest, AnyThreadMayHaveIt) {
  pb::Core core;
  core.mutable_thread_core()->add_cpu_mask(1);
  core.mutable_thread_core()->set_ioprio(1);
  core.mutable_thread_core()->set_personality(1);
  core.mutable_thread_core()->set_timer_slack(1);
  core.mutable_thread_core()->set_mempolicy(2);
  Write("core-", 141, core);
  EXPECT_EQ(
      Read(),
      (Losses{v1::STOCK_CRIU_LOSS_CPU_AFFINITY, v1::STOCK_CRIU_LOSS_IO_PRIORITY,
              v1::STOCK_CRIU_LOSS_PERSONALITY, v1::STOCK_CRIU_LOSS_TIMER_SLACK,
              v1::STOCK_CRIU_LOSS_MEMORY_POLICY}));
}

TEST_F(StockLossesTest, MemoryMayHaveIt) {
  pb::Mm mm;
  mm.set_mdwe(1);
  mm.set_memory_merge(true);
  mm.set_coredump_filter(0x31);
  mm.add_vmas()->set_lock_on_fault(true);
  mm.add_vmas()->set_mempolicy(2);
  Write("mm-", 41, mm);
  EXPECT_EQ(Read(), (Losses{v1::STOCK_CRIU_LOSS_MEMORY_POLICY,
                            v1::STOCK_CRIU_LOSS_LOCKED_MEMORY,
                            v1::STOCK_CRIU_LOSS_WRITE_OR_EXECUTE,
                            v1::STOCK_CRIU_LOSS_MEMORY_MERGE,
                            v1::STOCK_CRIU_LOSS_CORE_DUMP_FILTER}));
  pb::Mm future;
  future.set_mlock_future(2);
  Write("mm-", 41, future);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_LOCKED_MEMORY});
}

TEST_F(StockLossesTest, Eventfds) {
  pb::FileEntry file;
  file.mutable_efd()->set_counter(0xffffffff);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses());
  file.mutable_efd()->set_counter(0x100000000);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_EVENTFD});
  file.mutable_efd()->set_counter(3);
  file.mutable_efd()->set_semaphore(true);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_EVENTFD});
}

TEST_F(StockLossesTest, Timerfds) {
  pb::FileEntry file;
  file.mutable_tfd()->set_ticks(3);
  file.mutable_tfd()->set_vnsec(1);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses());
  file.mutable_tfd()->set_vnsec(0);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses());
  file.mutable_tfd()->set_insec(1);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_TIMERFD});
  file.mutable_tfd()->set_ticks(0);
  file.mutable_tfd()->set_settime_flags(1);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_TIMERFD});
}

TEST_F(StockLossesTest, EpollTargetsThatTheFirstTaskDoesNotAdd) {
  pb::FileEntry file;
  file.mutable_epfd()->set_id(kEpoll);
  file.mutable_epfd()->add_tfd()->set_pid(41);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses());
  file.mutable_epfd()->add_tfd()->set_pid(42);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses{v1::STOCK_CRIU_LOSS_EPOLL});
  // Of 42 alone.
  Write("fdinfo-", 41, pb::Fdinfo());
  file.mutable_epfd()->mutable_tfd(0)->set_pid(42);
  WriteFile(file);
  EXPECT_EQ(Read(), Losses());
}

TEST_F(StockLossesTest, MissingImageOfAThreadIsDataLoss) {
  ASSERT_EQ(unlinkat(images_.get(), "core-141.img", 0), 0);
  EXPECT_TRUE(absl::IsDataLoss(ReadStockLosses(images_.get(), set_).status()));
}

}  // namespace
}  // namespace daxsnap
