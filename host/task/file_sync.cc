// SPDX-License-Identifier: Apache-2.0
#include "host/task/file_sync.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/bounded_child.h"
#include "base/errors.h"
#include "base/files.h"

namespace daxsnap {
namespace {

bool CanSync(mode_t mode) { return S_ISREG(mode) || S_ISDIR(mode); }

// What the child is told, of one target.
struct Job {
  int fd;
  int root;
  const TaskDescriptor* descriptors;
  size_t descriptor_count;
  // Ends with a null pointer.
  const char* const* mappings;
  // Ends with a null pointer.
  const char* const* mount_points;
};

struct Jobs {
  const Job* first;
  size_t count;
  int record;
};

// From here to Sync() all runs in the child: see BoundedChild::Work.

// In memory, or made up by the kernel as they are read.
bool HasNothingToSync(unsigned magic) {
  constexpr unsigned kMagics[] = {
      ANON_INODE_FS_MAGIC, BINFMTFS_MAGIC,     BPF_FS_MAGIC,
      CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC, DEBUGFS_MAGIC,
      DEVPTS_SUPER_MAGIC,  HUGETLBFS_MAGIC,    NSFS_MAGIC,
      PROC_SUPER_MAGIC,    RAMFS_MAGIC,        SECURITYFS_MAGIC,
      SELINUX_MAGIC,       SYSFS_MAGIC,        TMPFS_MAGIC,
      TRACEFS_MAGIC};
  return std::find(std::begin(kMagics), std::end(kMagics), magic) !=
         std::end(kMagics);
}

// Where syncfs(2) does not reach the medium: the server of FUSE is told
// nothing, and eCryptfs has no sync of its own.
bool MustSyncEachFile(unsigned magic) {
  constexpr unsigned kFuseMagic = 0x65735546;  // FUSE_SUPER_MAGIC
  return magic == kFuseMagic || magic == ECRYPTFS_SUPER_MAGIC;
}

bool Look(int fd, struct statx* info) {
  return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
               STATX_TYPE | STATX_INO | STATX_MNT_ID, info) == 0;
}

bool IsOnSameDevice(const struct statx& a, const struct statx& b) {
  return a.stx_dev_major == b.stx_dev_major &&
         a.stx_dev_minor == b.stx_dev_minor;
}

int OpenDirectoryOf(int fd) {
  return openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

// A directory of the file system of `used`, which is at one of the places where
// it is mounted, unless something else is there by now or above it. As mount
// points have no symlinks, whoever puts one there is not followed.
int OpenMountPoint(const Job& job, const struct statx& used) {
  open_how how = {};
  how.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  for (auto* const* path = job.mount_points; *path != nullptr; ++path) {
    const int place = static_cast<int>(
        syscall(SYS_openat2, job.root, *path, &how, sizeof(how)));
    if (place < 0) continue;
    struct statx info;
    // A subvolume has a device of its own on the same mount.
    const bool same =
        Look(place, &info) &&
        (info.stx_mnt_id == used.stx_mnt_id || IsOnSameDevice(info, used));
    const int fd = same ? OpenDirectoryOf(place) : -1;
    close(place);
    if (fd >= 0) return fd;
  }
  return -1;
}

// A task's own descriptor if it is of something where `used` is: opens nothing.
// One that was opened with O_PATH cannot be synced.
int TakeOne(const TaskDescriptor& descriptor, const struct statx& used) {
  const int pidfd =
      static_cast<int>(syscall(SYS_pidfd_open, descriptor.pid, 0));
  if (pidfd < 0) return -1;
  const int fd =
      static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, descriptor.number, 0));
  close(pidfd);
  if (fd < 0) return -1;
  struct statx info;
  if (Look(fd, &info) && IsOnSameDevice(info, used) &&
      (fcntl(fd, F_GETFL) & O_PATH) == 0) {
    return fd;
  }
  close(fd);
  return -1;
}

int TakeDescriptor(const Job& job, const struct statx& used) {
  for (size_t i = 0; i < job.descriptor_count; ++i) {
    const int fd = TakeOne(job.descriptors[i], used);
    if (fd >= 0) return fd;
  }
  return -1;
}

// Of all files that the tasks can write there; 0, or the last errno. What they
// have closed meanwhile is left out.
int SyncEachFile(const Job& job, const struct statx& used) {
  int error = 0;
  const auto sync = [&error](int fd) {
    if (fsync(fd) != 0) error = errno;
    close(fd);
  };
  for (size_t i = 0; i < job.descriptor_count; ++i) {
    if (!job.descriptors[i].writable) continue;
    const int fd = TakeOne(job.descriptors[i], used);
    if (fd >= 0) sync(fd);
  }
  for (auto* const* link = job.mappings; *link != nullptr; ++link) {
    struct stat info;
    const int fd = OpenRegularFile(*link, &info);
    if (fd >= 0) {
      sync(fd);
    } else if (errno != ENOENT) {
      error = errno;
    }
  }
  return error;
}

// What the child tells of a target: perhaps that its sync begins, and how it
// has ended.
struct Report {
  enum State : unsigned char { kBegins, kNotReached, kSynced };
  State state;
  // An errno, or 0.
  unsigned char error;
};

Report NotReached(int error) {
  return {.state = Report::kNotReached,
          .error = static_cast<unsigned char>(error)};
}

bool WriteStep(int record, size_t target, SyncStep::State state, int error) {
  if (record < 0) return true;
  const SyncStep step = {.target = static_cast<uint32_t>(target),
                         .state = state,
                         .error = static_cast<uint8_t>(error),
                         .ticks = TicksNow()};
  return write(record, &step, sizeof(step)) == sizeof(step);
}

// Who opens a file breaks its leases and is seen by its server, and what is no
// file or directory may do anything; so directories alone are opened.
Report SyncOne(const Jobs& jobs, size_t target, int report) {
  const Job& job = jobs.first[target];
  struct statx used;
  struct statfs system;
  const auto magic =
      static_cast<unsigned>(fstatfs(job.fd, &system) == 0 ? system.f_type : 0);
  if (HasNothingToSync(magic)) return NotReached(0);
  if (!Look(job.fd, &used)) return NotReached(errno);
  int fd = -1;
  int error = ENOENT;
  if (S_ISDIR(used.stx_mode)) {
    fd = OpenDirectoryOf(job.fd);
    error = errno;
  }
  if (fd < 0) fd = OpenMountPoint(job, used);
  if (fd < 0) fd = TakeDescriptor(job, used);
  if (fd < 0) return NotReached(error);
  if (!WriteStep(jobs.record, target, SyncStep::kBegins, 0)) {
    return NotReached(EIO);
  }
  const Report begins = {.state = Report::kBegins, .error = 0};
  error = 0;
  // Who is told that it begins does not kill it. Nobody asks for it any more if
  // nobody can be told.
  if (write(report, &begins, sizeof(begins)) == sizeof(begins)) {
    error = syncfs(fd) == 0 ? 0 : errno;
    if (MustSyncEachFile(magic)) {
      const int of_files = SyncEachFile(job, used);
      if (of_files != 0) error = of_files;
    }
  }
  close(fd);
  (void)WriteStep(jobs.record, target, SyncStep::kEnds, error);
  return {.state = Report::kSynced, .error = static_cast<unsigned char>(error)};
}

// Reports of each target, as long as there is somebody to read them.
void Sync(const void* argument, int report) {
  (void)std::signal(SIGPIPE, SIG_IGN);
  const auto* jobs = static_cast<const Jobs*>(argument);
  for (size_t i = 0; i < jobs->count; ++i) {
    const Report done = SyncOne(*jobs, i, report);
    if (write(report, &done, sizeof(done)) != sizeof(done)) return;
  }
}

absl::Status TimedOut(const std::string& mount_point, absl::Duration timeout) {
  const int64_t seconds = absl::ToInt64Seconds(timeout);
  return MakeError(
      {.code = absl::StatusCode::kUnavailable,
       .reason = reason::kSyncTimeout,
       .message = absl::StrCat("the file system on ", mount_point,
                               ", which the tasks use, was not synced within ",
                               seconds, " s; the tasks run on"),
       .hint = "check the device of that file system; if it is just slow, try "
               "again or give more time (--sync-timeout)",
       .metadata = {{"path", mount_point},
                    {"seconds", absl::StrCat(seconds)}}});
}

absl::Status Failed(const std::string& mount_point, int error) {
  const std::string text = std::strerror(error);
  ErrorDetails details{
      .code = absl::StatusCode::kUnavailable,
      .reason = reason::kSyncFailed,
      .message = absl::StrCat("the file system on ", mount_point,
                              ", which the tasks use, cannot be synced: ", text,
                              "; the tasks run on"),
      .hint = "check the device of that file system and the kernel log",
      .metadata = {{"path", mount_point}, {"error", text}}};
  if (error == ENOSPC || error == EDQUOT) {
    details.hint =
        "make room on that file system, and have the program write again what "
        "it could not";
  } else if (error == ENOENT) {
    details.hint =
        "it was unmounted, or is hidden by another mount, and no task has it "
        "open: mount it again, or have the program map its files anew";
  }
  return MakeError(details);
}

// Says what the file system of the file is, and where it is mounted; the mount
// it was found on first.
void FindPlaces(const UsedFile& file, const std::vector<MountInfo>& mounts,
                SyncTarget* target) {
  const auto own = std::find_if(
      mounts.begin(), mounts.end(),
      [&](const MountInfo& mount) { return mount.id == file.mount_id; });
  target->device = own == mounts.end() ? file.device : own->device;
  if (own != mounts.end()) target->places.push_back(own->mount_point);
  for (const MountInfo& mount : mounts) {
    if (mount.device == target->device && mount.id != file.mount_id) {
      target->places.push_back(mount.mount_point);
    }
  }
}

// The number of the task's descriptor; -1 if the file is not used by one.
int DescriptorOf(const UsedFile& file) {
  absl::string_view number = file.link;
  int fd = -1;
  return absl::ConsumePrefix(&number, "fd/") && absl::SimpleAtoi(number, &fd)
             ? fd
             : -1;
}

// Directories are best, and what is only mapped is worst.
int RankOf(const UsedFile& file) {
  if (S_ISDIR(file.mode)) return 0;
  return file.is_mapping() ? 2 : 1;
}

// Nothing if the task, or what it had there, is gone.
absl::StatusOr<std::optional<SyncTarget>> MakeTarget(const ProcFs& proc,
                                                     const UsedFile& file) {
  const std::string task = absl::StrCat(proc.root(), "/", file.pid);
  SyncTarget target;
  target.mount_point = file.mount_point.empty() ? file.path : file.mount_point;
  auto fd = OpenPath(absl::StrCat(task, "/", file.link));
  if (absl::IsNotFound(fd.status())) return std::nullopt;
  if (!fd.ok()) return fd.status();
  target.fd = *std::move(fd);
  auto root = OpenPath(task + "/root");
  if (absl::IsNotFound(root.status())) return std::nullopt;
  if (!root.ok()) return root.status();
  target.root = *std::move(root);
  auto mounts = proc.ReadMounts(file.pid);
  if (absl::IsNotFound(mounts.status())) return std::nullopt;
  if (!mounts.ok()) return mounts.status();
  FindPlaces(file, *mounts, &target);
  return target;
}

}  // namespace

absl::StatusOr<std::vector<SyncTarget>> CollectSyncTargets(
    const ProcFs& proc, const std::vector<UsedFile>& files) {
  std::map<dev_t, std::vector<const UsedFile*>> by_device;
  for (const UsedFile& file : files) {
    if (CanSync(file.mode)) by_device[file.device].push_back(&file);
  }
  std::vector<SyncTarget> targets;
  for (auto& [device, used] : by_device) {
    std::stable_sort(used.begin(), used.end(),
                     [](const UsedFile* a, const UsedFile* b) {
                       return RankOf(*a) < RankOf(*b);
                     });
    // The first may be gone with its task.
    for (const UsedFile* file : used) {
      auto target = MakeTarget(proc, *file);
      if (!target.ok()) return target.status();
      if (!target->has_value()) continue;
      for (const UsedFile* other : used) {
        const int number = DescriptorOf(*other);
        if (number >= 0) {
          (*target)->descriptors.push_back(
              {.pid = other->pid,
               .number = number,
               .writable = other->writable && S_ISREG(other->mode)});
        } else if (other->is_mapping() && other->writable) {
          (*target)->mappings.push_back(
              absl::StrCat(proc.root(), "/", other->pid, "/", other->link));
        }
      }
      targets.push_back(**std::move(target));
      break;
    }
  }
  return targets;
}

uint64_t TicksNow() {
  struct timespec now = {};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const auto hz = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  constexpr uint64_t kNanoseconds = 1000000000;
  return static_cast<uint64_t>(now.tv_sec) * hz +
         static_cast<uint64_t>(now.tv_nsec) * hz / kNanoseconds;
}

SyncOutcome SyncFileSystems(const std::vector<SyncTarget>& targets,
                            absl::Duration timeout,
                            const Cancellation& cancellation, int record) {
  SyncOutcome outcome;
  if (targets.empty()) return outcome;
  const absl::Time deadline = absl::Now() + timeout;
  std::vector<std::vector<const char*>> places;
  std::vector<std::vector<const char*>> mappings;
  std::vector<Job> jobs;
  std::vector<int> kept;
  for (const SyncTarget& target : targets) {
    auto& pointers = places.emplace_back();
    for (const std::string& place : target.places) {
      pointers.push_back(place.c_str());
    }
    pointers.push_back(nullptr);
    auto& links = mappings.emplace_back();
    for (const std::string& link : target.mappings) {
      links.push_back(link.c_str());
    }
    links.push_back(nullptr);
    jobs.push_back({.fd = target.fd.get(),
                    .root = target.root.get(),
                    .descriptors = target.descriptors.data(),
                    .descriptor_count = target.descriptors.size(),
                    .mappings = links.data(),
                    .mount_points = pointers.data()});
    kept.push_back(target.fd.get());
    if (target.root.valid()) kept.push_back(target.root.get());
  }
  if (record >= 0) kept.push_back(record);
  const Jobs all = {
      .first = jobs.data(), .count = jobs.size(), .record = record};
  auto child = BoundedChild::Start(Sync, &all, std::move(kept));
  if (!child.ok()) return child.status();
  // All are asked: the kernel tells of lost data once, whoever it is that asks.
  for (const SyncTarget& target : targets) {
    Report done = {.state = Report::kBegins, .error = 0};
    bool begun = false;
    absl::Status read;
    while (read.ok() && done.state == Report::kBegins) {
      read = child->Read(&done, sizeof(done), deadline, &cancellation);
      begun |= read.ok() && done.state == Report::kBegins;
    }
    if (!read.ok()) {
      if (begun && record >= 0) child->Leave();
      const bool late = absl::IsDeadlineExceeded(read);
      outcome.status.Update(late ? TimedOut(target.mount_point, timeout)
                                 : read);
      return outcome;
    }
    if (done.error == 0) continue;
    outcome.status.Update(Failed(target.mount_point, done.error));
    if (done.state == Report::kSynced) {
      outcome.lost.push_back({.device = target.device,
                              .mount_point = target.mount_point,
                              .error = std::strerror(done.error)});
    }
  }
  return outcome;
}

}  // namespace daxsnap
