// SPDX-License-Identifier: Apache-2.0
#include "base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

#ifdef DAXSNAP_FAULT_POINTS
std::atomic<const ScopedFileFault::Fault*> file_fault = nullptr;
#endif

// Whether the call is to be made; else errno is set.
bool May(absl::string_view call, const std::string& name) {
  const int error = FileFault(call, name);
  if (error != 0) errno = error;
  return error == 0;
}

UniqueFd OpenAt(int parent, const std::string& name, int flags,
                mode_t mode = 0) {
  if (!May("open", name)) return UniqueFd();
  return UniqueFd(openat(parent, name.c_str(), flags | O_CLOEXEC, mode));
}

bool UnlinkAt(int parent, const std::string& name, int flags) {
  return May("unlink", name) && unlinkat(parent, name.c_str(), flags) == 0;
}

// Whether it is there now.
bool MakeDirectoryAt(int parent, const std::string& name, mode_t mode) {
  if (!May("mkdir", name)) return false;
  if (mkdirat(parent, name.c_str(), mode) != 0) return errno == EEXIST;
  // The umask may have kept something of it from those it is for.
  return (mode & 077) == 0 ||
         fchmodat(parent, name.c_str(), mode, AT_SYMLINK_NOFOLLOW) == 0;
}

int StatAt(int parent, const std::string& name, int flags, struct stat* info) {
  if (!May("stat", name)) return -1;
  return fstatat(parent, name.c_str(), info, flags);
}

// ESRCH, or ENOENT in the middle: the task of a file in /proc is gone.
absl::Status FileError(int error, const std::string& what) {
  if (error == ENOENT || error == ESRCH) return absl::NotFoundError(what);
  return ErrnoError(error, what);
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};
using DirStream = std::unique_ptr<DIR, CloseDir>;

absl::StatusOr<DirStream> OpenStream(int directory) {
  // A descriptor of its own, so that the position is its own too.
  UniqueFd copy = OpenAt(directory, ".", O_RDONLY | O_DIRECTORY);
  if (!copy.valid()) return FileError(errno, "cannot open directory");
  DirStream stream(fdopendir(copy.get()));
  if (stream == nullptr) return ErrnoError(errno, "cannot read directory");
  (void)copy.release();
  return stream;
}

absl::Status WriteAll(int fd, absl::string_view content,
                      const std::string& name) {
  while (!content.empty()) {
    const ssize_t written =
        May("write", name) ? write(fd, content.data(), content.size()) : -1;
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, "cannot write");
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status RemoveTreeOn(int parent, const std::string& name, dev_t device);

absl::Status RemoveContents(int directory, dev_t device) {
  auto entries = ListDirectory(directory);
  if (!entries.ok()) return entries.status();
  for (const std::string& entry : *entries) {
    absl::Status removed = RemoveTreeOn(directory, entry, device);
    if (!removed.ok()) return removed;
  }
  return absl::OkStatus();
}

absl::Status RemoveTreeOn(int parent, const std::string& name, dev_t device) {
  if (UnlinkAt(parent, name, 0) || errno == ENOENT) return absl::OkStatus();
  if (errno != EISDIR && errno != EPERM) {
    return ErrnoError(errno, absl::StrCat("cannot remove ", name));
  }
  auto directory = OpenDirectory(parent, name);
  if (!directory.ok()) return directory.status();
  struct stat info;
  if (fstat(directory->get(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot stat ", name));
  }
  if (info.st_dev != device) {
    return ErrnoError(EXDEV, absl::StrCat("cannot remove ", name));
  }
  absl::Status emptied = RemoveContents(directory->get(), device);
  if (!emptied.ok()) return emptied;
  if (!UnlinkAt(parent, name, AT_REMOVEDIR) && errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("cannot remove directory ", name));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> OpenDirectory(int parent, const std::string& path) {
  UniqueFd fd = OpenAt(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd.valid()) return fd;
  return FileError(errno, absl::StrCat("cannot open directory ", path));
}

absl::StatusOr<UniqueFd> EnsureDirectory(int parent, const std::string& name) {
  if (!MakeDirectoryAt(parent, name, 0700)) {
    return ErrnoError(errno, absl::StrCat("cannot make directory ", name));
  }
  return OpenDirectory(parent, name);
}

UniqueFd MakeDirectories(const std::string& path, mode_t mode) {
  UniqueFd at = OpenAt(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY);
  const std::vector<std::string> parts =
      absl::StrSplit(path, '/', absl::SkipEmpty());
  for (size_t i = 0; at.valid() && i < parts.size(); ++i) {
    const mode_t its = i + 1 == parts.size() ? mode : 0755;
    if (!MakeDirectoryAt(at.get(), parts[i], its)) return UniqueFd();
    // Parts above ours may be symlinks, such as /var/run.
    at = OpenAt(at.get(), parts[i], O_RDONLY | O_DIRECTORY);
  }
  return at;
}

absl::StatusOr<UniqueFd> EnsureDirectories(const std::string& path,
                                           mode_t mode) {
  UniqueFd directory = MakeDirectories(path, mode);
  if (directory.valid()) return directory;
  return ErrnoError(errno, absl::StrCat("cannot make directory ", path));
}

absl::StatusOr<bool> Exists(int parent, const std::string& name) {
  struct stat info;
  if (StatAt(parent, name, AT_SYMLINK_NOFOLLOW, &info) == 0) return true;
  if (errno == ENOENT) return false;
  return ErrnoError(errno, absl::StrCat("cannot stat ", name));
}

absl::StatusOr<UniqueFd> OpenPath(const std::string& path) {
  UniqueFd fd = OpenAt(AT_FDCWD, path, O_PATH);
  if (fd.valid()) return fd;
  const std::string what = absl::StrCat("cannot open ", path);
  if (errno == ENOTDIR) return absl::NotFoundError(what);
  return FileError(errno, what);
}

absl::StatusOr<UniqueFd> OpenRegular(const std::string& path,
                                     struct stat* info) {
  UniqueFd fd(May("open", path) ? OpenRegularFile(path.c_str(), info) : -1);
  if (fd.valid()) return fd;
  return OpenRegularError(errno, path);
}

int OpenRegularFile(const char* path, struct stat* info) {
  const int found = open(path, O_PATH | O_CLOEXEC);
  if (found < 0) return -1;
  int fd = -1;
  if (fstat(found, info) == 0) {
    errno = EINVAL;
    if (S_ISREG(info->st_mode)) {
      char link[32];
      snprintf(link, sizeof(link), "/proc/self/fd/%d", found);
      // The file that was looked at, whatever the path leads to by now. Nobody
      // waits for the end of a lease.
      fd = open(link, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
      // Its file system's own EINVAL does not say what it is.
      if (fd < 0 && errno == EINVAL) errno = EIO;
    }
  }
  const int error = errno;
  close(found);
  errno = error;
  return fd;
}

absl::Status OpenRegularError(int error, const std::string& path) {
  if (error == EINVAL) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not a regular file"));
  }
  const std::string what = absl::StrCat("cannot open ", path);
  if (error == ENOTDIR) return absl::NotFoundError(what);
  return FileError(error, what);
}

bool IsNoRegularFile(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
}

absl::Status StatFile(const std::string& path, struct statx* info) {
  if (May("stat", path) && StatxFile(path.c_str(), info) == 0) {
    return absl::OkStatus();
  }
  return StatError(errno, path);
}

int StatxFile(const char* path, struct statx* info) {
  return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
               STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, info);
}

absl::Status StatError(int error, const std::string& path) {
  const std::string what = absl::StrCat("cannot stat ", path);
  // No component of a path that is too long is there.
  if (error == ENOTDIR || error == ENAMETOOLONG) {
    return absl::NotFoundError(what);
  }
  return FileError(error, what);
}

absl::StatusOr<std::string> ReadLink(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length =
      May("link", path) ? readlink(path.c_str(), target, sizeof(target)) : -1;
  if (length >= 0) return std::string(target, static_cast<size_t>(length));
  return FileError(errno, absl::StrCat("cannot read link ", path));
}

#ifdef DAXSNAP_FAULT_POINTS

ScopedFileFault::ScopedFileFault(Fault fault) : fault_(std::move(fault)) {
  file_fault = &fault_;
}

ScopedFileFault::~ScopedFileFault() { file_fault = nullptr; }

int FileFault(absl::string_view call, const std::string& name) {
  const ScopedFileFault::Fault* fault = file_fault.load();
  return fault == nullptr ? 0 : (*fault)(call, name);
}

#endif  // DAXSNAP_FAULT_POINTS

absl::Status FaultPoint(const std::string& name) {
  const int error = FileFault("point", name);
  return error == 0 ? absl::OkStatus() : ErrnoError(error, name);
}

bool RenameNoReplace(int from_parent, const std::string& from, int to_parent,
                     const std::string& to) {
  return May("rename", to) && renameat2(from_parent, from.c_str(), to_parent,
                                        to.c_str(), RENAME_NOREPLACE) == 0;
}

absl::StatusOr<std::vector<std::string>> ListDirectory(int directory) {
  auto stream = OpenStream(directory);
  if (!stream.ok()) return stream.status();
  std::vector<std::string> entries;
  for (;;) {
    errno = 0;
    if (!May("list", "")) break;
    // The stream belongs to this call alone.
    const dirent* entry =
        readdir(stream->get());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) break;
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") entries.emplace_back(name);
  }
  if (errno != 0) return FileError(errno, "cannot read directory");
  std::sort(entries.begin(), entries.end());
  return entries;
}

absl::StatusOr<std::string> ReadFileAt(int parent, const std::string& name,
                                       size_t limit) {
  const UniqueFd fd = OpenAt(parent, name, O_RDONLY);
  if (!fd.valid()) return FileError(errno, absl::StrCat("cannot open ", name));
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t got =
        May("read", name) ? read(fd.get(), buffer, sizeof(buffer)) : -1;
    if (got < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, absl::StrCat("cannot read ", name));
    }
    if (got == 0) return content;
    content.append(buffer, static_cast<size_t>(got));
    if (content.size() > limit) {
      return absl::FailedPreconditionError(
          absl::StrCat(name, " is larger than ", limit, " bytes"));
    }
  }
}

namespace {

enum class Durability { kNone, kContentFirst };

absl::Status ReplaceFile(int parent, const std::string& name,
                         absl::string_view content, Durability durability) {
  const std::string temporary = absl::StrCat(name, ".new");
  UniqueFd fd;
  if (May("create", temporary)) {
    fd = UniqueFd(openat(parent, temporary.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                         0600));
  }
  if (!fd.valid()) {
    return ErrnoError(errno, absl::StrCat("cannot create ", temporary));
  }
  absl::Status status = WriteAll(fd.get(), content, name);
  if (status.ok() && durability == Durability::kContentFirst &&
      (!May("sync", name) || fsync(fd.get()) != 0)) {
    status = ErrnoError(errno, absl::StrCat("cannot sync ", temporary));
  }
  if (status.ok() &&
      (!May("rename", name) ||
       renameat(parent, temporary.c_str(), parent, name.c_str()) != 0)) {
    status = ErrnoError(errno, absl::StrCat("cannot rename to ", name));
  }
  if (!status.ok()) unlinkat(parent, temporary.c_str(), 0);
  return status;
}

}  // namespace

absl::Status ReplaceFileAt(int parent, const std::string& name,
                           absl::string_view content) {
  return ReplaceFile(parent, name, content, Durability::kNone);
}

absl::Status ReplaceFileDurablyAt(int parent, const std::string& name,
                                  absl::string_view content) {
  return ReplaceFile(parent, name, content, Durability::kContentFirst);
}

absl::Status RemoveTree(int parent, const std::string& name) {
  struct stat info;
  if (StatAt(parent, name, AT_SYMLINK_NOFOLLOW, &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoError(errno, absl::StrCat("cannot stat ", name));
  }
  return RemoveTreeOn(parent, name, info.st_dev);
}

absl::StatusOr<uint64_t> BytesInDirectory(int directory) {
  auto entries = ListDirectory(directory);
  if (!entries.ok()) return entries.status();
  uint64_t bytes = 0;
  for (const std::string& entry : *entries) {
    struct stat info;
    if (StatAt(directory, entry, AT_SYMLINK_NOFOLLOW, &info) != 0) {
      if (errno == ENOENT) continue;
      return ErrnoError(errno, absl::StrCat("cannot stat ", entry));
    }
    if (S_ISREG(info.st_mode)) bytes += static_cast<uint64_t>(info.st_size);
  }
  return bytes;
}

}  // namespace daxsnap
