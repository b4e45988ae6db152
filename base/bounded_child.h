// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_BASE_BOUNDED_CHILD_H_
#define DAXSNAP_BASE_BOUNDED_CHILD_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/unique_fd.h"

namespace daxsnap {

// A short-lived child of snapd for system calls that need other credentials, or
// that may never return: a thread that is stuck in one could not be ended, nor
// could snapd. Killed and reaped with the object; one that the kernel holds on
// to is left behind, and reaped by a later one once it has ended. It has no
// descriptors of snapd's but those it is told to keep, so that nobody waits for
// the end of a connection that it keeps open.
class BoundedChild {
 public:
  // Runs in the child, with a copy of the memory of a process that has threads:
  // only system calls and the stack may be used, nothing that allocates or
  // locks. Bytes written to `report` are what Read() returns.
  using Work = void (*)(const void* argument, int report);

  static absl::StatusOr<BoundedChild> Start(Work work, const void* argument,
                                            std::vector<int> kept = {});

  // Lets it go on by itself, for what only it can still find out; its report is
  // not read any more. A later one reaps it.
  void Leave();

  BoundedChild(BoundedChild&&) noexcept = default;
  BoundedChild& operator=(BoundedChild&&) = delete;
  ~BoundedChild();

  // The next `size` bytes of its report. DEADLINE_EXCEEDED once `deadline` is
  // over, CANCELLED once `cancellation` fires, INTERNAL if it has ended without
  // them.
  absl::Status Read(void* to, size_t size, absl::Time deadline,
                    const Cancellation* cancellation = nullptr);

  // The next byte of its report.
  absl::StatusOr<int> Next(absl::Time deadline,
                           const Cancellation* cancellation = nullptr);

 private:
  BoundedChild(UniqueFd pidfd, UniqueFd reader);

  UniqueFd pidfd_;
  UniqueFd reader_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_BOUNDED_CHILD_H_
