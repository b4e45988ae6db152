// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_HOST_FAKE_PROC_H_
#define DAXSNAP_TESTS_UNIT_HOST_FAKE_PROC_H_

#include <sys/types.h>

#include <string>

#include "host/task/proc.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {

// A proc file system as the test writes it.
class FakeProc {
 public:
  // A task without threads of these files.
  void AddTask(pid_t pid, const std::string& stat,
               const std::string& status) const;
  // "7/maps", "sysvipc/shm".
  void AddFile(const std::string& path, const std::string& text) const;
  // "7/fd/3".
  void AddLink(const std::string& path, const std::string& target) const;

  ProcFs proc() const { return ProcFs(temp_.path()); }

 private:
  // Makes the directories above it. What `path` is in full.
  std::string Place(const std::string& path) const;

  TempDirectory temp_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_HOST_FAKE_PROC_H_
