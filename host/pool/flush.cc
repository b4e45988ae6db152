// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "host/pool/pool.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif !defined(__aarch64__)
#error "how to write back CPU caches is known for x86-64 and arm64 only"
#endif

namespace daxsnap::pool {
namespace {

#if defined(__x86_64__)

constexpr std::uintptr_t kLine = 64;

// source: Intel SDM, CPUID leaf 7 subleaf 0, EBX.
constexpr unsigned kClflushopt = 1U << 23;
constexpr unsigned kClwb = 1U << 24;

__attribute__((target("clwb"))) void WriteBackLines(std::uintptr_t at,
                                                    std::uintptr_t end) {
  for (; at < end; at += kLine) _mm_clwb(reinterpret_cast<void*>(at));
}

__attribute__((target("clflushopt"))) void FlushLines(std::uintptr_t at,
                                                      std::uintptr_t end) {
  for (; at < end; at += kLine) _mm_clflushopt(reinterpret_cast<void*>(at));
}

void WriteBack(std::uintptr_t at, std::uintptr_t end) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
  if (ebx & kClwb) {
    WriteBackLines(at, end);
  } else if (ebx & kClflushopt) {
    FlushLines(at, end);
  } else {
    for (; at < end; at += kLine) _mm_clflush(reinterpret_cast<void*>(at));
  }
  _mm_sfence();
}

#else

constexpr std::uintptr_t kLine = 16;  // the smallest line an arm64 CPU can have

void WriteBack(std::uintptr_t at, std::uintptr_t end) {
  // Linux lets user space clean to the point of coherency.
  for (; at < end; at += kLine)
    asm volatile("dc cvac, %0" : : "r"(at) : "memory");
  asm volatile("dsb ish" : : : "memory");
}

#endif

}  // namespace

void FlushCpuCaches(const void* address, std::size_t length) {
  const auto start = reinterpret_cast<std::uintptr_t>(address);
  WriteBack(start & ~(kLine - 1), start + length);
}

}  // namespace daxsnap::pool
