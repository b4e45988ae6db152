/* SPDX-License-Identifier: GPL-2.0-only */
/* The states of tests/states as tests of zdtm, which wants them linked with its
 * library. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "states.h"
#include "zdtmtst.h"

const char* test_doc = "Check that one kind of state comes back";
const char* test_author = "The daxsnap authors";

static char* state;
TEST_OPTION(state, string, "kind of state", 1);
static char* dirname;
TEST_OPTION(dirname, string, "directory name", 1);

static int wrong;

const char* states_path(const char* name) {
  static char path[4096];
  snprintf(path, sizeof(path), "%s/%s", dirname, name);
  return path;
}

void states_wait(void) {
  test_daemon();
  test_waitsig();
}

void states_die(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  pr_perror("%s", text);
  exit(1);
}

void states_wrong(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  fail("%s", text);
  wrong = 1;
}

int main(int argc, char** argv) {
  const struct state* all[] = {states_of_files, states_of_tasks,
                               states_of_memory};
  size_t i;

  test_init(argc, argv);
  if (mkdir(dirname, 0700)) states_die("mkdir %s", dirname);
  for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    const struct state* each;
    for (each = all[i]; each->name != NULL; each++) {
      if (strcmp(each->name, state) != 0) continue;
      each->run();
      if (!wrong) pass();
      return wrong;
    }
  }
  states_die("no state %s", state);
}
