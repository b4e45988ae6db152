/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals: pending ones with their values, of the process and of a thread, the
 * mask, handlers with their flags, and the alternate stack.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

enum { kQueued = 5, kAltStackBytes = 64 << 10 };
#define SIG_QUEUED (SIGRTMIN + 1)
#define SIG_THREAD (SIGRTMIN + 2)
#define SIG_HANDLED (SIGRTMIN + 4)

static char *alt_stack;
static uint64_t rounds;
static volatile uint64_t handled;
static volatile sig_atomic_t off_stack;
static volatile sig_atomic_t wrong_value;

static void on_handled(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number;
  (void)context;
  char local;
  if (&local < alt_stack || &local >= alt_stack + kAltStackBytes) off_stack = 1;
  if ((uint64_t)info->si_value.sival_int != (handled & 0xffff)) wrong_value = 1;
  handled++;
}

static void queue_all(struct workload *w) {
  union sigval value;
  for (int i = 0; i < kQueued; i++) {
    value.sival_int = (int)(rounds % 1000) * 10 + i;
    if (sigqueue(getpid(), SIG_QUEUED, value) != 0)
      workload_fail(w, "sigqueue failed");
  }
  value.sival_int = (int)(rounds % 1000);
  if (pthread_sigqueue(pthread_self(), SIG_THREAD, value) != 0)
    workload_fail(w, "pthread_sigqueue failed");
  if (kill(getpid(), SIGUSR2) != 0) workload_fail(w, "kill failed");
}

static bool take(int number, siginfo_t *info) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  struct timespec now = {0, 0};
  return sigtimedwait(&set, info, &now) == number;
}

/* All that was queued is there, once, in order, with its values. */
static void take_all(struct workload *w) {
  siginfo_t info;
  for (int i = 0; i < kQueued; i++)
    if (!take(SIG_QUEUED, &info) || info.si_code != SI_QUEUE ||
        info.si_pid != getpid() ||
        info.si_value.sival_int != (int)(rounds % 1000) * 10 + i)
      workload_fail(w, "queued signal %d is missing or wrong", i);
  if (!take(SIG_THREAD, &info) ||
      info.si_value.sival_int != (int)(rounds % 1000))
    workload_fail(w, "the thread's pending signal is missing or wrong");
  if (!take(SIGUSR2, &info) || info.si_code != SI_USER)
    workload_fail(w, "the pending SIGUSR2 is missing or wrong");
  if (take(SIG_QUEUED, &info) || take(SIG_THREAD, &info) ||
      take(SIGUSR2, &info))
    workload_fail(w, "a signal was pending twice");
}

static void fill_mask(sigset_t *set) {
  sigemptyset(set);
  sigaddset(set, SIG_QUEUED);
  sigaddset(set, SIG_THREAD);
  sigaddset(set, SIGUSR2);
  sigaddset(set, SIGWINCH);
}

static void start(struct workload *w) {
  alt_stack = malloc(kAltStackBytes);
  if (alt_stack == NULL) workload_die("malloc");
  stack_t stack = {.ss_sp = alt_stack, .ss_size = kAltStackBytes};
  if (sigaltstack(&stack, NULL) != 0) workload_die("sigaltstack");
  struct sigaction action = {.sa_sigaction = on_handled,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigaddset(&action.sa_mask, SIGQUIT);
  if (sigaction(SIG_HANDLED, &action, NULL) != 0) workload_die("sigaction");
  signal(SIGHUP, SIG_IGN);
  sigset_t mask;
  fill_mask(&mask);
  if (sigprocmask(SIG_SETMASK, &mask, NULL) != 0) workload_die("sigprocmask");
  queue_all(w);
}

static void step(struct workload *w) {
  union sigval value = {.sival_int = (int)(handled & 0xffff)};
  uint64_t before = handled;
  if (sigqueue(getpid(), SIG_HANDLED, value) != 0)
    workload_fail(w, "sigqueue failed");
  if (handled != before + 1) workload_fail(w, "the handler did not run");
  if (off_stack) workload_fail(w, "a handler ran off the alternate stack");
  if (wrong_value) workload_fail(w, "a handler got a wrong value");
}

static void check_settings(struct workload *w) {
  sigset_t mask, expected;
  fill_mask(&expected);
  sigprocmask(SIG_SETMASK, NULL, &mask);
  for (int s = 1; s < NSIG; s++)
    if (sigismember(&mask, s) > 0 && sigismember(&expected, s) <= 0)
      workload_fail(w, "signal %d is blocked", s);
    else if (sigismember(&mask, s) <= 0 && sigismember(&expected, s) > 0)
      workload_fail(w, "signal %d is not blocked", s);
  struct sigaction action;
  sigaction(SIG_HANDLED, NULL, &action);
  if (action.sa_sigaction != on_handled ||
      (action.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_NODEFER)) !=
          (SA_SIGINFO | SA_ONSTACK | SA_NODEFER) ||
      sigismember(&action.sa_mask, SIGQUIT) != 1)
    workload_fail(w, "the handler's settings changed");
  sigaction(SIGHUP, NULL, &action);
  if (action.sa_handler != SIG_IGN) workload_fail(w, "SIGHUP is not ignored");
  stack_t stack;
  sigaltstack(NULL, &stack);
  if (stack.ss_sp != alt_stack || stack.ss_size != kAltStackBytes ||
      (stack.ss_flags & SS_DISABLE))
    workload_fail(w, "the alternate stack changed");
}

static void check(struct workload *w) {
  check_settings(w);
  take_all(w);
  rounds++;
  queue_all(w);
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  return workload_main(argc, argv, &ops);
}
