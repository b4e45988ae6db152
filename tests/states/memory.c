/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel keeps of memory besides its content. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "states.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

static const size_t kSize = 16 * 4096;

static char *map(size_t size, int flags) {
  char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (memory == MAP_FAILED) states_die("mmap");
  return memory;
}

/* Whether the mapping at this address has the flag in smaps. */
static int has_flag(const void *address, const char *flag) {
  FILE *smaps = fopen("/proc/self/smaps", "r");
  char line[512];
  int inside = 0, found = -1;
  if (smaps == NULL) states_die("smaps");
  while (found < 0 && fgets(line, sizeof(line), smaps) != NULL) {
    uintptr_t start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
      inside = start <= (uintptr_t)address && (uintptr_t)address < end;
    else if (inside && strncmp(line, "VmFlags:", 8) == 0)
      found = strstr(line + 8, flag) != NULL;
  }
  fclose(smaps);
  return found > 0;
}

static void wipe_on_fork(void) {
  char *secret = map(kSize, 0);
  memset(secret, 7, kSize);
  MUST(madvise(secret, kSize, MADV_WIPEONFORK));
  states_wait();
  EXPECT(secret[5000] == 7, "the memory is lost");
  pid_t child = MUST(fork());
  if (child == 0) _exit(secret[5000] == 0 ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT(status == 0, "a child sees it");
}

static void madvise_flags(void) {
  static const struct {
    int advice;
    const char *flag;
  } kinds[] = {{MADV_DONTFORK, " dc"},   {MADV_DONTDUMP, " dd"},
               {MADV_SEQUENTIAL, " sr"}, {MADV_RANDOM, " rr"},
               {MADV_NOHUGEPAGE, " nh"}, {MADV_WIPEONFORK, " wf"},
               {MADV_MERGEABLE, " mg"}};
  enum { kKinds = sizeof(kinds) / sizeof(kinds[0]) };
  char *memory[kKinds];
  int given[kKinds];
  for (int i = 0; i < kKinds; i++) {
    memory[i] = map(kSize, 0);
    memset(memory[i], i, kSize);
    /* A kernel may lack one. */
    given[i] = madvise(memory[i], kSize, kinds[i].advice) == 0;
    if (given[i] && !has_flag(memory[i], kinds[i].flag))
      states_die("smaps does not show%s", kinds[i].flag);
  }
  states_wait();
  for (int i = 0; i < kKinds; i++)
    EXPECT(!given[i] || has_flag(memory[i], kinds[i].flag), "%s is lost",
           kinds[i].flag);
}

/* Locked as it is touched: most of it is never. */
static void lock_on_fault(void) {
  size_t size = 64 << 20;
  char *memory = map(size, MAP_NORESERVE);
  MUST(mlock2(memory, size, MLOCK_ONFAULT));
  memory[0] = 1;
  states_wait();
  EXPECT(has_flag(memory, " lo"), "it is not locked");
  EXPECT(has_flag(memory, " lf"), "it is locked at once");
  unsigned char there = 0;
  MUST(mincore(memory + size / 2, 4096, &there));
  EXPECT((there & 1) == 0, "what was never touched has memory");
}

static void mlock_future(void) {
  MUST(mlockall(MCL_FUTURE));
  states_wait();
  EXPECT(has_flag(map(kSize, 0), " lo"), "new memory is not locked");
}

static void mlock_future_on_fault(void) {
  MUST(mlockall(MCL_FUTURE | MCL_ONFAULT));
  states_wait();
  char *memory = map(kSize, 0);
  EXPECT(has_flag(memory, " lo") && has_flag(memory, " lf"),
         "new memory is not locked on fault");
}

static void write_or_execute(void) {
  MUST(prctl(PR_SET_MDWE, 1UL, 0UL, 0UL, 0UL));
  states_wait();
  EXPECT(prctl(PR_GET_MDWE, 0UL, 0UL, 0UL, 0UL) == 1, "MDWE is off");
}

static void memory_merge(void) {
  char *apart = map(kSize, 0);
  char *merged = map(kSize, 0);
  MUST(prctl(PR_SET_MEMORY_MERGE, 1UL, 0UL, 0UL, 0UL));
  MUST(madvise(apart, kSize, MADV_UNMERGEABLE));
  states_wait();
  EXPECT(prctl(PR_GET_MEMORY_MERGE, 0UL, 0UL, 0UL, 0UL) == 1,
         "memory is no longer merged");
  EXPECT(has_flag(merged, " mg"), "memory from before is no longer merged");
  EXPECT(!has_flag(apart, " mg"), "memory that was taken out is merged");
}

static void look_at_mutex(const char *of, pthread_mutex_t *mutex) {
  EXPECT(pthread_mutex_trylock(mutex) == EBUSY, "%s is not held", of);
  EXPECT(pthread_mutex_unlock(mutex) == 0, "%s is not ours", of);
  int error = pthread_mutex_trylock(mutex);
  EXPECT(error == 0, "to lock %s gives %s", of, strerror(error));
}

static void core_dump_filter(void) {
  const char *path = "/proc/self/coredump_filter";
  char text[16] = "";
  int fd = MUST(open(path, O_WRONLY));
  MUST(write(fd, "0x7f", 4));
  close(fd);
  states_wait();
  fd = MUST(open(path, O_RDONLY));
  MUST(read(fd, text, sizeof(text) - 1));
  close(fd);
  EXPECT(strtoul(text, NULL, 16) == 0x7f, "it is %s", text);
}

static pthread_barrier_t barrier;

/* Ends with the last one held, as it was before. */
static void *hold_mutexes(void *mutexes) {
  pthread_mutex_t *of_thread = mutexes;
  for (int i = 0; i < 2; i++) pthread_mutex_lock(&of_thread[i]);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  look_at_mutex("that of the thread", &of_thread[0]);
  return NULL;
}

/* In a file; one is held by the leader, two by a thread. */
static void robust_mutex(void) {
  int fd = MUST(open(states_path("mutex"), O_CREAT | O_RDWR, 0600));
  MUST(ftruncate(fd, 4096));
  pthread_mutex_t *mutexes =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mutexes == MAP_FAILED) states_die("mmap");
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (int i = 0; i < 3; i++) pthread_mutex_init(&mutexes[i], &attributes);
  pthread_mutex_lock(&mutexes[0]);
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_t thread;
  errno = pthread_create(&thread, NULL, hold_mutexes, &mutexes[1]);
  if (errno != 0) states_die("pthread_create");
  pthread_barrier_wait(&barrier);
  states_wait();
  look_at_mutex("that of the leader", &mutexes[0]);
  pthread_barrier_wait(&barrier);
  pthread_join(thread, NULL);
  int error = pthread_mutex_trylock(&mutexes[2]);
  EXPECT(error == EOWNERDEAD, "the end of an owner gives %s", strerror(error));
}

enum { kBind = 2, kInterleave = 3, kOfAddress = 2, kNode = 1 };

static void look_at_policy(const char *of, const void *address, int mode,
                           unsigned long nodes) {
  int is = -1;
  unsigned long mask[16] = {0};
  MUST(syscall(SYS_get_mempolicy, &is, mask, 8 * sizeof(mask), address,
               address != NULL ? kOfAddress : 0));
  EXPECT(is == mode && mask[0] == nodes, "policy of %s is %d of %#lx", of, is,
         mask[0]);
}

static int node_of(const void *address) {
  int node = -1;
  MUST(syscall(SYS_get_mempolicy, &node, NULL, 0, address,
               kOfAddress | kNode));
  return node;
}

/* Beside memory that has none, and goes where the task's goes. */
static void memory_policy(void) {
  unsigned long first_node = 1;
  char *bound = map(kSize, 0);
  char *spread = map(kSize, 0);
  char *plain = map(kSize, 0);
  MUST(syscall(SYS_mbind, bound, kSize, kBind, &first_node, 64, 0));
  MUST(syscall(SYS_mbind, spread, kSize, kInterleave, &first_node, 64, 0));
  memset(bound, 1, kSize / 2);
  memset(plain, 1, kSize / 2);
  int node = node_of(plain);
  states_wait();
  look_at_policy("bound memory", bound, kBind, 1);
  look_at_policy("spread memory", spread, kInterleave, 1);
  look_at_policy("other memory", plain, 0, 0);
  for (size_t at = kSize / 2; at < kSize; at += 4096) {
    EXPECT(bound[at - kSize / 2] == 1, "bound memory is lost");
    bound[at] = spread[at] = plain[at] = 1;
    EXPECT(node_of(bound + at) == 0 && node_of(spread + at) == 0,
           "bound memory is on node %d, spread memory on node %d",
           node_of(bound + at), node_of(spread + at));
    EXPECT(node_of(plain + at) == node, "other memory is on node %d, not %d",
           node_of(plain + at), node);
  }
}

static void task_policy(void) {
  unsigned long first_node = 1;
  MUST(syscall(SYS_set_mempolicy, kBind, &first_node, 64));
  states_wait();
  look_at_policy("the task", NULL, kBind, 1);
  char *memory = map(kSize, 0);
  memory[0] = 1;
  EXPECT(node_of(memory) == 0, "its memory is on node %d", node_of(memory));
}

const struct state states_of_memory[] = {
    {"wipe-on-fork", wipe_on_fork},
    {"madvise-flags", madvise_flags},
    {"lock-on-fault", lock_on_fault},
    {"mlock-future", mlock_future},
    {"mlock-future-on-fault", mlock_future_on_fault},
    {"write-or-execute", write_or_execute},
    {"memory-merge", memory_merge},
    {"core-dump-filter", core_dump_filter},
    {"robust-mutex", robust_mutex},
    {"memory-policy", memory_policy},
    {"task-policy", task_policy},
    {NULL, NULL},
};
