// SPDX-License-Identifier: Apache-2.0
//
// The launcher against the real kernel. Scopes and memory policy need a machine
// with systemd and a second node: those are tests of the virtual machine.
#include "host/launch/launch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "host/launch/child.h"
#include "host/launch/log_file.h"

namespace daxsnap::launch {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class TempDir {
 public:
  TempDir() {
    std::string name =
        std::filesystem::temp_directory_path() / "launch_test.XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string ReadAll(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

// Waits for the child's end; its exit status, or -1 if a signal ended it.
int ExitStatus(const UniqueFd& pidfd) {
  siginfo_t info = {};
  EXPECT_EQ(waitid(static_cast<idtype_t>(P_PIDFD), pidfd.get(), &info, WEXITED),
            0);
  return info.si_code == CLD_EXITED ? info.si_status : -1;
}

// A child that runs `script` with everything it writes in a log file.
class HeldChildTest : public ::testing::Test {
 protected:
  HeldChildTest()
      : log_path_(dir_ / "log/task.log"),
        null_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
    absl::StatusOr<UniqueFd> log = OpenLog(log_path_);
    EXPECT_TRUE(log.ok()) << log.status();
    if (log.ok()) log_ = *std::move(log);
  }

  HeldChild::Exec Shell(const char* script) {
    argv_ = {const_cast<char*>("sh"), const_cast<char*>("-c"),
             const_cast<char*>(script), nullptr};
    HeldChild::Exec exec;
    exec.path = "/bin/sh";
    exec.argv = argv_.data();
    exec.envp = envp_.data();
    exec.cwd = "/";
    exec.stdin_fd = null_.get();
    exec.log_fd = log_.get();
    return exec;
  }

  // Exit status of the script.
  int Run(const HeldChild::Exec& exec) {
    absl::StatusOr<HeldChild> child = HeldChild::Clone(exec, 0);
    EXPECT_TRUE(child.ok()) << child.status();
    if (!child.ok()) return -1;
    absl::StatusOr<UniqueFd> pidfd = std::move(*child).Release();
    EXPECT_TRUE(pidfd.ok()) << pidfd.status();
    return pidfd.ok() ? ExitStatus(*pidfd) : -1;
  }

  TempDir dir_;
  std::string log_path_;
  UniqueFd log_;
  UniqueFd null_;
  std::array<char*, 4> argv_;
  std::array<char*, 2> envp_ = {const_cast<char*>("PATH=/usr/bin:/bin"),
                                nullptr};
};

TEST_F(HeldChildTest, StdioIsNullAndAppendOnlyLog) {
  EXPECT_EQ(Run(Shell("readlink /proc/self/fd/0; echo err >&2; "
                      "grep flags /proc/self/fdinfo/1")),
            0);
  const std::string log = ReadAll(log_path_);
  EXPECT_THAT(log, HasSubstr("/dev/null\n"));
  EXPECT_THAT(log, HasSubstr("err\n"));
  // O_WRONLY | O_APPEND, without which CRIU insists on the size.
  EXPECT_THAT(log, MatchesRegex("(.|\n)*flags:\t[0-7]*2001\n"));
}

TEST_F(HeldChildTest, InheritsNoOtherDescriptors) {
  UniqueFd secret(open("/dev/zero", O_RDONLY));  // not close-on-exec
  // The directory that the shell reads to expand the pattern is closed by then.
  EXPECT_EQ(Run(Shell("readlink /proc/$$/fd/*; true")), 0);
  EXPECT_EQ(ReadAll(log_path_),
            "/dev/null\n" + log_path_ + "\n" + log_path_ + "\n");
}

TEST_F(HeldChildTest, InheritsWhatIsAskedForWhereverItWas) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  UniqueFd read_end(pipe_fds[0]), write_end(pipe_fds[1]);
  HeldChild::Exec exec = Shell("echo through >&3; readlink /proc/self/fd/4");
  // A target may be the number of another source.
  const std::array<InheritedFd, 2> inherited = {InheritedFd{write_end.get(), 3},
                                                InheritedFd{null_.get(), 4}};
  exec.inherited_fds = inherited;
  EXPECT_EQ(Run(exec), 0);
  write_end.reset();
  char text[16];
  ASSERT_EQ(read(read_end.get(), text, sizeof(text)), 8);
  EXPECT_EQ(std::string(text, 8), "through\n");
  EXPECT_EQ(ReadAll(log_path_), "/dev/null\n");
}

TEST_F(HeldChildTest, LeadsASessionOfItsOwn) {
  EXPECT_EQ(
      Run(Shell("read -r pid comm state ppid pgrp session rest </proc/$$/stat; "
                "test $pid = $session && test $pid = $pgrp")),
      0);
}

TEST_F(HeldChildTest, StartsWithDefaultSignals) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  EXPECT_EQ(Run(Shell("grep -E 'Sig(Blk|Ign)' /proc/self/status")), 0);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  signal(SIGPIPE, SIG_DFL);
  EXPECT_EQ(ReadAll(log_path_),
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_F(HeldChildTest, IsNeutralWhateverTheCallerIs) {
  constexpr int kIoprioWhoProcess = 1;
  constexpr int kIdle = 3 << 13;
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one processor";
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  HeldChild::Exec exec = Shell(
      "grep Cpus_allowed_list /proc/$$/status; "
      "cat /proc/$$/personality /proc/$$/timerslack_ns; ionice -p $$");
  exec.neutral = true;
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  ASSERT_GE(personality(ADDR_NO_RANDOMIZE), 0);
  ASSERT_EQ(prctl(PR_SET_TIMERSLACK, 70000UL), 0);
  ASSERT_EQ(syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIdle), 0);
  const int exit_status = Run(exec);
  sched_setaffinity(0, sizeof(before), &before);
  personality(PER_LINUX);
  prctl(PR_SET_TIMERSLACK, 50000UL);
  syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, 0);
  EXPECT_EQ(exit_status, 0);
  const std::string log = ReadAll(log_path_);
  EXPECT_THAT(log, MatchesRegex("Cpus_allowed_list:\t.*[-,].*\n"
                                "00000000\n50000\nnone: prio 0\n"));
}

// Has the kernel refuse a call of this process and its children with EPERM if
// its argument `number` is not `allowed`.
void Forbid(unsigned call, unsigned number, unsigned allowed) {
  const auto argument = static_cast<unsigned>(offsetof(seccomp_data, args) +
                                              number * sizeof(uint64_t));
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, argument),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program = {.len = std::size(filter), .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    _exit(100);
  }
}

// As the filters of containers do.
TEST_F(HeldChildTest, IsNeutralWhereNothingNeedsToBeSetThatMayNot) {
  HeldChild::Exec exec = Shell("true");
  exec.neutral = true;
  const auto run = [&](bool other) {
    const pid_t pid = fork();
    if (pid == 0) {
      if (other && personality(ADDR_NO_RANDOMIZE) < 0) _exit(101);
      Forbid(SYS_personality, 0, 0xffffffff);
      Forbid(SYS_ioprio_set, 0, 0xffffffff);
      _exit(Run(exec));
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return status;
  };
  EXPECT_EQ(run(false), 0);
  EXPECT_NE(run(true), 0);
}

TEST_F(HeldChildTest, ReportsWhyExecFailed) {
  HeldChild::Exec exec = Shell("true");
  exec.path = "/proc/version";
  absl::StatusOr<HeldChild> child = HeldChild::Clone(exec, 0);
  ASSERT_TRUE(child.ok()) << child.status();
  const absl::Status status = std::move(*child).Release().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/proc/version"));
}

TEST_F(HeldChildTest, ReportsAMissingDirectory) {
  HeldChild::Exec exec = Shell("true");
  exec.cwd = "/nowhere/at/all";
  absl::StatusOr<HeldChild> child = HeldChild::Clone(exec, 0);
  ASSERT_TRUE(child.ok()) << child.status();
  const absl::Status status = std::move(*child).Release().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/at/all"));
}

TEST_F(HeldChildTest, ReportsANodeWithoutMemory) {
  HeldChild::Exec exec = Shell("true");
  exec.numa_node = 1000;
  absl::StatusOr<HeldChild> child = HeldChild::Clone(exec, 0);
  ASSERT_TRUE(child.ok()) << child.status();
  const absl::Status status = std::move(*child).Release().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("NUMA node 1000"));
}

TEST_F(HeldChildTest, DroppedChildNeverRuns) {
  const std::string mark = dir_ / "ran";
  const std::string script = "touch " + mark;
  pid_t pid;
  {
    absl::StatusOr<HeldChild> child =
        HeldChild::Clone(Shell(script.c_str()), 0);
    ASSERT_TRUE(child.ok()) << child.status();
    pid = child->pid();
  }
  EXPECT_FALSE(std::filesystem::exists(mark));
  EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1) << "the child was not reaped";
}

TEST(OpenLogTest, AppendsAndIsPrivate) {
  TempDir dir;
  const std::string path = dir / "deep/er/a.log";
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<UniqueFd> log = OpenLog(path);
    ASSERT_TRUE(log.ok()) << log.status();
    ASSERT_EQ(write(log->get(), "x\n", 2), 2);
  }
  EXPECT_EQ(ReadAll(path), "x\nx\n");
  struct stat st;
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  ASSERT_EQ(stat((dir / "deep/er").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
}

TEST(OpenLogTest, RefusesLinksAndFifos) {
  TempDir dir;
  ASSERT_EQ(symlink("/etc/passwd", (dir / "link").c_str()), 0);
  EXPECT_FALSE(OpenLog(dir / "link").ok());
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(OpenLog(dir / "fifo").ok());
}

TEST(ScopeNameTest, HasOnlyUnitNameCharactersAndDiffersEachTime) {
  const std::string name = ScopeName("a/b c@d\n");
  EXPECT_THAT(name, MatchesRegex("daxsnap-a_b_c_d_-[0-9a-f]{8}\\.scope"));
  EXPECT_NE(name, ScopeName("a/b c@d\n"));
  EXPECT_LT(ScopeName(std::string(1000, 'x')).size(), 200U);
}

TEST(LaunchTest, RefusesWrongSpecsBeforeAnythingRuns) {
  LaunchSpec spec;
  spec.scope = "a.scope";
  EXPECT_EQ(Launch(spec).status().code(), absl::StatusCode::kInvalidArgument);
  spec.argv = {"no-such-command-at-all"};
  EXPECT_EQ(Launch(spec).status().code(), absl::StatusCode::kNotFound);
  spec.argv = {"/bin/true"};
  spec.log_path = "relative.log";
  EXPECT_EQ(Launch(spec).status().code(), absl::StatusCode::kInvalidArgument);
  spec.cwd = "relative";
  EXPECT_EQ(Launch(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PidRangeTest, RefusesRangesTheKernelCannotHave) {
  EXPECT_EQ(EnsurePidMax({1000, 5'000'000}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EnsurePidMax({1, 100}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EnsurePidMax({2000, 1000}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MovePidsTo({1000, 2000}, 2001).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace daxsnap::launch
