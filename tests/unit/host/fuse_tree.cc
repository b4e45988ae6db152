// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/host/fuse_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace daxsnap {

struct FuseTree::Counts {
  std::array<std::atomic<uint64_t>, 64> of;
};

namespace {

constexpr uint64_t kDirectory = 2;
constexpr uint64_t kFile = 3;
constexpr uint64_t kBroken = 4;
constexpr uint32_t kPage = 4096;

// Serves one connection, in the server's process.
class Server {
 public:
  Server(int device, std::array<std::atomic<uint64_t>, 64>* counts)
      : device_(device), counts_(counts) {}

  void Run() {
    static char buffer[1 << 18];
    while (read(device_, buffer, sizeof(buffer)) > 0) {
      std::memcpy(&request_, buffer, sizeof(request_));
      if (request_.opcode < counts_->size()) ++(*counts_)[request_.opcode];
      Serve(buffer + sizeof(request_));
    }
  }

 private:
  void Serve(const char* arguments) {
    switch (request_.opcode) {
      case FUSE_INIT: {
        fuse_init_out out = {};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = 31;
        out.max_write = kPage;
        return Answer(out);
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out = {};
        out.nodeid = std::strcmp(arguments, "dir") == 0      ? kDirectory
                     : std::strcmp(arguments, "broken") == 0 ? kBroken
                                                             : kFile;
        out.attr = AttributesOf(out.nodeid);
        return Answer(out);
      }
      case FUSE_GETATTR: {
        fuse_attr_out out = {};
        out.attr = AttributesOf(request_.nodeid);
        return Answer(out);
      }
      case FUSE_OPEN:
      case FUSE_OPENDIR:
        return Answer(fuse_open_out{});
      case FUSE_READ: {
        fuse_read_in read = {};
        std::memcpy(&read, arguments, sizeof(read));
        const char zeroes[kPage] = {};
        return Answer(zeroes,
                      read.offset == 0 ? std::min(read.size, kPage) : 0);
      }
      case FUSE_STATFS:
        return Answer(fuse_statfs_out{});
      case FUSE_FSYNC:
        return Answer(nullptr, 0, request_.nodeid == kBroken ? EIO : 0);
      case FUSE_FLUSH:
      case FUSE_RELEASE:
      case FUSE_RELEASEDIR:
        return Answer(nullptr, 0);
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return Answer(nullptr, 0, ENOSYS);
    }
  }

  static fuse_attr AttributesOf(uint64_t node) {
    fuse_attr attributes = {};
    attributes.ino = node;
    attributes.nlink = 1;
    const bool file = node == kFile || node == kBroken;
    attributes.mode = file ? S_IFREG | 0600 : S_IFDIR | 0700;
    attributes.size = file ? kPage : 0;
    return attributes;
  }

  template <typename Out>
  void Answer(const Out& out) {
    Answer(&out, sizeof(out));
  }
  void Answer(const void* data, size_t bytes, int error = 0) {
    fuse_out_header head = {};
    head.len = static_cast<uint32_t>(sizeof(head) + bytes);
    head.error = -error;
    head.unique = request_.unique;
    const iovec parts[] = {{&head, sizeof(head)},
                           {const_cast<void*>(data), bytes}};
    // Who has asked may be gone.
    (void)!writev(device_, parts, bytes == 0 ? 1 : 2);
  }

  const int device_;
  std::array<std::atomic<uint64_t>, 64>* const counts_;
  fuse_in_header request_ = {};
};

void* SharedMemory(size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(at, MAP_FAILED);
  return at;
}

}  // namespace

FuseTree::FuseTree(const std::function<void(const std::string&)>& use)
    : counts_(new (SharedMemory(sizeof(Counts))) Counts()) {
  int used[2];
  EXPECT_EQ(pipe2(used, O_CLOEXEC), 0);
  const UniqueFd reader(used[0]);
  UniqueFd writer(used[1]);
  int device = -1;
  const auto mount_it = [&] {
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    const std::string options =
        absl::StrCat("fd=", device, ",rootmode=40000,user_id=0,group_id=0");
    if (device < 0 ||
        mount("test", path().c_str(), "fuse", 0, options.c_str()) != 0) {
      _exit(1);
    }
    if (fork() != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(device);
    use(path());
    (void)!write(writer.get(), "u", 1);
    for (;;) pause();
  };
  server_ = std::make_unique<ForkedTask>(mount_it, [&] {
    writer.reset();
    Server(device, &counts_->of).Run();
  });
  writer.reset();
  char byte = 0;
  EXPECT_EQ(read(reader.get(), &byte, 1), 1)
      << "is there FUSE, and are we root?";
}

FuseTree::~FuseTree() {
  server_.reset();
  // With what is mounted below.
  umount2(path().c_str(), MNT_DETACH);
  munmap(counts_, sizeof(Counts));
}

void FuseTree::Stop() const {
  for (const TaskInfo& task : tasks()) {
    EXPECT_EQ(kill(task.id.pid, SIGSTOP), 0);
    while (ProcFs().ReadTask(task.id.pid)->state != 'T') sched_yield();
  }
}

uint64_t FuseTree::Requests(uint32_t opcode) const {
  return counts_->of[opcode];
}

}  // namespace daxsnap
