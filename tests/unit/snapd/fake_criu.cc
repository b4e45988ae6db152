// SPDX-License-Identifier: Apache-2.0
//
// A CRIU that does nothing to tasks. CRIU_LIBS_DIR says how it behaves:
//   ok      notifies, obeys the answers, succeeds
//   error   writes a log with errors and reports failure
//   die     exits with status 7 when it gets the request
//   gone    does so before
//   write   writes until a write fails, then reports failure
//   hang    never answers
//   orphan  leaves a large task behind, and reports failure
//   late    dies once the tasks of a restore run
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
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
  if (behaviour == "write") {
    if (!Notify("pre-dump")) return false;
    WriteUntilItFails(absl::StrCat(work, "/pages"));
    return false;
  }
  if (request.type() == pb::DUMP) {
    if (!Notify("pre-dump") || !Notify("post-dump")) return false;
    WriteFile(absl::StrCat(work, "/stats-dump"), "x");
    return Notify("post-resume");
  }
  if (!Notify("pre-restore") || !Notify("post-restore")) return false;
  // source: restore_root_task() of CRIU: what is answered to these changes
  // nothing.
  Notify("pre-resume");
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
