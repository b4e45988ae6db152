/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: setitimer, a POSIX timer, a timerfd that is armed again after each
 * expiry, and one far in the future with a period.
 *
 * No short periodic timerfd: stock CRIU, which this is used with, too, stops one
 * that has expired and was not read yet. (A one-shot one comes back right: its
 * expiry is still there to be read.) tests/states has one.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

enum { kPeriodMs = 20, kLongSeconds = 36000, kLongPeriod = 7 };

static int short_fd;
static int long_fd;
static timer_t posix_timer;
static uint64_t fd_expirations;
static volatile sig_atomic_t alarms;
static volatile sig_atomic_t posix_expirations;
static volatile sig_atomic_t wrong_values;
static uint64_t marker;
static time_t long_remaining = kLongSeconds;

static void on_alarm(int signal_number) {
  (void)signal_number;
  alarms++;
}

static void on_posix(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number;
  (void)context;
  if (info->si_value.sival_ptr != &marker) wrong_values++;
  posix_expirations++;
}

static void arm_short(void) {
  struct itimerspec once = {{0, 0}, {0, kPeriodMs * 1000000}};
  if (timerfd_settime(short_fd, 0, &once, NULL) != 0)
    workload_die("timerfd_settime");
}

static void start(struct workload *w) {
  (void)w;
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval interval = {{0, kPeriodMs * 1000}, {0, kPeriodMs * 1000}};
  if (setitimer(ITIMER_REAL, &interval, NULL) != 0) workload_die("setitimer");

  struct sigaction info = {.sa_sigaction = on_posix,
                           .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGRTMIN + 3, &info, NULL);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
                           .sigev_signo = SIGRTMIN + 3,
                           .sigev_value.sival_ptr = &marker};
  if (timer_create(CLOCK_MONOTONIC, &event, &posix_timer) != 0)
    workload_die("timer_create");
  struct itimerspec period = {{0, kPeriodMs * 1000000}, {0, kPeriodMs * 1000000}};
  if (timer_settime(posix_timer, 0, &period, NULL) != 0)
    workload_die("timer_settime");

  short_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  long_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct itimerspec later = {{kLongPeriod, 0}, {kLongSeconds, 0}};
  if (short_fd < 0 || long_fd < 0 ||
      timerfd_settime(long_fd, 0, &later, NULL) != 0)
    workload_die("timerfd");
  arm_short();
}

static void step(struct workload *w) {
  uint64_t n = 0;
  if (read(short_fd, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
    fd_expirations += n;
    arm_short();
  }
  if (wrong_values != 0) workload_fail(w, "a POSIX timer brought a wrong value");
}

static void check_settings(struct workload *w) {
  struct itimerval interval;
  struct itimerspec period;
  if (getitimer(ITIMER_REAL, &interval) != 0 ||
      interval.it_interval.tv_sec != 0 ||
      interval.it_interval.tv_usec != kPeriodMs * 1000)
    workload_fail(w, "the interval timer has another period");
  if (timer_gettime(posix_timer, &period) != 0 ||
      period.it_interval.tv_sec != 0 ||
      period.it_interval.tv_nsec != kPeriodMs * 1000000)
    workload_fail(w, "the POSIX timer has another period");
  if (timerfd_gettime(long_fd, &period) != 0 ||
      period.it_interval.tv_sec != kLongPeriod ||
      period.it_interval.tv_nsec != 0 || period.it_value.tv_sec <= 0 ||
      period.it_value.tv_sec > long_remaining)
    workload_fail(w, "the long timer has %lld s left, had %lld",
                  (long long)period.it_value.tv_sec, (long long)long_remaining);
  long_remaining = period.it_value.tv_sec;
}

/* Every timer must still fire. */
static void check(struct workload *w) {
  check_settings(w);
  uint64_t fd_before = fd_expirations;
  sig_atomic_t alarms_before = alarms, posix_before = posix_expirations;
  uint64_t deadline = workload_now_us() + 20000000;
  while (fd_expirations == fd_before || alarms == alarms_before ||
         posix_expirations == posix_before) {
    if (workload_now_us() > deadline) {
      workload_fail(w, "stopped firing:%s%s%s",
                    fd_expirations == fd_before ? " timerfd" : "",
                    alarms == alarms_before ? " setitimer" : "",
                    posix_expirations == posix_before ? " timer_create" : "");
      return;
    }
    step(w);
    struct timespec rest = {0, 2000000};
    nanosleep(&rest, NULL);
  }
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  return workload_main(argc, argv, &ops);
}
