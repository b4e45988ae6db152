// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/restorer.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxSyscall = 4096;
constexpr size_t kMaxMaps = size_t{256} << 20;
constexpr absl::Duration kSettleTimeout = absl::Seconds(1);
constexpr absl::Duration kSettleStep = absl::Milliseconds(5);

bool ParseHex(absl::string_view text, uint64_t* value) {
  return absl::SimpleHexAtoi(text, value);
}

// "START-END PERMS OFFSET DEVICE INODE PATH" of the mapping with that address.
std::vector<absl::string_view> MappingAt(uint64_t address,
                                         absl::string_view maps) {
  for (absl::string_view line : absl::StrSplit(maps, '\n')) {
    std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(' ', 5));
    const std::pair<absl::string_view, absl::string_view> range =
        absl::StrSplit(fields[0], absl::MaxSplits('-', 1));
    uint64_t start = 0;
    uint64_t end = 0;
    if (fields.size() >= 5 && ParseHex(range.first, &start) &&
        ParseHex(range.second, &end) && start <= address && address < end) {
      return fields;
    }
  }
  return {};
}

enum class Doing { kGone, kBusy, kWaitsInRestorer, kOther };

absl::StatusOr<Doing> LookAt(const ProcFs& proc, pid_t pid) {
  auto task = proc.ReadTask(pid);
  if (absl::IsNotFound(task.status())) return Doing::kGone;
  if (!task.ok()) return task.status();
  if (!task->lives_on()) return Doing::kGone;
  const std::string directory = absl::StrCat(proc.root(), "/", pid);
  auto syscall =
      ReadFileAt(AT_FDCWD, absl::StrCat(directory, "/syscall"), kMaxSyscall);
  auto maps =
      syscall.ok()
          ? ReadFileAt(AT_FDCWD, absl::StrCat(directory, "/maps"), kMaxMaps)
          : syscall;
  if (!maps.ok()) {
    absl::Status unless = proc.UnlessGone(task->id, maps.status());
    if (!unless.ok()) return unless;
    return Doing::kGone;
  }
  if (absl::StartsWith(*syscall, "running")) return Doing::kBusy;
  return WaitsInRestorer(*syscall, *maps) ? Doing::kWaitsInRestorer
                                          : Doing::kOther;
}

}  // namespace

bool WaitsInRestorer(absl::string_view syscall, absl::string_view maps) {
  // "NUMBER ARGUMENT*6 SP PC"
  const std::vector<absl::string_view> fields =
      absl::StrSplit(syscall, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  int number = -1;
  uint64_t futex = 0;
  uint64_t pc = 0;
  if (fields.size() != 9 || !absl::SimpleAtoi(fields[0], &number) ||
      number != SYS_futex || !ParseHex(fields[1], &futex) ||
      !ParseHex(fields[8], &pc)) {
    return false;
  }
  const std::vector<absl::string_view> code = MappingAt(pc, maps);
  const std::vector<absl::string_view> word = MappingAt(futex, maps);
  return !code.empty() && absl::StrContains(code[1], "xp") && code[4] == "0" &&
         (code.size() == 5 || absl::StripAsciiWhitespace(code[5]).empty()) &&
         !word.empty() && absl::EndsWith(word[1], "s") && word.size() == 6 &&
         absl::EndsWith(word[5], "/dev/zero (deleted)");
}

absl::StatusOr<TasksLeft> LookAtRestored(const ProcFs& proc,
                                         const std::vector<pid_t>& pids) {
  // One that is busy may be on its way out of the restorer, or into its wait.
  const absl::Time deadline = absl::Now() + kSettleTimeout;
  for (;;) {
    bool busy = false;
    TasksLeft left = TasksLeft::kNone;
    for (const pid_t pid : pids) {
      auto doing = LookAt(proc, pid);
      if (!doing.ok()) return doing.status();
      if (*doing == Doing::kWaitsInRestorer) return TasksLeft::kNeverRan;
      busy = busy || *doing == Doing::kBusy;
      if (*doing != Doing::kGone) left = TasksLeft::kRun;
    }
    if (!busy || absl::Now() >= deadline) return left;
    absl::SleepFor(kSettleStep);
  }
}

}  // namespace daxsnap
