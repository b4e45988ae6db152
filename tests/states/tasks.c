/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel keeps of each thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "states.h"

enum {
  kWhoProcess = 1,
  /* Best effort, the least of it. */
  kLeader = 2 << 13 | 7,
  /* Idle. */
  kThread = 3 << 13,
};

static pthread_barrier_t barrier;

/*
 * Runs `set` here and in another thread, then, after the snapshot, `look`, each
 * with 0 here and 1 there.
 */
struct two {
  void (*set)(int thread);
  void (*look)(int thread);
};

static void *other(void *argument) {
  const struct two *two = argument;
  two->set(1);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  two->look(1);
  return NULL;
}

static void in_two_threads(struct two two) {
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  errno = pthread_create(&thread, NULL, other, &two);
  if (errno != 0) states_die("pthread_create");
  two.set(0);
  pthread_barrier_wait(&barrier);
  states_wait();
  two.look(0);
  pthread_barrier_wait(&barrier);
  pthread_join(thread, NULL);
}

static cpu_set_t first;

/* The leader may use one processor, the thread all. */
static void set_affinity(int thread) {
  if (thread != 0) return;
  cpu_set_t all;
  MUST(sched_getaffinity(0, sizeof(all), &all));
  CPU_ZERO(&first);
  for (int i = 0; i < CPU_SETSIZE; i++) {
    if (!CPU_ISSET(i, &all)) continue;
    CPU_SET(i, &first);
    break;
  }
  if (CPU_COUNT(&all) < 2) {
    errno = ENODEV;
    states_die("only one processor");
  }
  MUST(sched_setaffinity(0, sizeof(first), &first));
}

static void look_at_affinity(int thread) {
  cpu_set_t now;
  MUST(sched_getaffinity(0, sizeof(now), &now));
  if (thread == 0)
    EXPECT(CPU_EQUAL(&now, &first), "may use %d processors", CPU_COUNT(&now));
  else
    EXPECT(CPU_COUNT(&now) > 1, "the thread may use one processor only");
}

static void affinity(void) {
  in_two_threads((struct two){set_affinity, look_at_affinity});
}

static void set_ioprio(int thread) {
  MUST(syscall(SYS_ioprio_set, kWhoProcess, 0, thread ? kThread : kLeader));
}

static void look_at_ioprio(int thread) {
  long is = syscall(SYS_ioprio_get, kWhoProcess, 0);
  EXPECT(is == (thread ? kThread : kLeader), "I/O priority of %s is %#lx",
         thread ? "the thread" : "the leader", is);
}

static void ioprio(void) {
  in_two_threads((struct two){set_ioprio, look_at_ioprio});
}

static void set_slack(int thread) {
  MUST(prctl(PR_SET_TIMERSLACK, thread ? 70000UL : 4000000UL));
}

static void look_at_slack(int thread) {
  long is = prctl(PR_GET_TIMERSLACK);
  EXPECT(is == (thread ? 70000 : 4000000), "timer slack of %s is %ld",
         thread ? "the thread" : "the leader", is);
}

static void timer_slack(void) {
  in_two_threads((struct two){set_slack, look_at_slack});
}

static void set_personality(int thread) {
  MUST(personality(thread ? ADDR_NO_RANDOMIZE | SHORT_INODE
                          : UNAME26 | STICKY_TIMEOUTS));
}

static void look_at_personality(int thread) {
  int is = personality(0xffffffff);
  EXPECT(is == (thread ? ADDR_NO_RANDOMIZE | SHORT_INODE
                       : UNAME26 | STICKY_TIMEOUTS),
         "personality of %s is %#x", thread ? "the thread" : "the leader", is);
}

static void personalities(void) {
  in_two_threads((struct two){set_personality, look_at_personality});
}

struct deadline {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};

enum { kDeadline = 6 };

static void deadline(void) {
  struct deadline it = {.size = sizeof(it),
                        .policy = kDeadline,
                        .runtime = 10000000,
                        .deadline = 1000000000,
                        .period = 1000000000};
  MUST(syscall(SYS_sched_setattr, 0, &it, 0));
  states_wait();
  struct deadline is = {0};
  MUST(syscall(SYS_sched_getattr, 0, &is, sizeof(is), 0));
  EXPECT(is.policy == kDeadline && is.runtime == it.runtime, "policy %u",
         is.policy);
}

const struct state states_of_tasks[] = {
    {"affinity", affinity},       {"ioprio", ioprio},
    {"timer-slack", timer_slack}, {"personality", personalities},
    {"deadline", deadline},       {NULL, NULL},
};
