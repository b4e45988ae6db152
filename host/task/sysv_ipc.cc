// SPDX-License-Identifier: Apache-2.0
#include "host/task/sysv_ipc.h"

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxSysvFile = size_t{16} << 20;
// How many semaphores are looked at: each is a system call.
constexpr int64_t kMaxSemaphores = 65536;
// Times of objects are whole seconds; those of tasks are converted.
constexpr absl::Duration kSlack = absl::Seconds(2);

// A line of a file in /proc/sysvipc.
class Entry {
 public:
  Entry(const std::vector<std::string>& names,
        const std::vector<absl::string_view>& fields) {
    for (size_t i = 0; i < names.size(); ++i) {
      complete_ = complete_ && absl::SimpleAtoi(fields[i], &fields_[names[i]]);
    }
  }
  bool complete() const { return complete_; }
  // 0 if there is no such field: all kernels have those that are asked for.
  int64_t operator[](const std::string& name) const {
    const auto found = fields_.find(name);
    return found == fields_.end() ? 0 : found->second;
  }

 private:
  bool complete_ = true;
  std::map<std::string, int64_t> fields_;
};

// The first line names the fields. None if the kernel has no System V IPC.
absl::StatusOr<std::vector<Entry>> ReadEntries(const ProcFs& proc,
                                               const std::string& kind) {
  std::vector<Entry> entries;
  auto text = ReadFileAt(AT_FDCWD, absl::StrCat(proc.root(), "/sysvipc/", kind),
                         kMaxSysvFile);
  if (absl::IsNotFound(text.status())) return entries;
  if (!text.ok()) return text.status();
  std::vector<std::string> names;
  for (const absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (names.empty()) {
      names.reserve(fields.size());
      for (const absl::string_view name : fields) names.emplace_back(name);
      continue;
    }
    if (fields.size() == names.size()) {
      entries.emplace_back(names, fields);
      if (entries.back().complete()) continue;
    }
    return absl::InternalError(absl::StrCat("cannot parse sysvipc/", kind));
  }
  return entries;
}

// Who is known to have used an object, and when at the latest.
using Users = std::map<pid_t, absl::Time>;

void Note(int64_t pid, int64_t seconds, Users* users) {
  if (pid == 0) return;
  absl::Time& time = (*users)[static_cast<pid_t>(pid)];
  time = std::max(time, absl::FromUnixSeconds(seconds));
}

class Finder {
 public:
  Finder(const ProcFs& proc, const std::vector<TaskInfo>& tree,
         const std::vector<UsedFile>& files)
      : proc_(proc), tree_(tree), files_(files) {
    timespec since_boot = {};
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    boot_time_ = absl::Now() - absl::DurationFromTimespec(since_boot);
    for (const TaskInfo& task : tree) tasks_[task.id.pid] = &task;
  }

  absl::StatusOr<std::vector<SysvObject>> Run() {
    absl::Status found = FindSegments();
    if (found.ok()) found = FindQueues();
    if (found.ok()) found = FindSemaphores();
    if (!found.ok()) return found;
    return std::move(objects_);
  }

 private:
  absl::Status FindSegments() {
    auto entries = ReadEntries(proc_, "shm");
    if (!entries.ok()) return entries.status();
    for (const Entry& entry : *entries) {
      const auto attached =
          std::find_if(files_.begin(), files_.end(), [&](const UsedFile& file) {
            return file.is_mapping() && absl::StartsWith(file.path, "/SYSV") &&
                   file.inode == static_cast<uint64_t>(entry["shmid"]);
          });
      if (attached != files_.end()) {
        Add("shm", entry["shmid"], SysvTie::kUsed, attached->pid);
        continue;
      }
      Users users;
      Note(entry["cpid"], entry["ctime"], &users);
      Note(entry["lpid"], std::max(entry["atime"], entry["dtime"]), &users);
      absl::Status judged = Judge("shm", entry["shmid"], entry, users);
      if (!judged.ok()) return judged;
    }
    return absl::OkStatus();
  }

  absl::Status FindQueues() {
    auto entries = ReadEntries(proc_, "msg");
    if (!entries.ok()) return entries.status();
    for (const Entry& entry : *entries) {
      Users users;
      Note(entry["lspid"], entry["stime"], &users);
      Note(entry["lrpid"], entry["rtime"], &users);
      absl::Status judged = Judge("msg", entry["msqid"], entry, users);
      if (!judged.ok()) return judged;
    }
    return absl::OkStatus();
  }

  // Each semaphore knows who was last; /proc does not say it.
  absl::Status FindSemaphores() {
    int64_t left = kMaxSemaphores;
    auto entries = ReadEntries(proc_, "sem");
    if (!entries.ok()) return entries.status();
    for (const Entry& entry : *entries) {
      left -= entry["nsems"];
      if (left < 0) {
        Add("sem", entry["semid"], SysvTie::kUnknown, tree_.front().id.pid);
        continue;
      }
      auto users = UsersOfSemaphores(entry);
      if (absl::IsNotFound(users.status())) continue;
      if (!users.ok()) return users.status();
      absl::Status judged = Judge("sem", entry["semid"], entry, *users);
      if (!judged.ok()) return judged;
    }
    return absl::OkStatus();
  }

  // NOT_FOUND if the set was removed meanwhile.
  static absl::StatusOr<Users> UsersOfSemaphores(const Entry& entry) {
    Users users;
    const int id = static_cast<int>(entry["semid"]);
    for (int i = 0; i < entry["nsems"]; ++i) {
      const int pid = semctl(id, i, GETPID);
      if (pid < 0 && (errno == EINVAL || errno == EIDRM)) {
        return absl::NotFoundError("removed");
      }
      if (pid < 0) {
        return ErrnoError(errno, absl::StrCat("cannot read semaphores ", id));
      }
      // To set one changes but the second.
      Note(pid, std::max(entry["otime"], entry["ctime"]), &users);
    }
    return users;
  }

  absl::Status Judge(const char* kind, int64_t id, const Entry& entry,
                     const Users& users) {
    bool all_live_outside = !users.empty();
    for (const auto& [pid, time] : users) {
      const auto task = tasks_.find(pid);
      if (task != tasks_.end() && LivedAt(task->second->id, time)) {
        Add(kind, id, SysvTie::kUsed, pid);
        return absl::OkStatus();
      }
      if (task != tasks_.end()) {
        all_live_outside = false;
        continue;
      }
      auto other = proc_.ReadTask(pid);
      if (!other.ok() && !absl::IsNotFound(other.status())) {
        return other.status();
      }
      if (!other.ok() || !LivedAt(other->id, time)) all_live_outside = false;
    }
    if (all_live_outside) return absl::OkStatus();
    if (const auto owner = OwnerAmongTasks(entry); owner.has_value()) {
      Add(kind, id, SysvTie::kMaybeTheirs, *owner);
    }
    return absl::OkStatus();
  }

  // Else its PID was another's then. A clock that was set forward meanwhile
  // makes it look so as well; it never makes an object look like nobody's.
  bool LivedAt(const TaskId& task, absl::Time time) const {
    const double ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
    const absl::Time start =
        boot_time_ +
        absl::Seconds(static_cast<double>(task.start_ticks) / ticks_per_second);
    return start <= time + kSlack;
  }

  // A task whose user owns or has made it.
  std::optional<pid_t> OwnerAmongTasks(const Entry& entry) const {
    for (const TaskInfo& task : tree_) {
      for (const uid_t uid : task.uids) {
        if (uid == entry["uid"] || uid == entry["cuid"]) return task.id.pid;
      }
    }
    return std::nullopt;
  }

  void Add(const char* kind, int64_t id, SysvTie tie, pid_t pid) {
    objects_.push_back(
        {.kind = kind, .id = absl::StrCat(id), .tie = tie, .pid = pid});
  }

  const ProcFs& proc_;
  const std::vector<TaskInfo>& tree_;
  const std::vector<UsedFile>& files_;
  absl::Time boot_time_;
  std::map<pid_t, const TaskInfo*> tasks_;
  std::vector<SysvObject> objects_;
};

}  // namespace

absl::StatusOr<std::vector<SysvObject>> FindSysvObjects(
    const ProcFs& proc, const std::vector<TaskInfo>& tree,
    const std::vector<UsedFile>& files) {
  return Finder(proc, tree, files).Run();
}

}  // namespace daxsnap
