// SPDX-License-Identifier: Apache-2.0
#include "base/cancellation.h"

#include <poll.h>
#include <sys/eventfd.h>

namespace daxsnap {

Cancellation::Cancellation() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Cancellation::Cancel() { eventfd_write(event_.get(), 1); }

bool Cancellation::cancelled() const {
  pollfd poll_for = {.fd = event_.get(), .events = POLLIN, .revents = 0};
  return poll(&poll_for, 1, 0) > 0;
}

}  // namespace daxsnap
