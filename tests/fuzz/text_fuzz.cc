// SPDX-License-Identifier: Apache-2.0
//
// Texts that others write: CRIU's log, files of /proc, tmpfiles.d. Whatever is
// in them, reading them comes to an end, and an error has a reason.
#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/errors.h"
#include "base/files.h"
#include "host/task/proc.h"
#include "host/task/sysv_ipc.h"
#include "host/task/tmpfiles.h"
#include "snapd/engine/criu_engine.h"
#include "snapd/engine/criu_log.h"
#include "snapd/engine/restorer.h"
#include "snapd/ops/page_progress.h"
#include "tests/fuzz/edit.h"

namespace daxsnap::fuzz {
namespace {

constexpr char kLog[] =
    "(00.000001) Warn  (criu/x.c:1): something\n"
    "(00.012345)   4242: Error (criu/files.c:12): Can't open\n"
    "(00.023456) Error (criu/cr-dump.c:2081): Dumping FAILED.\n"
    "(00.023457) Error (criu/cr-service.c:99): can't send\n";

constexpr char kMaps[] =
    "00400000-00401000 r-xp 00000000 00:00 0 \n"
    "7f0000000000-7f0000001000 rw-s 00000000 00:01 4 /dev/zero (deleted)\n"
    "7f0000002000-7f0000003000 r-xp 00000000 08:01 77 /usr/lib/a b\\012c.so\n";

constexpr char kSyscall[] =
    "202 0x7f0000000000 0x0 0x0 0x0 0x0 0x0 0x7ffc0000 0x400010\n";

struct File {
  const char* path;
  const char* text;
};

// Of one task, 7.
constexpr File kProc[] = {
    {"7/stat",
     "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 5 6 0 0 20 0 1 0 777 1000 10 "
     "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"},
    {"7/status",
     "Name:\ta\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\n"
     "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nRssAnon:\t    1234 kB\n"
     "RssShmem:\t       8 kB\nVmSwap:\t       0 kB\n"
     "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n"
     "CapPrm:\t0000000000000000\n"},
    {"7/maps", kMaps},
    {"7/syscall", kSyscall},
    {"7/mountinfo",
     "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
     "22 21 0:5 / /dev\\040x rw - tmpfs none rw,size=1k\n"},
    {"7/task/7/children", "8 9 \n"},
    {"7/task/7/stat",
     "7 (a) S 1 7 7 0 -1 0 1 0 0 0 5 6 0 0 20 0 1 0 777 1000 10 1 1 1 0 0 0 0 "
     "0 0 0 0 0 0 17 0 0 0 0 0 0\n"},
    {"7/fdinfo/0", "pos:\t0\nflags:\t0100002\nmnt_id:\t21\nino:\t4\n"},
    {"sysvipc/shm",
     "       key      shmid perms                  size  cpid  lpid nattch   "
     "uid "
     "  gid  cuid  cgid      atime      dtime      ctime                   rss "
     " "
     "                swap\n         0          7   600                  4096  "
     "  "
     " 7     7      0     0     0     0     0          0          0          1 "
     "  "
     "               4096                     0\n"},
    {"sysvipc/sem",
     "       key      semid perms      nsems   uid   gid  cuid  cgid      "
     "otime  "
     "    ctime\n         0          3   600          1     0     0     0     "
     "0  "
     "        0          1\n"},
    {"sysvipc/msg",
     "       key      msqid perms      cbytes       qnum lspid lrpid   uid   "
     "gid "
     " cuid  cgid      stime      rtime      ctime\n         0          2   "
     "600  "
     "         0          0     7     0     0     0     0     0          0     "
     "  "
     "   0          1\n"},
    {"sys/kernel/random/boot_id", "fedcba98-7654-3210-fedc-ba9876543210\n"},
    {"uptime", "1234.56 2345.67\n"},
};

constexpr char kRules[] =
    "# a comment\nD! /tmp 1777 root root 0\nq /var/tmp 1777 root root 30d\n"
    "r! /run/%b/*.lock\nR /x/%m \"/with space\" - -\nx /tmp/systemd-%b-*\n"
    "d /run/\\x41b - - - 1h30m\n";

void RequireReason(const absl::Status& status) {
  if (status.ok() || absl::IsNotFound(status)) return;
  Require(!status.message().empty(), "an error says something");
}

class Texts {
 public:
  Texts() {
    for (const File& file : kProc) {
      const std::string path = directory_.Path(file.path);
      std::filesystem::create_directories(
          std::filesystem::path(path).parent_path());
      directory_.Write(file.path, file.text);
    }
    std::filesystem::create_directories(directory_.Path("7/fd"));
    std::filesystem::create_directories(directory_.Path("log"));
    std::filesystem::create_symlink("/dev/null", directory_.Path("7/fd/0"));
    std::filesystem::create_symlink("/bin/sh", directory_.Path("7/exe"));
  }

  void ReadLog(Input* input) {
    const std::string log = Edited(input, kLog);
    const absl::Status error = CriuError({.action = "dump",
                                          .pid = 7,
                                          .name = "a",
                                          .log = log,
                                          .message = FirstErrorLine(log),
                                          .log_path = "/x"});
    Require(!ErrorReasonOf(error).empty(), "CRIU's error has a reason");
    Require(!SerializedRpcStatus(error).empty(), "it can be sent");
    directory_.Write("log/criu-dump.log", log);
    CriuEngine engine({});
    auto work = OpenDirectory(AT_FDCWD, directory_.Path("log"));
    Require(engine.HasLetGo(work->get()).ok(), "the log can be read");
  }

  void ReadRestorer(Input* input) {
    const std::string syscall =
        input->Take(1) % 2 == 0 ? kSyscall : Edited(input, kSyscall);
    (void)WaitsInRestorer(syscall, Edited(input, kMaps));
  }

  void ReadProc(Input* input) {
    const File& file = kProc[input->Take(1) % std::size(kProc)];
    directory_.Write(file.path, Edited(input, file.text));
    const ProcFs proc(directory_.path());
    auto task = proc.ReadTask(7);
    RequireReason(task.status());
    std::vector<TaskInfo> tree;
    if (task.ok()) tree.push_back(*task);
    RequireReason(proc.ReadTree(7).status());
    RequireReason(proc.ReadThreads(7).status());
    RequireReason(proc.ReadPolicy(7, 7).status());
    RequireReason(proc.IsEnding(7, 7).status());
    RequireReason(proc.ReadFds(7).status());
    RequireReason(proc.ReadMappings(7).status());
    RequireReason(proc.ReadMaps(7).status());
    RequireReason(proc.ReadMounts(7).status());
    RequireReason(proc.ListPids().status());
    RequireReason(proc.IsAlive({7, 777}).status());
    RequireReason(proc.BootId().status());
    RequireReason(FindSysvObjects(proc, tree, {}).status());
    (void)PagesToDump(proc, tree);
    directory_.Write(file.path, file.text);
  }

  static void ReadRules(Input* input) {
    TmpfilesRules rules;
    rules.Add(Edited(input, kRules), "x.conf");
    for (const char* path : {"/tmp/x", "/run/a.lock", "/with space", "/"}) {
      (void)rules.FateOf(path);
      (void)rules.MakesDirectory(path);
    }
  }

 private:
  Directory directory_;
};

}  // namespace
}  // namespace daxsnap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static daxsnap::fuzz::Texts texts;
  daxsnap::fuzz::Input input(data, size);
  switch (input.Take(1) % 4) {
    case 0:
      texts.ReadLog(&input);
      break;
    case 1:
      texts.ReadRestorer(&input);
      break;
    case 2:
      daxsnap::fuzz::Texts::ReadRules(&input);
      break;
    default:
      texts.ReadProc(&input);
  }
  return 0;
}
