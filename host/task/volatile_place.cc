// SPDX-License-Identifier: Apache-2.0
#include "host/task/volatile_place.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/files.h"

namespace daxsnap {
namespace {

// Layers and devices on top of each other.
constexpr int kMaxDepth = 8;
constexpr size_t kMaxAttribute = 64 << 10;

// The kernel's names for file systems that are empty after a boot.
bool IsMemory(absl::string_view type) {
  return type == "tmpfs" || type == "ramfs" || type == "devtmpfs" ||
         type == "hugetlbfs" || type == "mqueue";
}

// "zram0": the prefix and a number.
bool IsNumbered(absl::string_view name, absl::string_view prefix) {
  return absl::ConsumePrefix(&name, prefix) && !name.empty() &&
         std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
}

// The cgroup of a file that ends with the tasks in it or with the boot: a scope
// of systemd's, or one that is none of its units. Empty if it is made again.
std::string PassingCgroup(const UsedFile& file) {
  absl::string_view path = file.path;
  if (!absl::ConsumePrefix(&path, file.mount_point)) return "";
  std::vector<absl::string_view> names =
      absl::StrSplit(path, '/', absl::SkipEmpty());
  if (!S_ISDIR(file.mode) && !names.empty()) names.pop_back();
  constexpr absl::string_view kLasting[] = {".slice", ".service", ".socket",
                                            ".mount", ".swap"};
  for (const absl::string_view name : names) {
    const bool lasting = name == "init.scope" ||
                         std::any_of(std::begin(kLasting), std::end(kLasting),
                                     [name](absl::string_view suffix) {
                                       return absl::EndsWith(name, suffix);
                                     });
    if (!lasting) return std::string(name);
    // What a service makes below its cgroup it makes again.
    if (absl::EndsWith(name, ".service")) break;
  }
  return "";
}

// The path of a file as seen from the root of its mount, with "/" in front.
std::string BelowMount(const UsedFile& file) {
  absl::string_view path = file.path;
  if (file.mount_point != "/" &&
      !absl::ConsumePrefix(&path, file.mount_point)) {
    return "";
  }
  return std::string(path);
}

}  // namespace

std::optional<std::string> OverlayOption(absl::string_view options,
                                         absl::string_view name) {
  std::string option;
  const auto value = [&]() -> std::optional<std::string> {
    absl::string_view rest = option;
    if (!absl::ConsumePrefix(&rest, name)) return std::nullopt;
    if (rest.empty()) return "";
    if (!absl::ConsumePrefix(&rest, "=")) return std::nullopt;
    return std::string(rest);
  };
  for (size_t i = 0; i < options.size(); ++i) {
    const absl::string_view digits = options.substr(i + 1, 3);
    if (options[i] == ',') {
      if (auto found = value(); found.has_value()) return found;
      option.clear();
    } else if (options[i] == '\\' && digits.size() == 3 &&
               digits.find_first_not_of("01234567") ==
                   absl::string_view::npos) {
      option += static_cast<char>((digits[0] - '0') * 64 +
                                  (digits[1] - '0') * 8 + (digits[2] - '0'));
      i += 3;
    } else {
      option += options[i];
    }
  }
  return value();
}

VolatilePlaces::VolatilePlaces(const ProcFs& proc, const TmpfilesRules& rules,
                               absl::Duration timeout, std::string sys)
    : proc_(proc), rules_(rules), timeout_(timeout), sys_(std::move(sys)) {}

absl::StatusOr<std::string> VolatilePlaces::WhereLost(const UsedFile& file) {
  if (file.file_system == "cgroup2" || file.file_system == "cgroup") {
    const std::string group = PassingCgroup(file);
    return group.empty() ? "" : absl::StrCat("of the cgroup ", group);
  }
  if (file.file_system == "overlay") return OnOverlay(file);
  // What came with the initramfs does so again, which what was written has not.
  if (file.file_system == "rootfs") {
    return file.writable && S_ISREG(file.mode) ? "on the initramfs" : "";
  }
  const auto [at, fresh] = known_.try_emplace({file.mount_device, ""});
  if (!fresh && file.mount_device != 0) return at->second;
  auto where =
      OnMount(file.file_system, file.mount_device, file.mount_source, 0);
  if (where.ok()) at->second = *where;
  return where;
}

absl::StatusOr<std::string> VolatilePlaces::OnMount(const std::string& type,
                                                    dev_t device,
                                                    const std::string& source,
                                                    int depth) {
  if (IsMemory(type)) return absl::StrCat("on ", type);
  if (depth > kMaxDepth) return "";
  // btrfs for one has a device of its own, and the block device for a name.
  if (major(device) == 0) {
    absl::string_view name = source;
    if (!absl::ConsumePrefix(&name, "/dev/") || absl::StrContains(name, "/")) {
      return "";
    }
    return OnDevice(absl::StrCat(sys_, "/class/block/", name), depth);
  }
  return OnDevice(
      absl::StrCat(sys_, "/dev/block/", major(device), ":", minor(device)),
      depth);
}

absl::StatusOr<std::string> VolatilePlaces::OnDevice(
    const std::string& directory, int depth) {
  if (depth > kMaxDepth) return "";
  char real[PATH_MAX];
  // A device that has no such directory is none of those.
  if (realpath(directory.c_str(), real) == nullptr) return "";
  std::string path = real;
  // A partition is a directory in that of its device.
  if (access((path + "/partition").c_str(), F_OK) == 0) {
    path.resize(path.rfind('/'));
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  if (IsNumbered(name, "zram") || IsNumbered(name, "ram")) {
    return absl::StrCat("on ", name, ", which is memory");
  }
  auto backing =
      ReadFileAt(AT_FDCWD, path + "/loop/backing_file", kMaxAttribute);
  if (backing.ok()) {
    const std::string file(absl::StripSuffix(*backing, "\n"));
    // Its file is gone, and so is what it holds when it is detached.
    if (absl::EndsWith(file, kDeleted)) {
      return absl::StrCat("on ", name, ", whose file was deleted");
    }
    auto where = OnPath(file, depth + 1);
    if (!where.ok() || where->empty()) return where;
    return absl::StrCat("on ", name, ", whose file ", file, " is ", *where);
  }
  if (!absl::IsNotFound(backing.status())) return backing.status();
  auto slaves = OpenDirectory(AT_FDCWD, path + "/slaves");
  if (absl::IsNotFound(slaves.status())) return "";
  if (!slaves.ok()) return slaves.status();
  auto names = ListDirectory(slaves->get());
  if (!names.ok()) return names.status();
  for (const std::string& slave : *names) {
    auto where = OnDevice(absl::StrCat(path, "/slaves/", slave), depth + 1);
    if (!where.ok() || !where->empty()) return where;
  }
  return "";
}

absl::StatusOr<std::string> VolatilePlaces::OnPath(const std::string& path,
                                                   int depth) {
  auto info = Stat(path);
  if (!info.ok()) return info.status();
  // As the mounter saw it, who may see other mounts than we.
  if (!info->has_value()) return "";
  if (!mounts_.has_value()) {
    auto mounts = proc_.ReadMounts(getpid());
    if (!mounts.ok()) return mounts.status();
    mounts_ = *std::move(mounts);
  }
  const TmpfilesRules::Verdict verdict = rules_.FateOf(path);
  if (verdict.fate == TmpfilesRules::Fate::kRemoved) {
    return absl::StrCat("removed by systemd-tmpfiles at boot: ", verdict.rule);
  }
  const auto mount =
      std::find_if(mounts_->begin(), mounts_->end(), [&](const MountInfo& at) {
        return at.id == static_cast<int>((*info)->stx_mnt_id);
      });
  if (mount == mounts_->end()) return "";
  return OnMount(mount->type, mount->device, mount->source, depth);
}

absl::StatusOr<std::string> VolatilePlaces::OnOverlay(const UsedFile& file) {
  // After a power cut the kernel refuses to mount its layers again.
  // source: Documentation/filesystems/overlayfs.rst, "Volatile mount"
  if (OverlayOption(file.mount_options, "volatile").has_value()) {
    return "on an overlay that is mounted with \"volatile\"";
  }
  const auto upper = OverlayOption(file.mount_options, "upperdir");
  if (!upper.has_value()) return "";
  const auto [at, fresh] = known_.try_emplace({file.mount_device, *upper});
  if (fresh) {
    auto where = OnPath(*upper, 1);
    if (!where.ok()) {
      known_.erase(at);
      return where;
    }
    at->second = *std::move(where);
  }
  if (at->second.empty()) return "";
  auto its = IsOfUpperLayer(file, *upper);
  if (!its.ok()) return its.status();
  if (!*its) return "";
  return absl::StrCat("on an overlay, whose upper layer ", *upper, " is ",
                      at->second);
}

// What a lower layer has is there again after a boot, as it was.
absl::StatusOr<bool> VolatilePlaces::IsOfUpperLayer(const UsedFile& file,
                                                    const std::string& upper) {
  if (S_ISREG(file.mode) && file.writable) return true;
  const std::string below = BelowMount(file);
  if (below.empty() || below == "/") return false;
  auto in_upper = Stat(upper + below);
  if (!in_upper.ok()) return in_upper.status();
  if (!in_upper->has_value()) return false;
  // A directory is in both if something in it is.
  if (!S_ISDIR(file.mode)) return true;
  const std::string lowers =
      OverlayOption(file.mount_options, "lowerdir").value_or("");
  for (const std::string& lower :
       std::vector<std::string>(absl::StrSplit(lowers, ':'))) {
    auto in_lower = Stat(lower + below);
    if (!in_lower.ok()) return in_lower.status();
    if (in_lower->has_value()) return false;
  }
  return true;
}

absl::StatusOr<std::optional<struct statx>> VolatilePlaces::Stat(
    const std::string& path) {
  auto found = StatPaths({path}, {}, timeout_);
  if (!found.ok()) return found.status();
  const absl::StatusOr<struct statx>& info = found->front();
  if (absl::IsNotFound(info.status())) return std::nullopt;
  if (!info.ok()) return info.status();
  return *info;
}

}  // namespace daxsnap
