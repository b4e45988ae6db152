/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "states.h"

static const char *dir;
static char wrong[4096];

const char *states_path(const char *name) {
  static char path[4096];
  snprintf(path, sizeof(path), "%s/%s", dir, name);
  return path;
}

void states_die(const char *format, ...) {
  int error = errno;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, ": %s\n", strerror(error));
  exit(3);
}

void states_wrong(const char *format, ...) {
  size_t used = strlen(wrong);
  va_list arguments;
  va_start(arguments, format);
  if (used > 0 && used + 2 < sizeof(wrong)) {
    strcat(wrong, "; ");
    used += 2;
  }
  vsnprintf(wrong + used, sizeof(wrong) - used, format, arguments);
  va_end(arguments);
}

/* At once there with all its text. */
static void say(const char *name, const char *text) {
  char new_path[4096];
  snprintf(new_path, sizeof(new_path), "%s", states_path("new"));
  FILE *file = fopen(new_path, "w");
  if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 ||
      rename(new_path, states_path(name)) != 0)
    states_die("%s", name);
}

static void states_rest(void) {
  const struct timespec rest = {0, 20000000};
  nanosleep(&rest, NULL);
}

void states_wait(void) {
  say("ready", "");
  while (access(states_path("go"), F_OK) != 0) states_rest();
}

static const struct state *find(const char *name) {
  const struct state *all[] = {states_of_files, states_of_tasks,
                               states_of_memory};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    for (const struct state *state = all[i]; state->name != NULL; state++) {
      if (name == NULL) puts(state->name);
      if (name != NULL && strcmp(state->name, name) == 0) return state;
    }
  }
  return NULL;
}

static void run(const struct state *state) {
  state->run();
  say("verdict", wrong[0] != '\0' ? wrong : "ok");
}

static int exists(const char *name, const char *file) {
  char path[128];
  snprintf(path, sizeof(path), "%s/%s", name, file);
  return access(states_path(path), F_OK) == 0;
}

/* Until each child has the file; one that fails ends all. */
static void await(char **names, const char *file) {
  for (; *names != NULL; names++) {
    while (!exists(*names, file)) {
      int status;
      pid_t ended = waitpid(-1, &status, WNOHANG);
      if (ended > 0 && status != 0) {
        fprintf(stderr, "child %d ended with %#x\n", ended, status);
        exit(3);
      }
      states_rest();
    }
  }
}

/* Each state in a child and a directory of its own. */
static void run_all(char **names) {
  for (char **name = names; *name != NULL; name++) {
    const struct state *state = find(*name);
    if (state == NULL) states_die("no state %s", *name);
    if (mkdir(states_path(*name), 0700) != 0) states_die("%s", *name);
    pid_t child = fork();
    if (child < 0) states_die("fork");
    if (child == 0) {
      dir = strdup(states_path(*name));
      run(state);
      exit(0);
    }
  }
  await(names, "ready");
  states_wait();
  for (char **name = names; *name != NULL; name++) {
    char path[128];
    snprintf(path, sizeof(path), "%s/go", *name);
    say(path, "");
  }
  await(names, "verdict");
  say("verdict", "");
}

int main(int argc, char **argv) {
  if (argc == 1) {
    find(NULL);
    return 0;
  }
  if (argc > 3 && strcmp(argv[1], "tree") == 0) {
    dir = argv[2];
    run_all(argv + 3);
    return 0;
  }
  const struct state *state = find(argv[1]);
  if (argc != 3 || state == NULL) {
    fprintf(stderr, "usage: states [NAME DIR | tree DIR NAME...]\n");
    return 2;
  }
  dir = argv[2];
  run(state);
  return 0;
}
