/* SPDX-License-Identifier: Apache-2.0 */
/* Thread-local storage: initialised, zeroed and keyed, in four threads. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "workload.h"

enum { kThreads = 4, kWords = 512 };

static __thread uint64_t initialised = 0x1122334455667788ULL;
static __thread uint64_t zeroed;
static __thread uint64_t array[kWords];

struct slot {
  uint64_t id;
  _Atomic uint64_t version;
  const void *address; /* of the thread's array, as the thread first saw it */
  _Atomic uint64_t checked;
};

static struct slot slots[kThreads];
static pthread_key_t key;
static _Atomic uint64_t epoch;
static struct workload *shared;

static void verify(struct slot *s) {
  uint64_t version = atomic_load(&s->version);
  if (initialised != 0x1122334455667788ULL + s->id)
    workload_fail(shared, "thread %llu lost an initialised variable",
                  (unsigned long long)s->id);
  if (zeroed != version)
    workload_fail(shared, "thread %llu: TLS counter %llu, expected %llu",
                  (unsigned long long)s->id, (unsigned long long)zeroed,
                  (unsigned long long)version);
  if (!workload_matches(array, kWords, s->id, version))
    workload_fail(shared, "thread %llu: TLS array is not its version %llu",
                  (unsigned long long)s->id, (unsigned long long)version);
  if ((const void *)array != s->address)
    workload_fail(shared, "thread %llu: TLS moved", (unsigned long long)s->id);
  if (pthread_getspecific(key) != s)
    workload_fail(shared, "thread %llu lost its pthread key",
                  (unsigned long long)s->id);
  if (errno != (int)s->id + 1)
    workload_fail(shared, "thread %llu: errno is %d", (unsigned long long)s->id,
                  errno);
}

static void *thread(void *argument) {
  struct slot *s = argument;
  workload_block_request();
  initialised += s->id;
  workload_fill(array, kWords, s->id, 0);
  s->address = array;
  pthread_setspecific(key, s);
  atomic_store(&s->checked, 1);
  for (;;) {
    errno = (int)s->id + 1;
    struct timespec rest = {0, 2000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, NULL);
    verify(s);
    uint64_t wanted = atomic_load(&epoch);
    if (wanted != 0) atomic_store(&s->checked, wanted);
    uint64_t version = atomic_load(&s->version) + 1;
    zeroed = version;
    workload_fill(array, kWords, s->id, version);
    atomic_store(&s->version, version);
  }
  return NULL;
}

static void start(struct workload *w) {
  shared = w;
  if (pthread_key_create(&key, NULL) != 0) workload_die("pthread_key_create");
  for (uint64_t id = 0; id < kThreads; id++) {
    slots[id].id = id;
    pthread_t t;
    if (pthread_create(&t, NULL, thread, &slots[id]) != 0)
      workload_die("pthread_create");
  }
  for (uint64_t id = 0; id < kThreads; id++)
    while (atomic_load(&slots[id].checked) == 0) workload_turn(w);
}

static void step(struct workload *w) { (void)w; }

/* Every thread must have verified itself since the request. */
static void check(struct workload *w) {
  uint64_t wanted = atomic_fetch_add(&epoch, 1) + 1;
  if (wanted == 1) wanted = atomic_fetch_add(&epoch, 1) + 1;
  uint64_t deadline = workload_now_us() + 30000000;
  for (uint64_t id = 0; id < kThreads; id++)
    while (atomic_load(&slots[id].checked) < wanted) {
      if (workload_now_us() > deadline) {
        workload_fail(w, "thread %llu does not run", (unsigned long long)id);
        return;
      }
      struct timespec rest = {0, 1000000};
      nanosleep(&rest, NULL);
    }
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  return workload_main(argc, argv, &ops);
}
