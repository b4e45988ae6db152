/* SPDX-License-Identifier: Apache-2.0 */
/* The heap: malloc'ed blocks of many sizes, rewritten, freed and reallocated. */
#include <stdlib.h>

#include "workload.h"

struct block {
  uint64_t *words;
  size_t count;
  uint64_t version;
};

static struct block *blocks;
static size_t block_count;
static uint64_t turn;

/* 64 bytes to 128 KiB, mostly small: both brk and mmap allocations. */
static size_t pick_words(uint64_t random) {
  size_t shift = 3 + workload_mix(random) % 12;
  return ((size_t)1 << shift) + random % ((size_t)1 << shift);
}

static void allocate(struct block *b, uint64_t id, uint64_t random) {
  b->count = pick_words(random);
  b->words = malloc(b->count * sizeof(*b->words));
  if (b->words == NULL) workload_die("malloc");
  workload_fill(b->words, b->count, id, b->version);
}

static void start(struct workload *w) {
  size_t capacity = w->bytes / 256 + 16;
  blocks = calloc(capacity, sizeof(*blocks));
  if (blocks == NULL) workload_die("calloc");
  for (size_t used = 0; used < w->bytes && block_count < capacity;
       block_count++) {
    allocate(&blocks[block_count], block_count,
             workload_mix(w->cookie + block_count));
    used += blocks[block_count].count * sizeof(uint64_t);
  }
}

static void step(struct workload *w) {
  for (unsigned i = 0; i < w->step; i++) {
    uint64_t random = workload_mix(w->cookie ^ ++turn);
    size_t id = random % block_count;
    struct block *b = &blocks[id];
    if (!workload_matches(b->words, b->count, id, b->version))
      workload_fail(w, "heap block %zu lost version %llu", id,
                    (unsigned long long)b->version);
    b->version++;
    if (turn % 8 == 0) {
      free(b->words);
      allocate(b, id, random >> 8);
    } else {
      workload_fill(b->words, b->count, id, b->version);
    }
  }
}

static void check(struct workload *w) {
  for (size_t id = 0; id < block_count; id++) {
    const struct block *b = &blocks[id];
    if (!workload_matches(b->words, b->count, id, b->version))
      workload_fail(w, "heap block %zu of %zu is not its version %llu", id,
                    block_count, (unsigned long long)b->version);
  }
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {8UL << 20, start, step, check};
  return workload_main(argc, argv, &ops);
}
