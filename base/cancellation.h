// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_CANCELLATION_H_
#define DAXSNAP_BASE_CANCELLATION_H_

#include "base/unique_fd.h"

namespace daxsnap {

// Tells an operation that nobody wants its result any more. It can be asked and
// it can be polled. Thread-safe.
class Cancellation {
 public:
  Cancellation();

  void Cancel();
  bool cancelled() const;
  // Readable from the call of Cancel() on. Do not read from it.
  int fd() const { return event_.get(); }

 private:
  UniqueFd event_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_CANCELLATION_H_
