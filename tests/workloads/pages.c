/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain anonymous memory, one version number a page, --step pages rewritten a
 * step (0: an idle process). What by-reference figures are taken from.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "workload.h"

enum { kWords = WL_PAGE / sizeof(uint64_t) };

static uint64_t *memory;
static uint32_t *versions;
static size_t count;
static uint64_t turn;

static void *map(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) workload_die("mmap %zu", bytes);
  madvise(p, bytes, MADV_NOHUGEPAGE);
  return p;
}

static void start(struct workload *w) {
  count = w->bytes / WL_PAGE;
  memory = map(w->bytes);
  versions = map(count * sizeof(*versions));
  for (size_t i = 0; i < count; i++)
    workload_fill(memory + i * kWords, kWords, i, 0);
}

static void step(struct workload *w) {
  for (unsigned n = 0; n < w->step; n++) {
    size_t i = workload_mix(w->cookie ^ ++turn) % count;
    uint64_t *page = memory + i * kWords;
    if (!workload_matches(page, kWords, i, versions[i]))
      workload_fail(w, "page %zu lost version %u", i, versions[i]);
    workload_fill(page, kWords, i, ++versions[i]);
  }
}

static void check(struct workload *w) {
  for (size_t i = 0; i < count; i++)
    if (!workload_matches(memory + i * kWords, kWords, i, versions[i]))
      workload_fail(w, "page %zu of %zu is not its version %u", i, count,
                    versions[i]);
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {16UL << 20, start, step, check};
  return workload_main(argc, argv, &ops);
}
