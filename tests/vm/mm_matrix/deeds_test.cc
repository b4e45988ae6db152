// SPDX-License-Identifier: Apache-2.0
// Whatever a process does to memory that a snapshot has too (deeds.h): the
// snapshot never changes, and the process reads what it wrote.
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "tests/vm/mm_matrix/deeds.h"
#include "tests/vm/mm_matrix/support.h"

namespace daxsnap::vmtest {
namespace {

constexpr size_t kBytes = 128 * kPage;
// What is written after a deed.
constexpr uint64_t kLastSeed = 114;

// How a process comes by its memory.
enum class Origin {
  kCaptured,   // its own, captured
  kInstalled,  // read from a snapshot of another process
  kInherited,  // of its parent, captured before the fork
  kLeft,       // installed, and nobody else has it any more
};

class Deeds : public PoolTest {
 protected:
  // Each deed in a process of its own, which exits.
  void TryAll(Origin origin) {
    for (const Deed& deed : AllDeeds()) {
      SCOPED_TRACE(deed.name);
      Try(deed, origin);
      if (HasFatalFailure()) return;
    }
  }

  void Try(const Deed& deed, Origin origin) {
    const uint64_t stored = Info().file_pages;
    UniqueFd file = NewFile("first"), second = NewFile("second");
    std::optional<Mapping> source;
    if (origin != Origin::kCaptured) {
      source.emplace(kBytes, node());
      Fill(source->data(), kBytes, kOldSeed);
      UniqueFd self = SelfPidFd();
      const auto c = Capture(file.get(), self.get(), source->data(), kBytes);
      EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
    }
    std::optional<Mapping> own;
    Memory memory = {nullptr, kBytes, node(), true};
    Child child({{"have",
                  [&] {
                    if (origin == Origin::kInherited) {
                      memory.data = source->data();
                    } else {
                      own.emplace(kBytes, node());
                      memory.data = own->data();
                      Obtain(memory, origin, file.get());
                    }
                    if (origin == Origin::kLeft) {
                      file.reset();
                      source.reset();
                    }
                    return static_cast<long>(HasFailure());
                  }},
                 {"act",
                  [&] {
                    deed.act(memory);
                    ExpectHolds(memory, deed.after);
                    return static_cast<long>(HasFailure());
                  }},
                 {"go on", [&] {
                    GoOn(memory, deed.after, second.get());
                    return static_cast<long>(HasFailure());
                  }}});
    EXPECT_EQ(child.Do("have"), 0);
    if (origin == Origin::kLeft) {
      file.reset();
      source.reset();
      Delete("first");
      EXPECT_EQ(Info().file_pages, stored) << "somebody has the file still";
    }
    EXPECT_EQ(child.Do("act"), 0);
    if (file.valid()) {
      EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOldSeed), 0)
          << "the snapshot changed";
    }
    if (source) {
      EXPECT_EQ(CountBad(source->data(), kBytes, kOldSeed), 0)
          << "the source's memory changed";
    }
    EXPECT_EQ(child.Do("go on"), 0);
    EXPECT_TRUE(child.Finish());
    if (file.valid()) {
      EXPECT_EQ(CountBadInFile(file.get(), kBytes, kOldSeed), 0)
          << "the snapshot changed later";
      EXPECT_EQ(unlink(Path("first").c_str()), 0);
    }
    if (source) {
      EXPECT_EQ(CountBad(source->data(), kBytes, kOldSeed), 0);
    }
    EXPECT_EQ(unlink(Path("second").c_str()), 0);
  }

 private:
  // In the process whose memory it is.
  void Obtain(const Memory& memory, Origin origin, int file) {
    if (origin == Origin::kCaptured) {
      Fill(memory.data, kBytes, kOldSeed);
      UniqueFd self = SelfPidFd();
      const auto c = Capture(file, self.get(), memory.data, kBytes);
      EXPECT_EQ(c.pages_by_reference, kBytes / kPage);
    } else {
      EXPECT_EQ(Install(file, memory.data, kBytes), kBytes / kPage);
    }
  }

  // A next snapshot has what the deed left, and keeps it.
  void GoOn(const Memory& memory, After after, int second) {
    if (after == After::kNoMemory) return;
    UniqueFd self = SelfPidFd();
    Capture(second, self.get(), memory.data, kBytes);
    const uint64_t hash = HashFile(second, kBytes);
    Fill(memory.data, kBytes, kLastSeed);
    EXPECT_EQ(CountBad(memory.data, kBytes, kLastSeed), 0) << "a write is lost";
    if (after == After::kOld || after == After::kNew) {
      const uint64_t seed = after == After::kOld ? kOldSeed : kNewSeed;
      EXPECT_EQ(CountBadInFile(second, kBytes, seed), 0)
          << "the next snapshot is wrong";
    } else {
      EXPECT_EQ(HashFile(second, kBytes), hash) << "the next snapshot changed";
    }
  }
};

TEST_F(Deeds, OnCapturedMemoryStayOutOfTheSnapshot) {
  TryAll(Origin::kCaptured);
}

TEST_F(Deeds, OnInstalledMemoryStayOutOfTheSnapshotAndOfItsSource) {
  TryAll(Origin::kInstalled);
}

TEST_F(Deeds, OnInheritedMemoryStayOutOfTheSnapshotAndOfTheParent) {
  TryAll(Origin::kInherited);
}

TEST_F(Deeds, OnMemoryWhoseSnapshotIsGoneLoseNothing) { TryAll(Origin::kLeft); }

// Captures one after the other while a process does it, to new memory each
// time; DAXSNAP_DEED_ROUNDS times. A capture of memory that is being unmapped
// may fail.
TEST_F(Deeds, DuringCapturesLoseNothing) {
  const char* wanted = std::getenv("DAXSNAP_DEED_ROUNDS");
  const long rounds = wanted ? std::atol(wanted) : 1;
  UniqueFd file = NewFile();
  for (const Deed& deed : AllDeeds()) {
    SCOPED_TRACE(deed.name);
    // Always in the same place, where the other process looks for it.
    Mapping place(kBytes, node());
    Child child({{"act", [&] {
                    for (long i = 0; i < rounds; ++i) {
                      EXPECT_NE(
                          mmap(place.data(), kBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                          MAP_FAILED);
                      place.Prefer(node());
                      Memory memory = {place.data(), kBytes, node(), false};
                      Fill(memory.data, kBytes, kOldSeed);
                      deed.act(memory);
                      ExpectHolds(memory, deed.after);
                      if (deed.after != After::kNoMemory) {
                        Fill(memory.data, kBytes, kLastSeed);
                        EXPECT_EQ(CountBad(memory.data, kBytes, kLastSeed), 0)
                            << "a write is lost";
                      }
                      // What is sealed stays.
                      if (std::strcmp(deed.name, "mseal") == 0) break;
                    }
                    return static_cast<long>(HasFailure());
                  }}});
    std::atomic<bool> done = false;
    long result = -1;
    std::thread actor([&] {
      result = child.Do("act");
      done = true;
    });
    long captures = 0;
    for (; !done || captures == 0; ++captures) {
      kmemfs_capture c = {};
      c.pidfd = child.pidfd();
      c.addr = reinterpret_cast<uintptr_t>(place.data());
      c.len = kBytes;
      if (ioctl(file.get(), KMEMFS_IOC_CAPTURE, &c) != 0) {
        EXPECT_EQ(errno, EFAULT) << std::strerror(errno);
        continue;
      }
      const uint64_t hash = HashFile(file.get(), kBytes);
      EXPECT_EQ(HashFile(file.get(), kBytes), hash) << "a snapshot changed";
    }
    actor.join();
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(child.Finish());
  }
}

// Of the node: what the kernel counts of anonymous memory, in KiB.
std::map<std::string, long> Books(int node) {
  std::map<std::string, long> books;
  for (const char* field : {"AnonPages", "Active(anon)", "Inactive(anon)",
                            "Unevictable", "Mlocked"}) {
    books[field] = MemInfo(field, node);
  }
  books["nr_isolated_anon"] =
      VmStat("nr_isolated_anon") * static_cast<long>(kPage >> 10);
  return books;
}

TEST_F(Deeds, LeaveTheBooksAsTheyWere) {
  WarmUp();
  const auto books = Books(node());
  const long free_before = FreePagesWithLists(node());
  TryAll(Origin::kInherited);
  EXPECT_LE(PagesLost(free_before), kNoise);
  for (const auto& [field, before] : books) {
    const std::string& name = field;
    const auto now = [&] { return Books(node())[name]; };
    const long noise = kNoise * static_cast<long>(kPage >> 10);
    EXPECT_TRUE(WaitFor([&] { return std::abs(now() - before) <= noise; }, 20))
        << name << ": " << before << " KiB before, " << now() << " after";
  }
}

// Pages that ksmd is about to merge look like the pool's for a moment. What has
// never been captured is not shared with a snapshot.
TEST_F(Deeds, PagesThatKsmdMergesMeanwhileAreNotTakenForPoolPages) {
  constexpr int kRounds = 30;
  ASSERT_TRUE(StartKsm());
  UniqueFd self = SelfPidFd();
  uint64_t shared = 0, merged = 0;
  for (int round = 0; round < kRounds; ++round) {
    Mapping memory(kBytes, node());
    UniqueFd file = NewFile();
    EXPECT_EQ(madvise(memory.data(), kBytes, MADV_MERGEABLE), 0);
    const auto scans = [] {
      return std::atol(ReadFile("/sys/kernel/mm/ksm/full_scans").c_str());
    };
    // Half of it all the same, so that ksmd finds pairs in its second scan.
    std::memset(memory.data(), 0x5a, kBytes / 2);
    Fill(memory.data() + kBytes / 2, kBytes / 2, kOldSeed, kBytes / 2 / kPage);
    const long before = scans();
    EXPECT_TRUE(WaitFor([&] { return scans() > before; }));
    const auto c = Capture(file.get(), self.get(), memory.data(), kBytes);
    shared += c.pages_shared;
    merged += c.pages_copied;
    const uint64_t hash = HashFile(file.get(), kBytes);
    Fill(memory.data(), kBytes, kNewSeed);
    EXPECT_EQ(HashFile(file.get(), kBytes), hash) << "round " << round;
    EXPECT_EQ(unlink(Path("file").c_str()), 0);
  }
  UnmergeKsm();
  EXPECT_EQ(shared, 0u) << "pages of ksmd's were taken for pool pages";
  EXPECT_GT(merged, 0u) << "ksmd merged nothing meanwhile";
}

}  // namespace
}  // namespace daxsnap::vmtest
