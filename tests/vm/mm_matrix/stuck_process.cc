// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/stuck_process.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace daxsnap::vmtest {
namespace {

// What the file holds.
constexpr char kZeroes[kPage] = {};

// Where in the kernel a process waits.
std::string PlaceOf(pid_t pid) {
  return ReadFile("/proc/" + std::to_string(pid) + "/wchan");
}

}  // namespace

StuckProcess::StuckProcess(const std::string& dir, std::function<long()> before,
                           std::function<long()> after)
    : path_(dir + "/stuck"), device_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
  EXPECT_TRUE(device_.valid()) << std::strerror(errno);
  UniqueFd(open(path_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const std::string options = "fd=" + std::to_string(device_.get()) +
                              ",rootmode=100000,user_id=0,group_id=0";
  EXPECT_EQ(mount("stuck", path_.c_str(), "fuse", 0, options.c_str()), 0)
      << std::strerror(errno);
  const auto read_some = [this] {
    UniqueFd file(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    char byte;
    return static_cast<long>(read(file.get(), &byte, 1));
  };
  const auto map_some = [this] {
    UniqueFd file(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    void* map = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, file.get(), 0);
    return map == MAP_FAILED ? -static_cast<long>(errno) : 0L;
  };
  // Forked before there are threads.
  reader_ = std::make_unique<Child>(Child::Steps{{"read", read_some}});
  process_ = std::make_unique<Child>(Child::Steps{{"before", std::move(before)},
                                                  {"map", map_some},
                                                  {"after", std::move(after)}});
  server_ = std::thread([this] { Serve(); });
  EXPECT_EQ(process_->Do("before"), 0);
  reading_ = std::thread([this] { reader_->Do("read"); });
  EXPECT_TRUE(WaitFor([this] { return held_ != 0; }));
  mapping_ = std::thread([this] { process_->Do("map"); });
  EXPECT_TRUE(WaitFor([this] {
    return PlaceOf(pid()).find("folio_wait") != std::string::npos;
  })) << "waits in "
      << PlaceOf(pid());
}

StuckProcess::~StuckProcess() {
  if (mapping_.joinable()) Release();
  reading_.join();
  reader_.reset();
  process_.reset();
  EXPECT_EQ(umount2(path_.c_str(), MNT_DETACH), 0) << std::strerror(errno);
  server_.join();
}

long StuckProcess::Release() {
  released_ = true;
  Answer(held_, kZeroes, sizeof(kZeroes));
  mapping_.join();
  return process_->Do("after");
}

void StuckProcess::Answer(uint64_t unique, const void* data, size_t bytes,
                          int error) {
  fuse_out_header head = {};
  head.len = static_cast<uint32_t>(sizeof(head) + bytes);
  head.error = -error;
  head.unique = unique;
  const iovec parts[] = {{&head, sizeof(head)},
                         {const_cast<void*>(data), bytes}};
  // Nobody may be waiting for it any more.
  if (writev(device_.get(), parts, bytes == 0 ? 1 : 2) < 0) {
    EXPECT_EQ(errno, ENOENT);
  }
}

// Until the file system is unmounted.
void StuckProcess::Serve() {
  std::vector<char> buffer(1 << 18);
  int opened = 0;
  fuse_attr attr = {};
  attr.ino = FUSE_ROOT_ID;
  attr.size = kPage;
  attr.mode = S_IFREG | 0644;
  attr.nlink = 1;
  while (read(device_.get(), buffer.data(), buffer.size()) > 0) {
    fuse_in_header head;
    std::memcpy(&head, buffer.data(), sizeof(head));
    switch (head.opcode) {
      case FUSE_INIT: {
        fuse_init_out out = {};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = 31;
        out.max_write = kPage;
        Answer(head.unique, &out, sizeof(out));
        break;
      }
      case FUSE_GETATTR: {
        fuse_attr_out out = {};
        out.attr = attr;
        Answer(head.unique, &out, sizeof(out));
        break;
      }
      case FUSE_OPEN: {
        fuse_open_out out = {};
        // The first is to fill the page cache; to map the second drops it.
        out.open_flags = opened++ == 0 ? 0 : FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE;
        Answer(head.unique, &out, sizeof(out));
        break;
      }
      case FUSE_READ:
        // The reader asks again if the mapping drops the page before it has it.
        if (released_) {
          Answer(head.unique, kZeroes, sizeof(kZeroes));
        } else {
          held_ = head.unique;
        }
        break;
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        break;
      case FUSE_FLUSH:
      case FUSE_RELEASE:
        Answer(head.unique, nullptr, 0);
        break;
      default:
        Answer(head.unique, nullptr, 0, ENOSYS);
    }
  }
}

}  // namespace daxsnap::vmtest
