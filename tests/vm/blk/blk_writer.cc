// SPDX-License-Identifier: Apache-2.0
//
// Writes to a block device until the power is cut, and says after the reboot
// whether what is there is what was written, up to some moment.
//
//   blk_writer write DEVICE SEED [COUNT MARK]
//     One operation after the other, forever: writes of whole blocks and of
//     sectors, and discards, of the first MiB. Each is durable (O_DSYNC) before
//     its number is printed, and before the next one begins. With COUNT: ends
//     after so many, and to the file MARK go "seed SEED" before the device is
//     emptied, "begin N" and "done N" before and after each operation; that it
//     is empty is "done 0".
//   blk_writer check DEVICE SEED NUMBER
//     Exits with 0 if the device is as some operation from NUMBER on left it,
//     with the next one done not at all, or in part if it is a discard, and
//     prints which.
//   blk_writer race DEVICE SECONDS
//     Several threads at the same blocks. Exits with 0 if none has seen what
//     nobody wrote: a block that is part of one write and part of another, or
//     of a discard; a sector that a write to another one of its block undid.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/vm/blk/blk_sequence.h"

namespace daxsnap::blktest {
namespace {

// More operations than can be done and not be heard of.
constexpr uint64_t kUnheard = 1'000'000;

bool Fail(const char* what) {
  std::perror(what);
  return false;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

bool Discard(int fd, uint64_t offset, uint64_t length) {
  std::array<uint64_t, 2> range = {offset, length};
  return ioctl(fd, BLKDISCARD, range.data()) == 0 || Fail("BLKDISCARD");
}

bool Do(int fd, uint64_t seed, uint64_t number, const Operation& operation,
        char* buffer) {
  const uint64_t offset = operation.first * kSector;
  const uint64_t length = operation.count * kSector;
  if (operation.discard) return Discard(fd, offset, length);
  for (uint64_t i = 0; i < operation.count; i++)
    FillSector(seed, number, operation.first + i, buffer + i * kSector);
  return pwrite(fd, buffer, length, static_cast<off_t>(offset)) ==
             static_cast<ssize_t>(length) ||
         Fail("pwrite");
}

bool Say(uint64_t number) {
  const std::string line = std::to_string(number) + "\n";
  return write(STDOUT_FILENO, line.data(), line.size()) ==
         static_cast<ssize_t>(line.size());
}

// Without a file: nowhere.
bool Mark(const char* file, const char* what, uint64_t number) {
  if (file == nullptr) return true;
  const std::string text = what + (" " + std::to_string(number));
  const int fd = open(file, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return Fail(file);
  const bool ok =
      write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return ok || Fail(file);
}

int Write(int fd, uint64_t seed, uint64_t count, const char* mark) {
  const std::unique_ptr<char, Free> buffer(
      static_cast<char*>(std::aligned_alloc(kBlock, kBlock)));
  if (!Mark(mark, "seed", seed) || !Discard(fd, 0, kBytes) ||
      !Mark(mark, "done", 0) || !Say(0))
    return 1;
  Sequence sequence(seed);
  for (uint64_t number = 1; number <= count; number++) {
    if (!Mark(mark, "begin", number) ||
        !Do(fd, seed, number, sequence.Next(), buffer.get()) ||
        !Mark(mark, "done", number) || !Say(number))
      return 1;
  }
  return 0;
}

// The device next to what it should be.
class Comparison {
 public:
  Comparison(uint64_t seed, std::vector<char> device)
      : seed_(seed), device_(std::move(device)), wrong_(kSectors) {
    for (uint64_t sector = 0; sector < kSectors; sector++) Expect(sector, 0);
  }

  void Apply(uint64_t number, const Operation& operation) {
    for (uint64_t i = 0; i < operation.count; i++)
      Expect(operation.first + i, operation.discard ? 0 : number);
  }

  uint64_t differences() const { return differences_; }

  // Whether all that differs is blocks that `operation` has discarded.
  bool DiscardedInPart(const Operation& operation) const {
    if (!operation.discard) return false;
    uint64_t explained = 0;
    for (uint64_t at = operation.first; at < operation.first + operation.count;
         at += kSectorsPerBlock) {
      if (!IsZero(at)) continue;
      for (uint64_t i = 0; i < kSectorsPerBlock; i++)
        explained += wrong_[at + i];
    }
    return explained == differences_;
  }

 private:
  void Expect(uint64_t sector, uint64_t number) {
    std::array<char, kSector> expected;
    FillSector(seed_, number, sector, expected.data());
    const bool wrong =
        std::memcmp(expected.data(), &device_[sector * kSector], kSector) != 0;
    differences_ += wrong;
    differences_ -= wrong_[sector];
    wrong_[sector] = wrong;
  }

  bool IsZero(uint64_t sector) const {
    for (uint64_t i = 0; i < kBlock; i++)
      if (device_[sector * kSector + i] != 0) return false;
    return true;
  }

  uint64_t seed_;
  std::vector<char> device_;
  std::vector<char> wrong_;  // by sector
  uint64_t differences_ = 0;
};

int Check(int fd, uint64_t seed, uint64_t least) {
  const std::unique_ptr<char, Free> buffer(
      static_cast<char*>(std::aligned_alloc(kBlock, kBytes)));
  if (pread(fd, buffer.get(), kBytes, 0) != static_cast<ssize_t>(kBytes)) {
    Fail("pread");
    return 1;
  }
  Comparison comparison(seed, {buffer.get(), buffer.get() + kBytes});
  Sequence sequence(seed);
  uint64_t closest = kSectors + 1;
  uint64_t closest_number = 0;
  for (uint64_t number = 0; number <= least + kUnheard; number++) {
    const Operation next = sequence.Next();
    const uint64_t differences = comparison.differences();
    if (number >= least) {
      if (differences == 0 || comparison.DiscardedInPart(next))
        return Say(number) ? 0 : 1;
      if (differences < closest) {
        closest = differences;
        closest_number = number;
      }
    }
    comparison.Apply(number + 1, next);
  }
  std::fprintf(stderr,
               "the device is as no operation from %ju on left it; closest is "
               "%ju, with %ju sectors different\n",
               static_cast<uintmax_t>(least),
               static_cast<uintmax_t>(closest_number),
               static_cast<uintmax_t>(closest));
  return 1;
}

// Threads that all work on the same few blocks.
class Race {
 public:
  explicit Race(int fd) : fd_(fd) {}

  // Whether nobody saw anything wrong.
  bool Run(std::chrono::seconds time) {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < kSectorsPerBlock; i++)
      threads.emplace_back([this, i] { Loop(i, &Race::WriteOwnSector); });
    for (uint64_t i = 0; i < 2; i++) {
      threads.emplace_back([this, i] { Loop(10 + i, &Race::WriteWholeBlock); });
      threads.emplace_back([this, i] { Loop(20 + i, &Race::DiscardSome); });
      threads.emplace_back([this, i] { Loop(30 + i, &Race::ReadWholeBlock); });
    }
    std::this_thread::sleep_for(time);
    stop_ = true;
    for (std::thread& thread : threads) thread.join();
    std::printf("%ju operations\n", static_cast<uintmax_t>(done_));
    return !wrong_;
  }

 private:
  static constexpr uint64_t kRaceBlocks = 8;  // of each kind, a cache line's
  using Words = std::array<uint64_t, kBlock / sizeof(uint64_t)>;

  struct Thread {
    uint64_t number;
    std::mt19937_64 random;
    Words* words;  // aligned to a block
  };
  using Step = bool (Race::*)(Thread* thread);

  void Loop(uint64_t number, Step step) {
    const std::unique_ptr<Words, Free> words(
        static_cast<Words*>(std::aligned_alloc(kBlock, kBlock)));
    Thread thread = {number, std::mt19937_64(number), words.get()};
    while (!stop_) {
      if (!(this->*step)(&thread)) {
        wrong_ = true;
        stop_ = true;
      }
      done_++;
    }
  }

  bool Transfer(bool write, Words* words, uint64_t length, uint64_t offset) {
    const auto at = static_cast<off_t>(offset);
    const ssize_t done = write ? pwrite(fd_, words->data(), length, at)
                               : pread(fd_, words->data(), length, at);
    return done == static_cast<ssize_t>(length) ||
           Fail(write ? "pwrite" : "pread");
  }

  // Of the first blocks: each thread has a sector of each of them, and finds
  // there what it wrote, whatever the others wrote to the same block.
  bool WriteOwnSector(Thread* thread) {
    const uint64_t block = thread->random() % kRaceBlocks;
    const uint64_t offset = block * kBlock + thread->number * kSector;
    const uint64_t value = thread->random();
    thread->words->fill(value);
    if (!Transfer(true, thread->words, kSector, offset)) return false;
    std::this_thread::yield();
    if (!Transfer(false, thread->words, kSector, offset)) return false;
    return AllAre(value, *thread->words, kSector) || Wrong("sector", offset);
  }

  // Of the blocks behind them: all words of a block are those of one write, or
  // zero.
  uint64_t SharedBlock(Thread* thread) {
    return kRaceBlocks + thread->random() % kRaceBlocks;
  }

  bool WriteWholeBlock(Thread* thread) {
    thread->words->fill(thread->random());
    return Transfer(true, thread->words, kBlock, SharedBlock(thread) * kBlock);
  }

  bool ReadWholeBlock(Thread* thread) {
    const uint64_t offset = SharedBlock(thread) * kBlock;
    if (!Transfer(false, thread->words, kBlock, offset)) return false;
    return AllAre(thread->words->front(), *thread->words, kBlock) ||
           Wrong("block", offset);
  }

  bool DiscardSome(Thread* thread) {
    const uint64_t block = SharedBlock(thread);
    const uint64_t most = 2 * kRaceBlocks - block;
    return Discard(fd_, block * kBlock, (1 + thread->random() % most) * kBlock);
  }

  static bool AllAre(uint64_t value, const Words& words, uint64_t length) {
    return std::all_of(words.begin(), words.begin() + length / sizeof(uint64_t),
                       [value](uint64_t word) { return word == value; });
  }

  static bool Wrong(const char* what, uint64_t offset) {
    std::fprintf(stderr, "the %s at %ju has what nobody wrote\n", what,
                 static_cast<uintmax_t>(offset));
    return false;
  }

  const int fd_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> wrong_ = false;
  std::atomic<uint64_t> done_ = 0;
};

int Main(int argc, char** argv) {
  const std::string command = argc > 3 ? argv[1] : "";
  const bool counts = argc == 6 && command == "write";
  const bool writes = counts || (argc == 4 && command == "write");
  const bool races = argc == 4 && command == "race";
  const bool checks = argc == 5 && command == "check";
  if (!writes && !checks && !races) {
    std::fprintf(stderr,
                 "usage: %s write DEVICE SEED [COUNT MARK] | "
                 "check DEVICE SEED NUMBER | race DEVICE SECONDS\n",
                 argv[0]);
    return 64;
  }
  const int fd = open(argv[2], O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
  if (fd < 0) {
    Fail(argv[2]);
    return 1;
  }
  const uint64_t seed = std::strtoull(argv[3], nullptr, 10);
  if (races) return Race(fd).Run(std::chrono::seconds(seed)) ? 0 : 1;
  const uint64_t number =
      argc > 4 ? std::strtoull(argv[4], nullptr, 10) : UINT64_MAX;
  return writes ? Write(fd, seed, number, counts ? argv[5] : nullptr)
                : Check(fd, seed, number);
}

}  // namespace
}  // namespace daxsnap::blktest

int main(int argc, char** argv) { return daxsnap::blktest::Main(argc, argv); }
