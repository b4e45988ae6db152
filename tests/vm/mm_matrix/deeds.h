// SPDX-License-Identifier: Apache-2.0
// Whatever a process can do to its memory, or another one for it: a table.
#ifndef DAXSNAP_TESTS_VM_MM_MATRIX_DEEDS_H_
#define DAXSNAP_TESTS_VM_MM_MATRIX_DEEDS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace daxsnap::vmtest {

// What the memory holds before a deed, and what a deed writes: Fill(kOldSeed)
// and Fill(kNewSeed).
inline constexpr uint64_t kOldSeed = 111, kNewSeed = 112;

// Private, readable and writable; a deed may move it.
struct Memory {
  char* data;
  size_t bytes;
  int node;         // the pool's
  bool pool_pages;  // for sure, so that each write goes to a copy
};

// What the process then reads.
enum class After {
  kOld,
  kNew,
  kZeroes,
  kOldOrZeroes,  // each page for itself
  kNoMemory,     // or none that one may look at
};

struct Deed {
  const char* name;
  After after;
  // Done by the process that has the memory, with nothing else mapped there.
  // What goes wrong is a failure of the test. A kernel may refuse what it does
  // not promise.
  std::function<void(Memory& memory)> act;
};

std::span<const Deed> DeedsOfMapping();  // madvise(2), mremap(2), mlock(2), ...
std::span<const Deed> DeedsOfTransfer();  // what reads and writes through I/O
std::span<const Deed> DeedsOfOthers();    // tracers, migration, ksmd, handlers

// All of them.
std::vector<Deed> AllDeeds();

// Fails the test if the memory does not hold that.
void ExpectHolds(const Memory& memory, After after);

// A process that has not this memory does `deed` to the caller, whose PID it
// gets, while the caller waits. Fails the test unless `deed` returns true.
void ByAnother(const Memory& memory, const std::function<bool(pid_t)>& deed);

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_MM_MATRIX_DEEDS_H_
