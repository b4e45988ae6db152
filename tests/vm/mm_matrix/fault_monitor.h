// SPDX-License-Identifier: Apache-2.0
// A range of memory whose faults a thread answers by userfaultfd(2).
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_FAULT_MONITOR_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_FAULT_MONITOR_H_

#include <linux/userfaultfd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {

class FaultMonitor {
 public:
  // Called with the userfaultfd and the range of the page of each fault.
  using Answer = std::function<void(int uffd, const uffdio_range& page)>;

  // Registers the range for UFFDIO_REGISTER_MODE_...; a failure is one of the
  // test, and then nobody answers.
  FaultMonitor(char* data, size_t bytes, uint64_t mode, uint64_t features,
               Answer answer);
  FaultMonitor(FaultMonitor&&) = delete;
  // Answers no more faults.
  ~FaultMonitor() { Stop(); }

  int uffd() const { return uffd_.get(); }
  const uffdio_range& range() const { return range_; }
  // Faults answered so far.
  size_t faults() const { return faults_; }
  void Stop();

 private:
  void Serve();

  UniqueFd uffd_;
  uffdio_range range_;
  Answer answer_;
  std::atomic<bool> stop_ = false;
  std::atomic<size_t> faults_ = 0;
  std::thread thread_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_FAULT_MONITOR_H_
