// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/findings.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/child.h"
#include "tests/unit/host/fake_proc.h"
#include "tests/unit/host/fuse_tree.h"
#include "tests/unit/snapd/temp_pool.h"

namespace daxsnap {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Property;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr auto kLost = v1::FINDING_CONSEQUENCE_LOST;
constexpr auto kLimited = v1::FINDING_CONSEQUENCE_LIMITED;

auto Is(v1::ErrorReason reason, v1::FindingConsequence consequence,
        const std::string& path) {
  return AllOf(Property("reason", &v1::Finding::reason, reason),
               Property("consequence", &v1::Finding::consequence, consequence),
               Property("path", &v1::Finding::path, path));
}

class FindingsTest : public testing::Test {
 protected:
  FindingsTest() {
    input_.first_reserved_pid = 0;
    // Objects of other tests are not this test's.
    EXPECT_EQ(unshare(CLONE_NEWIPC), 0);
  }

  // Of a running process, by what /proc says of it.
  template <typename Process>
  std::vector<v1::Finding> FindIn(const Process& process) {
    const ProcFs proc;
    auto tree = proc.ReadTree(process.pid());
    EXPECT_TRUE(tree.ok()) << tree.status();
    auto files = ReadUsedFiles(proc, *tree);
    EXPECT_TRUE(files.ok()) << files.status();
    auto found = FindLosses(proc, *tree, *files, Input());
    EXPECT_TRUE(found.ok()) << found.status();
    return *found;
  }

  absl::StatusOr<std::vector<v1::Finding>> TryFind(
      const std::vector<UsedFile>& files) {
    return FindLosses(proc_.proc(), {Task()}, files, Input());
  }

  // Of a made-up task 7 below a made-up /proc.
  std::vector<v1::Finding> Find(const std::vector<UsedFile>& files) {
    auto found = TryFind(files);
    EXPECT_TRUE(found.ok()) << found.status();
    return *found;
  }

  FindingsInput Input() {
    input_.tmpfiles = &rules_;
    return input_;
  }

  static TaskInfo Task() {
    TaskInfo task;
    task.id.pid = 7;
    task.comm = "seven";
    return task;
  }

  static UsedFile File(const std::string& path) {
    UsedFile file;
    file.pid = 7;
    file.link = "fd/4";
    file.path = path;
    file.mode = S_IFREG | 0600;
    file.mount_point = "/";
    file.file_system = "ext4";
    return file;
  }

  FakeProc proc_;
  TmpfilesRules rules_;
  FindingsInput input_;
};

// A directory on the tmpfs that every system has.
class ShmDirectory {
 public:
  ShmDirectory() { EXPECT_NE(mkdtemp(path_.data()), nullptr); }
  ~ShmDirectory() { EXPECT_TRUE(RemoveTree(AT_FDCWD, path_).ok()); }
  ShmDirectory(const ShmDirectory&) = delete;
  ShmDirectory& operator=(const ShmDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/dev/shm/daxsnap-findings-XXXXXX";
};

TEST_F(FindingsTest, TaskWithoutAnythingHasNone) {
  const Child child("cd /; echo >&3; exec sleep infinity");
  EXPECT_THAT(FindIn(child), IsEmpty());
}

TEST_F(FindingsTest, FilesAndDirectoriesOnTmpfsAreLost) {
  const ShmDirectory shm;
  const std::string& dir = shm.path();
  const Child child(absl::StrCat("cd ", dir, "; mkfifo fifo; exec 5>file 6<",
                                 dir,
                                 " 7<>fifo 8</dev/null; echo >&3; "
                                 "exec sleep infinity"));
  const auto findings = FindIn(child);
  // The directory is one file, whether it is open or where one works.
  EXPECT_THAT(findings,
              UnorderedElementsAre(
                  Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, dir),
                  Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, dir + "/file"),
                  Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, dir + "/fifo")));
  for (const v1::Finding& finding : findings) {
    EXPECT_EQ(finding.pid(), child.pid());
    EXPECT_THAT(finding.message(), HasSubstr("tmpfs"));
    EXPECT_THAT(finding.hint(), HasSubstr("--force"));
  }
}

TEST_F(FindingsTest, MountPointsAndFilesWithoutAnyNameComeBack) {
  const ShmDirectory shm;
  const Child child(absl::StrCat("cd /dev/shm; f=", shm.path(),
                                 "/f; exec 5>$f; rm $f; echo >&3; "
                                 "exec sleep infinity"));
  EXPECT_THAT(FindIn(child), IsEmpty());
}

TEST_F(FindingsTest, NameThatWasRemovedOfAFileThatHasOthers) {
  UsedFile file = File("/srv/a (deleted)");
  file.links = 1;
  EXPECT_THAT(Find({file}), ElementsAre(Is(v1::ERROR_REASON_LINK_REMAPPED,
                                           kLimited, "/srv/a")));
  input_.leave_running = true;
  EXPECT_THAT(Find({file}),
              ElementsAre(Is(v1::ERROR_REASON_LINK_REMAPPED, kLost, "/srv/a")));
  // What NFS makes of such a name.
  file = File("/srv/.nfs000000000000001700000001");
  file.file_system = "nfs4";
  EXPECT_THAT(Find({file}), ElementsAre(Is(v1::ERROR_REASON_LINK_REMAPPED,
                                           kLost, file.path)));
}

// The other name is made in the same directory, which a boot empties.
TEST_F(FindingsTest, NameThatWasRemovedWhereABootEmptiesIsLost) {
  const ShmDirectory shm;
  const std::string name = shm.path() + "/a";
  const Child child(absl::StrCat("cd /; f=", name,
                                 "; exec 5>$f; ln $f $f.b; rm $f; echo >&3; "
                                 "exec sleep infinity"));
  EXPECT_THAT(FindIn(child),
              ElementsAre(Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, name),
                          Is(v1::ERROR_REASON_LINK_REMAPPED, kLimited, name)));
  rules_.Add("D /srv\n", "t.conf");
  UsedFile file = File("/srv/a (deleted)");
  file.links = 1;
  EXPECT_THAT(
      Find({file}),
      ElementsAre(Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, "/srv/a"),
                  Is(v1::ERROR_REASON_LINK_REMAPPED, kLimited, "/srv/a")));
}

TEST_F(FindingsTest, FileThatIsCalledDeletedIsNot) {
  const ShmDirectory shm;
  const std::string name = shm.path() + "/a (deleted)";
  const Child child(absl::StrCat("cd /; exec 5>'", name, "'; ln '", name, "' ",
                                 shm.path(),
                                 "/b; echo >&3; exec sleep infinity"));
  EXPECT_THAT(FindIn(child),
              ElementsAre(Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, name)));
}

TEST_F(FindingsTest, FilesThatBootOrAgeRemoves) {
  rules_.Add("D /tmp\nd /run/made\nq /var/tmp - - - 30d\n", "t.conf");
  UsedFile directory = File("/tmp");
  directory.mode = S_IFDIR | 0700;
  UsedFile mapping = File("/tmp/m");
  mapping.link = "map_files/1000-2000";
  UsedFile made = File("/run/made");
  made.mode = S_IFDIR | 0700;
  made.file_system = "tmpfs";
  made.mount_point = "/run";
  const auto findings = Find({File("/srv/x"), directory, File("/tmp/x"),
                              mapping, made, File("/var/tmp/x")});
  EXPECT_THAT(
      findings,
      ElementsAre(Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, "/tmp/x"),
                  Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, "/tmp/m"),
                  Is(v1::ERROR_REASON_VOLATILE_FILE, kLimited, "/var/tmp/x")));
  EXPECT_EQ(findings[0].message(),
            "pid 7 (seven): descriptor 4 is /tmp/x, which systemd-tmpfiles "
            "removes at boot: D /tmp (t.conf)");
  EXPECT_THAT(findings[1].message(), HasSubstr("it has mapped /tmp/m"));
  EXPECT_EQ(findings[2].message(),
            "pid 7 (seven): descriptor 4 is /var/tmp/x, which systemd-tmpfiles "
            "removes when it has not been used for 30d: q /var/tmp (t.conf)");
}

TEST_F(FindingsTest, MountPointsThatNoBootMakesAreLost) {
  std::vector<UsedFile> points;
  for (const char* path : {"/run", "/run/user/1000", "/dev/shm", "/mnt/x"}) {
    UsedFile& point = points.emplace_back(File(path));
    point.mode = S_IFDIR | 0700;
    point.mount_point = path;
    point.file_system = "tmpfs";
  }
  EXPECT_THAT(Find(points), ElementsAre(Is(v1::ERROR_REASON_VOLATILE_FILE,
                                           kLost, "/run/user/1000")));
}

TEST_F(FindingsTest, DevicesAndTheKernelsOwnFilesComeBack) {
  UsedFile device = File("/dev/null");
  device.mode = S_IFCHR | 0666;
  device.file_system = "devtmpfs";
  UsedFile memfd = File("/memfd:x (deleted)");
  memfd.mount_point.clear();
  memfd.file_system.clear();
  EXPECT_THAT(Find({device, memfd}), IsEmpty());
  device.mode = S_IFREG | 0666;
  EXPECT_EQ(Find({device}).size(), 1u) << "a file among the devices";
}

TEST_F(FindingsTest, PidsThatABootGivesToOthers) {
  const Child shell("sleep infinity 3>&- & echo >&3; exec sleep infinity");
  input_.first_reserved_pid = INT_MAX;
  const auto findings = FindIn(shell);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_THAT(findings[0], Is(v1::ERROR_REASON_PID_NOT_RESERVED, kLost, ""));
  EXPECT_EQ(findings[0].pid(), shell.pid());
  EXPECT_THAT(findings[0].message(), HasSubstr(" and 1 more"));
  EXPECT_THAT(findings[0].hint(),
              StartsWith("start the program with `snapctl run`"));
  const auto tree = ProcFs().ReadTree(shell.pid());
  kill(tree->back().id.pid, SIGKILL);
}

// Of what `snapctl run` started the children get low PIDs once the kernel has
// gone through all of them.
TEST_F(FindingsTest, PidsBelowAfterThoseAboveWereGivenOut) {
  TaskInfo child = Task();
  child.id.pid = 6;
  proc_.AddFile("7/task/7/x", "");
  proc_.AddFile("6/task/6/x", "");
  input_.first_reserved_pid = 7;
  auto found = FindLosses(proc_.proc(), {Task(), child}, {}, Input());
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().pid(), 6);
  EXPECT_THAT(found->front().hint(),
              StartsWith("this boot has given out all PIDs above"));
}

TEST_F(FindingsTest, NamespacesThatAreNotOurs) {
  for (const char* kind : {"pid", "mnt", "user", "net"}) {
    proc_.AddLink(absl::StrCat(getpid(), "/ns/", kind),
                  absl::StrCat(kind, ":[1]"));
  }
  proc_.AddLink("7/ns/pid", "pid:[2]");
  proc_.AddLink("7/ns/mnt", "mnt:[2]");
  proc_.AddLink("7/ns/user", "user:[1]");
  input_.first_reserved_pid = INT_MAX;  // of no interest in another namespace
  const auto findings = Find({});
  EXPECT_THAT(findings,
              ElementsAre(Is(v1::ERROR_REASON_NAMESPACE, kLost, "pid"),
                          Is(v1::ERROR_REASON_NAMESPACE, kLost, "mnt")));
  const absl::Status status = RefuseLosses(findings);
  EXPECT_EQ(ErrorReasonOf(status), reason::kNamespace);
  EXPECT_EQ(ErrorMetadataOf(status)["namespace"], "pid");
}

TEST_F(FindingsTest, NamespacesOfChildrenToComeAndOfControlGroups) {
  const ForkedTask task([] {
    if (unshare(CLONE_NEWPID) != 0 || unshare(CLONE_NEWCGROUP) != 0) _exit(1);
  });
  // TSan has a thread of its own, which stays where it was.
  EXPECT_THAT(FindIn(task),
              testing::IsSupersetOf(
                  {Is(v1::ERROR_REASON_NAMESPACE, kLost, "cgroup"),
                   Is(v1::ERROR_REASON_NAMESPACE, kLost, "pid_for_children")}));
}

// CRIU looks at the leader alone.
TEST_F(FindingsTest, ThreadsThatHaveWhatTheirProcessHasNot) {
  const auto find = [this](const std::function<void()>& then) {
    const ForkedTask task([&then] {
      static std::atomic<bool> ready = false;
      std::thread([&then] {
        then();
        ready = true;
        for (;;) pause();
      }).detach();
      while (!ready) sched_yield();
    });
    return FindIn(task);
  };
  constexpr auto kUnsupported = v1::ERROR_REASON_TASK_UNSUPPORTED;
  EXPECT_THAT(find([] {}), IsEmpty());
  EXPECT_THAT(find([] {
                if (unshare(CLONE_NEWNET) != 0) _exit(1);
              }),
              ElementsAre(Is(v1::ERROR_REASON_NAMESPACE, kLost, "net")));
  EXPECT_THAT(find([] {
                if (unshare(CLONE_FILES) != 0) _exit(1);
              }),
              ElementsAre(Is(kUnsupported, kLost, "apart-thread")));
  // By itself this does no harm.
  EXPECT_THAT(find([] {
                if (unshare(CLONE_FS) != 0) _exit(1);
              }),
              IsEmpty());
  EXPECT_THAT(find([] {
                if (unshare(CLONE_FS) != 0 || chdir("/proc") != 0) _exit(1);
              }),
              ElementsAre(Is(kUnsupported, kLost, "apart-thread")));
}

// A task with `count` threads more that end when the pipe is written to.
ForkedTask TaskWithThreads(int pipe_end, int count) {
  return ForkedTask([=] {
    static std::atomic<int> ready = 0;
    for (int i = 0; i < count; ++i) {
      std::thread([pipe_end] {
        pthread_setname_np(pthread_self(), "reader");
        ++ready;
        char byte = 0;
        (void)!read(pipe_end, &byte, 1);
      }).detach();
    }
    while (ready < count) sched_yield();
  });
}

TEST_F(FindingsTest, ThreadsThatEndHaveNothingOfTheirOwn) {
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const ForkedTask task = TaskWithThreads(pipe_ends[0], 1);
  // By its name, as TSan has a thread of its own.
  const auto readers = [&task] {
    std::vector<pid_t> found;
    const auto threads =
        ProcFs().ReadThreads(task.pid()).value_or(std::vector<pid_t>{});
    for (const pid_t one : threads) {
      const auto name = ReadFileAt(
          AT_FDCWD, absl::StrCat("/proc/", task.pid(), "/task/", one, "/comm"),
          64);
      if (name.ok() && *name == "reader\n") found.push_back(one);
    }
    return found;
  };
  ASSERT_THAT(readers(), SizeIs(1));
  const pid_t thread = readers().front();
  // It is there as long as who traces it does not ask for its end.
  ASSERT_EQ(ptrace(PTRACE_SEIZE, thread, nullptr, nullptr), 0);
  ASSERT_EQ(write(pipe_ends[1], "", 1), 1);
  siginfo_t end;
  ASSERT_EQ(waitid(P_PID, thread, &end, WEXITED | WNOWAIT | __WALL), 0);
  EXPECT_THAT(FindIn(task), IsEmpty());
  EXPECT_THAT(readers(), ElementsAre(thread));
  ASSERT_EQ(waitid(P_PID, thread, &end, WEXITED | __WALL), 0);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

// The tasks stand still meanwhile.
TEST_F(FindingsTest, ThreadsAndConnectionsTakeFewCalls) {
  constexpr int kThreads = 50;
  constexpr int kSockets = 200;
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < kSockets; ++i) {
    sockets.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
  }
  const ForkedTask plain([] {});
  const ForkedTask rich = TaskWithThreads(pipe_ends[0], kThreads);
  const auto calls = [this](const ForkedTask& task) {
    int count = 0;
    const ScopedFileFault counter(
        [&](absl::string_view call, const std::string&) {
          if (call == "open" || call == "link") ++count;
          return 0;
        });
    EXPECT_THAT(FindIn(task), IsEmpty());
    return count;
  };
  // Both have the sockets, whose links are read twice.
  const int few = calls(plain);
  EXPECT_LT(few, 5 * kSockets / 2);
  EXPECT_LT(calls(rich) - few, 6 * kThreads);
  for (const int end : pipe_ends) close(end);
}

// A socket at `path`, which may be relative.
int Bind(const std::string& path, int type) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, type, 0);
  const auto size =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) _exit(1);
  return fd;
}

// CRIU binds again, which needs the directory, and makes none.
TEST_F(FindingsTest, SocketsInDirectoriesThatABootDoesNotMakeAreLost) {
  const ShmDirectory shm;
  const std::string& dir = shm.path();
  constexpr auto kReason = v1::ERROR_REASON_VOLATILE_FILE;
  const ForkedTask stream([&] { listen(Bind(dir + "/s", SOCK_STREAM), 1); });
  const auto findings = FindIn(stream);
  EXPECT_THAT(findings, ElementsAre(Is(kReason, kLost, dir)));
  EXPECT_THAT(
      findings[0].message(),
      HasSubstr(absl::StrCat(": the socket ", dir, "/s of descriptor ")));
  EXPECT_THAT(findings[0].hint(), HasSubstr("in /etc/tmpfiles.d"));
  const ForkedTask datagram([&] {
    if (chdir(dir.c_str()) != 0) _exit(1);
    Bind("d", SOCK_DGRAM);
    if (chdir("/") != 0) _exit(1);
  });
  EXPECT_THAT(FindIn(datagram), ElementsAre(Is(kReason, kLost, dir)));
  const std::string mounted = absl::StrCat("/dev/shm/", getpid(), ".sock");
  const ForkedTask others([&] {
    // A name that is none of files, none at all, one that was removed, whose
    // directory CRIU makes, and one in a directory that each boot makes.
    Bind(std::string("\0abstract", 9), SOCK_STREAM);
    socket(AF_UNIX, SOCK_STREAM, 0);
    Bind(dir + "/removed", SOCK_STREAM);
    unlink((dir + "/removed").c_str());
    Bind(mounted, SOCK_STREAM);
  });
  EXPECT_THAT(FindIn(others), IsEmpty());
  EXPECT_EQ(unlink(mounted.c_str()), 0);
  rules_.Add(absl::StrCat("d ", dir, " 0700 root root -\n"), "t.conf");
  EXPECT_THAT(FindIn(stream), IsEmpty());
}

// What a listener has accepted has its name, and is not bound again.
TEST_F(FindingsTest, ConnectionsHaveNoNameOfTheirOwn) {
  const ShmDirectory shm;
  const ForkedTask task([&] {
    const int listener = Bind(shm.path() + "/s", SOCK_STREAM);
    listen(listener, 1);
    const int client = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address;
    socklen_t size = sizeof(address);
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    if (connect(client, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        accept(listener, nullptr, nullptr) < 0) {
      _exit(1);
    }
    close(listener);
  });
  EXPECT_THAT(FindIn(task), IsEmpty());
}

// CRIU watches again by name.
TEST_F(FindingsTest, WatchesOfWhatABootRemovesAreLost) {
  const ShmDirectory shm;
  const TempDirectory stays;
  constexpr auto kReason = v1::ERROR_REASON_VOLATILE_FILE;
  const ForkedTask inotify([&] {
    const int fd = inotify_init();
    if (inotify_add_watch(fd, shm.path().c_str(), IN_CREATE) < 0 ||
        inotify_add_watch(fd, "/dev/shm", IN_CREATE) < 0 ||
        inotify_add_watch(fd, "/etc", IN_CREATE) < 0) {
      _exit(1);
    }
  });
  const auto findings = FindIn(inotify);
  EXPECT_THAT(findings, ElementsAre(Is(kReason, kLost, shm.path())));
  EXPECT_THAT(findings[0].message(), HasSubstr(" watches /dev/shm/"));
  const ForkedTask fanotify([&] {
    const int fd = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
    if (fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD,
                      shm.path().c_str()) != 0) {
      _exit(1);
    }
  });
  EXPECT_THAT(FindIn(fanotify), ElementsAre(Is(kReason, kLost, shm.path())));
}

TEST_F(FindingsTest, DescriptorsThatNobodyHasReceivedYetAreNotSeen) {
  const ForkedTask task([] {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) _exit(1);
    iovec byte = {.iov_base = pair, .iov_len = 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &byte;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), pair, sizeof(int));
    if (sendmsg(pair[0], &message, 0) != 1) _exit(1);
  });
  const auto findings = FindIn(task);
  EXPECT_THAT(findings, ElementsAre(Is(v1::ERROR_REASON_TASK_UNSUPPORTED, kLost,
                                       "in-flight")));
  EXPECT_EQ(ErrorMetadataOf(RefuseLosses(findings))["kind"], "in-flight");
}

TEST_F(FindingsTest, SysvObjectsThatTasksUseOrMayUse) {
  proc_.AddFile("sysvipc/msg",
                " key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid "
                "stime rtime ctime\n"
                "   0     3   600      0    0     7     0 901 901  901  901 "
                "4102444800 0 9\n"
                "   0     4   600      0    0  9999     0   0   0    0    0 "
                "    9     0     9\n");
  const auto findings = Find({});
  EXPECT_THAT(findings, UnorderedElementsAre(
                            Is(v1::ERROR_REASON_SYSV_IPC, kLost, "msg 3"),
                            Is(v1::ERROR_REASON_SYSV_IPC, kLost, "msg 4")));
  EXPECT_EQ(findings[0].message(),
            "pid 7 (seven) uses System V message queue 3, which is gone after "
            "a reboot");
  EXPECT_EQ(findings[1].message(),
            "pid 7 (seven) may use System V message queue 4, of its user and "
            "not known to be others'; it is gone after a reboot");
  EXPECT_THAT(findings[1].hint(),
              AllOf(HasSubstr("ipcrm"), HasSubstr("force")));
  // In an IPC namespace of its own they are in the snapshot.
  proc_.AddLink(absl::StrCat(getpid(), "/ns/ipc"), "ipc:[1]");
  proc_.AddLink("7/ns/ipc", "ipc:[2]");
  EXPECT_THAT(Find({}), IsEmpty());
  // Unless another task of the tree is in that of all.
  proc_.AddLink("8/ns/ipc", "ipc:[1]");
  TaskInfo child = Task();
  child.id.pid = 8;
  auto found = FindLosses(proc_.proc(), {Task(), child}, {}, Input());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->size(), 2u);
}

// Whose directory holds a file that is open: to look whether its name is still
// there would wait for ever.
TEST_F(FindingsTest, ServerThatStandsStillWithTheTreeIsNamedInTime) {
  const FuseTree tree([](const std::string& path) {
    if (open((path + "/x (deleted)").c_str(), O_RDWR) < 0 || chdir("/") != 0) {
      _exit(1);
    }
  });
  input_.answer_timeout = absl::Milliseconds(300);
  const std::vector<TaskInfo> tasks = tree.tasks();
  const ProcFs proc;
  for (const bool stopped : {false, true}) {
    if (stopped) tree.Stop();
    auto files = ReadUsedFiles(proc, tasks);
    ASSERT_TRUE(files.ok()) << files.status();
    const absl::Status status =
        FindLosses(proc, tasks, *files, Input()).status();
    EXPECT_EQ(ErrorReasonOf(status), stopped ? reason::kOverloaded : "")
        << status;
    if (!stopped) continue;
    EXPECT_EQ(ErrorMetadataOf(status)["path"], tree.path() + "/x (deleted)");
  }
}

TEST_F(FindingsTest, RefusalHasAllLossesAndTheReasonOfTheFirst) {
  rules_.Add("D /tmp\nq /var/tmp - - - 30d\n", "t.conf");
  input_.first_reserved_pid = INT_MAX;
  const auto findings =
      Find({File("/var/tmp/x"), File("/tmp/a"), File("/tmp/b")});
  EXPECT_TRUE(HasLoss(findings));
  const absl::Status status = RefuseLosses(findings);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReasonOf(status), reason::kPidNotReserved);
  EXPECT_EQ(ErrorMetadataOf(status)["pid"], "7");
  EXPECT_EQ(ErrorMetadataOf(status)["reasons"],
            "PID_NOT_RESERVED,VOLATILE_FILE");
  const std::string message(status.message());
  EXPECT_THAT(message, AllOf(HasSubstr("pid 7 (seven) may be in use"),
                             HasSubstr("/tmp/a,"), HasSubstr("/tmp/b,")));
  EXPECT_EQ(message.find("/var/tmp/x"), std::string::npos);
  EXPECT_TRUE(RefuseLosses({}).ok());
}

TEST_F(FindingsTest, ManyFilesMakeNoEndlessMessage) {
  rules_.Add("D /tmp\n", "t.conf");
  std::vector<UsedFile> files;
  for (int i = 0; i < 250; ++i) {
    files.push_back(File(absl::StrCat("/tmp/", std::string(200, 'x'), i)));
  }
  const auto findings = Find(files);
  ASSERT_GT(findings.size(), 10u);
  EXPECT_THAT(findings.back().message(),
              HasSubstr(absl::StrCat("and ", 250 - findings.size(),
                                     " more of this kind")));
  const absl::Status status = RefuseLosses(findings);
  EXPECT_LT(status.message().size(), 2000u);
  EXPECT_THAT(std::string(status.message()), HasSubstr(" more"));
}

// Else a list of snapshots would not fit into a message.
TEST_F(FindingsTest, ThousandsOfLongNamesHaveABound) {
  rules_.Add("D /tmp\nq /var/tmp - - - 30d\n", "t.conf");
  std::vector<UsedFile> files;
  const std::string longest(4000, '\xe9');
  for (int i = 0; i < 3000; ++i) {
    files.push_back(File(absl::StrCat("/tmp/", longest, i)));
    files.push_back(File(absl::StrCat("/var/tmp/", longest, i)));
  }
  const auto findings = Find(files);
  size_t bytes = 0;
  for (const v1::Finding& finding : findings) bytes += finding.ByteSizeLong();
  EXPECT_LT(bytes, size_t{512} << 10);
  EXPECT_TRUE(HasLoss(findings));
}

TEST_F(FindingsTest, LossesAreNotLeftOutForWhatIsNone) {
  rules_.Add("D /tmp\nq /var/tmp - - - 30d\n", "t.conf");
  std::vector<UsedFile> files;
  for (int i = 0; i < 150; ++i) {
    files.push_back(File(absl::StrCat("/var/tmp/", i)));
  }
  files.push_back(File("/tmp/x"));
  const auto findings = Find(files);
  EXPECT_THAT(findings[0], Is(v1::ERROR_REASON_VOLATILE_FILE, kLost, "/tmp/x"));
  EXPECT_FALSE(RefuseLosses(findings).ok());
}

TEST_F(FindingsTest, WhatCannotBeReadIsNotTakenForNothing) {
  proc_.AddLink("7/ns/pid", "pid:[1]");
  proc_.AddFile("7/task/7/x", "");
  proc_.AddFile("7/stat",
                "7 (seven) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0\n");
  proc_.AddFile("7/status", "Tgid: 7\nUid: 0 0 0 0\nGid: 0 0 0 0\n");
  for (const char* kind : {"shm", "msg", "sem"}) {
    proc_.AddFile(absl::StrCat("sysvipc/", kind), "key\n");
  }
  for (const auto& [call, name] :
       {std::pair{"link", "/ns/pid"}, std::pair{"link", "/ns/ipc"},
        std::pair{"open", "/task"}, std::pair{"open", "sysvipc/shm"},
        std::pair{"read", "sysvipc/msg"}, std::pair{"open", "sysvipc/sem"},
        std::pair{"stat", "(deleted)"}}) {
    const ScopedFileFault fault(FailWith(EMFILE, call, name));
    const absl::Status status = TryFind({File("/srv/x (deleted)")}).status();
    EXPECT_EQ(ErrorReasonOf(status), reason::kOverloaded)
        << call << " " << name << ": " << status;
  }
  proc_.AddFile("sysvipc/shm", "key shmid\n1\n");
  EXPECT_FALSE(TryFind({}).ok());
}

TEST_F(FindingsTest, NamesThatAreNoTextAreEscaped) {
  rules_.Add("D /tmp\n", "t.conf");
  const auto findings = Find({File("/tmp/caf\xe9")});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].path(), "/tmp/caf\\xe9");
  EXPECT_THAT(findings[0].message(), HasSubstr("caf\\xe9"));
}

}  // namespace
}  // namespace daxsnap
