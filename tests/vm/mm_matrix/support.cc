// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/mm_matrix/support.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

namespace daxsnap::vmtest {
namespace {

constexpr size_t kWords = kPage / sizeof(uint64_t);
constexpr size_t kHuge = 2 * kMiB;
// Instead of the index of a step.
constexpr unsigned char kQuit = 255;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  std::abort();
}

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Never zero, so that a hole is never mistaken for content.
uint64_t Word(uint64_t seed, uint64_t page) {
  return Mix(Mix(seed) + page) | 1;
}

std::string& MountPointStorage() {
  static std::string path;
  return path;
}

std::vector<uint64_t> PageMap(pid_t pid, const char* data, size_t bytes) {
  std::vector<uint64_t> entries(bytes / kPage);
  UniqueFd fd(open(("/proc/" + std::to_string(pid) + "/pagemap").c_str(),
                   O_RDONLY | O_CLOEXEC));
  const size_t size = entries.size() * sizeof(uint64_t);
  const auto at = reinterpret_cast<uintptr_t>(data) / kPage * sizeof(uint64_t);
  if (pread(fd.get(), entries.data(), size, static_cast<off_t>(at)) !=
      static_cast<ssize_t>(size)) {
    Die("pagemap");
  }
  return entries;
}

}  // namespace

void SetMountPoint(std::string path) { MountPointStorage() = std::move(path); }
const std::string& MountPoint() { return MountPointStorage(); }

Mapping::Mapping(size_t bytes, int node, Pages pages)
    : base_bytes_(bytes + kHuge), bytes_(bytes) {
  void* base = mmap(nullptr, base_bytes_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) Die("mmap");
  base_ = static_cast<char*>(base);
  const auto address = reinterpret_cast<uintptr_t>(base);
  data_ = base_ + ((address + kHuge - 1) / kHuge * kHuge - address);
  SetPolicy(MPOL_PREFERRED, node);
  madvise(data_, bytes_,
          pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void Mapping::Bind(int node) { SetPolicy(MPOL_BIND, node); }

void Mapping::Prefer(int node) { SetPolicy(MPOL_PREFERRED, node); }

void Mapping::Anywhere() {
  if (syscall(SYS_mbind, data_, bytes_, MPOL_DEFAULT, nullptr, 0UL, 0U) != 0) {
    Die("mbind");
  }
}

void Mapping::SetPolicy(int policy, int node) {
  const unsigned long mask = 1UL << node;
  if (syscall(SYS_mbind, data_, bytes_, policy, &mask, 64UL, 0U) != 0) {
    Die("mbind");
  }
}

Mapping::~Mapping() { munmap(base_, base_bytes_); }

void Fill(char* data, size_t bytes, uint64_t seed, size_t first_page) {
  for (size_t i = 0; i < bytes / kPage; ++i) {
    auto* words = reinterpret_cast<uint64_t*>(data + i * kPage);
    const uint64_t word = Word(seed, first_page + i);
    words[0] = word;
    words[1] = first_page + i;
    words[kWords / 2] = word + seed;
    words[kWords - 1] = ~word;
  }
}

long CountBad(const char* data, size_t bytes, uint64_t seed,
              size_t first_page) {
  long bad = 0;
  for (size_t i = 0; i < bytes / kPage; ++i) {
    const auto* words = reinterpret_cast<const uint64_t*>(data + i * kPage);
    const uint64_t word = Word(seed, first_page + i);
    if (words[0] != word || words[1] != first_page + i ||
        words[kWords / 2] != word + seed || words[kWords - 1] != ~word) {
      ++bad;
    }
  }
  return bad;
}

long CountNonZero(const char* data, size_t bytes) {
  long bad = 0;
  for (size_t i = 0; i < bytes / kPage; ++i) {
    const auto* words = reinterpret_cast<const uint64_t*>(data + i * kPage);
    for (size_t k = 0; k < kWords; ++k) {
      if (words[k] != 0) {
        ++bad;
        break;
      }
    }
  }
  return bad;
}

long CountBadInFile(int fd, size_t bytes, uint64_t seed, off_t offset) {
  // One byte off alignment: read(2) must copy.
  alignas(kPage) static char buffer[kPage + 64];
  char* to = buffer + 8;
  long bad = 0;
  for (size_t i = 0; i < bytes / kPage; ++i) {
    const off_t at = offset + static_cast<off_t>(i * kPage);
    if (pread(fd, to, kPage, at) != static_cast<ssize_t>(kPage)) {
      ++bad;
      continue;
    }
    bad += CountBad(to, kPage, seed, i);
  }
  return bad;
}

uint64_t HashFile(int fd, size_t bytes) {
  alignas(kPage) static char buffer[kPage + 64];
  char* to = buffer + 8;
  uint64_t hash = 0;
  for (size_t at = 0; at < bytes; at += kPage) {
    if (pread(fd, to, kPage, static_cast<off_t>(at)) !=
        static_cast<ssize_t>(kPage)) {
      ADD_FAILURE() << "pread at " << at << ": " << std::strerror(errno);
      return 0;
    }
    for (size_t k = 0; k < kWords; ++k) {
      uint64_t word;
      std::memcpy(&word, to + k * sizeof(word), sizeof(word));
      hash = Mix(hash ^ word);
    }
  }
  return hash;
}

Child::Child(Steps steps) {
  for (const auto& [name, step] : steps) names_.push_back(name);
  int commands[2], results[2];
  if (pipe2(commands, O_CLOEXEC) != 0 || pipe2(results, O_CLOEXEC) != 0) {
    Die("pipe2");
  }
  std::fflush(nullptr);
  pid_ = fork();
  if (pid_ < 0) Die("fork");
  if (pid_ == 0) {
    close(commands[1]);
    close(results[0]);
    Serve(steps, commands[0], results[1]);
  }
  close(commands[0]);
  close(results[1]);
  commands_.reset(commands[1]);
  results_.reset(results[0]);
  pidfd_ = PidFd(pid_);
}

void Child::Serve(const Steps& steps, int commands, int results) {
  unsigned char index;
  while (read(commands, &index, 1) == 1 && index != kQuit) {
    auto step = steps.begin();
    std::advance(step, index);
    const long result = step->second();
    std::fflush(nullptr);
    if (write(results, &result, sizeof(result)) != sizeof(result)) _exit(1);
  }
  _exit(0);
}

Child::~Child() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool Child::Send(const std::string& step, long* result) {
  unsigned char index = 0;
  while (index < names_.size() && names_[index] != step) ++index;
  if (index == names_.size()) {
    ADD_FAILURE() << "no step " << step;
    return false;
  }
  return write(commands_.get(), &index, 1) == 1 &&
         read(results_.get(), result, sizeof(*result)) == sizeof(*result);
}

long Child::Do(const std::string& step) {
  long result = -1;
  if (!Send(step, &result)) {
    ADD_FAILURE() << "the child died in step " << step;
    return -1;
  }
  return result;
}

bool Child::DiesIn(const std::string& step, int signal) {
  long result;
  if (Send(step, &result)) return false;
  int status = 0;
  const bool reaped = waitpid(pid_, &status, 0) == pid_;
  pid_ = -1;
  return reaped && WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

bool Child::Finish() {
  // Closing the pipe would not do: children made later hold it open too.
  const unsigned char quit = kQuit;
  EXPECT_EQ(write(commands_.get(), &quit, 1), 1);
  int status = -1;
  const bool reaped = waitpid(pid_, &status, 0) == pid_;
  pid_ = -1;
  return reaped && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

UniqueFd PidFd(pid_t pid) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0U)));
}

UniqueFd SelfPidFd() { return PidFd(getpid()); }

std::vector<uint64_t> PageFrames(pid_t pid, const char* data, size_t bytes) {
  std::vector<uint64_t> frames = PageMap(pid, data, bytes);
  for (uint64_t& entry : frames) {
    const bool present = (entry >> 63) != 0;
    entry = present ? entry & ((uint64_t{1} << 55) - 1) : 0;
  }
  return frames;
}

size_t SwappedPages(pid_t pid, const char* data, size_t bytes) {
  size_t swapped = 0;
  for (const uint64_t entry : PageMap(pid, data, bytes)) {
    swapped += entry >> 62 & 1;
  }
  return swapped;
}

long FreePagesWithLists(int node) {
  std::ifstream file("/proc/zoneinfo");
  std::string line;
  bool ours = false;
  long total = 0;
  while (std::getline(file, line)) {
    int line_node;
    char zone[32];
    long count;
    if (std::sscanf(line.c_str(), "Node %d, zone %31s", &line_node, zone) ==
        2) {
      ours = line_node == node;
    } else if (ours &&
               (std::sscanf(line.c_str(), " pages free %ld", &count) == 1 ||
                std::sscanf(line.c_str(), " count: %ld", &count) == 1)) {
      total += count;
    }
  }
  return total;
}

long MemInfo(const std::string& field, int node) {
  const std::string path = node < 0 ? "/proc/meminfo"
                                    : "/sys/devices/system/node/node" +
                                          std::to_string(node) + "/meminfo";
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t at = line.find(field + ":");
    if (at != std::string::npos && (at == 0 || line[at - 1] == ' ')) {
      return std::atol(line.c_str() + at + field.size() + 1);
    }
  }
  return -1;
}

long MlockedNow() {
  // Empties the lists of all CPUs, and here has nothing to move.
  const unsigned long node = 1;
  EXPECT_EQ(syscall(SYS_migrate_pages, 0, 64UL, &node, &node), 0)
      << std::strerror(errno);
  return MemInfo("Mlocked");
}

long VmStat(const std::string& prefix) {
  std::ifstream file("/proc/vmstat");
  std::string name;
  long value, sum = 0;
  while (file >> name >> value) {
    if (name.compare(0, prefix.size(), prefix) == 0) sum += value;
  }
  return sum;
}

bool WriteFile(const std::string& path, const std::string& text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd.valid() && write(fd.get(), text.data(), text.size()) ==
                           static_cast<ssize_t>(text.size());
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool StartKsm() {
  WriteFile("/sys/kernel/mm/ksm/pages_to_scan", "5000");
  WriteFile("/sys/kernel/mm/ksm/sleep_millisecs", "5");
  return WriteFile("/sys/kernel/mm/ksm/run", "1");
}

bool MergeWithKsm() {
  const bool merged =
      StartKsm() && WaitFor([] {
        return std::atol(ReadFile("/sys/kernel/mm/ksm/pages_sharing").c_str()) >
               100;
      });
  WriteFile("/sys/kernel/mm/ksm/run", "0");
  return merged;
}

void UnmergeKsm() {
  WriteFile("/sys/kernel/mm/ksm/run", "2");
  WriteFile("/sys/kernel/mm/ksm/run", "0");
}

bool WaitFor(const std::function<bool()>& condition, int seconds) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

void PoolTest::SetUp() {
  struct statfs fs;
  ASSERT_EQ(statfs(MountPoint().c_str(), &fs), 0)
      << MountPoint() << ": " << std::strerror(errno);
  ASSERT_EQ(static_cast<unsigned long>(fs.f_type), KMEMFS_SUPER_MAGIC)
      << MountPoint() << " is not a kmemfs";
  root_.reset(open(MountPoint().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(root_.valid()) << std::strerror(errno);
  node_ = Info().node;
  ASSERT_GE(node_, 0);
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  dir_ = MountPoint() + "/mm_matrix." + info->test_suite_name() + "." +
         info->name();
  std::filesystem::remove_all(dir_);
  ASSERT_EQ(mkdir(dir_.c_str(), 0700), 0) << std::strerror(errno);
}

void PoolTest::TearDown() {
  if (dir_.empty()) return;
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
  EXPECT_FALSE(error) << "removing " << dir_ << ": " << error.message();
  Commit();
}

UniqueFd PoolTest::NewFile(const std::string& name) {
  UniqueFd fd(
      open(Path(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  EXPECT_TRUE(fd.valid()) << Path(name) << ": " << std::strerror(errno);
  return fd;
}

UniqueFd PoolTest::NewCapture(size_t bytes, uint64_t seed,
                              const std::string& name) {
  UniqueFd file = NewFile(name), self = SelfPidFd();
  Mapping memory(bytes, node());
  Fill(memory.data(), bytes, seed);
  Capture(file.get(), self.get(), memory.data(), bytes);
  return file;
}

kmemfs_info PoolTest::Info() const {
  kmemfs_info info = {};
  EXPECT_EQ(ioctl(root_.get(), KMEMFS_IOC_INFO, &info), 0)
      << std::strerror(errno);
  return info;
}

void PoolTest::Commit() const {
  EXPECT_EQ(syncfs(root_.get()), 0) << std::strerror(errno);
}

void PoolTest::Settle() const {
  if (ioctl(root_.get(), KMEMFS_IOC_SUM, 0) != 0) {
    EXPECT_EQ(errno, EOPNOTSUPP) << std::strerror(errno);
  }
}

void PoolTest::WarmUp() {
  NewFile("warm-up");
  Commit();
  Delete("warm-up");
  Settle();
  sums_pages_ = static_cast<long>(Info().sums_pages);
}

long PoolTest::PagesLost(long before) const {
  long lost = 0;
  WaitFor([&] {
    Commit();
    lost = before - FreePagesWithLists(node()) -
           (static_cast<long>(Info().sums_pages) - sums_pages_);
    return lost <= kNoise;
  });
  return lost;
}

void PoolTest::Delete(const std::string& name) const {
  EXPECT_EQ(unlink(Path(name).c_str()), 0) << std::strerror(errno);
  Commit();
}

kmemfs_capture PoolTest::Capture(int fd, int pidfd, const char* data,
                                 size_t bytes, off_t offset) {
  kmemfs_capture c = {};
  c.pidfd = pidfd;
  c.addr = reinterpret_cast<uintptr_t>(data);
  c.len = bytes;
  c.offset = static_cast<uint64_t>(offset);
  if (ioctl(fd, KMEMFS_IOC_CAPTURE, &c) != 0) {
    ADD_FAILURE() << "KMEMFS_IOC_CAPTURE: " << std::strerror(errno);
    return c;
  }
  EXPECT_EQ(
      c.pages_by_reference + c.pages_shared + c.pages_copied + c.pages_hole,
      bytes / kPage)
      << "by reference " << c.pages_by_reference << ", shared "
      << c.pages_shared << ", copied " << c.pages_copied << ", holes "
      << c.pages_hole;
  return c;
}

uint64_t PoolTest::Install(int fd, char* data, size_t bytes, off_t offset) {
  const uint64_t before = Info().read_installed;
  EXPECT_EQ(pread(fd, data, bytes, offset), static_cast<ssize_t>(bytes))
      << std::strerror(errno);
  return Info().read_installed - before;
}

}  // namespace daxsnap::vmtest
