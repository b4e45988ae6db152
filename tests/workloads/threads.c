/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight threads: each owns a part of the memory and rewrites it; a token goes
 * round under a mutex and a condition variable, so that most threads are
 * asleep in a futex when the checkpoint comes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "workload.h"

enum { kThreads = 8, kWords = WL_PAGE / sizeof(uint64_t) };

struct part {
  uint64_t id;
  uint64_t *words;
  size_t pages;
  uint32_t *versions;
  uint64_t turns;
};

static struct part parts[kThreads];
static struct workload *shared;

/* lock guards token, epoch, checked and verifies the parts' turns. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static uint64_t token;
static uint64_t epoch;
static uint64_t checked[kThreads];

static void verify_page(const struct part *p, size_t page) {
  uint64_t id = p->id << 32 | page;
  if (!workload_matches(p->words + page * kWords, kWords, id,
                        p->versions[page]))
    workload_fail(shared, "thread %llu: page %zu is not its version %u",
                  (unsigned long long)p->id, page, p->versions[page]);
}

static void *thread(void *argument) {
  struct part *p = argument;
  workload_block_request();
  for (;;) {
    pthread_mutex_lock(&lock);
    while (token % kThreads != p->id) pthread_cond_wait(&moved, &lock);
    bool full = checked[p->id] != epoch;
    uint64_t wanted = epoch;
    if (p->turns != token / kThreads)
      workload_fail(shared, "thread %llu had %llu turns, the token says %llu",
                    (unsigned long long)p->id, (unsigned long long)p->turns,
                    (unsigned long long)(token / kThreads));
    p->turns++;
    pthread_mutex_unlock(&lock);

    if (full)
      for (size_t page = 0; page < p->pages; page++) verify_page(p, page);
    size_t page = workload_mix(p->turns ^ p->id << 40) % p->pages;
    verify_page(p, page);
    p->versions[page]++;
    workload_fill(p->words + page * kWords, kWords, p->id << 32 | page,
                  p->versions[page]);
    struct timespec rest = {0, 500000};
    nanosleep(&rest, NULL);

    pthread_mutex_lock(&lock);
    checked[p->id] = wanted;
    token++;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

static void start(struct workload *w) {
  shared = w;
  for (uint64_t id = 0; id < kThreads; id++) {
    struct part *p = &parts[id];
    p->id = id;
    p->pages = w->bytes / kThreads / WL_PAGE;
    p->words = aligned_alloc(WL_PAGE, p->pages * WL_PAGE);
    p->versions = calloc(p->pages, sizeof(*p->versions));
    if (p->words == NULL || p->versions == NULL) workload_die("malloc");
    for (size_t page = 0; page < p->pages; page++)
      workload_fill(p->words + page * kWords, kWords, id << 32 | page, 0);
    pthread_t t;
    if (pthread_create(&t, NULL, thread, p) != 0)
      workload_die("pthread_create");
  }
}

static void step(struct workload *w) { (void)w; }

static void check(struct workload *w) {
  pthread_mutex_lock(&lock);
  uint64_t wanted = ++epoch;
  struct timespec deadline;
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += 30;
  for (uint64_t id = 0; id < kThreads; id++)
    while (checked[id] < wanted)
      if (pthread_cond_timedwait(&moved, &lock, &deadline) != 0) {
        workload_fail(w, "thread %llu does not run", (unsigned long long)id);
        id = kThreads - 1;
        break;
      }
  pthread_mutex_unlock(&lock);
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {4UL << 20, start, step, check};
  return workload_main(argc, argv, &ops);
}
