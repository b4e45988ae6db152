// SPDX-License-Identifier: Apache-2.0
//
// A CRIU that does nothing to tasks. CRIU_LIBS_DIR says how it behaves:
//   ok      notifies, obeys the answers, succeeds
//   error   writes a log with errors and reports failure
//   die     exits with status 7 when it gets the request
//   gone    does so before
//   write   writes until a write fails, then reports failure
//   hang    never answers, nor does a child that has its socket
//   wait    waits for a file "go" in the images
//   busy    fails if "ticked" is there soon after what it has told of last
//   orphan  leaves a large task behind, and reports failure
//   late    dies once the tasks of a restore run
//   let-go  likewise, before it could say so
//   running likewise, and before it was done with them
//   half    dies at a restore when its task waits for it
//   ghost   makes a file, and removes it when its task has ended; fails
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "daxsnap/internal/criu.pb.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

constexpr int kSocket = 3;

template <typename Message>
bool Receive(Message* message) {
  char buffer[65536];
  const ssize_t size = recv(kSocket, buffer, sizeof(buffer), 0);
  return size > 0 && message->ParseFromArray(buffer, static_cast<int>(size));
}

void Send(const pb::Response& response) {
  const std::string bytes = response.SerializeAsString();
  if (send(kSocket, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) _exit(8);
}

// Whether the client lets it go on.
bool Notify(const std::string& script) {
  pb::Response response;
  response.set_type(pb::NOTIFY);
  response.set_success(true);
  response.mutable_notify()->set_script(script);
  Send(response);
  pb::Request answer;
  return Receive(&answer) && answer.notify_success();
}

// The directory that the client has open as `fd`.
std::string ClientPath(int fd) {
  ucred peer;
  socklen_t size = sizeof(peer);
  getsockopt(kSocket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
  return absl::StrCat("/proc/", peer.pid, "/fd/", fd);
}

void WriteFile(const std::string& path, const std::string& text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
  if (write(fd.get(), text.data(), text.size()) < 0) _exit(9);
}

void WriteUntilItFails(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT, 0600));
  while (pwrite(fd.get(), "x", 1, 0) == 1) {
  }
}

// A task that takes a while to die, as it has so much memory.
void LeaveTaskBehind() {
  constexpr size_t kBytes = size_t{256} << 20;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) _exit(10);
  const pid_t child = fork();
  if (child < 0) _exit(11);
  if (child > 0) {
    munmap(memory, kBytes);
    return;
  }
  close(kSocket);
  for (;;) pause();
}

// Waits on a futex in memory that it shares, by code in memory of no file.
[[noreturn]] void WaitInRestorer() {
  // mov $SYS_futex, %eax; xor %r10d, %r10d; syscall; ret
  static_assert(SYS_futex == 202);
  constexpr unsigned char kCode[] = {0xb8, 202,  0,    0,    0,   0x45,
                                     0x31, 0xd2, 0x0f, 0x05, 0xc3};
  void* code = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* word = mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED || word == MAP_FAILED) _exit(13);
  std::memcpy(code, kCode, sizeof(kCode));
  for (;;) {
    reinterpret_cast<long (*)(void*, int, int)>(code)(word, FUTEX_WAIT, 0);
  }
}

// A task that does so, or its own work; its PID is written to the images.
pid_t MakeTask(const pb::Request& request, bool waits) {
  int ready[2];
  if (pipe(ready) != 0) _exit(14);
  const pid_t child = fork();
  if (child < 0) _exit(11);
  if (child == 0) {
    close(kSocket);
    close(ready[0]);
    if (write(ready[1], "x", 1) != 1) _exit(15);
    close(ready[1]);
    if (waits) WaitInRestorer();
    for (;;) pause();
  }
  close(ready[1]);
  char byte = 0;
  if (read(ready[0], &byte, 1) != 1) _exit(16);
  close(ready[0]);
  WriteFile(absl::StrCat(ClientPath(request.opts().images_dir_fd()), "/task"),
            absl::StrCat(child));
  return child;
}

bool Work(const std::string& behaviour, const pb::Request& request) {
  const std::string work = ClientPath(request.opts().work_dir_fd());
  const std::string log = absl::StrCat(work, "/", request.opts().log_file());
  if (behaviour == "error") {
    WriteFile(log, "(00.1) Error (criu/x.c:1): x: broken\n");
    return false;
  }
  if (behaviour == "orphan") {
    char cgroup[4096];
    const UniqueFd fd(open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC));
    const ssize_t size = read(fd.get(), cgroup, sizeof(cgroup));
    if (size < 0) _exit(12);
    WriteFile(
        absl::StrCat(ClientPath(request.opts().images_dir_fd()), "/cgroup"),
        std::string(cgroup, static_cast<size_t>(size)));
    LeaveTaskBehind();
    return false;
  }
  if (behaviour == "ghost") {
    const std::string ghost =
        absl::StrCat(ClientPath(request.opts().images_dir_fd()), "/ghost");
    WriteFile(ghost, "x");
    waitpid(MakeTask(request, /*waits=*/true), nullptr, 0);
    unlink(ghost.c_str());
    return false;
  }
  if (behaviour == "write") {
    if (!Notify("pre-dump")) return false;
    WriteUntilItFails(absl::StrCat(work, "/pages"));
    return false;
  }
  if (behaviour == "wait") {
    const std::string go =
        absl::StrCat(ClientPath(request.opts().images_dir_fd()), "/go");
    while (access(go.c_str(), F_OK) != 0) usleep(1000);
  }
  const auto ticked = [&] {
    if (behaviour != "busy") return false;
    const std::string file =
        absl::StrCat(ClientPath(request.opts().images_dir_fd()), "/ticked");
    for (int i = 0; i < 700; ++i) {
      if (access(file.c_str(), F_OK) == 0) return true;
      usleep(1000);
    }
    return false;
  };
  if (request.type() == pb::DUMP) {
    if (!Notify("pre-dump") || !Notify("post-dump") || ticked()) {
      return false;
    }
    WriteFile(absl::StrCat(work, "/stats-dump"), "x");
    return Notify("post-resume");
  }
  if (!Notify("pre-restore") || !Notify("post-restore") || ticked()) {
    return false;
  }
  if (behaviour == "half" || behaviour == "running") {
    MakeTask(request, behaviour == "half");
    _exit(7);
  }
  if (behaviour == "let-go") MakeTask(request, /*waits=*/false);
  // source: restore_root_task() of CRIU: what is answered to these changes
  // nothing.
  Notify("pre-resume");
  if (behaviour == "let-go") _exit(7);
  Notify("post-resume");
  if (behaviour == "late") _exit(7);
  return true;
}

int Serve() {
  const char* environment = std::getenv("CRIU_LIBS_DIR");
  const std::string behaviour = environment == nullptr ? "" : environment;
  if (behaviour == "gone") return 7;
  pb::Request request;
  if (!Receive(&request)) return 0;
  if (behaviour == "die") return 7;
  if (behaviour == "hang") {
    if (fork() < 0) return 11;
    for (;;) pause();
  }
  pb::Response response;
  response.set_type(request.type());
  if (request.type() == pb::VERSION) {
    response.set_success(true);
    response.mutable_version()->set_major_number(4);
    response.mutable_version()->set_minor_number(1);
    response.mutable_version()->set_sublevel(1);
  } else {
    response.set_success(Work(behaviour, request));
    if (request.type() == pb::RESTORE) {
      response.mutable_restore()->set_pid(4242);
    }
    if (!response.success())
      response.set_cr_errmsg("Error (a.c:1): last words");
  }
  Send(response);
  return response.success() ? 0 : 1;
}

}  // namespace
}  // namespace daxsnap

int main() { return daxsnap::Serve(); }
