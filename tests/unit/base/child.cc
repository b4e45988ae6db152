// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/base/child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/unique_fd.h"

namespace daxsnap {

Child::Child() { Spawn({"sleep", "infinity"}, -1); }

Child::Child(const std::string& script) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  Spawn({"sh", "-c", script}, writer.get());
  writer.reset();
  char ready = 0;
  EXPECT_EQ(read(reader.get(), &ready, 1), 1) << script;
}

void Child::Spawn(const std::vector<std::string>& argv, int descriptor_3) {
  std::vector<char*> args;
  for (const std::string& arg : argv) {
    args.push_back(const_cast<char*>(arg.c_str()));
  }
  args.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (descriptor_3 >= 0) {
    posix_spawn_file_actions_adddup2(&actions, descriptor_3, 3);
  }
  for (int fd = 0; fd < 3; ++fd) {
    posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  }
  // Whatever this test has inherited is not the child's.
  posix_spawn_file_actions_addclosefrom_np(&actions, descriptor_3 < 0 ? 3 : 4);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  EXPECT_EQ(
      posix_spawnp(&pid_, args[0], &actions, &attributes, args.data(), environ),
      0);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  auto task = ProcFs().ReadTask(pid_);
  EXPECT_TRUE(task.ok()) << task.status();
  if (task.ok()) id_ = task->id;
}

Child::~Child() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  Reap();
}

void Child::Stop() {
  kill(pid_, SIGSTOP);
  siginfo_t info;
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED), 0);
}

void Child::Continue() {
  kill(pid_, SIGCONT);
  siginfo_t info;
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WCONTINUED), 0);
}

void Child::Kill() {
  kill(pid_, SIGKILL);
  siginfo_t info;
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT),
            0);
}

void Child::Reap() {
  if (pid_ <= 0) return;
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

char Child::State() const {
  auto task = ProcFs().ReadTask(id_.pid);
  if (!task.ok() || task->id != id_) return 'X';
  return task->state == 'S' || task->state == 'D' ? 'R' : task->state;
}

ForkedTask::ForkedTask(const std::function<void()>& prepare,
                       const std::function<void()>& then) {
  int ready[2];
  EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
  const UniqueFd reader(ready[0]);
  UniqueFd writer(ready[1]);
  pid_ = fork();
  if (pid_ == 0) {
    prepare();
    (void)!write(writer.get(), "r", 1);
    writer.reset();
    then();
    for (;;) pause();
  }
  writer.reset();
  char byte = 0;
  EXPECT_EQ(read(reader.get(), &byte, 1), 1);
}

ForkedTask::~ForkedTask() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::vector<TaskInfo> ForkedTask::Tree() const {
  return ProcFs().ReadTree(pid_).value();
}

}  // namespace daxsnap
