// SPDX-License-Identifier: Apache-2.0
#include "snapd/store/pool.h"

#include <fcntl.h>
#include <linux/kmemfs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/bounded_child.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "base/utf8.h"
#include "host/pool/info.h"
#include "host/pool/origin.h"
#include "host/pool/pool.h"
#include "snapd/store/records.h"

namespace daxsnap {
namespace {

// How long a cancelled call may go on while the kernel makes checksums.
constexpr absl::Duration kCancelLatency = absl::Milliseconds(200);

absl::Status PoolMissing(absl::StatusCode code, std::string message,
                         const std::string& path) {
  return MakeError({.code = code,
                    .reason = reason::kPoolMissing,
                    .message = std::move(message),
                    .hint = "check the device, or attach a pool",
                    .metadata = {{"path", path}}});
}

// Device of the kmemfs that is mounted on `path`; empty if that is not known.
std::string DeviceOf(const std::string& path) {
  auto mounts = pool::ListMounts();
  if (!mounts.ok()) return {};
  for (const pool::Mount& mount : *mounts) {
    if (mount.mount_point == path) return mount.device;
  }
  return {};
}

// What cannot be told is not promised: to verify costs no more than time.
Persistence PersistenceOf(const std::string& device) {
  const absl::StatusOr<pool::Origin> origin = pool::FindOrigin(device);
  if (!origin.ok()) {
    LogWarning(absl::StrCat("is the memory of the pool persistent? ",
                            origin.status().message()));
  }
  return origin.ok() && origin->persistent ? Persistence::kPromised
                                           : Persistence::kNotPromised;
}

// The child's part of making checksums: `argument` is the path of the pool, the
// report the errno.
void MakeChecksumsAt(const void* argument, int report) {
  const int root =
      open(static_cast<const char*>(argument), O_RDONLY | O_DIRECTORY);
  const bool made = root >= 0 && ioctl(root, KMEMFS_IOC_SUM, 0) == 0;
  const unsigned char byte = made ? 0 : static_cast<unsigned char>(errno);
  while (write(report, &byte, 1) < 0 && errno == EINTR) {
  }
}

absl::Status Foreign(const std::string& pool, const std::string& name,
                     absl::string_view why) {
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kPoolMissing,
       .message = absl::StrCat(pool, "/", name, " is not snapd's: ", why,
                               "; snapd makes it for itself, mode 0700"),
       .hint = "name another directory, or have that one renamed; if it is of "
               "a pool that was copied, give it that owner and mode",
       .metadata = {{"path", absl::StrCat(pool, "/", name)}}});
}

// What is in staging/ is removed, and what is in snapshots/ can be deleted by
// name. Nobody else's directory may be taken for these. Nothing is removed from
// a pool that is read-only, so there it is enough that nobody else can have
// written what is restored.
absl::Status CheckOurs(int root, int directory, const std::string& pool,
                       const std::string& name, bool read_only) {
  struct stat top;
  struct stat info;
  if (fstat(root, &top) != 0 || fstat(directory, &info) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot stat ", pool, "/", name));
  }
  if (info.st_dev != top.st_dev) {
    return Foreign(pool, name, "another file system is mounted there");
  }
  if (info.st_uid != geteuid()) {
    return Foreign(pool, name, absl::StrCat("its owner is uid ", info.st_uid));
  }
  if ((info.st_mode & 077) == 0) return absl::OkStatus();
  absl::Status foreign =
      Foreign(pool, name,
              absl::StrFormat("others may use it, its mode is %04o",
                              info.st_mode & 07777));
  if (!read_only || (info.st_mode & 022) != 0) return foreign;
  LogWarning(foreign.message());
  return absl::OkStatus();
}

// What is in the directory `name` of a pool; nothing if that is not there.
absl::StatusOr<std::vector<std::string>> ListIn(int root,
                                                const std::string& name) {
  auto directory = OpenDirectory(root, name);
  if (absl::IsNotFound(directory.status())) return std::vector<std::string>();
  const std::string error = ErrnoNameOf(directory.status());
  // Refused by name later.
  if (error == "ENOTDIR" || error == "ELOOP") return std::vector<std::string>();
  if (!directory.ok()) return directory.status();
  return ListDirectory(directory->get());
}

// Before any of both is made: whether what is in snapshots/ and staging/ can be
// snapd's. Others call a directory so, too, root's and mode 0700.
absl::Status CheckContent(int root, const std::string& pool) {
  auto left = ListIn(root, "staging");
  if (!left.ok()) return left.status();
  for (const std::string& entry : *left) {
    if (!Records::UidOf(entry).empty()) continue;
    return Foreign(pool, "staging",
                   absl::StrCat("snapd makes nothing called ",
                                ToPrintableUtf8(entry), " there"));
  }
  // snapshots/ is made first.
  auto snapshots = Exists(root, "snapshots");
  if (!snapshots.ok()) return snapshots.status();
  if (!*snapshots && !left->empty()) {
    return Foreign(pool, "staging", "no snapshots/ is beside it");
  }
  auto staging = Exists(root, "staging");
  if (!staging.ok() || *staging) return staging.status();
  auto names = ListIn(root, "snapshots");
  if (!names.ok() || names->empty()) return names.status();
  // They may have been copied there.
  for (const std::string& name : *names) {
    auto manifest =
        Exists(root, absl::StrCat("snapshots/", name, "/manifest.pb"));
    if (manifest.ok() && *manifest) return absl::OkStatus();
  }
  return Foreign(pool, "snapshots",
                 "no staging/ is beside it, and no manifest.pb in it");
}

absl::StatusOr<UniqueFd> OpenOurs(int root, const std::string& pool,
                                  const std::string& name, bool read_only) {
  auto directory = EnsureDirectory(root, name);
  const std::string error = ErrnoNameOf(directory.status());
  if (error == "ENOTDIR" || error == "ELOOP") {
    return Foreign(pool, name, "it is no directory");
  }
  if (!directory.ok()) return directory;
  absl::Status ours = CheckOurs(root, directory->get(), pool, name, read_only);
  if (!ours.ok()) return ours;
  return directory;
}

// Of a pool that is read-only: what is not there is empty.
absl::StatusOr<UniqueFd> OpenOrEmpty(int root, const std::string& pool,
                                     const std::string& name, bool read_only) {
  auto directory = OpenOurs(root, pool, name, read_only);
  if (ErrnoNameOf(directory.status()) != "EROFS") return directory;
  std::string path = "/tmp/daxsnap.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return directory.status();
  UniqueFd empty(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  rmdir(path.c_str());
  if (!empty.valid()) return directory.status();
  return empty;
}

v1::Pool FromStatfs(const struct statfs& from) {
  constexpr uint32_t kPageSize = 4096;
  v1::Pool info;
  info.set_kind(v1::POOL_KIND_DIRECTORY);
  info.set_node(-1);
  info.set_page_size(kPageSize);
  const uint64_t block = static_cast<uint64_t>(from.f_bsize);
  info.set_total_pages(from.f_blocks * block / kPageSize);
  info.set_free_pages(from.f_bavail * block / kPageSize);
  return info;
}

v1::PoolPersistence ToProto(Persistence persistence) {
  switch (persistence) {
    case Persistence::kUnknown:
      return v1::POOL_PERSISTENCE_UNSPECIFIED;
    case Persistence::kPromised:
      return v1::POOL_PERSISTENCE_PROMISED;
    case Persistence::kNotPromised:
      return v1::POOL_PERSISTENCE_NOT_PROMISED;
  }
  return v1::POOL_PERSISTENCE_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<Pool::Handles> Pool::OpenHandles(const std::string& path) {
  Handles handles;
  handles.path = path;
  handles.root =
      UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct statfs fs;
  if (!handles.root.valid() || fstatfs(handles.root.get(), &fs) != 0) {
    absl::Status error =
        ErrnoError(errno, absl::StrCat("cannot open pool ", path));
    if (IsShortage(error)) return error;
    return PoolMissing(absl::StatusCode::kFailedPrecondition,
                       std::string(error.message()), path);
  }
  handles.is_kmemfs = fs.f_type == KMEMFS_SUPER_MAGIC;
  if (handles.is_kmemfs) {
    handles.device = DeviceOf(path);
    handles.persistence = PersistenceOf(handles.device);
  }
  if (flock(handles.root.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return ErrnoError(errno, absl::StrCat("cannot lock pool ", path));
    }
    return PoolMissing(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("pool ", path, " is in use by another snapd"), path);
  }
  struct statvfs mount;
  const bool read_only = fstatvfs(handles.root.get(), &mount) == 0 &&
                         (mount.f_flag & ST_RDONLY) != 0;
  absl::Status content;
  // Some of what a damaged one had may be gone, and nothing is removed there.
  if (!read_only) content = CheckContent(handles.root.get(), path);
  if (!content.ok()) return content;
  auto snapshots =
      OpenOrEmpty(handles.root.get(), path, "snapshots", read_only);
  if (!snapshots.ok()) return snapshots.status();
  auto staging = OpenOrEmpty(handles.root.get(), path, "staging", read_only);
  if (!staging.ok()) return staging.status();
  handles.snapshots = *std::move(snapshots);
  handles.staging = *std::move(staging);
  return handles;
}

Pool::Pool(Handles handles)
    : path_(std::move(handles.path)),
      device_(std::move(handles.device)),
      is_kmemfs_(handles.is_kmemfs),
      persistence_(handles.persistence),
      root_(std::move(handles.root)),
      snapshots_(std::move(handles.snapshots)),
      staging_(std::move(handles.staging)) {}

absl::StatusOr<std::unique_ptr<Pool>> Pool::Open(const std::string& path) {
  auto handles = OpenHandles(path);
  if (!handles.ok()) return handles.status();
  // The constructor is protected, so make_unique cannot call it.
  return std::unique_ptr<Pool>(new Pool(*std::move(handles)));
}

absl::Status Pool::Commit() {
  // syncfs(2) says 0 for a file system that has become read-only, fsync(2) not.
  int error = FileFault("commit", path_);
  if (error == 0) {
    if (syncfs(root_.get()) == 0 && fsync(root_.get()) == 0) {
      return absl::OkStatus();
    }
    error = errno;
  }
  if (error == ENOSPC || error == ENOMEM) {
    return ErrnoError(error, absl::StrCat("cannot commit pool ", path_));
  }
  return CommitFailed(absl::StrCat("cannot commit pool ", path_), error);
}

absl::Status Pool::CommitFailed(const std::string& what, int error) const {
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kCommitFailed,
                    .message = absl::StrCat(what, ": ", std::strerror(error)),
                    .hint = "check the device and the kernel log",
                    .metadata = {{"path", path_}}});
}

absl::StatusOr<v1::Pool> Pool::Info() const {
  kmemfs_info kmemfs;
  struct statfs fs;
  int error = FileFault("statfs", path_);
  if (error == 0) {
    const bool known = is_kmemfs_ ? pool::ReadInfo(root_.get(), &kmemfs)
                                  : fstatfs(root_.get(), &fs) == 0;
    if (!known) error = errno;
  }
  if (error != 0) {
    return PoolMissing(absl::StatusCode::kUnavailable,
                       absl::StrCat("no statistics of pool ", path_, ": ",
                                    std::strerror(error)),
                       path_);
  }
  v1::Pool info = is_kmemfs_ ? pool::ToProto(kmemfs) : FromStatfs(fs);
  info.set_path(path_);
  info.set_device(device_);
  info.set_persistence(ToProto(persistence()));
  return info;
}

absl::Status Pool::CheckWritable() const {
  struct statvfs fs;
  if (fstatvfs(root_.get(), &fs) != 0 || (fs.f_flag & ST_RDONLY) == 0)
    return absl::OkStatus();
  const bool damaged = IsDamaged();
  return MakeError(
      {.code = absl::StatusCode::kFailedPrecondition,
       .reason = reason::kPoolReadOnly,
       .message = absl::StrCat(
           "pool ", path_,
           damaged ? " can only be read: some of what it stores is damaged"
                   : " is mounted read-only"),
       .hint = damaged ? "restore the snapshots that are whole, or copy them "
                         "elsewhere; then make the pool anew, by `snapctl pool "
                         "create --force` after a reboot in which nothing "
                         "attaches it"
                       : "mount it so that it can be written",
       .metadata = {{"path", path_}}});
}

bool Pool::IsDamaged() const {
  kmemfs_info info;
  return is_kmemfs_ && pool::ReadInfo(root_.get(), &info) &&
         (info.flags & KMEMFS_INFO_RESCUE) != 0;
}

absl::StatusOr<pool::RangeCheck> Pool::CheckRange(int file, uint64_t offset,
                                                  uint64_t length) const {
  return pool::CheckRange(file, offset, length);
}

absl::Status Pool::MakeChecksums(const Cancellation& cancellation) const {
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  // The kernel may be at it for minutes, and only a signal ends it.
  auto child = BoundedChild::Start(MakeChecksumsAt, path_.c_str());
  if (!child.ok()) return child.status();
  absl::StatusOr<int> error = child->Next(absl::Now() + kCancelLatency);
  while (absl::IsDeadlineExceeded(error.status())) {
    if (cancellation.cancelled()) return CancelledError();
    error = child->Next(absl::Now() + kCancelLatency);
  }
  if (!error.ok()) return error.status();
  const std::string what = absl::StrCat("cannot make checksums of ", path_);
  switch (*error) {
    case 0:
      return absl::OkStatus();
    case EOPNOTSUPP:
    case ENOTTY:
      return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                        .reason = reason::kChecksumsMissing,
                        .message = absl::StrCat(what, ": ", WhyNoChecksums()),
                        .hint = std::string(kNoChecksumsHint)});
    case EROFS:
    case EIO:
      return CommitFailed(what, *error);
    default:
      return ErrnoError(*error, what);
  }
}

std::string Pool::WhyNoChecksums() const {
  if (!is_kmemfs_) return "it is a directory of another file system";
  auto info = Info();
  return info.ok() && info->format_version() >= 2
             ? "this kernel does not know checksums"
             : "it is of format version 1, which has none";
}

}  // namespace daxsnap
