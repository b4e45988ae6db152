// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_TREE_FILES_H_
#define DAXSNAP_HOST_TASK_TREE_FILES_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "host/task/proc.h"

namespace daxsnap {

// What the kernel puts at the end of a path whose name is gone.
inline constexpr absl::string_view kDeleted = " (deleted)";

// Something that a task uses by a path: open, mapped, or as its working or root
// directory.
struct UsedFile {
  pid_t pid = 0;
  // Below /proc/PID: "fd/7", "cwd", "root", or "map_files/FIRST-LAST".
  std::string link;
  // As snapd sees it; with kDeleted at its end if the kernel says so.
  std::string path;
  // Type and permissions.
  mode_t mode = 0;
  dev_t device = 0;
  uint64_t inode = 0;
  // Names that the file has.
  uint32_t links = 1;
  // As in /proc/PID/mountinfo; -1 if it is not known.
  int mount_id = -1;
  // The mount it was found on; see MountInfo. All are empty if the task does
  // not see it: it is the kernel's own, or unmounted.
  std::string mount_point;
  std::string file_system;
  dev_t mount_device = 0;
  std::string mount_source = {};
  std::string mount_options = {};
  // Open for writing by one of the tasks, or mapped by way of such a
  // descriptor.
  bool writable = false;

  bool is_mapping() const { return link.rfind("map_files/", 0) == 0; }
};

// The files of the tasks, root task first. A file that several have under one
// path is there once; directories before what is open, that before what is
// mapped. Tasks that are gone have none; what cannot be read of others is an
// error. UNAVAILABLE, OVERLOADED if a file system does not answer.
absl::StatusOr<std::vector<UsedFile>> ReadUsedFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree);

// Fills in where `mounts` has what `is_mount` says, if anywhere.
void SetMount(const std::vector<MountInfo>& mounts,
              const std::function<bool(const MountInfo&)>& is_mount,
              UsedFile* file);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_TREE_FILES_H_
