// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/stock_losses.h"

#include <sys/timerfd.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daxsnap/internal/criu.pb.h"
#include "snapd/engine/image_entries.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

using Losses = std::set<v1::StockCriuLoss>;

void LookAtThread(const pb::ThreadCore& thread, Losses* losses) {
  if (thread.cpu_mask_size() > 0) {
    losses->insert(v1::STOCK_CRIU_LOSS_CPU_AFFINITY);
  }
  if (thread.has_ioprio()) losses->insert(v1::STOCK_CRIU_LOSS_IO_PRIORITY);
  if (thread.has_personality()) {
    losses->insert(v1::STOCK_CRIU_LOSS_PERSONALITY);
  }
  if (thread.has_timer_slack()) {
    losses->insert(v1::STOCK_CRIU_LOSS_TIMER_SLACK);
  }
  if (thread.has_mempolicy()) {
    losses->insert(v1::STOCK_CRIU_LOSS_MEMORY_POLICY);
  }
}

void LookAtMemory(const pb::Mm& mm, Losses* losses) {
  if (mm.has_mlock_future()) losses->insert(v1::STOCK_CRIU_LOSS_LOCKED_MEMORY);
  if (mm.has_mdwe()) losses->insert(v1::STOCK_CRIU_LOSS_WRITE_OR_EXECUTE);
  if (mm.has_memory_merge()) losses->insert(v1::STOCK_CRIU_LOSS_MEMORY_MERGE);
  if (mm.has_coredump_filter()) {
    losses->insert(v1::STOCK_CRIU_LOSS_CORE_DUMP_FILTER);
  }
  for (const pb::Vma& vma : mm.vmas()) {
    if (vma.lock_on_fault()) losses->insert(v1::STOCK_CRIU_LOSS_LOCKED_MEMORY);
    if (vma.has_mempolicy()) losses->insert(v1::STOCK_CRIU_LOSS_MEMORY_POLICY);
  }
}

void LookAtTimer(const pb::Timerfd& timer, Losses* losses) {
  // It would never go off again.
  const bool stops = (timer.isec() != 0 || timer.insec() != 0) &&
                     timer.vsec() == 0 && timer.vnsec() == 0;
  if ((timer.settime_flags() & TFD_TIMER_ABSTIME) != 0 ||
      (timer.ticks() > 0 && stops)) {
    losses->insert(v1::STOCK_CRIU_LOSS_TIMERFD);
  }
}

void LookAtEventfd(const pb::Eventfd& eventfd, Losses* losses) {
  if (eventfd.semaphore() ||
      eventfd.counter() > std::numeric_limits<uint32_t>::max()) {
    losses->insert(v1::STOCK_CRIU_LOSS_EVENTFD);
  }
}

// Which task has a file first, as stock CRIU sees it: the smallest PID.
absl::StatusOr<std::map<uint32_t, pid_t>> ReadFirstHolders(
    int images, const ImageSet& set) {
  std::map<uint32_t, pid_t> holders;
  for (const ImageTask& task : set.tasks) {
    const std::string ids_name = absl::StrCat("ids-", task.pid, ".img");
    auto read = ReadEntriesIfAny<pb::TaskIds>(images, ids_name);
    if (!read.ok()) return read.status();
    if (!read->has_value()) continue;
    const std::vector<pb::TaskIds>& ids = **read;
    if (ids.size() != 1) return DamagedImage(ids_name);
    auto fds = ReadEntries<pb::Fdinfo>(
        images, absl::StrCat("fdinfo-", ids.front().files_id(), ".img"));
    if (!fds.ok()) return fds.status();
    for (const pb::Fdinfo& fd : *fds) {
      const auto [holder, first] = holders.try_emplace(fd.id(), task.pid);
      if (!first) holder->second = std::min(holder->second, task.pid);
    }
  }
  return holders;
}

// Stock CRIU has all targets of an epoll set added by the first task that has
// the set.
absl::Status LookAtEpolls(int images, const ImageSet& set,
                          const std::vector<pb::Epoll>& epolls,
                          Losses* losses) {
  if (epolls.empty()) return absl::OkStatus();
  auto holders = ReadFirstHolders(images, set);
  if (!holders.ok()) return holders.status();
  for (const pb::Epoll& epoll : epolls) {
    const auto holder = holders->find(epoll.id());
    if (holder == holders->end()) continue;
    for (const pb::EpollTarget& target : epoll.tfd()) {
      if (target.has_pid() &&
          static_cast<pid_t>(target.pid()) != holder->second) {
        losses->insert(v1::STOCK_CRIU_LOSS_EPOLL);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status LookAtFiles(int images, const ImageSet& set, Losses* losses) {
  auto files = ReadEntries<pb::FileEntry>(images, "files.img");
  if (!files.ok()) return files.status();
  std::vector<pb::Epoll> epolls;
  for (const pb::FileEntry& file : *files) {
    if (file.has_efd()) LookAtEventfd(file.efd(), losses);
    if (file.has_tfd()) LookAtTimer(file.tfd(), losses);
    if (file.has_epfd() && set.tasks.size() > 1) epolls.push_back(file.epfd());
  }
  return LookAtEpolls(images, set, epolls, losses);
}

}  // namespace

absl::StatusOr<std::vector<v1::StockCriuLoss>> ReadStockLosses(
    int images, const ImageSet& set) {
  Losses losses;
  absl::Status read = VisitTasks(
      images, set.tasks,
      [&losses](const pb::Mm& mm) { LookAtMemory(mm, &losses); },
      [&losses](const pb::ThreadCore& core) { LookAtThread(core, &losses); });
  if (read.ok()) read = LookAtFiles(images, set, &losses);
  if (!read.ok()) return read;
  return std::vector<v1::StockCriuLoss>(losses.begin(), losses.end());
}

}  // namespace daxsnap
