/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Lets tests of mm run on memory of a pool: what they have filled is captured
 * into a file of kmemfs, or is captured, dropped and read back, so that the
 * file's pages are installed. The file must not change, whatever the test does.
 *
 *	KMEMFS_DIR	a directory of the pool; without it nothing of this
 *happens POOL_MEMORY	captured or installed
 */
#ifndef POOL_MEMORY_H
#define POOL_MEMORY_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
  int fd, pidfd; /* 0: memory is as it is */
  bool install;
  pid_t owner; /* not its children, which end with exit() too */
  size_t size; /* of what the file has, and its sum */
  unsigned long sum;
  unsigned long by_reference, copied, installed;
} pool_memory_state;

static void pool_memory_die(const char* what) {
  printf("Bail out! pool memory: %s: %s\n", what, strerror(errno));
  fflush(stdout);
  _exit(1);
}

/* Read to where no page begins, so that nothing is installed. */
static unsigned long pool_memory_sum(void) {
  static unsigned long page[1 + 4096 / sizeof(long)]
      __attribute__((aligned(4096)));
  unsigned long sum = 5381;
  size_t at, i;

  for (at = 0; at < pool_memory_state.size; at += 4096) {
    if (pread(pool_memory_state.fd, page + 1, 4096, at) != 4096)
      pool_memory_die("read");
    for (i = 1; i <= 4096 / sizeof(long); i++) sum = sum * 33 + page[i];
  }
  return sum;
}

// gup_longterm looks at an errno of long ago.
static void pool_memory_check(void) {
  const int before = errno;

  errno = 0;
  if (pool_memory_sum() != pool_memory_state.sum)
    pool_memory_die("the snapshot has changed");
  errno = before;
}

static struct kmemfs_info pool_memory_info(void) {
  struct kmemfs_info info = {0};

  if (ioctl(pool_memory_state.fd, KMEMFS_IOC_INFO, &info))
    pool_memory_die("KMEMFS_IOC_INFO");
  return info;
}

static void pool_memory_end(void) {
  if (!pool_memory_state.fd || getpid() != pool_memory_state.owner) return;
  pool_memory_check();
  printf("# pool memory: %lu by reference, %lu copied, %lu installed\n",
         pool_memory_state.by_reference, pool_memory_state.copied,
         pool_memory_state.installed);
}

static void __attribute__((constructor)) pool_memory_begin(void) {
  const char *dir = getenv("KMEMFS_DIR"), *how = getenv("POOL_MEMORY");
  unsigned long mask;
  char name[4096];

  if (!dir || !how) return;
  snprintf(name, sizeof(name), "%s/pool_memory.%d", dir, getpid());
  pool_memory_state.fd =
      open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  pool_memory_state.pidfd = syscall(SYS_pidfd_open, getpid(), 0);
  pool_memory_state.install = !strcmp(how, "installed");
  pool_memory_state.owner = getpid();
  if (pool_memory_state.fd < 0 || pool_memory_state.pidfd < 0 || unlink(name))
    pool_memory_die(name);
  pool_memory_state.sum = pool_memory_sum();
  mask = 1UL << pool_memory_info().node;
  if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, &mask, 64UL))
    pool_memory_die("set_mempolicy");
  atexit(pool_memory_end);
}

/* Called with memory that a test has filled and is about to use. */
static void pool_memory(char* mem, size_t size) {
  struct kmemfs_capture capture = {
      .pidfd = pool_memory_state.pidfd,
      .addr = (unsigned long)mem,
      .len = size,
  };
  unsigned long before;

  if (!pool_memory_state.fd) return;
  pool_memory_check();
  if (ftruncate(pool_memory_state.fd, 0) ||
      ioctl(pool_memory_state.fd, KMEMFS_IOC_CAPTURE, &capture))
    pool_memory_die("KMEMFS_IOC_CAPTURE");
  pool_memory_state.size = size;
  pool_memory_state.sum = pool_memory_sum();
  pool_memory_state.by_reference +=
      capture.pages_by_reference + capture.pages_shared;
  pool_memory_state.copied += capture.pages_copied;
  if (!pool_memory_state.install) return;
  before = pool_memory_info().read_installed;
  if (madvise(mem, size, MADV_DONTNEED) ||
      pread(pool_memory_state.fd, mem, size, 0) != (ssize_t)size)
    pool_memory_die("read back");
  pool_memory_state.installed += pool_memory_info().read_installed - before;
}

#endif /* POOL_MEMORY_H */
