// SPDX-License-Identifier: Apache-2.0
#include "base/executor.h"

#include <cstddef>
#include <system_error>
#include <utility>

namespace daxsnap {
namespace {

// Far more than a machine can do at once, and few enough that nobody can fill
// the machine with threads of ours.
constexpr size_t kMaxThreads = 256;

}  // namespace

Executor::~Executor() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return running_.empty(); });
  std::list<std::thread> finished = std::move(finished_);
  lock.unlock();
  for (std::thread& thread : finished) thread.join();
}

bool Executor::Run(std::function<void()> work) {
  std::list<std::thread> finished;
  bool started = true;
  {
    // Held while the thread starts, so that its node is complete before it can
    // move it.
    const std::lock_guard lock(mutex_);
    if (running_.size() >= kMaxThreads) return false;
    finished.splice(finished.end(), finished_);
    const auto node = running_.emplace(running_.end());
    // std::thread reports a lack of threads by an exception only.
    try {
      *node = std::thread([this, node, work = std::move(work)] {
        work();
        const std::lock_guard done(mutex_);
        finished_.splice(finished_.end(), running_, node);
        idle_.notify_all();
      });
    } catch (const std::system_error&) {
      running_.erase(node);
      started = false;
    }
  }
  for (std::thread& thread : finished) thread.join();
  return started;
}

}  // namespace daxsnap
