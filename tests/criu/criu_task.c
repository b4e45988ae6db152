// SPDX-License-Identifier: Apache-2.0
/*
 * A process to dump, whose memory checks itself.
 *
 *   criu_task KIND MIB DIR
 *
 * It sets its memory up and stops itself (SIGSTOP, and all its children). After
 * SIGCONT it checks everything and exits with 0, or says on stderr what is
 * wrong and exits with 1. DIR is for its files. Kinds:
 *
 *   threads  8 threads with own stack, heap and thread-local memory
 *   files    private file mappings, some pages written; unreadable, locked and
 *            adjacent mappings; holes
 *   tree     3 levels of fork with pages of all levels and holes
 *   idletree as tree, and with shared memory; after SIGCONT each level lets the
 *            next go on, waits for SIGUSR1, passes it on, and only then checks
 *   large    one mapping of MIB, and a sparse one
 *   work     as large, but after SIGCONT it goes on changing and checking its
 *            memory until SIGUSR1, and only then checks all and exits
 *   idle     as work, but it just waits for SIGUSR1
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define MIB (1UL << 20)
#define THREADS 8

static const char* dir;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char* format, ...) {
  va_list args;

  fprintf(stderr, "criu_task %d: ", getpid());
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  exit(1);
}

static void fill_page(void* page, uint64_t seed) {
  uint64_t* word = page;

  for (size_t i = 0; i < WORDS; i++)
    word[i] = (seed + i) * 0x9e3779b97f4a7c15UL;
}

static void check_page(const void* page, uint64_t seed, const char* what) {
  const uint64_t* word = page;

  for (size_t i = 0; i < WORDS; i++)
    if (word[i] != (seed + i) * 0x9e3779b97f4a7c15UL)
      die("%s: word %zu of the page at %p is %#lx", what, i, page, word[i]);
}

static void check_zero(const void* page, const char* what) {
  static const char zero[PAGE];

  if (memcmp(page, zero, PAGE)) die("%s: page at %p is not zero", what, page);
}

static char* map(size_t len, int prot, int flags, int fd) {
  char* p = mmap(NULL, len, prot, flags, fd, 0);

  if (p == MAP_FAILED) die("mmap of %zu bytes: %s", len, strerror(errno));
  return p;
}

static char* map_anon(size_t len) {
  return map(len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void stop(void) {
  if (raise(SIGSTOP)) die("can't stop: %s", strerror(errno));
}

/* threads */

static pthread_barrier_t barrier;
static _Thread_local char tls[16 * PAGE] __attribute__((aligned(PAGE)));

static void* thread_main(void* arg) {
  uint64_t seed = (uintptr_t)arg * 1000003;
  char stack[32 * PAGE] __attribute__((aligned(PAGE)));
  char* heap = aligned_alloc(PAGE, 64 * PAGE);

  if (!heap) die("no memory");
  for (size_t i = 0; i < 16; i++) fill_page(tls + i * PAGE, seed + i);
  for (size_t i = 0; i < 32; i++) fill_page(stack + i * PAGE, seed + 100 + i);
  for (size_t i = 0; i < 64; i++) fill_page(heap + i * PAGE, seed + 200 + i);
  pthread_barrier_wait(&barrier); /* all set up */
  pthread_barrier_wait(&barrier); /* continued */
  for (size_t i = 0; i < 16; i++) check_page(tls + i * PAGE, seed + i, "tls");
  for (size_t i = 0; i < 32; i++)
    check_page(stack + i * PAGE, seed + 100 + i, "stack");
  for (size_t i = 0; i < 64; i++)
    check_page(heap + i * PAGE, seed + 200 + i, "heap");
  free(heap);
  return NULL;
}

static void run_threads(void) {
  pthread_t thread[THREADS];

  pthread_barrier_init(&barrier, NULL, THREADS + 1);
  for (uintptr_t i = 0; i < THREADS; i++)
    if (pthread_create(&thread[i], NULL, thread_main, (void*)i))
      die("no thread");
  pthread_barrier_wait(&barrier);
  stop();
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
}

/* files */

static int make_file(size_t pages, uint64_t seed) {
  char path[4096];
  uint64_t page[WORDS];
  int fd;

  snprintf(path, sizeof(path), "%s/mapped", dir);
  fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) die("%s: %s", path, strerror(errno));
  for (size_t i = 0; i < pages; i++) {
    fill_page(page, seed + i);
    if (write(fd, page, PAGE) != (ssize_t)PAGE) die("%s: short write", path);
  }
  return fd;
}

static void run_files(void) {
  const size_t n = 1024;
  int fd = make_file(n, 7);
  /* One area, so that the mappings in it are adjacent: file, anonymous, file.
   */
  char* area = map(3 * n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  char *file = area, *anon = area + n * PAGE, *read_only = area + 2 * n * PAGE;
  char* hidden = map_anon(n * PAGE);
  char* locked = map_anon(16 * PAGE);

  if (mmap(file, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
           0) != file ||
      mmap(read_only, n * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) !=
          read_only ||
      mprotect(anon, n * PAGE, PROT_READ | PROT_WRITE))
    die("mappings: %s", strerror(errno));

  for (size_t i = 0; i < n; i += 3) fill_page(file + i * PAGE, 10000 + i);
  fill_page(file + (n - 1) * PAGE, 10000 + n - 1); /* joins the next mapping */
  for (size_t i = 0; i < n; i++)
    if (i % 5 != 4) fill_page(anon + i * PAGE, 20000 + i);
  for (size_t i = 0; i < n; i += 2) fill_page(hidden + i * PAGE, 30000 + i);
  for (size_t i = 0; i < 16; i++) fill_page(locked + i * PAGE, 40000 + i);
  if (mprotect(hidden, n * PAGE, PROT_NONE))
    die("mprotect: %s", strerror(errno));
  if (mlock(locked, 16 * PAGE)) die("mlock: %s", strerror(errno));

  stop();

  if (mprotect(hidden, n * PAGE, PROT_READ))
    die("mprotect: %s", strerror(errno));
  for (size_t i = 0; i < n; i++) {
    if (i % 3 == 0 || i == n - 1)
      check_page(file + i * PAGE, 10000 + i, "written file page");
    else
      check_page(file + i * PAGE, 7 + i, "file page");
    check_page(read_only + i * PAGE, 7 + i, "read-only file page");
    if (i % 5 != 4)
      check_page(anon + i * PAGE, 20000 + i, "anonymous page");
    else
      check_zero(anon + i * PAGE, "anonymous hole");
    if (i % 2 == 0)
      check_page(hidden + i * PAGE, 30000 + i, "unreadable page");
    else
      check_zero(hidden + i * PAGE, "unreadable hole");
  }
  for (size_t i = 0; i < 16; i++)
    check_page(locked + i * PAGE, 40000 + i, "locked page");
}

/* What comes after SIGCONT */

enum after { EXIT, WORK, IDLE };

static int asked(void) {
  static const struct timespec now;
  sigset_t usr1;

  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  return sigtimedwait(&usr1, NULL, &now) == SIGUSR1;
}

static void block_usr1(void) {
  sigset_t usr1;

  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, NULL);
}

static void idle(void) {
  sigset_t usr1;
  int sig;

  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  if (sigwait(&usr1, &sig)) die("sigwait");
}

/* tree */

static const size_t tree_pages = 2048, common_pages = 16;
static char* common;

/* Which level wrote page I last, as seen at LEVEL; -1: nobody, it is a hole. */
static int writer_of(size_t i, int level) {
  if (level >= 1 && i / 64 == 5) return -1; /* dropped by level 1 */
  if (level >= 2 && i % 7 == 0) return 2;
  if (level >= 1 && i % 4 == 0) return 1;
  return i % 11 == 10 ? -1 : 0; /* never written */
}

static void run_tree(char* area, int level, enum after after) {
  pid_t child = 0;
  int status;

  if (level == 0) {
    block_usr1();
    area = map_anon(tree_pages * PAGE);
    if (after == IDLE)
      common = map(common_pages * PAGE, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1);
    for (size_t i = 0; common && i < common_pages; i++)
      fill_page(common + i * PAGE, 900000 + i);
  }
  if (level == 1 && madvise(area + 5 * 64 * PAGE, 64 * PAGE, MADV_DONTNEED))
    die("madvise: %s", strerror(errno));
  for (size_t i = 0; i < tree_pages; i++)
    if (writer_of(i, level) == level)
      fill_page(area + i * PAGE, level * 100000UL + i);

  if (level < 2) {
    child = fork();
    if (child < 0) die("fork: %s", strerror(errno));
    if (child == 0) {
      run_tree(area, level + 1, after);
      exit(0);
    }
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status))
      die("the child did not stop");
  }
  stop();
  if (after == IDLE) {
    if (child) kill(child, SIGCONT);
    idle();
    if (child) kill(child, SIGUSR1);
  }

  for (size_t i = 0; i < tree_pages; i++) {
    int writer = writer_of(i, level);

    if (writer < 0)
      check_zero(area + i * PAGE, "hole in a tree");
    else
      check_page(area + i * PAGE, writer * 100000UL + i, "page in a tree");
  }
  for (size_t i = 0; common && i < common_pages; i++)
    check_page(common + i * PAGE, 900000 + i, "shared page");
  if (child) {
    kill(child, SIGCONT);
    if (waitpid(child, &status, 0) != child || status != 0)
      die("the child failed");
  }
}

/* large, work, idle */

static void work(char* area, size_t pages, uint64_t* seed) {
  uint64_t random = 1;

  while (!asked()) {
    random = random * 6364136223846793005UL + 1442695040888963407UL;
    size_t i = (random >> 33) % pages;

    check_page(area + i * PAGE, seed[i], "page at work");
    seed[i] += pages;
    fill_page(area + i * PAGE, seed[i]);
  }
}

static void run_large(size_t mib, enum after after) {
  size_t pages = mib * (MIB / PAGE);
  char *area = map_anon(pages * PAGE), *sparse = map_anon(pages * PAGE);
  uint64_t* seed = calloc(pages, sizeof(*seed));

  if (!seed) die("no memory");
  for (size_t i = 0; i < pages; i++) {
    seed[i] = i;
    fill_page(area + i * PAGE, i);
  }
  for (size_t i = 0; i < pages; i += 1 + i % 37)
    fill_page(sparse + i * PAGE, 3 * pages + i);
  block_usr1();

  stop();

  if (after == WORK) work(area, pages, seed);
  if (after == IDLE) idle();
  for (size_t i = 0; i < pages; i++)
    check_page(area + i * PAGE, seed[i], "page");
  for (size_t i = 0; i < pages; i += 1 + i % 37)
    check_page(sparse + i * PAGE, 3 * pages + i, "sparse page");
}

int main(int argc, char** argv) {
  if (argc != 4) die("usage: criu_task KIND MIB DIR");
  const char* kind = argv[1];
  size_t mib = strtoul(argv[2], NULL, 10);

  dir = argv[3];
  if (!strcmp(kind, "threads"))
    run_threads();
  else if (!strcmp(kind, "files"))
    run_files();
  else if (!strcmp(kind, "tree"))
    run_tree(NULL, 0, EXIT);
  else if (!strcmp(kind, "idletree"))
    run_tree(NULL, 0, IDLE);
  else if (!strcmp(kind, "large"))
    run_large(mib, EXIT);
  else if (!strcmp(kind, "work"))
    run_large(mib, WORK);
  else if (!strcmp(kind, "idle"))
    run_large(mib, IDLE);
  else
    die("unknown kind %s", kind);
  return 0;
}
