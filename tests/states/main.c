/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

void states_wait(void) {
  say("ready", "");
  while (access(states_path("go"), F_OK) != 0) {
    const struct timespec rest = {0, 20000000};
    nanosleep(&rest, NULL);
  }
}

int main(int argc, char **argv) {
  const struct state *all[] = {states_of_files, states_of_tasks,
                               states_of_memory};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    for (const struct state *state = all[i]; state->name != NULL; state++) {
      if (argc == 1) puts(state->name);
      if (argc != 3 || strcmp(state->name, argv[1]) != 0) continue;
      dir = argv[2];
      state->run();
      say("verdict", wrong[0] != '\0' ? wrong : "ok");
      return 0;
    }
  }
  if (argc == 1) return 0;
  fprintf(stderr, "usage: states [NAME DIR]\n");
  return 2;
}
