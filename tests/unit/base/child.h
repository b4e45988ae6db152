// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_BASE_CHILD_H_
#define DAXSNAP_TESTS_UNIT_BASE_CHILD_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "host/task/proc.h"

namespace daxsnap {

// A process of the test's own, in a session of its own and with /dev/null as
// stdio; killed and reaped with the object.
class Child {
 public:
  // `sleep infinity`.
  Child();
  // `sh -c SCRIPT`, which writes to descriptor 3 when it is ready. It must not
  // leave 3 open in itself or others after that.
  explicit Child(const std::string& script);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  TaskId id() const { return id_; }

  // Stops it and waits until it stands still.
  void Stop();
  // Lets it go on and waits until it does.
  void Continue();
  // Kills it and waits until it is a zombie.
  void Kill();
  // Waits until it is gone; the object is empty then.
  void Reap();

  // 'R' if it runs or sleeps, 'T' if it is stopped, 'Z' if it is a zombie, 'X'
  // if it is gone.
  char State() const;

 private:
  void Spawn(const std::vector<std::string>& argv, int descriptor_3);

  pid_t pid_ = 0;
  TaskId id_;
};

// A process forked from the test, so that it can do what no shell can; killed
// and reaped with the object.
class ForkedTask {
 public:
  // `prepare` runs in it before the object is made, `then` afterwards.
  explicit ForkedTask(
      const std::function<void()>& prepare,
      const std::function<void()>& then = [] {});
  ForkedTask(const ForkedTask&) = delete;
  ForkedTask& operator=(const ForkedTask&) = delete;
  ~ForkedTask();

  pid_t pid() const { return pid_; }
  // It and its children.
  std::vector<TaskInfo> Tree() const;

 private:
  pid_t pid_ = 0;
};

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_BASE_CHILD_H_
