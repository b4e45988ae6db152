// SPDX-License-Identifier: Apache-2.0
//
// File system calls that snapd needs, relative to directory descriptors, so
// that no path is resolved twice. All are thread-safe. NOT_FOUND says that
// nothing is there; all other errors are ErrnoError() of errors.h, so a full
// disk is NO_SPACE: whether something is there is not known then.
#ifndef DAXSNAP_BASE_FILES_H_
#define DAXSNAP_BASE_FILES_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"

namespace daxsnap {

// Opens directory `path` below `parent` (AT_FDCWD: the working directory)
// without following a symlink in its last part.
absl::StatusOr<UniqueFd> OpenDirectory(int parent, const std::string& path);

// Makes `name` below `parent`, mode 0700, unless it exists as a directory, and
// opens it.
absl::StatusOr<UniqueFd> EnsureDirectory(int parent, const std::string& name);

// Makes the absolute directory `path`, unless it exists, those above it with
// mode 0755, and opens it.
absl::StatusOr<UniqueFd> EnsureDirectories(const std::string& path,
                                           mode_t mode = 0700);

// The system calls of EnsureDirectories(): no descriptor, and errno.
UniqueFd MakeDirectories(const std::string& path, mode_t mode);

// Whether `name` exists below `parent`, whatever it is.
absl::StatusOr<bool> Exists(int parent, const std::string& name);

// Opens a regular file for reading, and stats it. Nothing else is opened, as
// that has side effects with a device or FIFO: NOT_FOUND if there is nothing at
// `path`, FAILED_PRECONDITION if it is something else. Follows symlinks.
absl::StatusOr<UniqueFd> OpenRegular(const std::string& path,
                                     struct stat* info);

// The system calls of OpenRegular(): -1, and errno, which is EINVAL if it is no
// regular file. They need no memory but the stack.
int OpenRegularFile(const char* path, struct stat* info);

// What OpenRegular() returns when its system calls fail.
absl::Status OpenRegularError(int error, const std::string& path);

// Opens whatever is at `path` with O_PATH, which asks no file system anything.
// Follows symlinks. NOT_FOUND if nothing is there.
absl::StatusOr<UniqueFd> OpenPath(const std::string& path);

// The entries of a directory, sorted bytewise, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListDirectory(int directory);

// The content of a regular file of at most `limit` bytes; a larger one is
// FAILED_PRECONDITION. NOT_FOUND if there is none.
absl::StatusOr<std::string> ReadFileAt(int parent, const std::string& name,
                                       size_t limit);

// Replaces `name` by a file with `content`, mode 0600, in one step: a reader
// sees the old or the new. Not durable by itself.
absl::Status ReplaceFileAt(int parent, const std::string& name,
                           absl::string_view content);

// Likewise, and a power cut leaves the old or the new as well: the content is
// on the device before it has the name.
absl::Status ReplaceFileDurablyAt(int parent, const std::string& name,
                                  absl::string_view content);

// Removes `name` and all that is below it; OK if there is none. Never follows
// symlinks and never crosses into another mounted file system.
absl::Status RemoveTree(int parent, const std::string& name);

// Whether an error of the functions here that name a file says that there is no
// regular file: NOT_FOUND or FAILED_PRECONDITION.
bool IsNoRegularFile(const absl::Status& status);

// statx(2) of what `path` leads to, without asking a server on the network for
// what is known already, and without mounting anything. NOT_FOUND if nothing is
// there. It hangs with a file system on the way that does not answer; see
// stat_paths.h.
absl::Status StatFile(const std::string& path, struct statx* info);

// The system call of StatFile(), which sets errno.
int StatxFile(const char* path, struct statx* info);

// What StatFile() returns when its system call fails.
absl::Status StatError(int error, const std::string& path);

// What the symlink `path` says. NOT_FOUND if there is none.
absl::StatusOr<std::string> ReadLink(const std::string& path);

// Renames in one step, and never over something. False, and errno: EEXIST if
// there is something.
bool RenameNoReplace(int from_parent, const std::string& from, int to_parent,
                     const std::string& to);

#ifdef DAXSNAP_FAULT_POINTS

// For tests: while the object lives, the system calls behind the functions of
// this file, of all threads, fail with the errno that `fault` returns for
// ("open", "read", "stat", "list", "link", "mkdir", "create", "write", "sync",
// "rename" or "unlink", name); 0 lets them be made. Likewise ("commit", path)
// and
// ("statfs", path) of a pool, ("poll", path) of the socket, and ("point", name)
// of FaultPoint(). One at a time.
class ScopedFileFault {
 public:
  using Fault =
      std::function<int(absl::string_view call, const std::string& name)>;
  explicit ScopedFileFault(Fault fault);
  ScopedFileFault(const ScopedFileFault&) = delete;
  ScopedFileFault& operator=(const ScopedFileFault&) = delete;
  ~ScopedFileFault();

 private:
  const Fault fault_;
};

// For what makes these calls elsewhere: the errno that a ScopedFileFault has
// for one, 0 if it may be made.
int FileFault(absl::string_view call, const std::string& name);

#else

inline int FileFault(absl::string_view /*call*/, const std::string& /*name*/) {
  return 0;
}

#endif  // DAXSNAP_FAULT_POINTS

// Stands where an operation goes from one state to the next, so that tests can
// make it end there; OK outside of them.
absl::Status FaultPoint(const std::string& name);

// Sum of the sizes of the regular files directly in a directory, in bytes.
absl::StatusOr<uint64_t> BytesInDirectory(int directory);

}  // namespace daxsnap

#endif  // DAXSNAP_BASE_FILES_H_
