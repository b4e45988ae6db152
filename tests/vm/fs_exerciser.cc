// SPDX-License-Identifier: Apache-2.0
// Random operations on files of a filesystem, each file against a model in
// memory, in the manner of fsx.
//
//   fs_exerciser DIR [SEED [OPERATIONS [SECONDS]]]
//
// DIR is on the filesystem under test. Ends after OPERATIONS (default 2000) or
// SECONDS (default: no limit), whichever comes first; with more time than
// operations goes on with the next seed. The same seed does the same
// operations. Exit: 0 and one line of counts; 1 with the last operations and
// the first wrong byte; 64 usage.
//
// Operations that the filesystem refuses with EOPNOTSUPP, EINVAL or ENODEV at
// the start are left out, and listed at the end as such.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace daxsnap::vmtest {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMaxSize = 96 * kPage;
constexpr size_t kFiles = 3;
constexpr size_t kRemembered = 40;

// An anonymous mapping on the heap of nobody: gone with the object.
class Memory {
 public:
  explicit Memory(size_t bytes)
      : bytes_(bytes),
        data_(static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    if (data_ == MAP_FAILED) std::abort();
  }
  Memory(const Memory&) = delete;
  ~Memory() { munmap(data_, bytes_); }
  char* data() const { return data_; }

 private:
  size_t bytes_;
  char* data_;
};

struct File {
  std::string path;
  UniqueFd fd;
  std::vector<char> model;
};

class Exerciser {
 public:
  Exerciser(const std::string& dir, uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kFiles; ++i) {
      files_[i].path = dir + "/exerciser." + std::to_string(getpid()) + "." +
                       std::to_string(i);
      Reopen(files_[i], O_CREAT | O_TRUNC);
    }
    struct kmemfs_info info;
    if (ioctl(files_[0].fd.get(), KMEMFS_IOC_INFO, &info) == 0) {
      node_ = info.node;
      pidfd_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
    }
    Define();
  }
  Exerciser(const Exerciser&) = delete;
  ~Exerciser() {
    for (File& file : files_) unlink(file.path.c_str());
  }

  void Step() {
    File& file = files_[Below(kFiles)];
    auto& [name, operation] = operations_[Below(operations_.size())];
    if (unsupported_.count(name) != 0) return;
    note_ = std::string(name) + " " + file.path.substr(file.path.rfind('.'));
    operation(file);
    history_.push_back(note_);
    if (history_.size() > kRemembered) history_.pop_front();
    ++counts_[name];
    CheckSize(file);
  }

  void CheckAll() {
    for (File& file : files_) {
      note_ = "final check " + file.path;
      Compare(file, 0, file.model.size(), 1);
      Reopen(file, 0);
      Compare(file, 0, file.model.size(), 0);
    }
  }

  const std::map<std::string, long>& counts() const { return counts_; }
  const std::map<std::string, int>& unsupported() const { return unsupported_; }

 private:
  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }

  // Often on or next to a page boundary, where mistakes are made.
  size_t Place(size_t limit) {
    size_t place = Below(limit + 1);
    switch (Below(4)) {
      case 0:
        return place / kPage * kPage;
      case 1:
        return std::min(limit, place / kPage * kPage + Below(3));
      default:
        return place;
    }
  }

  void Note(size_t at, size_t size) {
    note_ += " [" + std::to_string(at) + ", +" + std::to_string(size) + ")";
  }

  [[noreturn]] void Fail(const std::string& what) {
    const int error = errno;
    for (const std::string& line : history_) {
      std::fprintf(stderr, "  %s\n", line.c_str());
    }
    std::fprintf(stderr, "  %s   <-- here\nfs_exerciser: %s (errno: %s)\n",
                 note_.c_str(), what.c_str(), std::strerror(error));
    std::exit(1);
  }
  void Check(bool good, const char* what) {
    if (!good) Fail(what);
  }

  // False, and remembered, if the filesystem does not have this operation.
  bool Supported(const char* name, bool good) {
    if (good) {
      ++done_[name];
      return true;
    }
    if ((errno != EOPNOTSUPP && errno != EINVAL && errno != ENODEV) ||
        done_[name] > 0) {
      Fail(name);
    }
    unsupported_[name] = errno;
    return false;
  }

  void Reopen(File& file, int flags) {
    file.fd =
        UniqueFd(open(file.path.c_str(), O_RDWR | O_CLOEXEC | flags, 0600));
    Check(file.fd.valid(), "open");
  }

  void CheckSize(const File& file) {
    struct stat stat;
    Check(fstat(file.fd.get(), &stat) == 0, "fstat");
    if (static_cast<size_t>(stat.st_size) != file.model.size()) {
      Fail("size " + std::to_string(stat.st_size) + ", expected " +
           std::to_string(file.model.size()));
    }
  }

  void CompareBytes(const File& file, const char* got, size_t at, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      if (got[i] != file.model[at + i]) {
        errno = 0;
        Fail("byte " + std::to_string(at + i) + " is " +
             std::to_string(static_cast<unsigned char>(got[i])) +
             ", expected " +
             std::to_string(static_cast<unsigned char>(file.model[at + i])));
      }
    }
  }

  // skew 0: the destination is aligned as the file is, so pages are mapped
  // where they can be; else copied.
  void Compare(const File& file, size_t at, size_t size, size_t skew) {
    Memory memory(kMaxSize + 2 * kPage);
    char* to = memory.data() + at % kPage + skew;
    const ssize_t got = pread(file.fd.get(), to, size, static_cast<off_t>(at));
    Check(got == static_cast<ssize_t>(size), "short read");
    CompareBytes(file, to, at, size);
  }

  void Grow(File& file, size_t end) {
    if (file.model.size() < end) file.model.resize(end);
  }

  void Fill(char* to, size_t size) {
    const uint64_t tag = random_();
    for (size_t i = 0; i < size; ++i) {
      to[i] = static_cast<char>(tag >> (i % 8 * 8)) + static_cast<char>(i >> 9);
    }
  }

  void Define() {
    auto add = [this](const char* name, void (Exerciser::*what)(File&)) {
      operations_.emplace_back(name,
                               [this, what](File& f) { (this->*what)(f); });
    };
    add("write", &Exerciser::Write);
    add("write", &Exerciser::Write);
    add("read", &Exerciser::Read);
    add("read", &Exerciser::Read);
    add("append", &Exerciser::Append);
    add("truncate", &Exerciser::Truncate);
    add("punch-hole", &Exerciser::PunchHole);
    add("zero-range", &Exerciser::ZeroRange);
    add("allocate", &Exerciser::Allocate);
    add("collapse-range", &Exerciser::CollapseRange);
    add("insert-range", &Exerciser::InsertRange);
    add("map-read", &Exerciser::MapRead);
    add("map-write", &Exerciser::MapWrite);
    add("clone", &Exerciser::Clone);
    add("clone-range", &Exerciser::CloneRange);
    add("copy-file-range", &Exerciser::CopyFileRange);
    add("seek", &Exerciser::Seek);
    add("fsync", &Exerciser::Fsync);
    add("reopen", &Exerciser::OpenAgain);
    if (node_ >= 0) add("capture", &Exerciser::Capture);
  }

  void Write(File& file) {
    const size_t at = Place(kMaxSize - 1);
    const size_t size = 1 + Below(std::min(kMaxSize - at, 5 * kPage));
    Note(at, size);
    std::vector<char> bytes(size);
    Fill(bytes.data(), size);
    Check(pwrite(file.fd.get(), bytes.data(), size, static_cast<off_t>(at)) ==
              static_cast<ssize_t>(size),
          "write");
    Grow(file, at + size);
    std::copy(bytes.begin(), bytes.end(),
              file.model.begin() + static_cast<long>(at));
  }

  void Append(File& file) {
    const size_t at = file.model.size();
    if (at >= kMaxSize) return;
    const size_t size = 1 + Below(std::min(kMaxSize - at, 2 * kPage));
    Note(at, size);
    std::vector<char> bytes(size);
    Fill(bytes.data(), size);
    UniqueFd fd(open(file.path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    Check(write(fd.get(), bytes.data(), size) == static_cast<ssize_t>(size),
          "append");
    file.model.insert(file.model.end(), bytes.begin(), bytes.end());
  }

  void Read(File& file) {
    const size_t at = Place(file.model.size());
    const size_t size = Below(file.model.size() - at + 1);
    Note(at, size);
    Compare(file, at, size, Below(2));
  }

  void Truncate(File& file) {
    const size_t size = Place(kMaxSize);
    Note(size, 0);
    Check(ftruncate(file.fd.get(), static_cast<off_t>(size)) == 0, "truncate");
    file.model.resize(size);
  }

  void ZeroModel(File& file, size_t at, size_t size) {
    const size_t end = std::min(at + size, file.model.size());
    if (at < end) {
      std::fill(file.model.begin() + static_cast<long>(at),
                file.model.begin() + static_cast<long>(end), 0);
    }
  }

  bool Fallocate(const char* name, const File& file, int mode, size_t at,
                 size_t size) {
    Note(at, size);
    return Supported(name,
                     fallocate(file.fd.get(), mode, static_cast<off_t>(at),
                               static_cast<off_t>(size)) == 0);
  }

  void PunchHole(File& file) {
    const size_t at = Place(kMaxSize - 1);
    const size_t size = 1 + Below(kMaxSize - at);
    if (Fallocate("punch-hole", file,
                  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size)) {
      ZeroModel(file, at, size);
    }
  }

  // Not every filesystem can have pages beyond the end of a file.
  bool BeyondTheEnd(const File& file, int mode, size_t at, size_t size) {
    if (at + size <= file.model.size()) return false;
    Note(at, size);
    Check(fallocate(file.fd.get(), mode | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(at), static_cast<off_t>(size)) == 0 ||
              errno == EOPNOTSUPP,
          "beyond the end of the file");
    return true;
  }

  void ZeroRange(File& file) {
    const size_t at = Place(kMaxSize - 1);
    const size_t size = 1 + Below(kMaxSize - at);
    const bool keep = Below(2) == 0;
    const int mode = FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0);
    if (keep && BeyondTheEnd(file, mode, at, size)) {
      // Refused or done: what is in the file may be zero now.
      Check(fallocate(file.fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(at), static_cast<off_t>(size)) == 0,
            "punch-hole");
      ZeroModel(file, at, size);
      return;
    }
    if (Fallocate("zero-range", file, mode, at, size)) {
      if (!keep) Grow(file, at + size);
      ZeroModel(file, at, size);
    }
  }

  void Allocate(File& file) {
    const size_t at = Place(kMaxSize - 1);
    const size_t size = 1 + Below(kMaxSize - at);
    const bool keep = Below(2) == 0;
    if (keep && BeyondTheEnd(file, 0, at, size)) return;
    if (Fallocate("allocate", file, keep ? FALLOC_FL_KEEP_SIZE : 0, at, size) &&
        !keep) {
      Grow(file, at + size);
    }
  }

  void CollapseRange(File& file) {
    const size_t pages = file.model.size() / kPage;
    if (pages < 2) return;
    const size_t at = Below(pages - 1) * kPage;
    const size_t size =
        (1 + Below((file.model.size() - at - 1) / kPage)) * kPage;
    if (at + size >= file.model.size()) return;
    if (Fallocate("collapse-range", file, FALLOC_FL_COLLAPSE_RANGE, at, size)) {
      const auto begin = file.model.begin() + static_cast<long>(at);
      file.model.erase(begin, begin + static_cast<long>(size));
    }
  }

  void InsertRange(File& file) {
    if (file.model.size() < kPage || file.model.size() >= kMaxSize) return;
    const size_t at = Below((file.model.size() - 1) / kPage + 1) * kPage;
    const size_t room = (kMaxSize - file.model.size()) / kPage;
    if (room == 0 || at >= file.model.size()) return;
    const size_t size = (1 + Below(room)) * kPage;
    if (Fallocate("insert-range", file, FALLOC_FL_INSERT_RANGE, at, size)) {
      file.model.insert(file.model.begin() + static_cast<long>(at), size, 0);
    }
  }

  void MapRead(File& file) {
    if (file.model.empty()) return;
    const size_t at = Below(file.model.size());
    const size_t size = 1 + Below(file.model.size() - at);
    Note(at, size);
    const size_t start = at / kPage * kPage;
    void* map = mmap(nullptr, at + size - start, PROT_READ,
                     Below(2) == 0 ? MAP_SHARED : MAP_PRIVATE, file.fd.get(),
                     static_cast<off_t>(start));
    Check(map != MAP_FAILED, "mmap");
    CompareBytes(file, static_cast<char*>(map) + (at - start), at, size);
    munmap(map, at + size - start);
  }

  void MapWrite(File& file) {
    if (file.model.empty()) return;
    const size_t at = Below(file.model.size());
    const size_t size = 1 + Below(std::min(file.model.size() - at, 4 * kPage));
    Note(at, size);
    const size_t start = at / kPage * kPage;
    void* map = mmap(nullptr, at + size - start, PROT_READ | PROT_WRITE,
                     MAP_SHARED, file.fd.get(), static_cast<off_t>(start));
    if (!Supported("map-write", map != MAP_FAILED)) return;
    char* to = static_cast<char*>(map) + (at - start);
    Fill(to, size);
    std::copy(to, to + size, file.model.begin() + static_cast<long>(at));
    if (Below(2) == 0) {
      Check(msync(map, at + size - start, Below(2) == 0 ? MS_SYNC : MS_ASYNC) ==
                0,
            "msync");
    }
    // Visible to read(2) while it is mapped still.
    Compare(file, at, size, 1);
    munmap(map, at + size - start);
  }

  File& Other(const File& file) {
    File* other = &files_[Below(kFiles)];
    if (other == &file) other = &files_[(&file - files_.data() + 1) % kFiles];
    return *other;
  }

  void Clone(File& file) {
    File& from = Other(file);
    // The VFS refuses a part of a page in the middle of the destination.
    if (from.model.size() % kPage != 0 &&
        from.model.size() < file.model.size()) {
      return;
    }
    if (!Supported("clone",
                   ioctl(file.fd.get(), FICLONE, from.fd.get()) == 0)) {
      return;
    }
    // What was longer stays longer.
    Grow(file, from.model.size());
    std::copy(from.model.begin(), from.model.end(), file.model.begin());
  }

  void CloneRange(File& file) {
    File& from = Other(file);
    const size_t pages = from.model.size() / kPage;
    if (pages == 0) return;
    const size_t at = Below(pages) * kPage;
    const size_t size = (1 + Below(pages - at / kPage)) * kPage;
    const size_t to = Below((kMaxSize - size) / kPage + 1) * kPage;
    Note(to, size);
    file_clone_range range = {.src_fd = from.fd.get(),
                              .src_offset = at,
                              .src_length = size,
                              .dest_offset = to};
    if (!Supported("clone-range",
                   ioctl(file.fd.get(), FICLONERANGE, &range) == 0)) {
      return;
    }
    Grow(file, to + size);
    std::copy_n(from.model.begin() + static_cast<long>(at), size,
                file.model.begin() + static_cast<long>(to));
  }

  void CopyFileRange(File& file) {
    File& from = Other(file);
    if (from.model.empty()) return;
    const size_t at = Below(from.model.size());
    size_t size = 1 + Below(std::min(from.model.size() - at, 3 * kPage));
    const size_t to = Place(kMaxSize - size);
    Note(to, size);
    off64_t in = static_cast<off64_t>(at);
    off64_t out = static_cast<off64_t>(to);
    while (size > 0) {
      const ssize_t done =
          copy_file_range(from.fd.get(), &in, file.fd.get(), &out, size, 0);
      if (!Supported("copy-file-range", done > 0)) return;
      const auto begin = static_cast<long>(in) - done;
      Grow(file, static_cast<size_t>(out));
      std::copy_n(from.model.begin() + begin, done,
                  file.model.begin() + static_cast<long>(out) - done);
      size -= static_cast<size_t>(done);
    }
  }

  // Nothing but zeroes may be where the filesystem says that a hole is.
  void Seek(File& file) {
    off_t at = 0;
    const off_t end = static_cast<off_t>(file.model.size());
    while (at < end) {
      const off_t data = lseek(file.fd.get(), at, SEEK_DATA);
      Check(data >= at || (data < 0 && errno == ENXIO), "SEEK_DATA");
      const off_t stop = data < 0 ? end : data;
      for (off_t i = at; i < stop; ++i) {
        if (file.model[static_cast<size_t>(i)] != 0) {
          Fail("data at " + std::to_string(i) + " is said to be a hole");
        }
      }
      if (data < 0) break;
      at = lseek(file.fd.get(), data, SEEK_HOLE);
      Check(at > data && at <= end, "SEEK_HOLE");
    }
  }

  void Fsync(File& file) {
    Check(
        (Below(2) == 0 ? fsync(file.fd.get()) : fdatasync(file.fd.get())) == 0,
        "fsync");
  }

  void OpenAgain(File& file) { Reopen(file, 0); }

  void Capture(File& file) {
    const size_t pages = 1 + Below(24);
    const size_t at = Below(kMaxSize / kPage - pages + 1) * kPage;
    Note(at, pages * kPage);
    Memory memory(pages * kPage);
    const unsigned long mask = 1UL << node_;
    Check(syscall(SYS_mbind, memory.data(), pages * kPage, MPOL_PREFERRED,
                  &mask, 64UL, 0U) == 0,
          "mbind");
    for (size_t i = 0; i < pages; ++i) {
      if (Below(4) != 0) Fill(memory.data() + i * kPage, kPage);
    }
    kmemfs_capture capture = {};
    capture.pidfd = pidfd_.get();
    capture.addr = reinterpret_cast<uintptr_t>(memory.data());
    capture.len = pages * kPage;
    capture.offset = at;
    Check(ioctl(file.fd.get(), KMEMFS_IOC_CAPTURE, &capture) == 0, "capture");
    Grow(file, at + pages * kPage);
    std::copy_n(memory.data(), pages * kPage,
                file.model.begin() + static_cast<long>(at));
    // The memory goes on as if nothing had been.
    if (Below(2) == 0) Fill(memory.data(), pages * kPage);
  }

  std::mt19937_64 random_;
  std::array<File, kFiles> files_;
  std::vector<std::pair<const char*, std::function<void(File&)>>> operations_;
  std::deque<std::string> history_;
  std::string note_;
  std::map<std::string, long> counts_;
  std::map<std::string, long> done_;
  std::map<std::string, int> unsupported_;
  int node_ = -1;
  UniqueFd pidfd_;
};

int Main(int argc, char** argv) {
  if (argc < 2 || argc > 5) {
    std::fprintf(stderr,
                 "usage: fs_exerciser DIR [SEED [OPERATIONS [SECONDS]]]\n");
    return 64;
  }
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1;
  const long operations = argc > 3 ? std::atol(argv[3]) : 2000;
  const long seconds = argc > 4 ? std::atol(argv[4]) : 0;
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::seconds(seconds);
  std::map<std::string, long> counts;
  std::map<std::string, int> unsupported;
  do {
    Exerciser exerciser(argv[1], seed);
    for (long i = 0; i < operations; ++i) {
      if (seconds > 0 && Clock::now() >= deadline) break;
      exerciser.Step();
    }
    exerciser.CheckAll();
    for (const auto& [name, count] : exerciser.counts()) counts[name] += count;
    unsupported = exerciser.unsupported();
    ++seed;
  } while (seconds > 0 && Clock::now() < deadline);
  std::printf("next seed %lu;", static_cast<unsigned long>(seed));
  for (const auto& [name, count] : counts) {
    if (unsupported.count(name) == 0)
      std::printf(" %s %ld", name.c_str(), count);
  }
  for (const auto& [name, error] : unsupported) {
    std::printf(" %s: %s;", name.c_str(), std::strerror(error));
  }
  std::printf("\n");
  return 0;
}

}  // namespace
}  // namespace daxsnap::vmtest

int main(int argc, char** argv) { return daxsnap::vmtest::Main(argc, argv); }
