// SPDX-License-Identifier: Apache-2.0
#include "host/pool/device.h"

#include <daxctl/libdaxctl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/files.h"
#include "host/pool/kernel_log.h"

namespace daxsnap::pool {
namespace {

constexpr char kBus[] = "/sys/bus/dax";
constexpr char kRunDir[] = "/run/daxsnap";

struct DaxctlUnref {
  void operator()(daxctl_ctx* ctx) const { daxctl_unref(ctx); }
};

void IgnoreLog(daxctl_ctx*, int, const char*, int, const char*, const char*,
               va_list) {}

// Without a driver only if it is known to have none: who believed that of
// memory in use would write over it.
absl::StatusOr<Driver> CurrentDriver(const std::string& name) {
  std::error_code error;
  const std::filesystem::path link = std::filesystem::read_symlink(
      absl::StrCat(kBus, "/devices/", name, "/driver"), error);
  if (error == std::errc::no_such_file_or_directory) return Driver::kNone;
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat(name, ": cannot tell its driver"));
  }
  if (link.filename() == "kmem") return Driver::kKmem;
  return Driver::kDeviceDax;
}

absl::Status WriteDriverFile(absl::string_view driver, absl::string_view file,
                             const std::string& device) {
  const std::string path = absl::StrCat(kBus, "/drivers/", driver, "/", file);
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) {
      return absl::FailedPreconditionError(
          absl::StrCat("the kernel has no DAX driver \"", driver,
                       "\"; load it or use a kernel that has it"));
    }
    return absl::ErrnoToStatus(errno,
                               absl::StrCat(device, ": cannot open ", path));
  }
  if (write(fd.get(), device.data(), device.size()) < 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat(device, ": cannot write it to ", path));
  }
  return absl::OkStatus();
}

bool IsMemory(const std::string& name) {
  const absl::StatusOr<Driver> driver = CurrentDriver(name);
  return driver.ok() && *driver == Driver::kKmem;
}

absl::Status BindToKmem(const Device& device) {
  // Devices of persistent memory are not of kmem's kind, so kmem must be told
  // of this one; telling it also makes it try. Its verdict is the driver link.
  absl::Status told = WriteDriverFile("kmem", "new_id", device.name);
  if (IsMemory(device.name)) return absl::OkStatus();
  absl::Status bound = WriteDriverFile("kmem", "bind", device.name);
  if (IsMemory(device.name)) return absl::OkStatus();
  // Else a later rescan of the bus would try again behind our back.
  WriteDriverFile("kmem", "remove_id", device.name).IgnoreError();
  if (!told.ok()) return told;
  if (!bound.ok()) return bound;
  return absl::FailedPreconditionError(
      absl::StrCat(device.name, ": kmem did not take it"));
}

}  // namespace

absl::string_view DriverName(Driver driver) {
  switch (driver) {
    case Driver::kNone:
      return "none";
    case Driver::kDeviceDax:
      return "device_dax";
    case Driver::kKmem:
      return "kmem";
  }
  return "none";
}

absl::StatusOr<std::vector<Device>> ListDevices() {
  daxctl_ctx* raw = nullptr;
  if (const int r = daxctl_new(&raw); r != 0) {
    return absl::ErrnoToStatus(-r, "cannot use libdaxctl");
  }
  const std::unique_ptr<daxctl_ctx, DaxctlUnref> ctx(raw);
  daxctl_set_log_fn(raw, IgnoreLog);

  std::vector<Device> devices;
  daxctl_region* region;
  daxctl_region_foreach(raw, region) {
    daxctl_dev* dev;
    daxctl_dev_foreach(region, dev) {
      Device device;
      device.name = daxctl_dev_get_devname(dev);
      device.size = daxctl_dev_get_size(dev);
      if (device.size == 0) continue;  // a seed: no device yet
      const unsigned long align = daxctl_dev_get_align(dev);
      device.align = align != 0 ? align : daxctl_region_get_align(region);
      device.target_node = daxctl_dev_get_target_node(dev);
      absl::StatusOr<Driver> driver = CurrentDriver(device.name);
      if (!driver.ok()) return driver.status();
      device.driver = *driver;
      devices.push_back(std::move(device));
    }
  }
  std::sort(devices.begin(), devices.end(),
            [](const Device& a, const Device& b) { return a.name < b.name; });
  return devices;
}

absl::StatusOr<Device> FindDevice(absl::string_view name) {
  name = absl::StripPrefix(name, "/dev/");
  absl::StatusOr<std::vector<Device>> devices = ListDevices();
  if (!devices.ok()) return devices.status();
  for (Device& device : *devices) {
    if (device.name == name) return std::move(device);
  }
  if (devices->empty()) {
    return absl::NotFoundError(
        absl::StrCat("DAX device ", name,
                     " does not exist, nor does any other; make one with "
                     "`ndctl create-namespace -m devdax --map=mem`"));
  }
  const auto append_name = [](std::string* out, const Device& device) {
    absl::StrAppend(out, device.name);
  };
  return absl::NotFoundError(
      absl::StrCat("DAX device ", name, " does not exist; there is ",
                   absl::StrJoin(*devices, ", ", append_name)));
}

absl::Status BindTo(const Device& device, Driver driver) {
  const absl::StatusOr<Driver> current = CurrentDriver(device.name);
  if (!current.ok()) return current.status();
  if (*current == driver) return absl::OkStatus();
  if (*current != Driver::kNone) {
    absl::Status status =
        WriteDriverFile(DriverName(*current), "unbind", device.name);
    if (!status.ok()) return status;
  }
  KernelLog log;
  absl::Status status;
  switch (driver) {
    case Driver::kNone:
      return absl::OkStatus();
    case Driver::kDeviceDax:
      status = WriteDriverFile("device_dax", "bind", device.name);
      break;
    case Driver::kKmem:
      status = BindToKmem(device);
      break;
  }
  if (status.ok()) return status;
  const std::string reason = log.LastLineAbout(device.name);
  if (reason.empty()) return status;
  return absl::FailedPreconditionError(
      absl::StrCat(device.name, ": the kernel's driver ", DriverName(driver),
                   " does not take it: ", reason));
}

absl::StatusOr<UniqueFd> LockDevice(const Device& device) {
  if (!MakeDirectories(kRunDir, 0755).valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", kRunDir));
  }
  const std::string path = absl::StrCat(kRunDir, "/", device.name, ".lock");
  UniqueFd fd(
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid())
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  int r;
  do {
    r = flock(fd.get(), LOCK_EX);
  } while (r != 0 && errno == EINTR);
  if (r != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", path));
  return fd;
}

}  // namespace daxsnap::pool
