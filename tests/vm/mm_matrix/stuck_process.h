// SPDX-License-Identifier: Apache-2.0
// A process that holds its mmap_lock for as long as the test wants.
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_STUCK_PROCESS_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_STUCK_PROCESS_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {

// Its file system is a FUSE server in the test, of one file, which leaves a
// read unanswered. The page in question is locked then, and an mmap(2) of the
// file that wants to drop it waits, with the mmap_lock taken for writing.
class StuckProcess {
 public:
  // `before` runs in the process before it gets stuck; a failure is one of the
  // test.
  StuckProcess(const std::string& dir, std::function<long()> before,
               std::function<long()> after);
  StuckProcess(StuckProcess&&) = delete;
  ~StuckProcess();

  pid_t pid() const { return process_->pid(); }
  // Lets it go on. The result of `after`, which runs in it then.
  long Release();

 private:
  void Serve();
  void Answer(uint64_t unique, const void* data, size_t bytes, int error = 0);

  std::string path_;
  UniqueFd device_;
  std::atomic<uint64_t> held_ = 0;  // the read that is not answered
  std::atomic<bool> released_ = false;
  std::thread server_, reading_, mapping_;
  std::unique_ptr<Child> reader_, process_;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_STUCK_PROCESS_H_
