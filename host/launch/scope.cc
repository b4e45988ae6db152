// SPDX-License-Identifier: Apache-2.0
#include "host/launch/scope.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <systemd/sd-bus.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/unique_fd.h"

namespace daxsnap::launch {
namespace {

constexpr char kSlice[] = "daxsnap.slice";
constexpr char kSystemd[] = "org.freedesktop.systemd1";
constexpr char kManagerPath[] = "/org/freedesktop/systemd1";
constexpr char kManager[] = "org.freedesktop.systemd1.Manager";
constexpr std::uint64_t kJobTimeoutUs = 30'000'000;

struct BusCloser {
  void operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }
};
using Bus = std::unique_ptr<sd_bus, BusCloser>;

struct MessageUnref {
  void operator()(sd_bus_message* message) const {
    sd_bus_message_unref(message);
  }
};
using Message = std::unique_ptr<sd_bus_message, MessageUnref>;

struct SlotUnref {
  void operator()(sd_bus_slot* slot) const { sd_bus_slot_unref(slot); }
};
using Slot = std::unique_ptr<sd_bus_slot, SlotUnref>;

class BusError {
 public:
  BusError() = default;
  BusError(const BusError&) = delete;
  BusError& operator=(const BusError&) = delete;
  ~BusError() { sd_bus_error_free(&error_); }
  sd_bus_error* get() { return &error_; }
  bool Is(const char* name) const {
    return sd_bus_error_has_name(&error_, name);
  }
  const char* message() const {
    return error_.message ? error_.message : "no reason given";
  }

 private:
  sd_bus_error error_ = SD_BUS_ERROR_NULL;
};

absl::Status BusStatus(int error, absl::string_view step) {
  return absl::ErrnoToStatus(-error, absl::StrCat("systemd: cannot ", step));
}

// Jobs that ended, as JobRemoved tells them; we wait for one of them.
struct JobWatch {
  std::string job;  // object path; empty until the call has returned
  std::optional<std::string> result;
};

int OnJobRemoved(sd_bus_message* message, void* user_data, sd_bus_error*) {
  auto* watch = static_cast<JobWatch*>(user_data);
  std::uint32_t id;
  const char *path, *unit, *result;
  if (sd_bus_message_read(message, "uoss", &id, &path, &unit, &result) >= 0 &&
      watch->job == path) {
    watch->result = result;
  }
  return 0;
}

absl::StatusOr<Message> ScopeCall(sd_bus* bus, pid_t pid,
                                  const std::string& name,
                                  const std::string& description) {
  sd_bus_message* raw = nullptr;
  int r = sd_bus_message_new_method_call(bus, &raw, kSystemd, kManagerPath,
                                         kManager, "StartTransientUnit");
  Message call(raw);
  if (r >= 0) r = sd_bus_message_append(raw, "ss", name.c_str(), "fail");
  if (r >= 0) r = sd_bus_message_open_container(raw, 'a', "(sv)");
  if (r >= 0) {
    r = sd_bus_message_append(raw, "(sv)(sv)(sv)(sv)",                   //
                              "Description", "s", description.c_str(),   //
                              "Slice", "s", kSlice,                      //
                              "CollectMode", "s", "inactive-or-failed",  //
                              "PIDs", "au", 1, static_cast<std::uint32_t>(pid));
  }
  if (r >= 0) r = sd_bus_message_close_container(raw);
  if (r >= 0) r = sd_bus_message_append(raw, "a(sa(sv))", 0);
  if (r < 0) return BusStatus(r, "prepare a scope");
  return call;
}

absl::Status StartError(int error, const BusError& bus_error,
                        const std::string& name) {
  if (bus_error.Is("org.freedesktop.systemd1.UnitExists")) {
    return absl::AlreadyExistsError(
        absl::StrCat("scope ", name, " exists already"));
  }
  if (bus_error.Is(SD_BUS_ERROR_ACCESS_DENIED) ||
      bus_error.Is(SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED)) {
    return absl::PermissionDeniedError(
        absl::StrCat("systemd refuses to start scope ", name, "; run as root"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("systemd cannot start scope ", name, ": ",
                   bus_error.message(), " (", strerror(-error), ")"));
}

absl::Status WaitForJob(sd_bus* bus, const JobWatch& watch,
                        const std::string& name) {
  const auto now_us = [] {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
           now.tv_nsec / 1000;
  };
  const std::uint64_t deadline = now_us() + kJobTimeoutUs;
  while (!watch.result) {
    int r = sd_bus_process(bus, nullptr);
    if (r < 0) return BusStatus(r, "wait for a scope");
    if (r > 0) continue;
    const std::uint64_t now = now_us();
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("systemd did not start scope ", name, " in 30 s"));
    }
    r = sd_bus_wait(bus, deadline - now);
    if (r < 0 && r != -EINTR) return BusStatus(r, "wait for a scope");
  }
  if (*watch.result != "done") {
    return absl::FailedPreconditionError(absl::StrCat(
        "systemd: starting scope ", name, " ended as \"", *watch.result, "\""));
  }
  return absl::OkStatus();
}

// The cgroup2 line of /proc/PID/cgroup is "0::PATH".
absl::StatusOr<std::string> CgroupOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/cgroup"));
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "0::")) return line.substr(3);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("process ", pid, " has no cgroup in the unified hierarchy"));
}

absl::StatusOr<Scope> BySystemd(sd_bus* bus, pid_t pid, const std::string& name,
                                const std::string& description) {
  // Destroyed in the reverse order: the slot refers to the watch.
  JobWatch watch;
  sd_bus_slot* raw_slot = nullptr;
  int r = sd_bus_match_signal(bus, &raw_slot, kSystemd, kManagerPath, kManager,
                              "JobRemoved", OnJobRemoved, &watch);
  Slot slot(raw_slot);
  if (r < 0) return BusStatus(r, "watch jobs");
  BusError error;
  r = sd_bus_call_method(bus, kSystemd, kManagerPath, kManager, "Subscribe",
                         error.get(), nullptr, nullptr);
  if (r < 0) return StartError(r, error, name);

  absl::StatusOr<Message> call = ScopeCall(bus, pid, name, description);
  if (!call.ok()) return call.status();
  // Signals that come in meanwhile are queued, not dispatched, so that
  // JobRemoved of our job is seen only after watch.job is set.
  sd_bus_message* raw_reply = nullptr;
  BusError start_error;
  r = sd_bus_call(bus, call->get(), kJobTimeoutUs, start_error.get(),
                  &raw_reply);
  Message reply(raw_reply);
  if (r < 0) return StartError(r, start_error, name);
  const char* job = nullptr;
  r = sd_bus_message_read(reply.get(), "o", &job);
  if (r < 0) return BusStatus(r, "read the reply");
  watch.job = job;
  if (absl::Status status = WaitForJob(bus, watch, name); !status.ok())
    return status;

  absl::StatusOr<std::string> cgroup = CgroupOf(pid);
  if (!cgroup.ok()) return cgroup.status();
  return Scope{name, *cgroup};
}

absl::StatusOr<std::filesystem::path> Cgroup2Mount() {
  for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs fs;
    if (statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC) return path;
  }
  return absl::FailedPreconditionError(
      "there is neither a system bus nor a cgroup2 mount at /sys/fs/cgroup; "
      "start dbus or "
      "mount cgroup2");
}

// The file says "populated 0" if neither it nor what is below has a task.
bool IsEmptyCgroup(const std::filesystem::path& cgroup) {
  std::ifstream events(cgroup / "cgroup.events");
  for (std::string line; std::getline(events, line);) {
    if (line == "populated 0") return true;
  }
  return false;
}

// Those below first: tasks may have made some.
void RemoveCgroup(const std::filesystem::path& cgroup) {
  std::error_code ignored;
  // Its ++ would throw.
  for (std::filesystem::directory_iterator entry(cgroup, ignored), end;
       entry != end; entry.increment(ignored)) {
    if (entry->is_directory(ignored)) RemoveCgroup(entry->path());
  }
  rmdir(cgroup.c_str());
}

absl::StatusOr<Scope> ByHand(pid_t pid, const std::string& name) {
  absl::StatusOr<std::filesystem::path> mount = Cgroup2Mount();
  if (!mount.ok()) return mount.status();
  const std::filesystem::path slice = *mount / kSlice;
  if (mkdir(slice.c_str(), 0755) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot make cgroup ", slice.string()));
  }
  UniqueFd lock(open(slice.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid() || flock(lock.get(), LOCK_EX) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot lock cgroup ", slice.string()));
  }
  // Nobody else removes those whose tasks have ended.
  std::error_code ignored;
  for (std::filesystem::directory_iterator entry(slice, ignored), end;
       entry != end; entry.increment(ignored)) {
    if (entry->path().extension() == ".scope" && IsEmptyCgroup(entry->path())) {
      RemoveCgroup(entry->path());
    }
  }
  const std::filesystem::path dir = slice / name;
  if (mkdir(dir.c_str(), 0755) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot make cgroup ", dir.string()));
  }
  UniqueFd procs(open((dir / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = absl::StrCat(pid);
  if (!procs.valid() || write(procs.get(), text.data(), text.size()) < 0) {
    const int error = errno;
    rmdir(dir.c_str());
    return absl::ErrnoToStatus(
        error,
        absl::StrCat("cannot move process ", pid, " to cgroup ", dir.string()));
  }
  return Scope{"", absl::StrCat("/", kSlice, "/", name)};
}

}  // namespace

absl::StatusOr<Scope> EnterNewScope(pid_t pid, const std::string& name,
                                    const std::string& description) {
  sd_bus* raw = nullptr;
  const int r = sd_bus_open_system(&raw);
  if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR)
    return ByHand(pid, name);
  if (r < 0) return BusStatus(r, "connect to the system bus");
  Bus bus(raw);
  return BySystemd(bus.get(), pid, name, description);
}

}  // namespace daxsnap::launch
