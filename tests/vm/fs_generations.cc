// SPDX-License-Identifier: Apache-2.0
// Commits numbered generations of a tree, and tells which one is there.
//
//   fs_generations write DIR   goes on from what is there; after each commit
//                              prints "committed N"; never ends by itself
//   fs_generations check DIR   prints N if DIR is exactly generation N, whole
//                              and with nothing else; exit 1 with the reason
//                              if it is not
//
// What a generation is follows from its number: both sides replay the same
// operations on a model. On kmemfs some content comes by KMEMFS_IOC_CAPTURE.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "client/launch/unique_fd.h"

namespace daxsnap::vmtest {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPage = 4096;
constexpr size_t kMaxPages = 192;
constexpr int kNames = 14;
constexpr int kOperations = 6;
constexpr char kNumber[] = "GENERATION";

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "fs_generations: %s: %s\n", what.c_str(),
               std::strerror(errno));
  std::exit(1);
}

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Content of a page by its seed; 0 is a page of zeroes.
void FillPage(char* page, uint64_t seed) {
  auto* words = reinterpret_cast<uint64_t*>(page);
  for (size_t i = 0; i < kPage / sizeof(uint64_t); ++i) {
    words[i] = seed == 0 ? 0 : seed + i * 0x9e3779b97f4a7c15ULL;
  }
}

// A file: the seeds of its pages. Names are "0" to "13", every third of them
// in directory "d".
using Model = std::map<int, std::vector<uint64_t>>;

enum class Kind {
  kWrite,
  kCapture,
  kTruncate,
  kPunch,
  kDelete,
  kRename,
  kClone
};

struct Operation {
  Kind kind;
  int file, other;
  size_t first, count;
  uint64_t seed;
};

std::vector<Operation> OperationsOf(uint64_t generation) {
  static constexpr Kind kKinds[] = {
      Kind::kWrite, Kind::kWrite,    Kind::kCapture, Kind::kCapture,
      Kind::kPunch, Kind::kTruncate, Kind::kDelete,  Kind::kRename,
      Kind::kClone, Kind::kCapture};
  std::vector<Operation> operations;
  for (uint64_t i = 0; i < kOperations; ++i) {
    const uint64_t r = Mix(generation * kOperations + i);
    Operation o;
    o.kind = kKinds[r % std::size(kKinds)];
    o.file = static_cast<int>((r >> 8) % kNames);
    o.other = static_cast<int>((r >> 16) % kNames);
    o.first = (r >> 24) % (kMaxPages / 2);
    o.count = 1 + (r >> 40) % (kMaxPages / 2);
    o.seed = Mix(r) | 1;
    operations.push_back(o);
  }
  return operations;
}

uint64_t PageSeed(const Operation& o, size_t i) { return Mix(o.seed + i) | 1; }

void ApplyToModel(Model& model, const Operation& o) {
  const bool exists = model.count(o.file) != 0;
  switch (o.kind) {
    case Kind::kWrite:
    case Kind::kCapture: {
      auto& pages = model[o.file];
      pages.resize(std::max(pages.size(), o.first + o.count), 0);
      for (size_t i = 0; i < o.count; ++i) {
        pages[o.first + i] = PageSeed(o, i);
      }
      break;
    }
    case Kind::kTruncate:
      if (exists) model[o.file].resize(o.first, 0);
      break;
    case Kind::kPunch:
      if (exists) {
        auto& pages = model[o.file];
        for (size_t i = o.first; i < o.first + o.count && i < pages.size(); ++i)
          pages[i] = 0;
      }
      break;
    case Kind::kDelete:
      model.erase(o.file);
      break;
    case Kind::kRename:
      if (exists && o.other != o.file) {
        model[o.other] = model[o.file];
        model.erase(o.file);
      }
      break;
    case Kind::kClone:
      if (exists && o.other != o.file) model[o.other] = model[o.file];
      break;
  }
}

Model ModelOf(uint64_t generation) {
  Model model;
  for (uint64_t g = 1; g <= generation; ++g) {
    for (const Operation& o : OperationsOf(g)) ApplyToModel(model, o);
  }
  return model;
}

class Tree {
 public:
  explicit Tree(std::string dir) : dir_(std::move(dir)) {
    root_.reset(open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root_.valid()) Die(dir_);
    struct statfs fs;
    if (statfs(dir_.c_str(), &fs) != 0) Die(dir_);
    by_reference_ = static_cast<unsigned long>(fs.f_type) == KMEMFS_SUPER_MAGIC;
    void* p = mmap(nullptr, kMaxPages * kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) Die("mmap");
    memory_ = static_cast<char*>(p);
    madvise(p, kMaxPages * kPage, MADV_NOHUGEPAGE);
    self_.reset(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
    if (by_reference_) BindToPool();
  }

  uint64_t Number() const {
    UniqueFd fd(open(Path(kNumber).c_str(), O_RDONLY | O_CLOEXEC));
    char text[32] = "";
    if (!fd.valid() || read(fd.get(), text, sizeof(text) - 1) <= 0) return 0;
    return std::strtoull(text, nullptr, 10);
  }

  void Write(uint64_t generation) {
    fs::create_directories(Path("d"));
    for (const Operation& o : OperationsOf(generation)) Apply(o);
    WriteNumber(generation);
  }

  void Commit() {
    if (syncfs(root_.get()) != 0) Die("syncfs");
  }

  // Empty if the tree is exactly the generation.
  std::string Compare(uint64_t generation) {
    const Model model = ModelOf(generation);
    std::map<std::string, bool> expected;
    if (generation > 0) expected[kNumber] = expected["d"] = true;
    for (const auto& [file, pages] : model) expected[Name(file)] = true;
    for (const auto& entry : fs::recursive_directory_iterator(dir_)) {
      const std::string name =
          fs::path(entry.path()).lexically_relative(dir_).string();
      if (expected.erase(name) == 0) return name + " should not be there";
    }
    if (!expected.empty()) return expected.begin()->first + " is missing";
    for (const auto& [file, pages] : model) {
      std::string difference = CompareFile(file, pages);
      if (!difference.empty()) return difference;
    }
    return "";
  }

 private:
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  static std::string Name(int file) {
    return (file % 3 == 0 ? "d/" : "") + std::to_string(file);
  }

  void BindToPool() {
    kmemfs_info info = {};
    if (ioctl(root_.get(), KMEMFS_IOC_INFO, &info) != 0) Die("info");
    const unsigned long mask = 1UL << info.node;
    if (syscall(SYS_mbind, memory_, kMaxPages * kPage, MPOL_BIND, &mask, 64UL,
                0U) != 0) {
      Die("mbind");
    }
  }

  UniqueFd Open(int file, int flags) const {
    UniqueFd fd(open(Path(Name(file)).c_str(), flags | O_CLOEXEC, 0644));
    if (!fd.valid()) Die(Name(file));
    return fd;
  }

  bool Exists(int file) const {
    return access(Path(Name(file)).c_str(), F_OK) == 0;
  }

  void Apply(const Operation& o) {
    const auto at = static_cast<off_t>(o.first * kPage);
    const auto length = static_cast<off_t>(o.count * kPage);
    switch (o.kind) {
      case Kind::kWrite:
      case Kind::kCapture: {
        UniqueFd fd = Open(o.file, O_RDWR | O_CREAT);
        for (size_t i = 0; i < o.count; ++i) {
          FillPage(memory_ + i * kPage, PageSeed(o, i));
        }
        Put(fd.get(), o.kind == Kind::kCapture, at, length);
        return;
      }
      case Kind::kTruncate:
        if (Exists(o.file) && truncate(Path(Name(o.file)).c_str(), at) != 0) {
          Die("truncate");
        }
        return;
      case Kind::kPunch:
        if (Exists(o.file)) {
          UniqueFd fd = Open(o.file, O_RDWR);
          if (fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        at, length) != 0) {
            Die("fallocate");
          }
        }
        return;
      case Kind::kDelete:
        if (unlink(Path(Name(o.file)).c_str()) != 0 && errno != ENOENT) {
          Die("unlink");
        }
        return;
      case Kind::kRename:
        if (Exists(o.file) && o.other != o.file &&
            rename(Path(Name(o.file)).c_str(), Path(Name(o.other)).c_str()) !=
                0) {
          Die("rename");
        }
        return;
      case Kind::kClone:
        if (Exists(o.file) && o.other != o.file) Clone(o.file, o.other);
        return;
    }
  }

  void Put(int fd, bool capture, off_t at, off_t length) {
    if (capture && by_reference_) {
      kmemfs_capture c = {};
      c.pidfd = self_.get();
      c.addr = reinterpret_cast<uintptr_t>(memory_);
      c.len = static_cast<uint64_t>(length);
      c.offset = static_cast<uint64_t>(at);
      if (ioctl(fd, KMEMFS_IOC_CAPTURE, &c) != 0) Die("capture");
      return;
    }
    if (pwrite(fd, memory_, static_cast<size_t>(length), at) != length) {
      Die("pwrite");
    }
  }

  void Clone(int from, int to) {
    UniqueFd in = Open(from, O_RDONLY);
    UniqueFd out = Open(to, O_RDWR | O_CREAT | O_TRUNC);
    if (by_reference_) {
      if (ioctl(out.get(), FICLONE, in.get()) != 0) Die("FICLONE");
      return;
    }
    std::vector<char> page(kPage);
    for (off_t at = 0; pread(in.get(), page.data(), kPage, at) > 0;
         at += kPage) {
      if (pwrite(out.get(), page.data(), kPage, at) !=
          static_cast<ssize_t>(kPage)) {
        Die("pwrite");
      }
    }
  }

  // Written in place: a torn generation would show.
  void WriteNumber(uint64_t generation) {
    UniqueFd fd(
        open(Path(kNumber).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    const std::string text = std::to_string(generation) + "\n";
    if (!fd.valid() || write(fd.get(), text.data(), text.size()) !=
                           static_cast<ssize_t>(text.size())) {
      Die(kNumber);
    }
  }

  std::string CompareFile(int file, const std::vector<uint64_t>& pages) const {
    UniqueFd fd = Open(file, O_RDONLY);
    struct stat stat;
    if (fstat(fd.get(), &stat) != 0) Die("fstat");
    if (static_cast<size_t>(stat.st_size) != pages.size() * kPage) {
      return Name(file) + " has " + std::to_string(stat.st_size) +
             " bytes, expected " + std::to_string(pages.size() * kPage);
    }
    std::vector<char> expected(kPage), found(kPage);
    for (size_t i = 0; i < pages.size(); ++i) {
      FillPage(expected.data(), pages[i]);
      if (pread(fd.get(), found.data(), kPage, static_cast<off_t>(i * kPage)) !=
              static_cast<ssize_t>(kPage) ||
          found != expected) {
        return Name(file) + " differs at page " + std::to_string(i);
      }
    }
    return "";
  }

  std::string dir_;
  UniqueFd root_, self_;
  bool by_reference_ = false;
  char* memory_ = nullptr;
};

int Main(int argc, char** argv) {
  const std::string command = argc == 3 ? argv[1] : "";
  if (command != "write" && command != "check") {
    std::fprintf(stderr, "usage: fs_generations write|check DIR\n");
    return 64;
  }
  Tree tree(argv[2]);
  uint64_t generation = tree.Number();
  const std::string difference = tree.Compare(generation);
  if (!difference.empty()) {
    std::fprintf(stderr, "fs_generations: not generation %llu: %s\n",
                 static_cast<unsigned long long>(generation),
                 difference.c_str());
    return 1;
  }
  if (command == "check") {
    std::printf("%llu\n", static_cast<unsigned long long>(generation));
    return 0;
  }
  for (;;) {
    tree.Write(++generation);
    tree.Commit();
    std::printf("committed %llu\n",
                static_cast<unsigned long long>(generation));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace daxsnap::vmtest

int main(int argc, char** argv) { return daxsnap::vmtest::Main(argc, argv); }
