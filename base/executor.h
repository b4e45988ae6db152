// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_EXECUTOR_H_
#define DAXSNAP_BASE_EXECUTOR_H_

#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace daxsnap {

// Runs each piece of work on a thread of its own: operations block for seconds,
// and gRPC's threads must not. Thread-safe.
class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  // Waits for all work to end.
  ~Executor();

  // Starts `work`; false if no thread could be started, or too many run.
  bool Run(std::function<void()> work);

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  std::list<std::thread> running_;   // guarded by mutex_
  std::list<std::thread> finished_;  // guarded by mutex_; to be joined
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_EXECUTOR_H_
