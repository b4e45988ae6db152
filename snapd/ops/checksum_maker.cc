// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/checksum_maker.h"

#include <chrono>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace daxsnap {

ChecksumMaker::~ChecksumMaker() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(grace_),
                    [this] { return wanted_ == nullptr && !busy_; });
  stop_ = true;
  cancellation_.Cancel();
  changed_.notify_all();
  lock.unlock();
  if (thread_.joinable()) thread_.join();
}

void ChecksumMaker::Request(const Pool* pool) {
  const std::lock_guard lock(mutex_);
  wanted_ = pool;
  if (!thread_.joinable()) {
    // std::thread reports a lack of threads by an exception only. The kernel
    // makes the checksums then, when it gets to it.
    try {
      thread_ = std::thread([this] { Work(); });
    } catch (const std::system_error& error) {
      LogWarning(absl::StrCat("no thread to make checksums: ", error.what()));
      wanted_ = nullptr;
    }
  }
  changed_.notify_all();
}

void ChecksumMaker::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return wanted_ != nullptr || stop_; });
    if (stop_) return;
    const Pool* pool = std::exchange(wanted_, nullptr);
    busy_ = true;
    lock.unlock();
    const absl::Status made = pool->MakeChecksums(cancellation_);
    if (made.ok()) {
      LogDebug(absl::StrCat("all of pool ", pool->path(), " has checksums"));
    } else {
      LogWarning(absl::StrCat("some of pool ", pool->path(),
                              " has no checksums: ", made.message()));
    }
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace daxsnap
