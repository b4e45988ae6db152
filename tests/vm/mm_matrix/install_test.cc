// SPDX-License-Identifier: Apache-2.0
// Install: read(2) into untouched anonymous memory maps the file's pages.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr uint64_t kOld = 21, kNew = 22;
constexpr size_t kBytes = 4 * kMiB;

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

// A file that holds a capture, and memory to read it into.
class Install : public PoolTest {
 protected:
  void SetUp() override {
    PoolTest::SetUp();
    if (HasFatalFailure()) return;
    file_ = NewCapture(kBytes, kOld);
  }

  int file() const { return file_.get(); }
  // All of the file, which must come by reference.
  void InstallAll(const Mapping& memory) {
    EXPECT_EQ(PoolTest::Install(file(), memory.data(), kBytes), kBytes / kPage);
  }
  void ExpectFileUnchanged() {
    EXPECT_EQ(CountBadInFile(file(), kBytes, kOld), 0)
        << "the stored file changed";
  }

 private:
  UniqueFd file_;
};

TEST_F(Install, TwoReadersAtOnceAreIsolated) {
  Mapping memory(kBytes, node());
  const Child::Steps steps = {
      {"read",
       [&] {
         return static_cast<long>(pread(file(), memory.data(), kBytes, 0));
       }},
      {"bad", [&] { return CountBad(memory.data(), kBytes, kOld); }},
      {"write", [&] {
         Fill(memory.data(), kBytes, kNew);
         return CountBad(memory.data(), kBytes, kNew);
       }}};
  Child a(steps), b(steps);
  const uint64_t before = Info().read_installed;
  long read_a = 0;
  std::thread both([&] { read_a = a.Do("read"); });
  EXPECT_EQ(b.Do("read"), static_cast<long>(kBytes));
  both.join();
  EXPECT_EQ(read_a, static_cast<long>(kBytes));
  EXPECT_EQ(Info().read_installed - before, 2 * kBytes / kPage);
  EXPECT_EQ(PageFrames(a.pid(), memory.data(), kBytes),
            PageFrames(b.pid(), memory.data(), kBytes));
  EXPECT_EQ(a.Do("bad") + b.Do("bad"), 0);
  EXPECT_EQ(a.Do("write"), 0);
  EXPECT_EQ(b.Do("bad"), 0) << "one reader's writes reached the other";
  EXPECT_TRUE(a.Finish());
  EXPECT_EQ(b.Do("bad"), 0);
  ExpectFileUnchanged();
}

TEST_F(Install, WritesStayPrivate) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  Fill(memory.data(), kBytes / 2, kNew);
  EXPECT_EQ(CountBad(memory.data(), kBytes / 2, kNew), 0);
  EXPECT_EQ(CountBad(memory.data() + kBytes / 2, kBytes / 2, kOld,
                     kBytes / 2 / kPage),
            0);
  ExpectFileUnchanged();
}

TEST_F(Install, ForkCopiesOnWrite) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  Child fork({{"write", [&] {
                 const long bad = CountBad(memory.data(), kBytes, kOld);
                 Fill(memory.data(), kBytes / 2, kNew);
                 return bad + CountBad(memory.data(), kBytes / 2, kNew);
               }}});
  EXPECT_EQ(fork.Do("write"), 0);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  Fill(memory.data(), kBytes, kNew);
  ExpectFileUnchanged();
}

TEST_F(Install, DontneedGivesZeroes) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  ASSERT_EQ(madvise(memory.data(), kBytes / 4, MADV_DONTNEED), 0);
  EXPECT_EQ(CountNonZero(memory.data(), kBytes / 4), 0);
  EXPECT_EQ(CountBad(memory.data() + kBytes / 4, kBytes / 4, kOld,
                     kBytes / 4 / kPage),
            0);
  ExpectFileUnchanged();
}

TEST_F(Install, MadviseFreeLosesNothingOfTheFile) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  ASSERT_EQ(madvise(memory.data(), kBytes, MADV_FREE), 0);
  // Either the old content or zeroes, page by page.
  for (size_t i = 0; i < kBytes / kPage; ++i) {
    if (CountBad(memory.page(i), kPage, kOld, i) != 0) {
      ASSERT_EQ(CountNonZero(memory.page(i), kPage), 0) << i;
    }
  }
  Fill(memory.data(), kBytes, kNew);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kNew), 0);
  ExpectFileUnchanged();
}

TEST_F(Install, MremapMovesAndGrows) {
  Mapping memory(kBytes, node()), target(kBytes, node());
  InstallAll(memory);
  const size_t half = kBytes / 2;
  void* moved = mremap(memory.data() + half, half, half,
                       MREMAP_MAYMOVE | MREMAP_FIXED, target.data());
  ASSERT_EQ(moved, target.data());
  EXPECT_EQ(CountBad(target.data(), half, kOld, half / kPage), 0);
  Fill(target.data(), 16 * kPage, kNew);
  ASSERT_EQ(munmap(target.data() + half, half), 0);
  void* grown = mremap(target.data(), half, 3 * half, MREMAP_MAYMOVE);
  ASSERT_NE(grown, MAP_FAILED);
  char* at = static_cast<char*>(grown);
  EXPECT_EQ(CountBad(at, 16 * kPage, kNew), 0);
  EXPECT_EQ(
      CountBad(at + 16 * kPage, half - 16 * kPage, kOld, half / kPage + 16), 0);
  EXPECT_EQ(CountNonZero(at + half, 2 * half), 0);
  munmap(grown, 3 * half);
  EXPECT_EQ(CountBad(memory.data(), half, kOld), 0);
  ExpectFileUnchanged();
}

TEST_F(Install, MunmapOfAPartKeepsTheRest) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  ASSERT_EQ(munmap(memory.data() + kBytes / 4, kBytes / 8), 0);
  EXPECT_EQ(CountBad(memory.data(), kBytes / 4, kOld), 0);
  EXPECT_EQ(CountBad(memory.data() + kBytes / 2, kBytes / 2, kOld,
                     kBytes / 2 / kPage),
            0);
  ExpectFileUnchanged();
}

TEST_F(Install, ReaderExitsAndTheFileStays) {
  Mapping memory(kBytes, node());
  {
    Child reader({{"read", [&] {
                     return pread(file(), memory.data(), kBytes, 0) -
                            static_cast<long>(kBytes);
                   }}});
    EXPECT_EQ(reader.Do("read"), 0);
    EXPECT_TRUE(reader.Finish());
  }
  ExpectFileUnchanged();
  InstallAll(memory);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
}

TEST_F(Install, MlockallBeforeAndAfter) {
  const long locked_before = MlockedNow();
  Mapping memory(kBytes, node());
  {
    Child reader(
        {{"read-lock",
          [&] {
            if (pread(file(), memory.data(), kBytes, 0) !=
                static_cast<ssize_t>(kBytes)) {
              return -1L;
            }
            return static_cast<long>(mlockall(MCL_CURRENT | MCL_FUTURE));
          }},
         {"locked-read",
          [&] {
            void* fresh = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (fresh == MAP_FAILED) return -1L;
            char* at = static_cast<char*>(fresh);
            if (pread(file(), at, kBytes, 0) != static_cast<ssize_t>(kBytes)) {
              return -2L;
            }
            const long bad = CountBad(at, kBytes, kOld);
            munmap(fresh, kBytes);
            return bad;
          }},
         {"bad", [&] {
            const long bad = CountBad(memory.data(), kBytes, kOld);
            Fill(memory.data(), kBytes / 2, kNew);
            return bad + CountBad(memory.data(), kBytes / 2, kNew);
          }}});
    ASSERT_EQ(reader.Do("read-lock"), 0);
    EXPECT_EQ(reader.Do("locked-read"), 0);
    EXPECT_EQ(reader.Do("bad"), 0);
  }
  ExpectFileUnchanged();
  // The task's page tables go a moment after its parent knows of its end.
  EXPECT_TRUE(WaitFor([&] { return MlockedNow() <= locked_before; }))
      << "Mlocked " << MlockedNow() << " KiB, before " << locked_before;
}

TEST_F(Install, ProcessVmReadvSeesTheContent) {
  Mapping memory(kBytes, node());
  Child reader(
      {{"read",
        [&] {
          return static_cast<long>(pread(file(), memory.data(), kBytes, 0));
        }},
       {"bad", [&] { return CountBad(memory.data(), kBytes, kOld); }}});
  ASSERT_EQ(reader.Do("read"), static_cast<long>(kBytes));
  Mapping copy(kBytes, 0);
  const iovec local = {copy.data(), kBytes}, remote = {memory.data(), kBytes};
  ASSERT_EQ(process_vm_readv(reader.pid(), &local, 1, &remote, 1, 0),
            static_cast<ssize_t>(kBytes));
  EXPECT_EQ(CountBad(copy.data(), kBytes, kOld), 0);
  Fill(copy.data(), kBytes / 2, kNew);
  const iovec half = {copy.data(), kBytes / 2};
  const iovec remote_half = {memory.data(), kBytes / 2};
  ASSERT_EQ(process_vm_writev(reader.pid(), &half, 1, &remote_half, 1, 0),
            static_cast<ssize_t>(kBytes / 2));
  EXPECT_EQ(reader.Do("bad"), static_cast<long>(kBytes / 2 / kPage));
  ExpectFileUnchanged();
}

TEST_F(Install, ProcPidMemReadsAndWrites) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  UniqueFd mem(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  Mapping copy(kBytes, 0);
  const auto at =
      static_cast<off_t>(reinterpret_cast<uintptr_t>(memory.data()));
  ASSERT_EQ(pread(mem.get(), copy.data(), kBytes, at),
            static_cast<ssize_t>(kBytes));
  EXPECT_EQ(CountBad(copy.data(), kBytes, kOld), 0);
  ASSERT_EQ(pwrite(mem.get(), "x", 1, at + 100), 1);
  EXPECT_EQ(memory.data()[100], 'x');
  ExpectFileUnchanged();
}

TEST_F(Install, DirectIoFromAndIntoInstalledPages) {
  char name[] = "/var/tmp/mm_matrix.XXXXXX";
  UniqueFd disk(mkostemp(name, O_DIRECT | O_CLOEXEC));
  ASSERT_TRUE(disk.valid());
  unlink(name);
  Mapping memory(kBytes, node()), back(kBytes, 0);
  InstallAll(memory);
  const size_t part = 64 * kPage;
  ASSERT_EQ(pwrite(disk.get(), memory.data(), part, 0),
            static_cast<ssize_t>(part));
  ASSERT_EQ(pread(disk.get(), back.data(), part, 0),
            static_cast<ssize_t>(part));
  EXPECT_EQ(CountBad(back.data(), part, kOld), 0);
  // Over installed pages that hold something else.
  ASSERT_EQ(pread(disk.get(), memory.data() + part, part, 0),
            static_cast<ssize_t>(part));
  EXPECT_EQ(CountBad(memory.data() + part, part, kOld), 0);
  EXPECT_EQ(CountBad(memory.data() + 2 * part, kBytes - 2 * part, kOld,
                     2 * part / kPage),
            0);
  ExpectFileUnchanged();
}

TEST_F(Install, MprotectRoundTripsKeepContent) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  ASSERT_EQ(mprotect(memory.data(), kBytes, PROT_NONE), 0);
  ASSERT_EQ(mprotect(memory.data(), kBytes, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  Fill(memory.data(), kBytes, kNew);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kNew), 0);
  ExpectFileUnchanged();
}

TEST_F(Install, CollapseKeepsContent) {
  Mapping memory(kBytes, node(), Mapping::Pages::kHuge);
  EXPECT_EQ(pread(file(), memory.data(), kBytes, 0),
            static_cast<ssize_t>(kBytes));
  madvise(memory.data(), kBytes, MADV_COLLAPSE);  // may refuse
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  Fill(memory.data(), kBytes, kNew);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kNew), 0);
  ExpectFileUnchanged();
}

TEST_F(Install, LooksLikePlainAnonymousMemory) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  const std::string smaps = ReadFile("/proc/self/smaps");
  char key[32];
  std::snprintf(key, sizeof(key), "%lx-",
                reinterpret_cast<unsigned long>(memory.data()));
  const size_t at = smaps.find(key);
  ASSERT_NE(at, std::string::npos) << "no map starts at " << key;
  const std::string head = smaps.substr(at, smaps.find('\n', at) - at);
  EXPECT_EQ(head.find('/'), std::string::npos) << head;
  const size_t anonymous = smaps.find("Anonymous:", at);
  EXPECT_EQ(std::stol(smaps.substr(anonymous + 10)),
            static_cast<long>(kBytes >> 10));
}

TEST_F(Install, DeletedFileStaysMapped) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  Delete();
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
  Fill(memory.data(), kBytes / 2, kNew);
  EXPECT_EQ(CountBad(memory.data(), kBytes / 2, kNew), 0);
  EXPECT_EQ(CountBad(memory.data() + kBytes / 2, kBytes / 2, kOld,
                     kBytes / 2 / kPage),
            0);
}

TEST_F(Install, WritesToTheFileDoNotReachTheReader) {
  Mapping memory(kBytes, node());
  InstallAll(memory);
  std::vector<char> other(kBytes / 4, 7);
  ASSERT_EQ(pwrite(file(), other.data(), other.size(), 0),
            static_cast<ssize_t>(other.size()));
  ASSERT_EQ(pwrite(file(), "seven", 5, kBytes / 2 + 3), 5);
  ASSERT_EQ(ftruncate(file(), kBytes / 2 + kPage), 0);
  EXPECT_EQ(CountBad(memory.data(), kBytes, kOld), 0);
}

TEST_F(Install, ConcurrentReadersOfOneRangeAgree) {
  Mapping memory(kMiB, node());
  std::vector<std::thread> threads;
  std::atomic<long> wrong = 0;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        if (pread(file(), memory.data(), kMiB, 0) !=
            static_cast<ssize_t>(kMiB)) {
          ++wrong;
        }
        madvise(memory.page(round), kPage, MADV_DONTNEED);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  ASSERT_EQ(pread(file(), memory.data(), kMiB, 0), static_cast<ssize_t>(kMiB));
  EXPECT_EQ(CountBad(memory.data(), kMiB, kOld), 0);
  ExpectFileUnchanged();
}

}  // namespace
}  // namespace daxsnap::vmtest
