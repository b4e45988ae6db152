// SPDX-License-Identifier: Apache-2.0
#include "host/task/tree_names.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/un.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/bounded_child.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/unique_fd.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxFdInfo = size_t{64} << 20;
// MAX_HANDLE_SZ of the kernel.
constexpr size_t kMaxHandle = 128;

// What the child is asked: the file of a handle, on the file system that is
// mounted on `mount_point`.
struct Question {
  std::string mount_point;
  // A file_handle and its bytes.
  alignas(file_handle)
      std::array<unsigned char, sizeof(file_handle) + kMaxHandle> handle = {};
};

file_handle* HandleOf(Question* question) {
  return reinterpret_cast<file_handle*>(question->handle.data());
}

struct Answer {
  // 0, or an errno.
  int error = 0;
  struct statx info = {};
  std::array<char, PATH_MAX> path = {};
};

struct Questions {
  const Question* first;
  size_t count;
};

// The name of an open descriptor of this process, as in /proc. Runs in the
// child as well: see BoundedChild::Work.
int NameOf(int fd, std::array<char, PATH_MAX>* name) {
  std::array<char, 32> link = {"/proc/self/fd/"};
  size_t end = std::strlen(link.data());
  std::array<char, 12> digits;
  size_t count = 0;
  do {
    digits[count++] = static_cast<char>('0' + fd % 10);
    fd /= 10;
  } while (fd != 0);
  while (count > 0) link[end++] = digits[--count];
  const ssize_t length = readlink(link.data(), name->data(), name->size() - 1);
  if (length < 0) return errno;
  (*name)[static_cast<size_t>(length)] = '\0';
  return 0;
}

void AskOne(const Question& question, Answer* answer) {
  const int mount = open(question.mount_point.c_str(),
                         O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
  // The call does not change the handle.
  file_handle* handle = HandleOf(const_cast<Question*>(&question));
  const int fd =
      mount < 0 ? -1 : open_by_handle_at(mount, handle, O_PATH | O_CLOEXEC);
  if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
                      STATX_BASIC_STATS | STATX_MNT_ID, &answer->info) != 0) {
    answer->error = errno;
  } else {
    answer->error = NameOf(fd, &answer->path);
  }
  if (fd >= 0) close(fd);
  if (mount >= 0) close(mount);
}

void AskAll(const void* argument, int report) {
  const auto* questions = static_cast<const Questions*>(argument);
  Answer answer;
  for (size_t i = 0; i < questions->count; ++i) {
    answer = {};
    AskOne(questions->first[i], &answer);
    if (write(report, &answer, sizeof(answer)) != sizeof(answer)) return;
  }
}

// "inotify wd:1 ino:9e sdev:800013 mask:... fhandle-bytes:8 fhandle-type:1
// f_handle:9e00..." of fdinfo; numbers are in base 16. Nothing if the line is
// no watch of one file.
struct Watch {
  dev_t device = 0;
  Question question;
};

std::optional<Watch> ParseWatch(absl::string_view line) {
  if (!absl::StartsWith(line, "inotify ") &&
      !absl::StartsWith(line, "fanotify ")) {
    return std::nullopt;
  }
  Watch watch;
  uint32_t device = 0;
  unsigned bytes = 0;
  file_handle* head = HandleOf(&watch.question);
  std::string handle;
  for (const absl::string_view word :
       absl::StrSplit(line, ' ', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(word, absl::MaxSplits(':', 1));
    if (field.first == "sdev") {
      (void)absl::SimpleHexAtoi(field.second, &device);
    } else if (field.first == "fhandle-bytes") {
      (void)absl::SimpleHexAtoi(field.second, &bytes);
    } else if (field.first == "fhandle-type") {
      (void)absl::SimpleHexAtoi(field.second, &head->handle_type);
    } else if (field.first == "f_handle") {
      handle = absl::HexStringToBytes(field.second);
    }
  }
  if (bytes == 0 || bytes > kMaxHandle || handle.size() < bytes) {
    return std::nullopt;
  }
  // As the kernel has it inside: 12 bits and 20.
  watch.device = makedev(device >> 20, device & 0xfffff);
  head->handle_bytes = bytes;
  std::memcpy(watch.question.handle.data() + offsetof(file_handle, f_handle),
              handle.data(), bytes);
  return watch;
}

class Reader {
 public:
  Reader(const ProcFs& proc, absl::Duration timeout)
      : proc_(proc), timeout_(timeout) {}

  absl::Status AddTask(const TaskInfo& task) {
    if (task.ended()) return absl::OkStatus();
    absl::Status added = AddAll(task.id.pid);
    return added.ok() ? added : proc_.UnlessGone(task.id, added);
  }

  absl::StatusOr<TreeNames> Finish() {
    absl::Status found = AskForWatched();
    if (!found.ok()) return found;
    return std::move(names_);
  }

 private:
  // What is read of a task when the first of its descriptors needs it.
  class Task {
   public:
    Task(const ProcFs& proc, pid_t pid) : proc_(proc), pid_(pid) {}

    pid_t pid() const { return pid_; }

    absl::StatusOr<const std::vector<MountInfo>*> Mounts() {
      if (!mounts_.has_value()) {
        auto read = proc_.ReadMounts(pid_);
        if (!read.ok()) return read.status();
        mounts_ = *std::move(read);
      }
      return &*mounts_;
    }

    // A copy of its descriptor. NOT_FOUND if it has none of that number.
    absl::StatusOr<UniqueFd> Take(int number) {
      if (!pidfd_.valid()) {
        pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
      }
      UniqueFd taken;
      if (pidfd_.valid()) {
        taken.reset(static_cast<int>(
            syscall(SYS_pidfd_getfd, pidfd_.get(), number, 0)));
      }
      if (taken.valid()) return taken;
      const int error = errno;
      if (error == ESRCH || error == EBADF) {
        return absl::NotFoundError(
            absl::StrCat("pid ", pid_, " has it no more"));
      }
      return ErrnoError(error,
                        absl::StrCat("cannot take a socket of pid ", pid_));
    }

   private:
    const ProcFs& proc_;
    const pid_t pid_;
    UniqueFd pidfd_;
    std::optional<std::vector<MountInfo>> mounts_;
  };

  absl::Status AddAll(pid_t pid) {
    auto fds = proc_.ReadFdTargets(pid);
    if (!fds.ok()) return fds.status();
    Task task(proc_, pid);
    for (const FdInfo& fd : *fds) {
      const bool socket = absl::StartsWith(fd.target, "socket:[");
      const bool watches = absl::StrContains(fd.target, "inotify") ||
                           absl::StrContains(fd.target, "fanotify");
      if (absl::StartsWith(fd.target, "/") || (!socket && !watches) ||
          !known_
               .insert({watches ? pid : 0,
                        watches ? absl::StrCat(fd.fd) : fd.target})
               .second) {
        continue;
      }
      absl::Status added =
          socket ? AddSocket(&task, fd.fd) : AddWatches(&task, fd.fd);
      // Closed meanwhile.
      if (!added.ok() && !absl::IsNotFound(added)) return added;
    }
    return absl::OkStatus();
  }

  // One call that tells most sockets from those that can have a name: there may
  // be ten thousand, and the tasks stand still.
  bool MayBeUnix(pid_t pid, int number) const {
    // "UNIX", "UNIX-STREAM" or "TCP", with its end.
    std::array<char, 64> protocol = {};
    const ssize_t size =
        getxattr(absl::StrCat(proc_.root(), "/", pid, "/fd/", number).c_str(),
                 "system.sockprotoname", protocol.data(), protocol.size() - 1);
    return size <= 0 || absl::StartsWith(protocol.data(), "UNIX");
  }

  absl::Status AddSocket(Task* task, int number) {
    const pid_t pid = task->pid();
    if (!MayBeUnix(pid, number)) return absl::OkStatus();
    auto text = FdInfoOf(pid, number);
    if (!text.ok()) return text.status();
    for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
      absl::string_view count = line;
      InFlight flight = {.pid = pid, .fd = number};
      if (absl::ConsumePrefix(&count, "scm_fds:") &&
          absl::SimpleAtoi(count, &flight.count) && flight.count > 0) {
        names_.in_flight.push_back(flight);
      }
    }
    auto socket = task->Take(number);
    if (!socket.ok()) return socket.status();
    if (!IsBoundAgain(socket->get())) return absl::OkStatus();
    // Opens nothing: an O_PATH descriptor of what the socket is bound to.
    const UniqueFd bound(ioctl(socket->get(), SIOCUNIXFILE));
    if (!bound.valid()) {
      // Without a name, or with one that is none of files.
      if (errno == ENOENT) return absl::OkStatus();
      return ErrnoError(errno, absl::StrCat("cannot look at descriptor ",
                                            number, " of pid ", pid));
    }
    UsedFile file;
    file.pid = pid;
    file.link = absl::StrCat("fd/", number);
    std::array<char, PATH_MAX> name;
    if (const int error = NameOf(bound.get(), &name); error != 0) {
      return ErrnoError(error, "cannot read the name of a socket");
    }
    file.path = name.data();
    struct statx info;
    if (statx(bound.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
              STATX_BASIC_STATS | STATX_MNT_ID, &info) != 0) {
      return ErrnoError(errno, absl::StrCat("cannot stat ", file.path));
    }
    // CRIU makes the directory of one that was removed.
    if (info.stx_nlink == 0 || absl::EndsWith(file.path, kDeleted)) {
      return absl::OkStatus();
    }
    Fill(info, &file);
    auto mounts = task->Mounts();
    if (!mounts.ok()) return mounts.status();
    const int id = static_cast<int>(info.stx_mnt_id);
    SetMount(
        **mounts, [id](const MountInfo& mount) { return mount.id == id; },
        &file);
    names_.sockets.push_back(std::move(file));
    return absl::OkStatus();
  }

  // source: bind_unix_sk() of CRIU 4.2.1
  static bool IsBoundAgain(int socket) {
    const auto option = [socket](int name) {
      int value = 0;
      socklen_t size = sizeof(value);
      return getsockopt(socket, SOL_SOCKET, name, &value, &size) == 0 ? value
                                                                      : -1;
    };
    if (option(SO_DOMAIN) != AF_UNIX) return false;
    if (option(SO_TYPE) == SOCK_DGRAM) return true;
    sockaddr_un peer;
    socklen_t size = sizeof(peer);
    return getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) != 0;
  }

  absl::Status AddWatches(Task* task, int number) {
    const pid_t pid = task->pid();
    auto text = FdInfoOf(pid, number);
    if (!text.ok()) return text.status();
    auto mounts = task->Mounts();
    if (!mounts.ok()) return mounts.status();
    for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
      std::optional<Watch> watch = ParseWatch(line);
      if (!watch.has_value()) continue;
      const auto mount = std::find_if(
          (*mounts)->begin(), (*mounts)->end(),
          [&](const MountInfo& at) { return at.device == watch->device; });
      if (mount == (*mounts)->end()) continue;
      watch->question.mount_point = mount->mount_point;
      UsedFile& file = pending_.emplace_back();
      file.pid = pid;
      file.link = absl::StrCat("fd/", number);
      SetMount(
          {*mount}, [](const MountInfo&) { return true; }, &file);
      questions_.push_back(std::move(watch->question));
    }
    return absl::OkStatus();
  }

  absl::Status AskForWatched() {
    if (questions_.empty()) return absl::OkStatus();
    const Questions all = {.first = questions_.data(),
                           .count = questions_.size()};
    const absl::Time deadline = absl::Now() + timeout_;
    auto child = BoundedChild::Start(AskAll, &all);
    if (!child.ok()) return child.status();
    std::set<std::string> known;
    for (size_t i = 0; i < questions_.size(); ++i) {
      Answer answer;
      absl::Status read = child->Read(&answer, sizeof(answer), deadline);
      if (absl::IsDeadlineExceeded(read)) {
        return NoAnswer(questions_[i].mount_point, timeout_);
      }
      if (!read.ok()) return read;
      // Removed, or of a file system without handles: CRIU says so.
      if (answer.error != 0 || answer.info.stx_nlink == 0) continue;
      UsedFile file = std::move(pending_[i]);
      file.path = answer.path.data();
      if (!absl::StartsWith(file.path, "/") ||
          absl::EndsWith(file.path, kDeleted) ||
          !known.insert(file.path).second) {
        continue;
      }
      Fill(answer.info, &file);
      names_.watched.push_back(std::move(file));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> FdInfoOf(pid_t pid, int number) const {
    return ReadFileAt(AT_FDCWD,
                      absl::StrCat(proc_.root(), "/", pid, "/fdinfo/", number),
                      kMaxFdInfo);
  }

  static void Fill(const struct statx& info, UsedFile* file) {
    file->mode = info.stx_mode;
    file->device = makedev(info.stx_dev_major, info.stx_dev_minor);
    file->inode = info.stx_ino;
    file->links = info.stx_nlink;
  }

  const ProcFs& proc_;
  const absl::Duration timeout_;
  // Sockets that were looked at, and descriptors of watches by their task.
  std::set<std::pair<pid_t, std::string>> known_;
  std::vector<Question> questions_;
  // What they are about.
  std::vector<UsedFile> pending_;
  TreeNames names_;
};

}  // namespace

absl::StatusOr<TreeNames> ReadTreeNames(const ProcFs& proc,
                                        const std::vector<TaskInfo>& tree,
                                        absl::Duration timeout) {
  Reader reader(proc, timeout);
  for (const TaskInfo& task : tree) {
    if (absl::Status added = reader.AddTask(task); !added.ok()) return added;
  }
  return reader.Finish();
}

}  // namespace daxsnap
