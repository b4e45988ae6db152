// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_MEMORY_GROUP_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_MEMORY_GROUP_H_

#include <sys/types.h>

#include <string>

namespace daxsnap::vmtest {

// A memory cgroup (v2) of a test, empty at first. The destructor removes it,
// which fails the test if a process is still in it.
class MemoryGroup {
 public:
  explicit MemoryGroup(const std::string& name = "group");
  MemoryGroup(MemoryGroup&&) = delete;
  ~MemoryGroup();

  void Add(pid_t pid);
  bool Set(const std::string& file, const std::string& value);
  // Bytes charged; the kernel charges ahead by up to 256 KiB a processor.
  long Current() const;
  // A field of memory.stat or memory.events.
  long Field(const std::string& file, const std::string& field) const;
  // Removes the group now.
  void Remove();
  // Removed groups that something still refers to.
  static long Dying();

 private:
  std::string path_;
  bool removed_ = false;
};

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_MEMORY_GROUP_H_
