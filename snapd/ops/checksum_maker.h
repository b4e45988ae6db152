// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_CHECKSUM_MAKER_H_
#define DAXSNAP_SNAPD_OPS_CHECKSUM_MAKER_H_

#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/time/time.h"
#include "base/cancellation.h"
#include "snapd/store/pool.h"

namespace daxsnap {

// Has the checksums that a pool lacks made, behind the backs of calls. When it
// goes it waits a while for those that were asked for, so that an orderly
// reboot right after a checkpoint finds them. Thread-safe.
class ChecksumMaker {
 public:
  explicit ChecksumMaker(absl::Duration grace = absl::Seconds(20))
      : grace_(grace) {}
  ChecksumMaker(const ChecksumMaker&) = delete;
  ChecksumMaker& operator=(const ChecksumMaker&) = delete;
  ~ChecksumMaker();

  // All that is durable by now gets checksums soon. `pool`, always the same,
  // outlives this object. Does not block. A failure is logged.
  void Request(const Pool* pool);

 private:
  void Work();

  const absl::Duration grace_;
  Cancellation cancellation_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const Pool* wanted_ = nullptr;  // guarded by mutex_; null: nothing to do
  bool busy_ = false;             // guarded by mutex_
  bool stop_ = false;             // guarded by mutex_
  std::thread thread_;            // guarded by mutex_; started by the first
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_CHECKSUM_MAKER_H_
