// SPDX-License-Identifier: Apache-2.0
// Time of capture and install against fork() of the same process.
//
//   bench_mm DIR MIB ROUNDS [STRIDE]
//
// DIR: a directory on kmemfs. STRIDE: memory is touched in steps of so many
// pages, so that they do not lie in order (default 1; odd, and MIB a power of
// two). Prints one JSON object: for each operation the nanoseconds per page of
// every round. fork is the yardstick: it does the same work on page tables.
// tmpfs_read is what a restore without by-reference reads costs (a file in
// /dev/shm into untouched memory).
#include <fcntl.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace daxsnap::bench {
namespace {

constexpr size_t kPage = 4096;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "bench_mm: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

int64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * int64_t{1000000000} + t.tv_nsec;
}

class Memory {
 public:
  Memory(size_t bytes, int node) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) Die("mmap");
    data_ = static_cast<char*>(p);
    madvise(p, bytes, MADV_NOHUGEPAGE);
    const unsigned long mask = 1UL << node;
    if (syscall(SYS_mbind, p, bytes, MPOL_BIND, &mask, 64UL, 0U) != 0) {
      Die("mbind");
    }
  }
  Memory(Memory&&) = delete;
  ~Memory() { munmap(data_, bytes_); }

  char* data() const { return data_; }
  void Touch(uint64_t value, size_t stride) {
    size_t at = 0;
    for (size_t i = 0; i < bytes_ / kPage; ++i) {
      *reinterpret_cast<uint64_t*>(data_ + at) = value + at;
      at = (at + stride * kPage) % bytes_;
    }
  }
  bool Holds(uint64_t value) const {
    for (size_t at = 0; at < bytes_; at += kPage) {
      if (*reinterpret_cast<const uint64_t*>(data_ + at) != value + at) {
        return false;
      }
    }
    return true;
  }

 private:
  char* data_;
  size_t bytes_;
};

class Bench {
 public:
  Bench(std::string dir, size_t bytes, size_t stride)
      : dir_(std::move(dir)), bytes_(bytes), stride_(stride) {
    root_.reset(open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root_.valid()) Die(dir_.c_str());
    kmemfs_info info = {};
    if (ioctl(root_.get(), KMEMFS_IOC_INFO, &info) != 0) Die("not a kmemfs");
    node_ = info.node;
    self_.reset(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  }

  void Round(uint64_t number) {
    Memory memory(bytes_, node_);
    memory.Touch(number, stride_);
    NoteFork("fork");
    UniqueFd first = NewFile("first"), second = NewFile("second");
    kmemfs_capture c = {};
    Note("capture", [&] { c = Capture(first.get(), memory); });
    CheckCount("capture", c.pages_by_reference);
    Note("capture_again", [&] { c = Capture(second.get(), memory); });
    CheckCount("capture_again", c.pages_shared);
    const uint64_t installed = Info().read_installed;
    {
      Memory reader(bytes_, node_);
      Note("install", [&] { ReadAll(first.get(), reader); });
      CheckCount("install", Info().read_installed - installed);
      if (!reader.Holds(number)) Die("wrong content");
      NoteFork("fork_of_installed");
    }
    Note("commit", [&] {
      if (syncfs(root_.get()) != 0) Die("syncfs");
    });
    unlink((dir_ + "/first").c_str());
    unlink((dir_ + "/second").c_str());
    if (syncfs(root_.get()) != 0) Die("syncfs");
  }

  void TmpfsRound(uint64_t number) {
    UniqueFd file(open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file.valid()) Die("/dev/shm");
    {
      Memory memory(bytes_, node_);
      memory.Touch(number, stride_);
      Note("tmpfs_write", [&] { WriteAll(file.get(), memory); });
    }
    Memory reader(bytes_, node_);
    Note("tmpfs_read", [&] { ReadAll(file.get(), reader); });
    if (!reader.Holds(number)) Die("wrong content");
  }

  void Print() const {
    std::printf("{\"mib\":%zu,\"ns_per_page\":{", bytes_ >> 20);
    const char* separator = "";
    for (const auto& [name, values] : samples_) {
      std::printf("%s\"%s\":[", separator, name.c_str());
      for (size_t i = 0; i < values.size(); ++i) {
        std::printf("%s%.1f", i == 0 ? "" : ",", values[i]);
      }
      std::printf("]");
      separator = ",";
    }
    std::printf("}}\n");
  }

 private:
  template <typename F>
  void Note(const char* name, F work) {
    const int64_t begin = NowNs();
    work();
    samples_[name].push_back(static_cast<double>(NowNs() - begin) /
                             static_cast<double>(bytes_ / kPage));
  }

  void CheckCount(const char* what, uint64_t pages) const {
    if (pages * 1000 < bytes_ / kPage * 999) {
      std::fprintf(stderr, "bench_mm: %s: only %llu of %zu pages\n", what,
                   static_cast<unsigned long long>(pages), bytes_ / kPage);
      std::exit(1);
    }
  }

  // fork() alone, without the life and the end of the child.
  void NoteFork(const char* name) {
    pid_t child = -1;
    Note(name, [&] {
      child = fork();
      if (child == 0) _exit(0);
    });
    if (child < 0) Die("fork");
    if (waitpid(child, nullptr, 0) != child) Die("waitpid");
  }

  kmemfs_info Info() const {
    kmemfs_info info = {};
    if (ioctl(root_.get(), KMEMFS_IOC_INFO, &info) != 0) Die("info");
    return info;
  }

  UniqueFd NewFile(const char* name) const {
    UniqueFd fd(open((dir_ + "/" + name).c_str(),
                     O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) Die(name);
    return fd;
  }

  kmemfs_capture Capture(int fd, const Memory& memory) const {
    kmemfs_capture c = {};
    c.pidfd = self_.get();
    c.addr = reinterpret_cast<uintptr_t>(memory.data());
    c.len = bytes_;
    if (ioctl(fd, KMEMFS_IOC_CAPTURE, &c) != 0) Die("capture");
    return c;
  }

  void ReadAll(int fd, const Memory& memory) const {
    for (size_t done = 0; done < bytes_;) {
      const ssize_t n = pread(fd, memory.data() + done, bytes_ - done,
                              static_cast<off_t>(done));
      if (n <= 0) Die("pread");
      done += static_cast<size_t>(n);
    }
  }

  void WriteAll(int fd, const Memory& memory) const {
    for (size_t done = 0; done < bytes_;) {
      const ssize_t n = pwrite(fd, memory.data() + done, bytes_ - done,
                               static_cast<off_t>(done));
      if (n <= 0) Die("pwrite");
      done += static_cast<size_t>(n);
    }
  }

  std::string dir_;
  size_t bytes_, stride_;
  int node_ = -1;
  UniqueFd root_, self_;
  std::map<std::string, std::vector<double>> samples_;
};

}  // namespace
}  // namespace daxsnap::bench

int main(int argc, char** argv) {
  const size_t stride = argc == 5 ? std::strtoul(argv[4], nullptr, 10) : 1;
  if (argc < 4 || argc > 5 || stride % 2 == 0) {
    std::fprintf(stderr, "usage: bench_mm DIR MIB ROUNDS [STRIDE]\n");
    return 64;
  }
  const size_t bytes = std::strtoul(argv[2], nullptr, 10) << 20;
  const uint64_t rounds = std::strtoul(argv[3], nullptr, 10);
  daxsnap::bench::Bench bench(argv[1], bytes, stride);
  for (uint64_t i = 1; i <= rounds; ++i) bench.Round(i);
  for (uint64_t i = 1; i <= rounds; ++i) bench.TmpfsRound(i);
  bench.Print();
  return 0;
}
