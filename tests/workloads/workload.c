/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t requested;
static const struct workload_ops *operations;
static pthread_mutex_t failure_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_request(int signal_number) {
  (void)signal_number;
  requested = 1;
}

void workload_die(const char *format, ...) {
  int saved = errno;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, ": %s\n", strerror(saved));
  exit(1);
}

void workload_fail(struct workload *w, const char *format, ...) {
  va_list args;
  va_start(args, format);
  pthread_mutex_lock(&failure_lock);
  if (w->failure[0] == '\0')
    vsnprintf(w->failure, sizeof(w->failure), format, args);
  pthread_mutex_unlock(&failure_lock);
  va_end(args);
}

void workload_block_request(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}

const char *workload_path(const struct workload *w, const char *name) {
  static char path[1024];
  snprintf(path, sizeof(path), "%s/%s", w->dir, name);
  return path;
}

uint64_t workload_now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void workload_fill(uint64_t *words, size_t count, uint64_t id,
                   uint64_t version) {
  for (size_t k = 0; k < count; k++) words[k] = workload_word(id, version, k);
}

bool workload_matches(const uint64_t *words, size_t count, uint64_t id,
                      uint64_t version) {
  for (size_t k = 0; k < count; k++)
    if (words[k] != workload_word(id, version, k)) return false;
  return true;
}

/* Written beside and renamed, so that a reader never sees half of it. */
static void publish(const struct workload *w, const char *name,
                    const char *text) {
  char temporary[1024];
  snprintf(temporary, sizeof(temporary), "%s/.%s.new", w->dir, name);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) workload_die("%s", temporary);
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
    workload_die("%s", temporary);
  close(fd);
  if (rename(temporary, workload_path(w, name)) != 0)
    workload_die("%s/%s", w->dir, name);
}

static void answer(struct workload *w) {
  char token[64] = "";
  int fd = open(workload_path(w, "request"), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t length = read(fd, token, sizeof(token) - 1);
  close(fd);
  if (length <= 0) return;
  token[strcspn(token, "\n")] = '\0';

  operations->check(w);
  w->checks++;
  char text[1024];
  snprintf(text, sizeof(text),
           "token %s\nstatus %s%s\nprogress %llu\nchecks %llu\ncookie %016llx\n"
           "pid %d\n",
           token, w->failure[0] ? "FAIL " : "ok", w->failure,
           (unsigned long long)w->progress, (unsigned long long)w->checks,
           (unsigned long long)w->cookie, (int)getpid());
  publish(w, "result", text);
}

void workload_turn(struct workload *w) {
  if (requested) {
    requested = 0;
    answer(w);
  }
  struct timespec rest = {w->pace_us / 1000000,
                          (long)(w->pace_us % 1000000) * 1000};
  nanosleep(&rest, NULL);
}

/* Leaves the caller's session and its files behind, as CRIU requires. The
 * parent waits until the child is ready and passes its failure on. */
static void detach(const struct workload *w) {
  int channel[2];
  if (pipe2(channel, O_CLOEXEC) != 0) workload_die("pipe2");
  pid_t child = fork();
  if (child < 0) workload_die("fork");
  if (child > 0) {
    close(channel[1]);
    char byte;
    ssize_t length = read(channel[0], &byte, 1);
    int status = 0;
    if (length == 0 && waitpid(child, &status, 0) == child)
      _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    _exit(0);
  }
  close(channel[0]);
  if (setsid() < 0) workload_die("setsid");
  int null = open("/dev/null", O_RDONLY);
  int log = open(workload_path(w, "log"), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (null < 0 || log < 0) workload_die("%s/log", w->dir);
  if (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
    workload_die("dup2");
  /* The write end moves to a fixed place: closed when ready. */
  if (dup3(channel[1], 3, O_CLOEXEC) < 0 && channel[1] != 3)
    workload_die("dup3");
  if (channel[1] != 3) close(channel[1]);
  if (null > 3) close(null);
  if (log > 3) close(log);
}

int workload_main(int argc, char **argv, const struct workload_ops *ops) {
  /* Static: outlives main's frame for threads, and is part of the state. */
  static struct workload w;
  bool detached = false;
  w.bytes = ops->default_bytes;
  w.step = 1;
  w.pace_us = 2000;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(argv[i], "--detach") == 0) {
      detached = true;
      continue;
    }
    if (strcmp(argv[i], "--dir") == 0)
      snprintf(w.dir, sizeof(w.dir), "%s", value);
    else if (strcmp(argv[i], "--mib") == 0)
      w.bytes = strtoul(value, NULL, 10) << 20;
    else if (strcmp(argv[i], "--kib") == 0)
      w.bytes = strtoul(value, NULL, 10) << 10;
    else if (strcmp(argv[i], "--step") == 0)
      w.step = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(argv[i], "--pace-us") == 0)
      w.pace_us = (unsigned)strtoul(value, NULL, 10);
    else {
      fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[i]);
      return 64;
    }
    i++;
  }
  if (w.dir[0] != '/') {
    fprintf(stderr,
            "usage: %s --dir ABSOLUTE-DIR [--detach] [--mib N | --kib N] "
            "[--step N] [--pace-us N]\n",
            argv[0]);
    return 64;
  }
  if (detached) detach(&w);
  operations = ops;
  if (getrandom(&w.cookie, sizeof(w.cookie), 0) != (ssize_t)sizeof(w.cookie))
    workload_die("getrandom");
  struct sigaction action = {.sa_handler = on_request};
  sigaction(SIGUSR1, &action, NULL);

  ops->start(&w);
  char pid[32];
  snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
  publish(&w, "ready", pid);
  if (detached) {
    if (write(3, "r", 1) != 1) workload_die("ready");
    close(3);
  }
  for (;;) {
    if (w.step > 0) ops->step(&w);
    w.progress++;
    workload_turn(&w);
  }
}
