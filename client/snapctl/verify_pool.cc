// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/verify_pool.h"

#include <fcntl.h>
#include <linux/kmemfs.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/unique_fd.h"
#include "base/utf8.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "client/snapctl/verify_output.h"
#include "daxsnap/error.h"
#include "host/pool/checksums.h"
#include "host/pool/info.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

namespace fs = std::filesystem;

// Of a pool's root directory.
constexpr ino_t kRootInode = 1;

// A mounted pool.
struct OpenPool {
  // Where it is mounted: it is not unmounted meanwhile.
  UniqueFd place;
  // A mount of its own, in no place: what is mounted below the other hides
  // nothing of this one.
  UniqueFd root;
  pool::Mount mount;
  kmemfs_info info = {};
};

// Whether the directory is the root of this pool, which a place that only shows
// a part of it is not, nor something else, perhaps another pool, that is on top
// of it: the list of mounts does not tell who is.
bool IsRoot(const UniqueFd& place, const std::string& uuid, kmemfs_info* info) {
  struct stat found;
  return place.valid() && fstat(place.get(), &found) == 0 &&
         found.st_ino == kRootInode && pool::ReadInfo(place.get(), info) &&
         pool::ToProto(*info).uuid() == uuid;
}

absl::StatusOr<OpenPool> Open(const pool::Device& device) {
  absl::StatusOr<pool::Mount> first = pool::FindMount(device);
  if (!first.ok()) return first.status();
  const auto header = pool::Identify(device);
  if (!header.ok()) return header.status();
  const absl::StatusOr<std::vector<pool::Mount>> mounts = pool::ListMounts();
  if (!mounts.ok()) return mounts.status();
  // Of two on one place the later one is on top.
  std::map<std::string, pool::Mount> tops;
  for (const pool::Mount& mount : *mounts) tops[mount.mount_point] = mount;
  for (const auto& [place, mount] : tops) {
    if (mount.device != device.name || !header->has_value()) continue;
    OpenPool pool;
    pool.mount = mount;
    pool.place.reset(
        open(place.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!IsRoot(pool.place, (*header)->uuid, &pool.info)) continue;
    pool.root.reset(static_cast<int>(
        syscall(SYS_open_tree, pool.place.get(), "",
                OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)));
    if (pool.root.valid()) return pool;
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", place));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "no mount of ", device.name, " shows all of it: on ", first->mount_point,
      " is a part of the pool, or something else on top of it; "
      "mount it elsewhere, too"));
}

// One walk over a mounted pool. Used once.
class PoolVerifier {
 public:
  PoolVerifier(const OpenPool& pool, ProgressLine* line, VerifyReport* report)
      : mount_(pool.mount),
        top_(absl::StrCat("/proc/self/fd/", pool.root.get(), "/")),
        line_(line),
        report_(report) {}

  absl::Status Run() {
    std::error_code error;
    fs::recursive_directory_iterator at(top_, error);
    const fs::recursive_directory_iterator end;
    while (!error && at != end) {
      absl::Status status = Look(at->path());
      if (!status.ok()) return status;
      at.increment(error);
    }
    if (!error) return absl::OkStatus();
    return absl::ErrnoToStatus(
        error.value(), absl::StrCat("cannot read all of ", mount_.mount_point));
  }

 private:
  absl::Status Look(const fs::path& path) {
    struct stat info;
    if (lstat(path.c_str(), &info) != 0) {
      if (errno == ENOENT) return absl::OkStatus();
      return absl::ErrnoToStatus(
          errno, absl::StrCat("cannot look at ", path.string()));
    }
    return S_ISREG(info.st_mode) ? Verify(path) : absl::OkStatus();
  }

  absl::Status Verify(const fs::path& path) {
    const UniqueFd fd(
        open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info;
    if (!fd.valid() || fstat(fd.get(), &info) != 0) {
      if (errno == ENOENT) return absl::OkStatus();
      return absl::ErrnoToStatus(errno,
                                 absl::StrCat("cannot open ", path.string()));
    }
    const absl::StatusOr<pool::FileCheck> check = pool::CheckFile(
        [&](std::uint64_t offset, std::uint64_t length) {
          return pool::CheckRange(fd.get(), offset, length);
        },
        static_cast<std::uint64_t>(info.st_size),
        [&](std::uint64_t bytes) {
          line_->Update(absl::StrCat("verifying ", mount_.mount_point, ", ",
                                     FormatBytes(done_ + bytes)));
          return true;
        });
    if (!check.ok()) return check.status();
    done_ += check->bytes_verified + check->bytes_without_checksum +
             check->bytes_damaged;
    v1::FileVerification& file = report_->files.emplace_back();
    file.set_path(ToPrintableUtf8(path.lexically_relative(top_).string()));
    file.set_size(static_cast<std::uint64_t>(info.st_size));
    file.set_bytes_verified(check->bytes_verified);
    file.set_bytes_without_checksum(check->bytes_without_checksum);
    file.set_bytes_damaged(check->bytes_damaged);
    for (const pool::ByteRange& range : check->damaged) {
      v1::DamagedRange* damaged = file.add_damaged();
      damaged->set_offset(range.offset);
      damaged->set_length(range.length);
    }
    return absl::OkStatus();
  }

  const pool::Mount& mount_;
  const std::string top_;
  ProgressLine* const line_;
  VerifyReport* const report_;
  std::uint64_t done_ = 0;
};

absl::Status Verdict(const std::string& name, const VerifyReport& report,
                     const kmemfs_info& kmemfs) {
  const std::uint32_t version = kmemfs.version;
  const v1::Verification totals = report.Totals();
  if ((kmemfs.flags & KMEMFS_INFO_RESCUE) != 0) {
    return absl::DataLossError(
        absl::StrCat("pool ", name,
                     " does not hold: files may be missing, see "
                     "the kernel's log; ",
                     totals.bytes_damaged(),
                     " bytes of those that are there are not what was stored"));
  }
  if (totals.bytes_damaged() > 0) {
    return absl::DataLossError(
        absl::StrCat("pool ", name, " is damaged: ", totals.bytes_damaged(),
                     " bytes are not what was stored"));
  }
  if (totals.bytes_without_checksum() == 0) return absl::OkStatus();
  absl::Status status = absl::FailedPreconditionError(absl::StrCat(
      totals.bytes_without_checksum(), " bytes of pool ", name,
      version < 2 ? " have no checksum, as its format version 1 has none"
                  : " have no checksum yet",
      "; whether they are what was stored is not known"));
  client::SetErrorDetails(
      {.reason = std::string(reason::kChecksumsMissing),
       .hint = version < 2 ? "`snapctl pool upgrade` gives it checksums"
                           : "the kernel makes them soon after a commit; --sum "
                             "has them made now",
       .metadata = {}},
      &status);
  return status;
}

}  // namespace

absl::Status VerifyPool(const std::string& pool, bool make_checksums,
                        const Context& context) {
  const absl::StatusOr<pool::Device> device = pool::FindPool(pool);
  if (!device.ok()) return device.status();
  const absl::StatusOr<OpenPool> open = Open(*device);
  if (!open.ok()) return open.status();
  VerifyReport report;
  report.name = device->name;
  {
    ProgressLine line(
        context, absl::StrCat("making checksums of ", open->mount.mount_point));
    // Of a pool that cannot have any the verdict says so.
    if (make_checksums && open->info.version >= 2) {
      absl::Status made = pool::MakeChecksums(open->place.get());
      if (!made.ok()) return made;
    }
    absl::Status status = PoolVerifier(*open, &line, &report).Run();
    if (!status.ok()) return status;
  }
  report.status = Verdict(device->name, report, open->info);
  PrintReports({report}, context);
  return report.status;
}

}  // namespace daxsnap::snapctl
