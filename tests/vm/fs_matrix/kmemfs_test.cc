// SPDX-License-Identifier: Apache-2.0
// What is kmemfs's own: reflinks, no O_DIRECT, its statfs, what a commit has.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "tests/vm/fs_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

class Kmemfs : public FsTest {
 protected:
  kmemfs_info Info() {
    kmemfs_info info = {};
    UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(ioctl(fd.get(), KMEMFS_IOC_INFO, &info), 0)
        << std::strerror(errno);
    return info;
  }
  // Makes all checksums and commits them: no commit comes by itself until
  // something changes.
  void Settle() {
    UniqueFd fd(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(ioctl(fd.get(), KMEMFS_IOC_SUM, 0), 0) << std::strerror(errno);
  }
  // The next commit has something to do, or the interval's has done it.
  bool ChangedSince(uint64_t generation) {
    const kmemfs_info info = Info();
    return info.dirty != 0 || info.generation > generation;
  }
};

TEST_F(Kmemfs, CloneSharesPagesAndCopiesOnWrite) {
  UniqueFd a = Open("a"), b = Open("b");
  const std::vector<char> bytes = Bytes(256 * kPage);
  Write(a.get(), bytes);
  const long free_before = static_cast<long>(Info().free_pages);
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  EXPECT_LT(free_before - static_cast<long>(Info().free_pages), 64)
      << "the clone took memory";
  EXPECT_EQ(Read(b.get(), bytes.size()), bytes);
  EXPECT_EQ(Size(b.get()), Size(a.get()));
  Write(b.get(), {'x'}, 10 * kPage);
  Write(a.get(), Bytes(kPage, 5), 20 * kPage);
  ASSERT_EQ(ftruncate(a.get(), 100 * kPage), 0);
  std::vector<char> expected = bytes;
  expected[10 * kPage] = 'x';
  EXPECT_EQ(Read(b.get(), bytes.size()), expected);
}

TEST_F(Kmemfs, CloneReplacesWhatWasThere) {
  UniqueFd a = Open("a"), b = Open("b");
  Write(a.get(), Bytes(3 * kPage, 1));
  const std::vector<char> old = Bytes(50 * kPage, 2);
  Write(b.get(), old);
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  EXPECT_EQ(Read(b.get(), 3 * kPage), Bytes(3 * kPage, 1));
  EXPECT_EQ(Read(b.get(), 50 * kPage, 3 * kPage),
            std::vector<char>(old.begin() + 3 * kPage, old.end()));
  // An odd end in the middle of a file cannot be shared, as on XFS.
  ASSERT_EQ(ftruncate(a.get(), 2 * kPage + 17), 0);
  EXPECT_EQ(ioctl(b.get(), FICLONE, a.get()), -1);
  EXPECT_EQ(errno, EINVAL);
  ASSERT_EQ(ftruncate(b.get(), 0), 0);
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  EXPECT_EQ(Size(b.get()), static_cast<int64_t>(2 * kPage + 17));
}

TEST_F(Kmemfs, CloneOfItselfAndBadOnesAreHarmless) {
  UniqueFd a = Open("a");
  const std::vector<char> bytes = Bytes(4 * kPage);
  Write(a.get(), bytes);
  ioctl(a.get(), FICLONE, a.get());
  EXPECT_EQ(Read(a.get(), bytes.size()), bytes);
  UniqueFd other(open("/var/tmp", O_TMPFILE | O_RDWR, 0600));
  EXPECT_EQ(ioctl(a.get(), FICLONE, other.get()), -1);
  EXPECT_EQ(errno, EXDEV);
  UniqueFd reader = Open("a", O_RDONLY);
  UniqueFd b = Open("b");
  EXPECT_EQ(ioctl(reader.get(), FICLONE, b.get()), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(Read(a.get(), bytes.size()), bytes);
}

// The kernel's limit, lowered for the life of this.
class FewReferences {
 public:
  explicit FewReferences(int limit) {
    std::ifstream(kFile) >> old_;
    Set(limit);
  }
  ~FewReferences() { Set(old_); }

 private:
  static constexpr char kFile[] = "/sys/module/pool_pages/parameters/max_refs";
  static void Set(int limit) {
    std::ofstream file(kFile);
    EXPECT_TRUE(file << limit << std::flush) << kFile;
  }
  int old_ = 0;
};

TEST_F(Kmemfs, CloneStopsBeforeAReferenceCountOverflows) {
  UniqueFd a = Open("a");
  const std::vector<char> bytes = Bytes(3 * kPage);
  Write(a.get(), bytes);
  {
    FewReferences limit(4);
    for (int i = 0; i < 3; ++i) {
      UniqueFd b = Open("b" + std::to_string(i));
      ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << i;
    }
    UniqueFd c = Open("c");
    EXPECT_EQ(ioctl(c.get(), FICLONE, a.get()), -1);
    EXPECT_EQ(errno, EMLINK);
    EXPECT_EQ(Size(c.get()), 0);
    EXPECT_EQ(Read(a.get(), bytes.size()), bytes);
    ASSERT_EQ(unlink(Path("b1").c_str()), 0);
    EXPECT_EQ(ioctl(c.get(), FICLONE, a.get()), 0) << std::strerror(errno);
    EXPECT_EQ(Read(c.get(), bytes.size()), bytes);
  }
  UniqueFd d = Open("d");
  EXPECT_EQ(ioctl(d.get(), FICLONE, a.get()), 0) << std::strerror(errno);
}

// Space is given back by a commit, which needs pages itself: for the inode
// table, of which each page has seven inodes, and here all of them change.
TEST_F(Kmemfs, DeletesCommitThoughThereIsNoFreePage) {
  constexpr int kFiles = 6000;
  UniqueFd root(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < kFiles; ++i) {
    Write(Open("f" + std::to_string(i)).get(), {'x'});
  }
  ASSERT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  const auto fill = [&](const char* name) { return FillUp(Open(name).get()); };
  // A name may need a page as well.
  for (const char* name : {"much", "rest", "last"}) Open(name);
  // What a commit of so much needs must be there; then again until the end.
  const off_t much = fill("much");
  UniqueFd ballast = Open("much");
  ASSERT_EQ(ftruncate(ballast.get(), much - 4096 * kPage), 0);
  ASSERT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  fill("rest");
  ASSERT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  fill("last");
  EXPECT_EQ(open(Path("one-more").c_str(), O_CREAT | O_WRONLY, 0600) >= 0 &&
                pwrite(Open("one-more").get(), "x", 1, 0) == 1,
            false);
  for (int i = 0; i < kFiles; i += 2) {
    ASSERT_EQ(unlink(Path("f" + std::to_string(i)).c_str()), 0);
  }
  EXPECT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  Write(Open("new").get(), Bytes(64 * kPage));
  EXPECT_EQ(Read(Open("f1").get(), 10), std::vector<char>{'x'});
}

// Whoever lacks the space of deleted files makes the commit that frees it.
TEST_F(Kmemfs, SpaceOfDeletedFilesIsThereAtOnce) {
  // Of what is freed, the reserve for commits may take a part.
  constexpr size_t kSpare = 4096 * kPage, kSome = 1024 * kPage;
  const std::vector<char> chunk = Bytes(256 * kPage);
  const auto make = [&](const std::string& name, size_t size) {
    UniqueFd fd = Open(name);
    for (size_t at = 0; at < size; at += chunk.size())
      Write(fd.get(), chunk, static_cast<off_t>(at));
  };
  UniqueFd root(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  for (const char* name : {"a", "b", "c", "d"}) make(name, kSpare);
  UniqueFd ballast = Open("ballast");
  off_t at = FillUp(ballast.get());
  ASSERT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  const auto remove = [&](const char* name) {
    ASSERT_EQ(unlink(Path(name).c_str()), 0);
  };

  remove("a");
  make("written", kSome);
  remove("b");
  UniqueFd allocated = Open("allocated");
  EXPECT_EQ(fallocate(allocated.get(), 0, 0, kSome), 0) << std::strerror(errno);
  // Names come with pages of the inode table; there was room for some.
  at = FillUp(ballast.get(), at);
  remove("c");
  for (int i = 0; i < 3000; ++i) {
    ASSERT_GE(Open("n" + std::to_string(i)).get(), 0)
        << i << ": " << std::strerror(errno);
  }
  at = FillUp(ballast.get(), at);
  ASSERT_EQ(syncfs(root.get()), 0) << std::strerror(errno);
  remove("d");
  std::vector<char> memory(64 * kPage, 'm');
  const auto first =
      (reinterpret_cast<uintptr_t>(memory.data()) + kPage - 1) & ~(kPage - 1);
  UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  UniqueFd captured = Open("captured");
  kmemfs_capture c = {};
  c.pidfd = self.get();
  c.addr = first;
  c.len = 32 * kPage;
  EXPECT_EQ(ioctl(captured.get(), KMEMFS_IOC_CAPTURE, &c), 0)
      << std::strerror(errno);
  EXPECT_EQ(c.pages_copied, 32U);
}

// What it has allocated by then is given back, and the file as long as before.
TEST_F(Kmemfs, AllocationThatFailsLeavesTheFileAsItWas) {
  // Of what is freed, the reserve for commits may take a part.
  constexpr off_t kSpare = 4096 * kPage;
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(100));
  UniqueFd ballast = Open("ballast");
  const off_t full = FillUp(ballast.get());
  ASSERT_EQ(ftruncate(ballast.get(), full / kPage * kPage - kSpare), 0);
  EXPECT_EQ(fallocate(fd.get(), 0, 0, full), -1);
  EXPECT_EQ(errno, ENOSPC) << std::strerror(errno);
  EXPECT_EQ(Size(fd.get()), 100);
  EXPECT_EQ(Allocated(fd.get()), static_cast<int64_t>(kPage));
  EXPECT_EQ(Read(fd.get(), kPage), Bytes(100));
  // There is space for others.
  Write(Open("b").get(), Bytes(kSpare / 4));
}

// KiB of the kernel's own memory, page tables of files among it.
long KernelMemory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  long kib = 0;
  while (info >> word && word != "Slab:") {
  }
  info >> kib;
  EXPECT_GT(kib, 0);
  return kib;
}

// A file that is one hole is as small as it looks, and so is a clone of it.
TEST_F(Kmemfs, HolesTakeNoMemoryInClonesAndWhenMoved) {
  constexpr off_t kHuge = off_t{256} << 30, kMiddle = kHuge / 2 + 5 * kPage;
  const std::vector<char> bytes = Bytes(3 * kPage);
  UniqueFd a = Open("a"), b = Open("b");
  Write(a.get(), bytes, kMiddle);
  ASSERT_EQ(ftruncate(a.get(), kHuge), 0);
  Write(b.get(), Bytes(8 * kPage, 2), kPage);
  const long before = KernelMemory();
  ASSERT_EQ(ioctl(b.get(), FICLONE, a.get()), 0) << std::strerror(errno);
  EXPECT_EQ(Size(b.get()), kHuge);
  EXPECT_EQ(Read(b.get(), bytes.size(), kMiddle), bytes);
  EXPECT_EQ(Read(b.get(), 9 * kPage), std::vector<char>(9 * kPage));
  EXPECT_EQ(Allocated(b.get()), static_cast<int64_t>(bytes.size()));
  ASSERT_EQ(fallocate(b.get(), FALLOC_FL_INSERT_RANGE, kPage, 7 * kPage), 0)
      << std::strerror(errno);
  EXPECT_EQ(Read(b.get(), bytes.size(), kMiddle + 7 * kPage), bytes);
  EXPECT_EQ(Allocated(b.get()), static_cast<int64_t>(bytes.size()));
  ASSERT_EQ(
      fallocate(b.get(), FALLOC_FL_COLLAPSE_RANGE, kPage, kMiddle - kPage), 0)
      << std::strerror(errno);
  EXPECT_EQ(Read(b.get(), bytes.size(), 8 * kPage), bytes);
  EXPECT_EQ(Size(b.get()), kHuge + 7 * static_cast<off_t>(kPage) - kMiddle +
                               static_cast<off_t>(kPage));
  EXPECT_LT(KernelMemory() - before, 64 << 10) << "KiB";
}

// One page of a file in which no two pages are neighbours on the device: the
// commit writes the segments around it, and what leads to them.
TEST_F(Kmemfs, CommitsWriteOnlyTheMetadataThatChanged) {
  constexpr uint64_t kPages = 16384;
  UniqueFd from = Open("from"), file = Open("file");
  for (uint64_t i = 0; i < kPages; i += 256)
    Write(from.get(), Bytes(256 * kPage, i), i * kPage);
  for (uint64_t i = 0; i < kPages; i++) {
    file_clone_range range = {from.get(), (i * 5 % kPages) * kPage, kPage,
                              i * kPage};
    ASSERT_EQ(ioctl(file.get(), FICLONERANGE, &range), 0)
        << std::strerror(errno);
  }
  Settle();
  const uint64_t before = Info().meta_written;
  // So many runs have no room in fewer pages.
  ASSERT_GT(Info().meta_pages, kPages / 504);
  Write(file.get(), Bytes(kPage, 7), kPages / 2 * kPage);
  ASSERT_EQ(fsync(file.get()), 0);
  // A stretch of 1,024 pages is in 4 segments at most, and may take 2 more when
  // it is packed again; a node; the inode, and what is above it. A checksum
  // goes or comes: one leaf more, and what is above it.
  EXPECT_LE(Info().meta_written - before, 12u);
  EXPECT_EQ(Read(file.get(), kPage, kPages / 2 * kPage), Bytes(kPage, 7));
}

// A node may begin with a hole. A page that is stored from the stretch before
// it into that hole must not move what the node has.
TEST_F(Kmemfs, StoresIntoTheHoleThatANodeBeginsWithMoveNothing) {
  constexpr uint64_t kChunk = 1024, kChunks = 300, kRuns = 252;
  UniqueFd from = Open("from"), file = Open("file");
  Write(from.get(), Bytes(kPage, 3), 0);
  const auto store = [&](uint64_t page) {
    file_clone_range range = {from.get(), 0, kPage, page * kPage};
    return ioctl(file.get(), FICLONERANGE, &range);
  };
  // As many runs and holes as a segment takes, up to the chunk's end.
  for (uint64_t chunk = 0; chunk < kChunks; chunk++) {
    for (uint64_t i = 0; i < kRuns; i++) {
      const uint64_t at = i + 1 < kRuns ? 2 * i + 1 : kChunk - 1;
      ASSERT_EQ(store(chunk * kChunk + at), 0) << std::strerror(errno);
    }
  }
  ASSERT_EQ(fsync(file.get()), 0);
  // The last chunk of the first node ends early, and the second node begins
  // there once it is written anew.
  const uint64_t last = (kRuns - 1) * kChunk;
  ASSERT_EQ(fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (last + 600) * kPage, (kChunk - 600) * kPage),
            0);
  ASSERT_EQ(fsync(file.get()), 0);
  ASSERT_EQ(store((kRuns + 20) * kChunk + 700), 0);
  ASSERT_EQ(fsync(file.get()), 0);
  ASSERT_EQ(store(last + 800), 0);
  ASSERT_EQ(fsync(file.get()), 0) << std::strerror(errno);
  // What is on media is what a mount finds.
  file.reset();
  from.reset();
  ASSERT_NO_FATAL_FAILURE(MountAgain(dir()));
  UniqueFd again = Open("file");
  for (uint64_t chunk = 0; chunk < kChunks; chunk++) {
    for (const uint64_t i : {uint64_t{1}, 2 * kRuns - 3}) {
      ASSERT_EQ(Read(again.get(), kPage, (chunk * kChunk + i) * kPage),
                Bytes(kPage, 3))
          << chunk << ", " << i;
    }
    const bool punched = chunk == kRuns - 1;
    ASSERT_EQ(Read(again.get(), kPage, (chunk * kChunk + kChunk - 1) * kPage),
              punched ? std::vector<char>(kPage) : Bytes(kPage, 3))
        << chunk;
  }
  EXPECT_EQ(Read(again.get(), kPage, (last + 800) * kPage), Bytes(kPage, 3));
}

TEST_F(Kmemfs, DirectIoIsRefused) {
  Open("a");
  EXPECT_EQ(open(Path("a").c_str(), O_RDWR | O_DIRECT), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Kmemfs, InotifyTellsOfEveryChange) {
  UniqueFd watch(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(inotify_add_watch(watch.get(), dir().c_str(), IN_ALL_EVENTS), 0);
  {
    UniqueFd fd = Open("a");
    Write(fd.get(), {'x'});
    Read(fd.get(), 1);
    UniqueFd clone = Open("b");
    ASSERT_EQ(ioctl(clone.get(), FICLONE, fd.get()), 0);
  }
  ASSERT_EQ(chmod(Path("a").c_str(), 0600), 0);
  ASSERT_EQ(rename(Path("a").c_str(), Path("c").c_str()), 0);
  ASSERT_EQ(unlink(Path("c").c_str()), 0);
  uint32_t seen = 0;
  alignas(inotify_event) char buffer[8192];
  const ssize_t got = read(watch.get(), buffer, sizeof(buffer));
  ASSERT_GT(got, 0);
  for (ssize_t at = 0; at < got;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
    seen |= event->mask;
    at += static_cast<ssize_t>(sizeof(*event) + event->len);
  }
  const uint32_t expected = IN_CREATE | IN_OPEN | IN_MODIFY | IN_ACCESS |
                            IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM |
                            IN_MOVED_TO | IN_DELETE;
  EXPECT_EQ(seen & expected, expected);
}

TEST_F(Kmemfs, StatfsNamesItAndCountsPages) {
  struct statfs fs;
  ASSERT_EQ(::statfs(dir().c_str(), &fs), 0);
  EXPECT_EQ(static_cast<unsigned long>(fs.f_type), KMEMFS_SUPER_MAGIC);
  EXPECT_EQ(fs.f_bsize, static_cast<long>(kPage));
  EXPECT_EQ(fs.f_namelen, 255);
  EXPECT_GT(fs.f_blocks, fs.f_bfree);
  const auto before = fs.f_bfree;
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(1024 * kPage));
  ASSERT_EQ(::statfs(dir().c_str(), &fs), 0);
  EXPECT_NEAR(static_cast<double>(before - fs.f_bfree), 1024, 256);
  EXPECT_EQ(Allocated(fd.get()), static_cast<int64_t>(1024 * kPage));
}

TEST_F(Kmemfs, FsyncCommits) {
  UniqueFd fd = Open("a");
  Settle();
  const auto generation = Info().generation;
  Write(fd.get(), Bytes(kPage));
  EXPECT_TRUE(ChangedSince(generation));
  ASSERT_EQ(fsync(fd.get()), 0);
  EXPECT_EQ(Info().dirty, 0u);
  EXPECT_GT(Info().generation, generation);
  Write(fd.get(), Bytes(kPage, 3));
  ASSERT_EQ(fdatasync(fd.get()), 0);
  EXPECT_EQ(Info().dirty, 0u);
}

TEST_F(Kmemfs, SyncfsCommits) {
  UniqueFd fd = Open("a");
  Write(fd.get(), Bytes(kPage));
  ASSERT_EQ(syncfs(fd.get()), 0);
  EXPECT_EQ(Info().dirty, 0u);
  Settle();
  const auto generation = Info().generation;
  ASSERT_EQ(syncfs(fd.get()), 0);
  EXPECT_EQ(Info().generation, generation) << "a commit of nothing";
}

// Every change must be part of the next commit.
TEST_F(Kmemfs, EveryKindOfChangeIsDirty) {
  uint64_t generation = 0;
  const auto commit = [&] {
    UniqueFd d(open(dir().c_str(), O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(syncfs(d.get()), 0);
    EXPECT_EQ(Info().dirty, 0u);
    Settle();
    generation = Info().generation;
  };
  const auto changed = [&](const char* what) {
    EXPECT_TRUE(ChangedSince(generation)) << what << " is not noticed";
    commit();
  };
  commit();
  UniqueFd fd = Open("a");
  changed("create");
  Write(fd.get(), Bytes(4 * kPage));
  changed("write");
  ASSERT_EQ(ftruncate(fd.get(), kPage), 0);
  changed("truncate");
  ASSERT_EQ(ftruncate(fd.get(), 4 * kPage), 0);
  changed("growing");
  ASSERT_EQ(
      fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage),
      0);
  changed("punch");
  ASSERT_EQ(fchmod(fd.get(), 0600), 0);
  changed("chmod");
  ASSERT_EQ(mkdir(Path("d").c_str(), 0755), 0);
  changed("mkdir");
  ASSERT_EQ(rename(Path("a").c_str(), Path("d/b").c_str()), 0);
  changed("rename");
  ASSERT_EQ(symlink("x", Path("s").c_str()), 0);
  changed("symlink");
  UniqueFd clone = Open("clone");
  ASSERT_EQ(ioctl(clone.get(), FICLONE, fd.get()), 0);
  changed("clone");
  ASSERT_EQ(link(Path("d/b").c_str(), Path("link").c_str()), 0);
  changed("link");
  ASSERT_EQ(fsetxattr(fd.get(), "user.x", "v", 1, 0), 0);
  changed("setxattr");
  ASSERT_EQ(fremovexattr(fd.get(), "user.x"), 0);
  changed("removexattr");
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  changed("mknod");
  ASSERT_EQ(unlink(Path("d/b").c_str()), 0);
  changed("unlink");
  ASSERT_EQ(rmdir(Path("d").c_str()), 0);
  changed("rmdir");
}

}  // namespace
}  // namespace daxsnap::vmtest
