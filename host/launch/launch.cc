// SPDX-License-Identifier: Apache-2.0
#include "host/launch/launch.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "host/launch/child.h"
#include "host/launch/log_file.h"
#include "host/launch/scope.h"

namespace daxsnap::launch {
namespace {

constexpr std::size_t kMaxNameInScope = 128;
constexpr int kPidAttempts = 64;
// Room for the children of the task, so that they are in the range too.
constexpr pid_t kPidRoom = 10'000;

std::uint32_t RandomNumber() {
  std::uint32_t value = 0;
  // Cannot fail or be short for so few bytes once the kernel has booted.
  while (getrandom(&value, sizeof(value), 0) != sizeof(value)) {
  }
  return value;
}

absl::Status Validate(const LaunchSpec& spec) {
  if (spec.argv.empty() || spec.argv[0].empty()) {
    return absl::InvalidArgumentError("no command given");
  }
  if (!absl::StartsWith(spec.cwd, "/")) {
    return absl::InvalidArgumentError(
        absl::StrCat("working directory ", spec.cwd, " is not absolute"));
  }
  if (!absl::EndsWith(spec.scope, ".scope")) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", spec.scope, "\" names no scope"));
  }
  for (const InheritedFd& fd : spec.inherited_fds) {
    if (fd.source < 0 || fd.target < 3) {
      return absl::InvalidArgumentError(absl::StrCat(
          "descriptor ", fd.source, " cannot be inherited as ", fd.target));
    }
  }
  for (const auto* list : {&spec.argv, &spec.env}) {
    for (const std::string& text : *list) {
      if (text.find('\0') != std::string::npos) {
        return absl::InvalidArgumentError(
            "a NUL byte in the command or its environment");
      }
    }
  }
  return absl::OkStatus();
}

bool IsExecutableFile(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
         faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0;
}

absl::StatusOr<std::string> FindCommand(const LaunchSpec& spec) {
  const std::string& name = spec.argv[0];
  if (absl::StrContains(name, '/')) {
    const std::string path =
        name[0] == '/' ? name : absl::StrCat(spec.cwd, "/", name);
    if (IsExecutableFile(path)) return path;
    return absl::NotFoundError(absl::StrCat(name, ": no such executable file"));
  }
  absl::string_view path_variable = "/usr/local/bin:/usr/bin:/bin";
  for (const std::string& entry : spec.env) {
    if (absl::StartsWith(entry, "PATH="))
      path_variable = absl::string_view(entry).substr(5);
  }
  for (absl::string_view dir :
       absl::StrSplit(path_variable, ':', absl::SkipEmpty())) {
    std::string path = absl::StrCat(dir, "/", name);
    if (IsExecutableFile(path)) return path;
  }
  return absl::NotFoundError(absl::StrCat(name, ": command not found in PATH"));
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& text : strings)
    pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

absl::StatusOr<HeldChild> CloneInRange(const HeldChild::Exec& exec,
                                       const PidRange& range) {
  if (absl::Status status = EnsurePidMax(range); !status.ok()) return status;
  const pid_t last = std::max(range.first, range.last - kPidRoom);
  for (int attempt = 0; attempt < kPidAttempts; ++attempt) {
    const pid_t pid = RandomPid({range.first, last});
    absl::StatusOr<HeldChild> child = HeldChild::Clone(exec, pid);
    if (absl::IsAlreadyExists(child.status())) continue;
    if (!child.ok()) return child;
    absl::Status status = MovePidsTo(range, std::min(pid + 1, range.last));
    if (!status.ok()) return status;
    return child;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("found no free PID in ", range.first, "-", range.last,
                   " in ", kPidAttempts, " attempts"));
}

}  // namespace

absl::StatusOr<LaunchedTask> Launch(const LaunchSpec& spec) {
  if (absl::Status status = Validate(spec); !status.ok()) return status;
  absl::StatusOr<std::string> command = FindCommand(spec);
  if (!command.ok()) return command.status();
  absl::StatusOr<UniqueFd> log = OpenLog(spec.log_path);
  if (!log.ok()) return log.status();
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null.valid()) return absl::ErrnoToStatus(errno, "cannot open /dev/null");

  const std::vector<char*> argv = Pointers(spec.argv);
  const std::vector<char*> envp = Pointers(spec.env);
  HeldChild::Exec exec;
  exec.path = command->c_str();
  exec.argv = argv.data();
  exec.envp = envp.data();
  exec.cwd = spec.cwd.c_str();
  exec.stdin_fd = null.get();
  exec.log_fd = log->get();
  exec.numa_node = spec.numa_node;
  exec.neutral = spec.neutral;
  exec.inherited_fds = spec.inherited_fds;

  absl::StatusOr<HeldChild> child =
      spec.pids ? CloneInRange(exec, *spec.pids) : HeldChild::Clone(exec, 0);
  if (!child.ok()) return child.status();
  absl::StatusOr<Scope> scope =
      EnterNewScope(child->pid(), spec.scope, spec.description);
  if (!scope.ok()) return scope.status();

  LaunchedTask task;
  task.pid = child->pid();
  absl::StatusOr<UniqueFd> pidfd = std::move(*child).Release();
  if (!pidfd.ok()) return pidfd.status();
  task.pidfd = *std::move(pidfd);
  task.scope = std::move(scope->unit);
  task.cgroup = std::move(scope->cgroup);
  return task;
}

std::string ScopeName(absl::string_view name) {
  std::string safe(name.substr(0, kMaxNameInScope));
  for (char& c : safe) {
    // What unit names allow, but '-' in front would look like an option and
    // '@' would make it an instance of a template.
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != '-') c = '_';
  }
  return absl::StrFormat("daxsnap-%s-%08x.scope", safe, RandomNumber());
}

pid_t RandomPid(const PidRange& range) {
  const auto count = static_cast<std::uint32_t>(range.last - range.first + 1);
  return range.first + static_cast<pid_t>(RandomNumber() % count);
}

}  // namespace daxsnap::launch
