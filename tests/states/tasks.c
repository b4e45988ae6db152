/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel keeps of each thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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

static cpu_set_t last;

static int restricted;

/* One may use one processor, one that can go offline; the other all. */
static void set_affinity(int thread) {
  if (thread != restricted) return;
  cpu_set_t all;
  MUST(sched_getaffinity(0, sizeof(all), &all));
  if (CPU_COUNT(&all) < 2) {
    errno = ENODEV;
    states_die("only one processor");
  }
  for (int i = 0; i < CPU_SETSIZE; i++) {
    if (!CPU_ISSET(i, &all)) continue;
    CPU_ZERO(&last);
    CPU_SET(i, &last);
  }
  MUST(sched_setaffinity(0, sizeof(last), &last));
}

static void look_at_affinity(int thread) {
  cpu_set_t now;
  MUST(sched_getaffinity(0, sizeof(now), &now));
  if (thread == restricted)
    EXPECT(CPU_EQUAL(&now, &last), "may use %d processors, and %s",
           CPU_COUNT(&now),
           CPU_ISSET(0, &now) ? "the first is one of them" : "not the first");
  else
    EXPECT(CPU_COUNT(&now) > 1, "the other may use one processor only");
}

static void affinity(void) {
  in_two_threads((struct two){set_affinity, look_at_affinity});
}

static void affinity_of_thread(void) {
  restricted = 1;
  affinity();
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

/* May run anywhere, but for the cgroup that it is in while it is taken. */
static void cgroup_affinity(void) {
  states_wait();
  cpu_set_t now;
  MUST(sched_getaffinity(0, sizeof(now), &now));
  EXPECT(CPU_COUNT(&now) == sysconf(_SC_NPROCESSORS_ONLN),
         "may use %d processors", CPU_COUNT(&now));
}

static int realtime;

/* One has a realtime policy, the other the usual one and slack. */
static void set_policy(int thread) {
  const struct sched_param fifo = {.sched_priority = 5};
  if (thread == realtime)
    MUST(sched_setscheduler(0, SCHED_FIFO, &fifo));
  else
    MUST(setpriority(PRIO_PROCESS, 0, 7));
}

static void look_at_policy_of(int thread) {
  struct sched_param parameters = {0};
  MUST(sched_getparam(0, &parameters));
  int policy = sched_getscheduler(0);
  if (thread == realtime) {
    EXPECT(policy == SCHED_FIFO && parameters.sched_priority == 5,
           "the policy is %d.%d", policy, parameters.sched_priority);
    return;
  }
  EXPECT(policy == SCHED_OTHER, "the other has policy %d", policy);
  EXPECT(getpriority(PRIO_PROCESS, 0) == 7, "the other has nice value %d",
         getpriority(PRIO_PROCESS, 0));
  EXPECT(prctl(PR_GET_TIMERSLACK) == 50000, "the other has timer slack %d",
         prctl(PR_GET_TIMERSLACK));
  MUST(prctl(PR_SET_TIMERSLACK, 0UL));
  EXPECT(prctl(PR_GET_TIMERSLACK) == 50000, "the other has default slack %d",
         prctl(PR_GET_TIMERSLACK));
}

static void policy(void) {
  in_two_threads((struct two){set_policy, look_at_policy_of});
}

static void policy_of_thread(void) {
  realtime = 1;
  policy();
}

static int oom_score(void) {
  char text[16] = "";
  int fd = MUST(open("/proc/self/oom_score_adj", O_RDONLY));
  MUST(read(fd, text, sizeof(text) - 1));
  close(fd);
  return atoi(text);
}

/* The usual one, which is not that of snapd. */
static void usual_oom_score(void) {
  int fd = MUST(open("/proc/self/oom_score_adj", O_WRONLY));
  MUST(write(fd, "0", 1));
  close(fd);
  states_wait();
  EXPECT(oom_score() == 0, "it is %d", oom_score());
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
    {"affinity", affinity},
    {"affinity-of-thread", affinity_of_thread},
    {"cgroup-affinity", cgroup_affinity},
    {"ioprio", ioprio},
    {"timer-slack", timer_slack},
    {"personality", personalities},
    {"policy", policy},
    {"policy-of-thread", policy_of_thread},
    {"oom-score", usual_oom_score},
    {"deadline", deadline},
    {NULL, NULL},
};
