/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a workload to check itself (protocol: workload.h).
 *
 *   workloadctl check DIR [--since PROGRESS] [--cookie X] [--timeout SECONDS]
 *
 * Asks until the workload has made progress beyond PROGRESS and beyond its
 * first answer. Prints the last answer as one line of JSON.
 * Exit: 0 all is well; 1 a check failed, or the wrong process answered, or no
 * progress or answer came in time (stderr says what); 64 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct answer {
  char token[64];
  char status[300];
  uint64_t progress;
  uint64_t checks;
  char cookie[32];
  int pid;
};

static const char *directory;
static uint64_t deadline_ms;

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void __attribute__((noreturn)) fail(const char *what,
                                           const char *detail) {
  fprintf(stderr, "%s: %s%s%s\n", directory, what, detail[0] ? ": " : "",
          detail);
  exit(1);
}

static size_t slurp(const char *name, char *text, size_t size) {
  char path[1024];
  snprintf(path, sizeof(path), "%s/%s", directory, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, size - 1);
  close(fd);
  text[n > 0 ? n : 0] = '\0';
  return n > 0 ? (size_t)n : 0;
}

static void parse(char *text, struct answer *a) {
  memset(a, 0, sizeof(*a));
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    sscanf(line, "token %63s", a->token);
    sscanf(line, "progress %" SCNu64, &a->progress);
    sscanf(line, "checks %" SCNu64, &a->checks);
    sscanf(line, "cookie %31s", a->cookie);
    sscanf(line, "pid %d", &a->pid);
    if (strncmp(line, "status ", 7) == 0)
      snprintf(a->status, sizeof(a->status), "%s", line + 7);
  }
}

static void rest(void) {
  struct timespec t = {0, 3000000};
  nanosleep(&t, NULL);
}

static void ask(struct answer *a) {
  static unsigned serial;
  char token[64], path[1024], fresh[1024], text[2048];
  snprintf(token, sizeof(token), "%d.%u.%" PRIu64, (int)getpid(), serial++,
           now_ms());
  snprintf(path, sizeof(path), "%s/request", directory);
  snprintf(fresh, sizeof(fresh), "%s/.request.%d", directory, (int)getpid());
  FILE *f = fopen(fresh, "w");
  if (f == NULL) fail("cannot write a request", strerror(errno));
  fprintf(f, "%s\n", token);
  fclose(f);
  if (rename(fresh, path) != 0) fail("cannot write a request", "");
  if (slurp("ready", text, sizeof(text)) == 0) fail("not ready", "");
  pid_t pid = atoi(text);
  if (pid <= 1 || kill(pid, SIGUSR1) != 0)
    fail("the workload is gone", strerror(errno));
  for (;;) {
    if (slurp("result", text, sizeof(text)) > 0) {
      parse(text, a);
      if (strcmp(a->token, token) == 0) return;
    }
    if (kill(pid, 0) != 0) fail("the workload died", "");
    if (now_ms() > deadline_ms) fail("no answer in time", "");
    rest();
  }
}

int main(int argc, char **argv) {
  uint64_t since = 0, timeout = 120;
  const char *cookie = "";
  if (argc < 3 || strcmp(argv[1], "check") != 0 || argc % 2 == 0) {
    fprintf(stderr,
            "usage: workloadctl check DIR [--since PROGRESS] [--cookie X] "
            "[--timeout SECONDS]\n");
    return 64;
  }
  directory = argv[2];
  for (int i = 3; i < argc; i += 2) {
    if (strcmp(argv[i], "--since") == 0)
      since = strtoull(argv[i + 1], NULL, 10);
    else if (strcmp(argv[i], "--cookie") == 0)
      cookie = argv[i + 1];
    else if (strcmp(argv[i], "--timeout") == 0)
      timeout = strtoull(argv[i + 1], NULL, 10);
    else
      return 64;
  }
  deadline_ms = now_ms() + timeout * 1000;

  struct answer first, a;
  ask(&first);
  a = first;
  while (strcmp(a.status, "ok") == 0 &&
         (a.progress <= first.progress || a.progress < since)) {
    if (now_ms() > deadline_ms) fail("makes no progress", "");
    rest();
    ask(&a);
  }
  printf("{\"status\":\"%s\",\"progress\":%" PRIu64 ",\"checks\":%" PRIu64
         ",\"cookie\":\"%s\",\"pid\":%d}\n",
         a.status, a.progress, a.checks, a.cookie, a.pid);
  if (strcmp(a.status, "ok") != 0) fail("self-check failed", a.status);
  if (first.progress < since) fail("lost progress: an older state", "");
  if (cookie[0] != '\0' && strcmp(cookie, a.cookie) != 0)
    fail("another process answered", a.cookie);
  return 0;
}
