// SPDX-License-Identifier: Apache-2.0
#include "host/task/proc.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/stopwatch.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProcFile = size_t{4} << 20;
// A task may have a million mappings (vm.max_map_count), each a line.
constexpr size_t kMaxMaps = size_t{256} << 20;
// PF_EXITING and PF_KTHREAD of include/linux/sched.h; field 9 of stat.
constexpr uint64_t kFlagExiting = 0x00000004;
constexpr uint64_t kFlagKernelThread = 0x00200000;
// SIGKILL in the signal masks of status.
constexpr uint64_t kSigKillBit = uint64_t{1} << (SIGKILL - 1);

absl::StatusOr<UniqueFd> OpenTask(const std::string& root, pid_t pid) {
  const std::string path = absl::StrCat(root, "/", pid);
  return OpenDirectory(AT_FDCWD, path);
}

// "pid (comm) state ppid ...": comm may hold anything, ')' included, so the
// fields are counted from the last one. The first is field 3 of proc(5).
std::vector<std::string> FieldsAfterComm(absl::string_view text) {
  const size_t close = text.rfind(')');
  if (close == absl::string_view::npos) return {};
  return absl::StrSplit(text.substr(close + 1), absl::ByAnyChar(" \n"),
                        absl::SkipEmpty());
}

absl::Status ParseStat(absl::string_view text, TaskInfo* task) {
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == absl::string_view::npos || close == absl::string_view::npos ||
      close < open) {
    return absl::InternalError("cannot parse /proc/PID/stat");
  }
  task->comm = std::string(text.substr(open + 1, close - open - 1));
  const std::vector<std::string> fields = FieldsAfterComm(text);
  uint64_t flags = 0;
  uint64_t user_ticks = 0;
  uint64_t system_ticks = 0;
  if (fields.size() < 20 || fields[0].size() != 1 ||
      !absl::SimpleAtoi(fields[1], &task->parent_pid) ||
      !absl::SimpleAtoi(fields[3], &task->session) ||
      !absl::SimpleAtoi(fields[6], &flags) ||
      !absl::SimpleAtoi(fields[11], &user_ticks) ||
      !absl::SimpleAtoi(fields[12], &system_ticks) ||
      !absl::SimpleAtoi(fields[19], &task->id.start_ticks)) {
    return absl::InternalError("cannot parse /proc/PID/stat");
  }
  task->state = fields[0][0];
  task->cpu_ticks = user_ticks + system_ticks;
  task->kernel_thread = (flags & kFlagKernelThread) != 0;
  task->exiting = (flags & kFlagExiting) != 0;
  task->doomed = task->exiting;
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

// "8:1" in the base given.
bool ParseDevice(absl::string_view text, int base, dev_t* device) {
  const std::pair<absl::string_view, absl::string_view> numbers =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  unsigned major_number = 0;
  unsigned minor_number = 0;
  const auto parse =
      base == 16 ? absl::SimpleHexAtoi<unsigned> : absl::SimpleAtoi<unsigned>;
  if (!parse(numbers.first, &major_number) ||
      !parse(numbers.second, &minor_number)) {
    return false;
  }
  *device = makedev(major_number, minor_number);
  return true;
}

// "7f00-7f01 r--s 00000000 08:01 4711   /some/path"; the path does not begin
// with a slash where no file is mapped.
bool ParseMap(absl::string_view line, MapInfo* map) {
  std::vector<absl::string_view> fields =
      absl::StrSplit(line, absl::MaxSplits(' ', 5));
  if (fields.size() == 5) fields.emplace_back();
  if (fields.size() != 6 || fields[1].size() != 4 ||
      !ParseDevice(fields[3], 16, &map->device) ||
      !absl::SimpleAtoi(fields[4], &map->inode)) {
    return false;
  }
  // Not by the inode: the first System V segment of a boot has 0.
  map->path = std::string(absl::StripLeadingAsciiWhitespace(fields[5]));
  const std::pair<absl::string_view, absl::string_view> range =
      absl::StrSplit(fields[0], absl::MaxSplits('-', 1));
  uint64_t first = 0;
  uint64_t last = 0;
  if (!absl::SimpleHexAtoi(range.first, &first) ||
      !absl::SimpleHexAtoi(range.second, &last)) {
    return false;
  }
  // Without the zeroes that maps puts in front.
  map->range = absl::StrCat(absl::Hex(first), "-", absl::Hex(last));
  map->shared = fields[1][3] == 's';
  return true;
}

// Undoes the escapes of mountinfo: blanks and backslashes as "\040".
std::string Unescaped(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const absl::string_view digits = text.substr(i + 1, 3);
    if (text[i] == '\\' && digits.size() == 3 &&
        digits.find_first_not_of("01234567") == absl::string_view::npos) {
      plain += static_cast<char>((digits[0] - '0') * 64 +
                                 (digits[1] - '0') * 8 + (digits[2] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// "36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/x rw"
bool ParseMount(absl::string_view line, MountInfo* mount) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  const std::vector<absl::string_view> fields =
      absl::StrSplit(halves.first, ' ');
  const std::vector<absl::string_view> own =
      absl::StrSplit(halves.second, absl::MaxSplits(' ', 2));
  // Without the " - " there are no words behind it at all.
  if (fields.size() < 6 || own.empty() ||
      !absl::SimpleAtoi(fields[0], &mount->id) ||
      !ParseDevice(fields[2], 10, &mount->device)) {
    return false;
  }
  mount->mount_point = Unescaped(fields[4]);
  mount->type = std::string(own[0]);
  if (own.size() > 1) mount->source = Unescaped(own[1]);
  if (own.size() > 2) mount->options = std::string(own[2]);
  return true;
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
  task.exe = ReadLink(pid, "exe").value_or("");
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

absl::StatusOr<unsigned> ProcFs::ReadPolicy(pid_t pid, pid_t thread) const {
  auto text = ReadThreadStat(pid, thread);
  if (!text.ok()) return text.status();
  const std::vector<std::string> fields = FieldsAfterComm(*text);
  unsigned policy = 0;
  // Field 41 of proc(5).
  if (fields.size() < 39 || !absl::SimpleAtoi(fields[38], &policy)) {
    return absl::InternalError("cannot parse /proc/PID/task/TID/stat");
  }
  return policy;
}

absl::StatusOr<bool> ProcFs::IsEnding(pid_t pid, pid_t thread) const {
  auto text = ReadThreadStat(pid, thread);
  if (absl::IsNotFound(text.status())) return true;
  if (!text.ok()) return text.status();
  TaskInfo info;
  if (absl::Status parsed = ParseStat(*text, &info); !parsed.ok()) {
    return parsed;
  }
  return info.exiting || info.ended();
}

absl::StatusOr<std::string> ProcFs::ReadThreadStat(pid_t pid,
                                                   pid_t thread) const {
  return ReadFileAt(AT_FDCWD,
                    absl::StrCat(root_, "/", pid, "/task/", thread, "/stat"),
                    kMaxProcFile);
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

absl::StatusOr<std::vector<FdInfo>> ProcFs::ReadFdTargets(pid_t pid) const {
  auto directory =
      OpenDirectory(AT_FDCWD, absl::StrCat(root_, "/", pid, "/fd"));
  if (!directory.ok()) return directory.status();
  auto names = ListDirectory(directory->get());
  if (!names.ok()) return names.status();
  std::vector<FdInfo> fds;
  for (const std::string& name : *names) {
    FdInfo info;
    if (!absl::SimpleAtoi(name, &info.fd)) continue;
    auto target = ReadLink(pid, absl::StrCat("fd/", name));
    // Closed meanwhile.
    if (absl::IsNotFound(target.status())) continue;
    if (!target.ok()) return target.status();
    info.target = *std::move(target);
    fds.push_back(std::move(info));
  }
  return fds;
}

absl::StatusOr<std::vector<FdInfo>> ProcFs::ReadFds(pid_t pid) const {
  auto task = OpenTask(root_, pid);
  if (!task.ok()) return task.status();
  auto targets = ReadFdTargets(pid);
  if (!targets.ok()) return targets;
  std::vector<FdInfo> fds;
  for (FdInfo& fd : *targets) {
    absl::Status read = ReadFdInfo(task->get(), &fd);
    if (absl::IsNotFound(read)) continue;
    if (!read.ok()) return read;
    fds.push_back(std::move(fd));
  }
  return fds;
}

absl::StatusOr<std::string> ProcFs::ReadLink(pid_t pid,
                                             const std::string& name) const {
  return daxsnap::ReadLink(absl::StrCat(root_, "/", pid, "/", name));
}

absl::StatusOr<std::vector<MapInfo>> ProcFs::ReadMappings(pid_t pid) const {
  auto task = OpenTask(root_, pid);
  if (!task.ok()) return task.status();
  auto text = ReadFileAt(task->get(), "maps", kMaxMaps);
  if (!text.ok()) return text.status();
  std::vector<MapInfo> maps;
  for (const absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    MapInfo map;
    if (!ParseMap(line, &map)) {
      return absl::InternalError("cannot parse /proc/PID/maps");
    }
    if (absl::StartsWith(map.path, "/")) maps.push_back(std::move(map));
  }
  return maps;
}

absl::StatusOr<std::vector<MapInfo>> ProcFs::ReadMaps(pid_t pid) const {
  auto mappings = ReadMappings(pid);
  if (!mappings.ok()) return mappings;
  std::vector<MapInfo> maps;
  std::map<std::pair<dev_t, uint64_t>, size_t> known;
  for (MapInfo& map : *mappings) {
    const auto [at, fresh] =
        known.try_emplace({map.device, map.inode}, maps.size());
    if (fresh) {
      maps.push_back(std::move(map));
    } else if (map.shared) {
      maps[at->second].shared = true;
    }
  }
  return maps;
}

absl::StatusOr<std::vector<MountInfo>> ProcFs::ReadMounts(pid_t pid) const {
  auto task = OpenTask(root_, pid);
  if (!task.ok()) return task.status();
  auto text = ReadFileAt(task->get(), "mountinfo", kMaxMaps);
  if (!text.ok()) return text.status();
  std::vector<MountInfo> mounts;
  for (const absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    MountInfo mount;
    if (!ParseMount(line, &mount)) {
      return absl::InternalError("cannot parse /proc/PID/mountinfo");
    }
    mounts.push_back(std::move(mount));
  }
  return mounts;
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
  return task->id == id && task->lives_on();
}

absl::Status ProcFs::UnlessGone(const TaskId& id,
                                const absl::Status& error) const {
  if (error.ok() || absl::IsNotFound(error)) return absl::OkStatus();
  auto task = ReadTask(id.pid);
  if (absl::IsNotFound(task.status())) return absl::OkStatus();
  const bool ended =
      task.ok() && (task->id != id || task->exiting || task->ended());
  return ended ? absl::OkStatus() : error;
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

void KillTask(const UniqueFd& pidfd) {
  (void)syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
}

bool AwaitTask(const UniqueFd& pidfd, absl::Time deadline) {
  for (;;) {
    pollfd poll_for = {.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&poll_for, 1, MillisecondsUntil(deadline));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

}  // namespace daxsnap
