/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small programs whose state must survive a checkpoint. Each keeps working on
 * some kind of state and, when asked, checks all of it.
 *
 * Protocol, in the state directory given by --dir:
 *   ready    created once the state is set up; holds the pid
 *   request  written by the asker: a token; then SIGUSR1 to the pid
 *   result   renamed into place by the workload, lines "key value":
 *              token T         of the request answered
 *              status ok       or: status FAIL what was wrong
 *              progress N      steps of work done; only ever grows
 *              checks N        checks answered, this one included
 *              cookie X        random, drawn at start: the same for ever
 *              pid P
 *   log      stdout and stderr, with --detach
 * workloadctl(1 of this folder) is the asker.
 */
#ifndef DAXSNAP_TESTS_WORKLOADS_WORKLOAD_H_
#define DAXSNAP_TESTS_WORKLOADS_WORKLOAD_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WL_PAGE 4096UL

struct workload {
  char dir[512];
  size_t bytes;      /* --mib, --kib: size of the state, where that has a meaning */
  unsigned step;     /* --step: units of work a step; 0: an idle process */
  unsigned pace_us;  /* --pace-us: rest between steps */
  uint64_t progress; /* owned by the workload's main thread */
  uint64_t checks;
  uint64_t cookie;
  char failure[256]; /* first failure, sticky; empty: none */
};

struct workload_ops {
  size_t default_bytes;
  /* Sets the state up. A failure exits with a message in the log. */
  void (*start)(struct workload *w);
  /* One step of work. Long steps call workload_turn() now and then. */
  void (*step)(struct workload *w);
  /* Full check; calls workload_fail() for what is wrong. */
  void (*check)(struct workload *w);
};

int workload_main(int argc, char **argv, const struct workload_ops *ops);

/* Answers a pending request and rests. Main thread only. */
void workload_turn(struct workload *w);

/* Notes the first failure; thread safe. */
void workload_fail(struct workload *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Exits with the message and errno in the log: set-up only. */
void workload_die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

/* Blocks SIGUSR1 in the calling thread, so that the main thread gets it. */
void workload_block_request(void);

/* A path in the state directory; static buffer. */
const char *workload_path(const struct workload *w, const char *name);

uint64_t workload_now_us(void);

/* The k-th word of the content that (id, version) stands for. */
static inline uint64_t workload_mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

static inline uint64_t workload_word(uint64_t id, uint64_t version, size_t k) {
  return workload_mix(id * 0x100000001b3ULL + version) +
         k * 0x9e3779b97f4a7c15ULL;
}

void workload_fill(uint64_t *words, size_t count, uint64_t id,
                   uint64_t version);
bool workload_matches(const uint64_t *words, size_t count, uint64_t id,
                      uint64_t version);

#endif /* DAXSNAP_TESTS_WORKLOADS_WORKLOAD_H_ */
