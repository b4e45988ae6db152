// SPDX-License-Identifier: Apache-2.0
//
// File system calls that snapd needs, relative to directory descriptors, so
// that no path is resolved twice. All are thread-safe. Errors are ErrnoError()
// of errors.h, so a full disk is NO_SPACE.
#ifndef DAXSNAP_SNAPD_FILES_H_
#define DAXSNAP_SNAPD_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/launch/unique_fd.h"

namespace daxsnap {

// Opens directory `path` below `parent` (AT_FDCWD: the working directory)
// without following a symlink in its last part.
absl::StatusOr<UniqueFd> OpenDirectory(int parent, const std::string& path);

// Makes `name` below `parent`, mode 0700, unless it exists as a directory, and
// opens it.
absl::StatusOr<UniqueFd> EnsureDirectory(int parent, const std::string& name);

// Makes the absolute directory `path` and those above it, mode 0700, and opens
// it.
absl::StatusOr<UniqueFd> EnsureDirectories(const std::string& path);

// Whether `name` exists below `parent`, whatever it is.
bool Exists(int parent, const std::string& name);

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

// Removes `name` and all that is below it; OK if there is none. Never follows
// symlinks and never crosses into another mounted file system.
absl::Status RemoveTree(int parent, const std::string& name);

// Sum of the sizes of the regular files directly in a directory, in bytes.
absl::StatusOr<uint64_t> BytesInDirectory(int directory);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_FILES_H_
