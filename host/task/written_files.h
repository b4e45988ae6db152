// SPDX-License-Identifier: Apache-2.0
//
// The files that a tree may write: what a restore compares, so that tasks do
// not go on with memory that is older than their files.
#ifndef DAXSNAP_HOST_TASK_WRITTEN_FILES_H_
#define DAXSNAP_HOST_TASK_WRITTEN_FILES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "host/task/proc.h"
#include "host/task/stat_paths.h"

namespace daxsnap {

// What tells one state of a regular file from another.
struct FileState {
  // Bytes.
  uint64_t size = 0;
  absl::Time modify_time;
  uint64_t inode = 0;
  // Where the file system keeps it: tells files apart that had one inode number
  // one after the other.
  std::optional<absl::Time> birth_time;
  // Others wrote it all the time while its state was taken: what they write
  // next may leave it with the same time.
  bool unsettled = false;
};

// The states of the regular files at the paths, symlinks followed. NOT_FOUND if
// nothing is there, FAILED_PRECONDITION if it is something else. UNAVAILABLE,
// OVERLOADED if a file system does not answer within `timeout`.
absl::StatusOr<std::vector<absl::StatusOr<FileState>>> ReadFileStates(
    const std::vector<std::string>& paths,
    absl::Duration timeout = kAnswerTimeout);

// The same of one.
absl::StatusOr<FileState> ReadFileState(const std::string& path);

struct WrittenFile {
  FileState state;
  // All that can write it are descriptors that are O_WRONLY and O_APPEND.
  bool append_only = false;
};

// Has the kernel write back what tasks of the tree, which stands still, have
// stored in shared mappings of files: the next store to a page that is clean
// changes the file's time, one to a dirty page does not. UNAVAILABLE,
// OVERLOADED if a device takes longer than `timeout`.
absl::Status WriteBackMappings(const ProcFs& proc,
                               const std::vector<TaskInfo>& tree,
                               absl::Duration timeout = absl::Seconds(30));

// The regular files, by path, that tasks of the tree have open for writing, or
// mapped shared so that they can write there. The tree stands still. Left out
// are files that their path does not lead to, such as deleted ones.
// UNAVAILABLE, OVERLOADED if a file system on the way, whose server may be in
// the tree, does not answer within `timeout`.
//
// Whoever writes one of them afterwards changes its state: what was written in
// the same tick of the clock as it is looked at is waited for, mostly some
// milliseconds and at most `patience`.
absl::StatusOr<std::map<std::string, WrittenFile>> ReadWrittenFiles(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    absl::Duration timeout = kAnswerTimeout,
    absl::Duration patience = absl::Seconds(3));

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_WRITTEN_FILES_H_
