/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of seven processes on three levels. All inherit the root's memory by
 * copy-on-write and rewrite a part of it; the root asks every other process
 * through a shared page to check what it sees.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

enum { kProcesses = 7, kWords = WL_PAGE / sizeof(uint64_t) };

/* In shared memory. */
struct control {
  _Atomic uint64_t epoch;
  struct {
    _Atomic uint64_t answered;
    _Atomic uint64_t progress;
    _Atomic int pid;
    char failure[128]; /* written before answered is stored */
  } process[kProcesses];
};

static struct control *control;
static uint64_t *memory;
static uint32_t *versions;
static size_t pages;
static unsigned self;
static pid_t parent;
static uint64_t turn;

static void *map(size_t bytes, int flags) {
  void *p =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  if (p == MAP_FAILED) workload_die("mmap");
  return p;
}

static bool page_ok(size_t i) {
  return workload_matches(memory + i * kWords, kWords, i, versions[i]);
}

/* Process p writes pages p, p + 7, ... only. */
static bool rewrite(void) {
  size_t i = (workload_mix(++turn + self) % (pages / kProcesses)) * kProcesses;
  i += self;
  bool ok = page_ok(i);
  /* The process number makes private copies differ between processes. */
  versions[i] += 8 + self;
  workload_fill(memory + i * kWords, kWords, i, versions[i]);
  return ok;
}

static void verify(char *failure, size_t size) {
  for (size_t i = 0; i < pages && failure[0] == '\0'; i++)
    if (!page_ok(i))
      snprintf(failure, size, "process %u: page %zu is not its version %u",
               self, i, versions[i]);
  if (failure[0] == '\0' && self != 0 && getppid() != parent)
    snprintf(failure, size, "process %u: parent is %d, was %d", self,
             (int)getppid(), (int)parent);
}

static void __attribute__((noreturn)) live(void) {
  workload_block_request();
  for (;;) {
    uint64_t epoch = atomic_load(&control->epoch);
    bool ok = rewrite();
    char *failure = control->process[self].failure;
    size_t size = sizeof(control->process[self].failure);
    if (!ok && failure[0] == '\0')
      snprintf(failure, size, "process %u lost a page", self);
    if (epoch != atomic_load(&control->process[self].answered)) {
      verify(failure, size);
      atomic_store(&control->process[self].answered, epoch);
    }
    atomic_fetch_add(&control->process[self].progress, 1);
    struct timespec rest = {0, 4000000};
    nanosleep(&rest, NULL);
  }
}

/* Makes process `number` below the caller; returns in the caller only. */
static void grow(unsigned number) {
  pid_t me = getpid();
  pid_t child = fork();
  if (child < 0) workload_die("fork");
  if (child > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  self = number;
  parent = me;
  for (int i = 0; i < 16; i++) rewrite();
  if (number <= 2) {
    grow(2 * number + 1);
    grow(2 * number + 2);
  }
  atomic_store(&control->process[self].pid, (int)getpid());
  live();
}

static void start(struct workload *w) {
  control = map(sizeof(*control), MAP_SHARED);
  memory = map(w->bytes, MAP_PRIVATE);
  pages = w->bytes / WL_PAGE;
  versions = map(pages * sizeof(*versions), MAP_PRIVATE);
  for (size_t i = 0; i < pages; i++)
    workload_fill(memory + i * kWords, kWords, i, 0);
  grow(1);
  grow(2);
  for (unsigned p = 1; p < kProcesses; p++)
    while (atomic_load(&control->process[p].pid) == 0) {
      if (waitpid(-1, NULL, WNOHANG) > 0) workload_die("a child ended");
      struct timespec rest = {0, 1000000};
      nanosleep(&rest, NULL);
    }
}

static void step(struct workload *w) {
  if (!rewrite()) workload_fail(w, "the root lost a page");
}

static void check(struct workload *w) {
  char failure[128] = "";
  verify(failure, sizeof(failure));
  if (failure[0] != '\0') workload_fail(w, "%s", failure);
  uint64_t epoch = atomic_fetch_add(&control->epoch, 1) + 1;
  uint64_t deadline = workload_now_us() + 60000000;
  for (unsigned p = 1; p < kProcesses; p++) {
    while (atomic_load(&control->process[p].answered) < epoch) {
      if (workload_now_us() > deadline) {
        workload_fail(w, "process %u (pid %d) does not answer", p,
                      atomic_load(&control->process[p].pid));
        return;
      }
      struct timespec rest = {0, 1000000};
      nanosleep(&rest, NULL);
    }
    if (control->process[p].failure[0] != '\0')
      workload_fail(w, "%s", control->process[p].failure);
  }
  if (waitpid(-1, NULL, WNOHANG) != 0) workload_fail(w, "a child ended");
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {4UL << 20, start, step, check};
  return workload_main(argc, argv, &ops);
}
