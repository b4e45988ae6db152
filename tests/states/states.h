/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small programs that hold one kind of state each. states NAME DIR sets it up,
 * creates DIR/ready, waits until there is DIR/go, and says in DIR/verdict what
 * is no longer as it was, or "ok". Files of DIR are the program's alone.
 */
#ifndef DAXSNAP_TESTS_STATES_STATES_H_
#define DAXSNAP_TESTS_STATES_STATES_H_

struct state {
  const char *name;
  /* Sets up, calls states_wait() once, and looks at what is left. */
  void (*run)(void);
};

/* Ends with a null name. */
extern const struct state states_of_files[];
extern const struct state states_of_tasks[];
extern const struct state states_of_memory[];

/* Comes back when the snapshot has been taken and restored, or refused. */
void states_wait(void);

/* Notes what is wrong. */
void states_wrong(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* Ends with a message: only while setting up. */
void states_die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

/* A path below DIR, good until the next call. */
const char *states_path(const char *name);

#define EXPECT(holds, ...)                   \
  do {                                       \
    if (!(holds)) states_wrong(__VA_ARGS__); \
  } while (0)

#define MUST(call)                         \
  ({                                       \
    __typeof__(call) result_ = (call);     \
    if (result_ == (__typeof__(call))-1) { \
      states_die("%s", #call);             \
    }                                      \
    result_;                               \
  })

#endif /* DAXSNAP_TESTS_STATES_STATES_H_ */
