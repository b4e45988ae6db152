// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_HOST_FUSE_TREE_H_
#define DAXSNAP_TESTS_UNIT_HOST_FUSE_TREE_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/task/proc.h"
#include "tests/unit/base/child.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {

// A tree of two tasks: the server of a FUSE file system, and a child that uses
// it. All names exist there: "dir" is a directory, others are files of a page,
// of which "broken" cannot be synced.
// The kernel remembers none of it, so that it asks each time.
class FuseTree {
 public:
  // `use` runs in the child, which then waits.
  explicit FuseTree(const std::function<void(const std::string& path)>& use);
  FuseTree(const FuseTree&) = delete;
  FuseTree& operator=(const FuseTree&) = delete;
  ~FuseTree();

  // Where it is mounted.
  const std::string& path() const { return directory_.path(); }
  std::vector<TaskInfo> tasks() const { return server_->Tree(); }

  // Both tasks stand still, as while a snapshot is taken: from then on nobody
  // answers.
  void Stop() const;

  // How often the server was asked for this (FUSE_OPEN, ...).
  uint64_t Requests(uint32_t opcode) const;

 private:
  struct Counts;

  TempDirectory directory_;
  Counts* const counts_;  // in memory that the server shares
  std::unique_ptr<ForkedTask> server_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_HOST_FUSE_TREE_H_
