// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/memory_group.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

// This process's own, so that its count of dying groups is that of one test.
class Parent {
 public:
  Parent() = default;
  Parent(const Parent&) = delete;
  ~Parent() { rmdir(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_ =
      "/sys/fs/cgroup/mm_matrix-" + std::to_string(getpid());
};

const Parent& GetParent() {
  static const Parent parent;
  return parent;
}

long FieldOf(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  std::string name;
  long value;
  while (file >> name >> value) {
    if (name == field) return value;
  }
  ADD_FAILURE() << path << " has no " << field;
  return -1;
}

}  // namespace

MemoryGroup::MemoryGroup(const std::string& name)
    : path_(GetParent().path() + "/" + name) {
  for (const std::string& path : {GetParent().path(), path_}) {
    const std::string above = path.substr(0, path.rfind('/'));
    EXPECT_TRUE(WriteFile(above + "/cgroup.subtree_control", "+memory"))
        << above << ": " << std::strerror(errno);
    EXPECT_TRUE(mkdir(path.c_str(), 0755) == 0 || errno == EEXIST)
        << path << ": " << std::strerror(errno);
  }
}

MemoryGroup::~MemoryGroup() { Remove(); }

void MemoryGroup::Remove() {
  if (removed_) return;
  removed_ = true;
  // A killed process is in its group for a while after it was reaped.
  EXPECT_TRUE(WaitFor([this] { return rmdir(path_.c_str()) == 0; }))
      << path_ << ": " << std::strerror(errno);
}

void MemoryGroup::Add(pid_t pid) {
  EXPECT_TRUE(WriteFile(path_ + "/cgroup.procs", std::to_string(pid)))
      << std::strerror(errno);
}

bool MemoryGroup::Set(const std::string& file, const std::string& value) {
  return WriteFile(path_ + "/" + file, value);
}

long MemoryGroup::Current() const {
  return std::atol(ReadFile(path_ + "/memory.current").c_str());
}

long MemoryGroup::Field(const std::string& file,
                        const std::string& field) const {
  return FieldOf(path_ + "/" + file, field);
}

long MemoryGroup::Dying() {
  return FieldOf(GetParent().path() + "/cgroup.stat", "nr_dying_descendants");
}

}  // namespace daxsnap::vmtest
