/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: eventfds, timerfds, epoll sets, message queues. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "states.h"

static const long kMs = 1000000;

static int64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static uint64_t read_count(int fd) {
  uint64_t count = 0;
  if (read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) return 0;
  return count;
}

static void eventfd_semaphore(void) {
  int fd = MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
  states_wait();
  for (int i = 0; i < 3; i++) {
    uint64_t count = read_count(fd);
    EXPECT(count == 1, "read %d gives %llu", i, (unsigned long long)count);
  }
  EXPECT(read_count(fd) == 0, "a fourth read gives something");
}

static void eventfd_large(void) {
  const uint64_t large = (UINT64_C(5) << 32) + 7;
  int fd = MUST(eventfd(0, EFD_NONBLOCK));
  MUST(write(fd, &large, sizeof(large)));
  states_wait();
  uint64_t count = read_count(fd);
  EXPECT(count == large, "the count is %llu", (unsigned long long)count);
}

/* Whether it expires within some seconds. */
static int expires(int fd) {
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  return poll(&poller, 1, 20000) == 1 && read_count(fd) > 0;
}

/* Has expired, many times, and nobody has read it. */
static void timerfd_periodic(void) {
  int fd = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  const struct itimerspec period = {{0, 10 * kMs}, {0, 10 * kMs}};
  int64_t begin = now_ns(CLOCK_MONOTONIC);
  MUST(timerfd_settime(fd, 0, &period, NULL));
  while (now_ns(CLOCK_MONOTONIC) < begin + 300 * kMs) usleep(10000);
  states_wait();
  uint64_t count = read_count(fd);
  EXPECT(count >= 30, "%llu of 30 expiries are left",
         (unsigned long long)count);
  EXPECT(expires(fd), "it expires no more");
  struct itimerspec is;
  MUST(timerfd_gettime(fd, &is));
  EXPECT(is.it_interval.tv_sec == 0 && is.it_interval.tv_nsec == 10 * kMs,
         "the period is %ld ns", is.it_interval.tv_nsec);
}

static int64_t in_ns(struct timespec time) {
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/*
 * Runs beside a relative one that ends at the same time. Stock CRIU leaves out
 * the part of a second that the clock shows on restore: one time in twenty that
 * is less than what is looked for.
 */
static void timerfd_absolute(void) {
  int absolute = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  int relative = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  int64_t end = now_ns(CLOCK_MONOTONIC) + 3600 * 1000000000LL;
  struct itimerspec at = {{0, 0}, {end / 1000000000LL, end % 1000000000LL}};
  int64_t left = end - now_ns(CLOCK_MONOTONIC);
  struct itimerspec in = {{0, 0}, {left / 1000000000LL, left % 1000000000LL}};
  MUST(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &at, NULL));
  MUST(timerfd_settime(relative, 0, &in, NULL));
  states_wait();
  struct itimerspec a, r;
  MUST(timerfd_gettime(relative, &r));
  MUST(timerfd_gettime(absolute, &a));
  int64_t apart = in_ns(r.it_value) - in_ns(a.it_value);
  /* Both were armed one after the other, twice, and read so. */
  EXPECT(llabs(apart) < 50 * kMs, "%lld ms early", (long long)(apart / kMs));
}

/* Waits for a time of day, which does not go away with the snapshot's. */
static void timerfd_realtime(void) {
  int fd = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
  int64_t end = now_ns(CLOCK_REALTIME) + 3600 * 1000000000LL;
  struct itimerspec at = {{0, 0}, {end / 1000000000LL, end % 1000000000LL}};
  MUST(timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL));
  states_wait();
  struct itimerspec is;
  MUST(timerfd_gettime(fd, &is));
  int64_t late = now_ns(CLOCK_REALTIME) + in_ns(is.it_value) - end;
  EXPECT(llabs(late) < 50 * kMs, "%lld ms late", (long long)(late / kMs));
}

/* Have gone off, and were read or not. */
static void timerfd_gone_off(void) {
  int fds[2];
  for (int i = 0; i < 2; i++) {
    int fd = fds[i] = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    int64_t end = now_ns(CLOCK_MONOTONIC) + kMs;
    struct itimerspec at = {{0, 0}, {end / 1000000000LL, end % 1000000000LL}};
    MUST(timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL));
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    MUST(poll(&poller, 1, -1));
  }
  if (read_count(fds[0]) != 1) states_die("read");
  states_wait();
  EXPECT(read_count(fds[0]) == 0, "it has gone off again");
  EXPECT(read_count(fds[1]) == 1, "its expiry is lost");
}

/* A child with the next smaller PID that is free. */
static pid_t fork_below(void) {
  for (pid_t pid = getpid() - 1; pid > 0; pid--) {
    struct clone_args args = {
        .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
    pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (child >= 0 || errno != EEXIST) return child;
  }
  return -1;
}

static void add(int set, int fd, uint64_t data) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

/* Which data of the set are ready, as a sum. */
static uint64_t ready(int set) {
  struct epoll_event events[8];
  uint64_t sum = 0;
  int n = epoll_wait(set, events, 8, 0);
  for (int i = 0; i < n; i++) sum += events[i].data.u64;
  return sum;
}

static void end_child(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

/*
 * Of a set that the child has too, but not the file in it. The child has the
 * smaller PID, and another file with the same number.
 */
static void epoll_of_parent(void) {
  int set = MUST(epoll_create1(0));
  int fd = MUST(eventfd(0, EFD_NONBLOCK));
  add(set, fd, 1);
  pid_t child = MUST(fork_below());
  if (child == 0) {
    close(fd);
    if (MUST(eventfd(1, 0)) != fd) _exit(3);
    for (;;) pause();
  }
  states_wait();
  EXPECT(ready(set) == 0, "the set is ready");
  const uint64_t one = 1;
  MUST(write(fd, &one, sizeof(one)));
  EXPECT(ready(set) == 1, "the set does not notice");
  EXPECT(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0, "its file is another");
  end_child(child);
}

/* What the child has in it the parent has not, and the other way round. */
static void epoll_of_both(void) {
  int set = MUST(epoll_create1(0));
  int mine = MUST(eventfd(0, EFD_NONBLOCK));
  int pipes[2];
  MUST(pipe(pipes));
  add(set, mine, 1);
  pid_t child = MUST(fork());
  if (child == 0) {
    close(mine);
    int its = MUST(eventfd(1, EFD_NONBLOCK));
    add(set, its, 2);
    MUST(write(pipes[1], "", 1));
    for (;;) pause();
  }
  char byte;
  MUST(read(pipes[0], &byte, 1));
  states_wait();
  EXPECT(ready(set) == 2, "before, %llu is ready",
         (unsigned long long)ready(set));
  const uint64_t one = 1;
  MUST(write(mine, &one, sizeof(one)));
  EXPECT(ready(set) == 3, "after, %llu is ready",
         (unsigned long long)ready(set));
  end_child(child);
}

/*
 * The file has another number by now where it was added, and is also in a task
 * that has come before and has no set.
 */
static void epoll_of_other_number(void) {
  int set = MUST(epoll_create1(0));
  int fd = MUST(eventfd(1, EFD_NONBLOCK));
  int pipes[2];
  MUST(pipe(pipes));
  pid_t without = MUST(fork());
  if (without == 0) {
    close(set);
    MUST(write(pipes[1], "", 1));
    for (;;) pause();
  }
  pid_t with = MUST(fork());
  if (with == 0) {
    int added = MUST(dup(fd));
    add(set, added, 2);
    close(added);
    MUST(write(pipes[1], "", 1));
    for (;;) pause();
  }
  char byte;
  for (int i = 0; i < 2; i++) MUST(read(pipes[0], &byte, 1));
  close(fd);
  states_wait();
  EXPECT(ready(set) == 2, "%llu is ready", (unsigned long long)ready(set));
  end_child(without);
  end_child(with);
}

static void mqueue(void) {
  struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 64};
  mqd_t queue =
      MUST(mq_open("/daxsnap-states", O_CREAT | O_RDWR, 0600, &attributes));
  MUST(mq_send(queue, "one", 4, 0));
  states_wait();
  char message[64];
  EXPECT(mq_receive(queue, message, sizeof(message), NULL) == 4 &&
             strcmp(message, "one") == 0,
         "the message is lost");
  mq_unlink("/daxsnap-states");
}

/* The same through the mount of queues. */
static void mqueue_path(void) {
  struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 64};
  mqd_t queue =
      MUST(mq_open("/daxsnap-path", O_CREAT | O_RDWR, 0600, &attributes));
  mq_close(queue);
  int fd = MUST(open("/dev/mqueue/daxsnap-path", O_RDONLY));
  states_wait();
  char text[128];
  EXPECT(read(fd, text, sizeof(text)) > 0, "it cannot be read");
  mq_unlink("/daxsnap-path");
}

const struct state states_of_files[] = {
    {"eventfd-semaphore", eventfd_semaphore},
    {"eventfd-large", eventfd_large},
    {"timerfd-periodic", timerfd_periodic},
    {"timerfd-absolute", timerfd_absolute},
    {"timerfd-gone-off", timerfd_gone_off},
    {"timerfd-realtime", timerfd_realtime},
    {"epoll-of-parent", epoll_of_parent},
    {"epoll-of-both", epoll_of_both},
    {"epoll-of-other-number", epoll_of_other_number},
    {"mqueue", mqueue},
    {"mqueue-path", mqueue_path},
    {NULL, NULL},
};
