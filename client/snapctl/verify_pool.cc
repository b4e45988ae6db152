// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/verify_pool.h"

#include <fcntl.h>
#include <linux/kmemfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "base/utf8.h"
#include "client/snapctl/output.h"
#include "client/snapctl/progress.h"
#include "client/snapctl/verify_output.h"
#include "daxsnap/error.h"
#include "host/pool/checksums.h"
#include "host/pool/pool.h"

namespace daxsnap::snapctl {
namespace {

namespace fs = std::filesystem;

// One walk over a mounted pool. Used once.
class PoolVerifier {
 public:
  PoolVerifier(pool::Mount mount, dev_t device, ProgressLine* line,
               VerifyReport* report)
      : mount_(std::move(mount)),
        device_(device),
        line_(line),
        report_(report) {}

  absl::Status Run() {
    std::error_code error;
    fs::recursive_directory_iterator at(mount_.mount_point, error);
    const fs::recursive_directory_iterator end;
    while (!error && at != end) {
      absl::Status status = Look(&at);
      if (!status.ok()) return status;
      at.increment(error);
    }
    if (!error) return absl::OkStatus();
    return absl::ErrnoToStatus(
        error.value(), absl::StrCat("cannot read all of ", mount_.mount_point));
  }

 private:
  absl::Status Look(fs::recursive_directory_iterator* at) {
    const fs::path& path = (*at)->path();
    struct stat info;
    if (lstat(path.c_str(), &info) != 0) {
      if (errno == ENOENT) return absl::OkStatus();
      return absl::ErrnoToStatus(
          errno, absl::StrCat("cannot look at ", path.string()));
    }
    // Something else is mounted there.
    if (info.st_dev != device_) {
      at->disable_recursion_pending();
      return absl::OkStatus();
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
    file.set_path(
        ToPrintableUtf8(path.lexically_relative(mount_.mount_point).string()));
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

  const pool::Mount mount_;
  const dev_t device_;
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
      {.reason = "CHECKSUMS_MISSING",
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
  absl::StatusOr<pool::Mount> mount = pool::FindMount(*device);
  if (!mount.ok()) return mount.status();
  const UniqueFd root(
      open(mount->mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat info;
  kmemfs_info kmemfs = {};
  if (!root.valid() || fstat(root.get(), &info) != 0 ||
      ioctl(root.get(), KMEMFS_IOC_INFO, &kmemfs) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot read ", mount->mount_point));
  }
  VerifyReport report;
  report.name = device->name;
  {
    ProgressLine line(context,
                      absl::StrCat("making checksums of ", mount->mount_point));
    // Of a pool that cannot have any the verdict says so.
    if (make_checksums && kmemfs.version >= 2) {
      absl::Status made = pool::MakeChecksums(root.get());
      if (!made.ok()) return made;
    }
    absl::Status status =
        PoolVerifier(*mount, info.st_dev, &line, &report).Run();
    if (!status.ok()) return status;
  }
  report.status = Verdict(device->name, report, kmemfs);
  PrintReports({report}, context);
  return report.status;
}

}  // namespace daxsnap::snapctl
