// SPDX-License-Identifier: Apache-2.0
#include "snapd/proc.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "snapd/errors.h"
#include "snapd/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProcFile = size_t{4} << 20;
// PF_EXITING and PF_KTHREAD of include/linux/sched.h; field 9 of stat.
constexpr uint64_t kFlagExiting = 0x00000004;
constexpr uint64_t kFlagKernelThread = 0x00200000;
// SIGKILL in the signal masks of status.
constexpr uint64_t kSigKillBit = uint64_t{1} << (SIGKILL - 1);

absl::StatusOr<UniqueFd> OpenTask(const std::string& root, pid_t pid) {
  const std::string path = absl::StrCat(root, "/", pid);
  return OpenDirectory(AT_FDCWD, path);
}

std::string ReadLinkAt(int parent, const std::string& name) {
  char target[PATH_MAX];
  const ssize_t length =
      readlinkat(parent, name.c_str(), target, sizeof(target));
  if (length < 0) return {};
  return std::string(target, static_cast<size_t>(length));
}

// "pid (comm) state ppid ...": comm may hold anything, ')' included, so the
// fields are counted from the last one.
absl::Status ParseStat(absl::string_view text, TaskInfo* task) {
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == absl::string_view::npos || close == absl::string_view::npos ||
      close < open) {
    return absl::InternalError("cannot parse /proc/PID/stat");
  }
  task->comm = std::string(text.substr(open + 1, close - open - 1));
  const std::string rest(text.substr(close + 1));
  const std::vector<std::string> fields =
      absl::StrSplit(rest, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  // fields[0] is field 3 of proc(5).
  uint64_t flags = 0;
  if (fields.size() < 20 || fields[0].size() != 1 ||
      !absl::SimpleAtoi(fields[1], &task->parent_pid) ||
      !absl::SimpleAtoi(fields[3], &task->session) ||
      !absl::SimpleAtoi(fields[6], &flags) ||
      !absl::SimpleAtoi(fields[19], &task->id.start_ticks)) {
    return absl::InternalError("cannot parse /proc/PID/stat");
  }
  task->state = fields[0][0];
  task->kernel_thread = (flags & kFlagKernelThread) != 0;
  task->doomed = (flags & kFlagExiting) != 0;
  return absl::OkStatus();
}

template <typename Id>
bool ParseIds(absl::string_view text, std::array<Id, 4>* ids) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text, absl::ByAnyChar("\t "), absl::SkipEmpty());
  if (fields.size() != ids->size()) return false;
  for (size_t i = 0; i < ids->size(); ++i) {
    if (!absl::SimpleAtoi(fields[i], &(*ids)[i])) return false;
  }
  return true;
}

// Nothing if it is no mask.
std::optional<uint64_t> ParseMask(absl::string_view text) {
  uint64_t mask = 0;
  if (!absl::SimpleHexAtoi(absl::StripAsciiWhitespace(text), &mask)) {
    return std::nullopt;
  }
  return mask;
}

absl::Status ParseStatus(const std::string& text, TaskInfo* task) {
  bool group = false;
  bool uids = false;
  bool gids = false;
  // Until it is known not to be.
  task->privileged = true;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (field.first == "Tgid") {
      group = absl::SimpleAtoi(field.second, &task->thread_group);
    } else if (field.first == "Uid") {
      uids = ParseIds(field.second, &task->uids);
    } else if (field.first == "Gid") {
      gids = ParseIds(field.second, &task->gids);
    } else if (field.first == "SigPnd" || field.first == "ShdPnd") {
      if ((ParseMask(field.second).value_or(0) & kSigKillBit) != 0) {
        task->doomed = true;
      }
    } else if (field.first == "CapPrm") {
      task->privileged = ParseMask(field.second) != uint64_t{0};
    }
  }
  if (group && uids && gids) return absl::OkStatus();
  return absl::InternalError("cannot parse /proc/PID/status");
}

std::vector<pid_t> ParsePids(const std::string& text) {
  std::vector<pid_t> pids;
  for (const absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    pid_t pid = 0;
    if (absl::SimpleAtoi(word, &pid)) pids.push_back(pid);
  }
  return pids;
}

std::vector<pid_t> NumericEntries(const std::vector<std::string>& names) {
  std::vector<pid_t> pids;
  for (const std::string& name : names) {
    pid_t pid = 0;
    if (absl::SimpleAtoi(name, &pid)) pids.push_back(pid);
  }
  return pids;
}

// What fdinfo says of a descriptor.
absl::Status ReadFdInfo(int task, FdInfo* fd) {
  auto text = ReadFileAt(task, absl::StrCat("fdinfo/", fd->fd), kMaxProcFile);
  if (!text.ok()) return text.status();
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    const absl::string_view value = absl::StripAsciiWhitespace(field.second);
    if (field.first == "mnt_id" && !absl::SimpleAtoi(value, &fd->mount_id)) {
      return absl::InternalError("cannot parse /proc/PID/fdinfo");
    }
    if (field.first != "flags") continue;
    for (const char digit : value) {
      fd->flags = fd->flags * 8 + static_cast<unsigned>(digit - '0');
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TaskInfo> ProcFs::ReadTask(pid_t pid) const {
  auto directory = OpenTask(root_, pid);
  if (!directory.ok()) return directory.status();
  TaskInfo task;
  task.id.pid = pid;
  auto stat_text = ReadFileAt(directory->get(), "stat", kMaxProcFile);
  if (!stat_text.ok()) return stat_text.status();
  auto status_text = ReadFileAt(directory->get(), "status", kMaxProcFile);
  if (!status_text.ok()) return status_text.status();
  if (absl::Status s = ParseStat(*stat_text, &task); !s.ok()) return s;
  if (absl::Status s = ParseStatus(*status_text, &task); !s.ok()) return s;
  task.exe = ReadLinkAt(directory->get(), "exe");
  return task;
}

absl::StatusOr<std::vector<pid_t>> ProcFs::ReadThreads(pid_t pid) const {
  auto directory =
      OpenDirectory(AT_FDCWD, absl::StrCat(root_, "/", pid, "/task"));
  if (!directory.ok()) return directory.status();
  auto names = ListDirectory(directory->get());
  if (!names.ok()) return names.status();
  return NumericEntries(*names);
}

absl::StatusOr<std::vector<TaskInfo>> ProcFs::ReadTree(pid_t root) const {
  auto first = ReadTask(root);
  if (!first.ok()) return first.status();
  std::vector<TaskInfo> tree = {*std::move(first)};
  for (size_t i = 0; i < tree.size(); ++i) {
    const pid_t parent = tree[i].id.pid;
    auto threads = ReadThreads(parent);
    if (absl::IsNotFound(threads.status())) continue;
    if (!threads.ok()) return threads.status();
    for (const pid_t thread : *threads) {
      auto children = ReadFileAt(
          AT_FDCWD,
          absl::StrCat(root_, "/", parent, "/task/", thread, "/children"),
          kMaxProcFile);
      if (absl::IsNotFound(children.status())) continue;
      if (!children.ok()) return children.status();
      for (const pid_t child : ParsePids(*children)) {
        auto task = ReadTask(child);
        if (absl::IsNotFound(task.status())) continue;
        if (!task.ok()) return task.status();
        tree.push_back(*std::move(task));
      }
    }
  }
  return tree;
}

absl::StatusOr<std::vector<FdInfo>> ProcFs::ReadFds(pid_t pid) const {
  auto task = OpenTask(root_, pid);
  if (!task.ok()) return task.status();
  auto directory = OpenDirectory(task->get(), "fd");
  if (!directory.ok()) return directory.status();
  auto names = ListDirectory(directory->get());
  if (!names.ok()) return names.status();
  std::vector<FdInfo> fds;
  for (const std::string& name : *names) {
    FdInfo info;
    if (!absl::SimpleAtoi(name, &info.fd)) continue;
    info.target = ReadLinkAt(directory->get(), name);
    if (info.target.empty()) continue;
    absl::Status read = ReadFdInfo(task->get(), &info);
    if (absl::IsNotFound(read)) continue;
    if (!read.ok()) return read;
    fds.push_back(std::move(info));
  }
  return fds;
}

absl::StatusOr<std::vector<pid_t>> ProcFs::ListPids() const {
  auto directory = OpenDirectory(AT_FDCWD, root_);
  if (!directory.ok()) return directory.status();
  auto names = ListDirectory(directory->get());
  if (!names.ok()) return names.status();
  return NumericEntries(*names);
}

absl::StatusOr<bool> ProcFs::IsAlive(const TaskId& id) const {
  auto task = ReadTask(id.pid);
  if (absl::IsNotFound(task.status())) return false;
  if (!task.ok()) return task.status();
  return task->id == id && !task->doomed && task->state != 'Z' &&
         task->state != 'X';
}

absl::StatusOr<std::string> ProcFs::BootId() const {
  auto text =
      ReadFileAt(AT_FDCWD, absl::StrCat(root_, "/sys/kernel/random/boot_id"),
                 kMaxProcFile);
  if (!text.ok()) return text.status();
  return std::string(absl::StripAsciiWhitespace(*text));
}

absl::StatusOr<UniqueFd> OpenPidfd(const ProcFs& proc, const TaskId& id) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, id.pid, 0)));
  if (!fd.valid()) {
    if (errno == ESRCH) {
      return absl::NotFoundError(absl::StrCat("task ", id.pid, " is gone"));
    }
    return ErrnoError(errno, absl::StrCat("cannot open a pidfd of ", id.pid));
  }
  // Read after the pidfd was opened: if the start time is right now, the pidfd
  // is of that task.
  auto task = proc.ReadTask(id.pid);
  if (!task.ok() && !absl::IsNotFound(task.status())) return task.status();
  if (!task.ok() || task->id != id) {
    return absl::NotFoundError(absl::StrCat("task ", id.pid, " is gone"));
  }
  return fd;
}

}  // namespace daxsnap
