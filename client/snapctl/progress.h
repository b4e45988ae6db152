// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_PROGRESS_H_
#define DAXSNAP_CLIENT_SNAPCTL_PROGRESS_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "client/snapctl/context.h"
#include "daxsnap/client.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap::snapctl {

// "dumping", "dumping, 1024 of 65536 pages".
std::string DescribeProgress(const v1::Progress& progress);

// One line on the terminal that says what goes on and for how long, from one
// second on, renewed a few times a second, and gone when this object is.
// Without a terminal nothing is written. Thread-safe.
class ProgressLine {
 public:
  // `what`: what goes on, "attaching dax0.0".
  ProgressLine(const Context& context, std::string what);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Something else goes on now.
  void Update(std::string what);

 private:
  void Draw();

  std::ostream* const err_;
  const absl::Time start_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string what_;   // guarded by mutex_
  bool done_ = false;  // guarded by mutex_
  std::thread thread_;
};

// While it lives, SIGINT and SIGTERM call off the operation instead of ending
// the process; a second one ends it at once. Create it before any other thread
// is started, as these must not take the signals.
class SignalCancellation {
 public:
  SignalCancellation();
  ~SignalCancellation();
  SignalCancellation(const SignalCancellation&) = delete;
  SignalCancellation& operator=(const SignalCancellation&) = delete;

  client::Cancellation* cancellation() { return &cancellation_; }

 private:
  void Watch();

  client::Cancellation cancellation_;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_PROGRESS_H_
