// SPDX-License-Identifier: Apache-2.0
// Commits numbered generations of a tree, and tells which one is there.
//
//   fs_generations [OPTION...] write DIR
//                              goes on from what is there; after each commit
//                              prints "committed N"; ends on SIGTERM alone, and
//                              then with a whole generation
//   fs_generations [OPTION...] check DIR
//                              prints N if DIR is exactly generation N, whole
//                              and with nothing else; exit 1 with the reason
//                              if it is not
//     --count=N                ends after N generations
//     --pages=N                of a file, at most; even; the same for both
//     --mark=FILE              "begin N" goes there before a generation is
//                              begun, "done N" when it is committed
//
// What a generation is follows from its number: both sides replay the same
// operations on a model. On kmemfs some content comes by KMEMFS_IOC_CAPTURE.
// Where attributes can be, some are part of it.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/vm/generations.h"

namespace daxsnap::vmtest {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPage = kGenerationPage;
constexpr uint64_t kGenerationsPerSums = 4;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "fs_generations: %s: %s\n", what.c_str(),
               std::strerror(errno));
  std::exit(1);
}

class Tree {
 public:
  Tree(std::string dir, size_t max_pages)
      : dir_(std::move(dir)), max_pages_(max_pages) {
    root_.reset(open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root_.valid()) Die(dir_);
    struct statfs fs;
    if (statfs(dir_.c_str(), &fs) != 0) Die(dir_);
    by_reference_ = static_cast<unsigned long>(fs.f_type) == KMEMFS_SUPER_MAGIC;
    void* p = mmap(nullptr, max_pages_ * kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) Die("mmap");
    memory_ = static_cast<char*>(p);
    madvise(p, max_pages_ * kPage, MADV_NOHUGEPAGE);
    self_.reset(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
    if (by_reference_) BindToPool();
  }

  uint64_t Number() const {
    UniqueFd fd(open(Path(kGenerationFile).c_str(), O_RDONLY | O_CLOEXEC));
    char text[32] = "";
    if (!fd.valid() || read(fd.get(), text, sizeof(text) - 1) <= 0) return 0;
    return std::strtoull(text, nullptr, 10);
  }

  void Write(uint64_t generation) {
    fs::create_directories(Path(kGenerationDir));
    for (const Operation& o : OperationsOf(generation, max_pages_)) Apply(o);
    WriteNumber(generation);
    for (const char* name : {kGenerationFile, kGenerationDir}) {
      const std::string value = AttributeOf(name, generation);
      if (setxattr(Path(name).c_str(), attribute_.c_str(), value.data(),
                   value.size(), 0) != 0 &&
          errno != EOPNOTSUPP) {
        Die(std::string("setxattr of ") + name);
      }
    }
  }

  void Commit() {
    if (syncfs(root_.get()) != 0) Die("syncfs");
  }

  // Else they would be on media with one of the next commits, or not.
  void MakeSums() {
    if (ioctl(root_.get(), KMEMFS_IOC_SUM, 0) != 0 && errno != EOPNOTSUPP &&
        errno != ENOTTY) {
      Die("making checksums");
    }
  }

  // Empty if the tree is exactly the generation.
  std::string Compare(uint64_t generation) {
    const Model model = ModelOf(generation, max_pages_);
    std::map<std::string, bool> expected;
    if (generation > 0)
      expected[kGenerationFile] = expected[kGenerationDir] = true;
    for (const auto& [file, pages] : model) expected[NameOf(file)] = true;
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
    if (generation == 0) return "";
    for (const char* name : {kGenerationFile, kGenerationDir}) {
      if (!HasAttribute(name, AttributeOf(name, generation)))
        return std::string(name) + " has not the attribute it should have";
    }
    return "";
  }

 private:
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  void BindToPool() {
    kmemfs_info info = {};
    if (ioctl(root_.get(), KMEMFS_IOC_INFO, &info) != 0) Die("info");
    const unsigned long mask = 1UL << info.node;
    if (syscall(SYS_mbind, memory_, max_pages_ * kPage, MPOL_BIND, &mask, 64UL,
                0U) != 0) {
      Die("mbind");
    }
  }

  UniqueFd Open(int file, int flags) const {
    UniqueFd fd(open(Path(NameOf(file)).c_str(), flags | O_CLOEXEC, 0644));
    if (!fd.valid()) Die(NameOf(file));
    return fd;
  }

  bool Exists(int file) const {
    return access(Path(NameOf(file)).c_str(), F_OK) == 0;
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
        Put(fd.get(), o, at, length);
        return;
      }
      case Kind::kTruncate:
        if (Exists(o.file) && truncate(Path(NameOf(o.file)).c_str(), at) != 0) {
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
        if (unlink(Path(NameOf(o.file)).c_str()) != 0 && errno != ENOENT) {
          Die("unlink");
        }
        return;
      case Kind::kRename:
        if (Exists(o.file) && o.other != o.file &&
            rename(Path(NameOf(o.file)).c_str(),
                   Path(NameOf(o.other)).c_str()) != 0) {
          Die("rename");
        }
        return;
      case Kind::kClone:
        if (Exists(o.file) && o.other != o.file) Clone(o.file, o.other);
        return;
      case Kind::kFragment:
        Fragment(o);
        return;
    }
  }

  void Fragment(const Operation& o) {
    UniqueFd fd = Open(o.file, O_RDWR | O_CREAT);
    if (ftruncate(fd.get(), kFragmentPages * kPage) != 0) Die("ftruncate");
    FillPage(memory_, PageSeed(o, 0));
    // By reference, what is there is doubled from here on.
    const size_t written = by_reference_ ? 2 : o.count;
    for (size_t i = 0; i < written; i += 2) {
      if (pwrite(fd.get(), memory_, kPage,
                 static_cast<off_t>((o.first + i) * kPage)) !=
          static_cast<ssize_t>(kPage)) {
        Die("pwrite");
      }
    }
    for (size_t i = written; i < o.count; i *= 2) {
      file_clone_range range = {};
      range.src_fd = fd.get();
      range.src_offset = o.first * kPage;
      range.src_length = i * kPage;
      range.dest_offset = (o.first + i) * kPage;
      if (ioctl(fd.get(), FICLONERANGE, &range) != 0) Die("FICLONERANGE");
    }
  }

  void Put(int fd, const Operation& o, off_t at, off_t length) {
    if (o.kind == Kind::kCapture && by_reference_) {
      kmemfs_capture c = {};
      c.pidfd = self_.get();
      c.addr = reinterpret_cast<uintptr_t>(memory_);
      c.len = static_cast<uint64_t>(length);
      c.offset = static_cast<uint64_t>(at);
      if (ioctl(fd, KMEMFS_IOC_CAPTURE, &c) != 0) Die("capture");
      return;
    }
    if (o.kind == Kind::kWrite && o.mapped) {
      Store(fd, at, length);
      return;
    }
    if (pwrite(fd, memory_, static_cast<size_t>(length), at) != length) {
      Die("pwrite");
    }
  }

  void Store(int fd, off_t at, off_t length) {
    struct stat stat;
    if (fstat(fd, &stat) != 0) Die("fstat");
    if (stat.st_size < at + length && ftruncate(fd, at + length) != 0) {
      Die("ftruncate");
    }
    const auto size = static_cast<size_t>(length);
    void* to = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
    if (to == MAP_FAILED) Die("mmap");
    std::memcpy(to, memory_, size);
    if (munmap(to, size) != 0) Die("munmap");
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
    UniqueFd fd(open(Path(kGenerationFile).c_str(),
                     O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    const std::string text = std::to_string(generation) + "\n";
    if (!fd.valid() || write(fd.get(), text.data(), text.size()) !=
                           static_cast<ssize_t>(text.size())) {
      Die(kGenerationFile);
    }
  }

  // So has all, where there are none.
  bool HasAttribute(const char* name, const std::string& value) const {
    std::string found(value.size() + 1, '\0');
    const ssize_t length = getxattr(Path(name).c_str(), attribute_.c_str(),
                                    found.data(), found.size());
    if (length < 0) return errno == EOPNOTSUPP;
    found.resize(static_cast<size_t>(length));
    return found == value;
  }

  std::string CompareFile(int file, const std::vector<uint64_t>& pages) const {
    UniqueFd fd = Open(file, O_RDONLY);
    struct stat stat;
    if (fstat(fd.get(), &stat) != 0) Die("fstat");
    if (static_cast<size_t>(stat.st_size) != pages.size() * kPage) {
      return NameOf(file) + " has " + std::to_string(stat.st_size) +
             " bytes, expected " + std::to_string(pages.size() * kPage);
    }
    std::vector<char> expected(kPage), found(kPage);
    for (size_t i = 0; i < pages.size(); ++i) {
      FillPage(expected.data(), pages[i]);
      if (pread(fd.get(), found.data(), kPage, static_cast<off_t>(i * kPage)) !=
              static_cast<ssize_t>(kPage) ||
          found != expected) {
        return NameOf(file) + " differs at page " + std::to_string(i);
      }
    }
    return "";
  }

  const std::string attribute_ = std::string("user.") + kGenerationAttribute;
  std::string dir_;
  size_t max_pages_;
  UniqueFd root_, self_;
  bool by_reference_ = false;
  char* memory_ = nullptr;
};

void Mark(const std::string& file, const char* what, uint64_t generation) {
  if (file.empty()) return;
  const std::string text = what + (" " + std::to_string(generation));
  UniqueFd fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid() || write(fd.get(), text.data(), text.size()) !=
                         static_cast<ssize_t>(text.size())) {
    Die(file);
  }
}

volatile std::sig_atomic_t terminated = 0;

struct Options {
  uint64_t count = UINT64_MAX;
  size_t pages = kGenerationPages;
  std::string mark;
  std::string command;
  std::string dir;
};

bool Parse(int argc, char** argv, Options* options) {
  int i = 1;
  for (; i < argc && std::strncmp(argv[i], "--", 2) == 0; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals == std::string::npos) return false;
    const std::string name = argument.substr(0, equals);
    const std::string value = argument.substr(equals + 1);
    if (name == "--count") {
      options->count = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--pages") {
      options->pages = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--mark") {
      options->mark = value;
    } else {
      return false;
    }
  }
  if (argc - i != 2 || options->pages < 2 || options->pages % 2 != 0) {
    return false;
  }
  options->command = argv[i];
  options->dir = argv[i + 1];
  return options->command == "write" || options->command == "check" ||
         options->command == "sum";
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: fs_generations [--count=N] [--pages=N] [--mark=FILE] "
                 "write|check|sum DIR\n");
    return 64;
  }
  Tree tree(options.dir, options.pages);
  uint64_t generation = tree.Number();
  const std::string difference = tree.Compare(generation);
  if (!difference.empty()) {
    std::fprintf(stderr, "fs_generations: not generation %llu: %s\n",
                 static_cast<unsigned long long>(generation),
                 difference.c_str());
    return 1;
  }
  if (options.command != "write") {
    if (options.command == "sum") tree.MakeSums();
    std::printf("%llu\n", static_cast<unsigned long long>(generation));
    return 0;
  }
  // An orderly shutdown commits whatever is there by then.
  std::signal(SIGTERM, [](int) { terminated = 1; });
  for (uint64_t i = 0; i < options.count && !terminated; ++i) {
    Mark(options.mark, "begin", ++generation);
    tree.Write(generation);
    tree.Commit();
    // Not each time: a commit of checksums alone lets go of hardly a page, and
    // so hides what is wrong with the one before.
    if (generation % kGenerationsPerSums == 0) tree.MakeSums();
    Mark(options.mark, "done", generation);
    std::printf("committed %llu\n",
                static_cast<unsigned long long>(generation));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace daxsnap::vmtest

int main(int argc, char** argv) { return daxsnap::vmtest::Main(argc, argv); }
