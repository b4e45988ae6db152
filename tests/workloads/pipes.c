/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes and a socket pair: bytes parked in a pipe that nobody reads, and a
 * numbered stream through a child with messages always under way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "workload.h"

enum { kParkedWords = 1500, kUnderWay = 8 };

static int parked[2];
static int scratch[2];
static int to_child[2];
static int from_child[2];
static int pair[2];
static pid_t child;
static uint64_t sent, received, pair_sent, pair_received;

static void make_pipe(int fds[2]) {
  if (pipe(fds) != 0) workload_die("pipe");
}

static bool read_word(int fd, uint64_t *word) {
  size_t have = 0;
  while (have < sizeof(*word)) {
    ssize_t n = read(fd, (char *)word + have, sizeof(*word) - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    have += (size_t)n;
  }
  return true;
}

static bool write_word(int fd, uint64_t word) {
  ssize_t n;
  do {
    n = write(fd, &word, sizeof(word));
  } while (n < 0 && errno == EINTR);
  return n == (ssize_t)sizeof(word);
}

/* The child returns each word mixed, on the channel that it came from. */
static void __attribute__((noreturn)) echo(void) {
  workload_block_request();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct pollfd fds[2] = {{to_child[0], POLLIN, 0}, {pair[1], POLLIN, 0}};
  for (;;) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR) _exit(1);
    uint64_t word;
    if (fds[0].revents & (POLLIN | POLLHUP))
      if (!read_word(to_child[0], &word) ||
          !write_word(from_child[1], workload_mix(word)))
        _exit(1);
    if (fds[1].revents & (POLLIN | POLLHUP))
      if (!read_word(pair[1], &word) ||
          !write_word(pair[1], ~workload_mix(word)))
        _exit(1);
  }
}

static void start(struct workload *w) {
  make_pipe(parked);
  make_pipe(scratch);
  make_pipe(to_child);
  make_pipe(from_child);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) workload_die("pair");
  for (size_t k = 0; k < kParkedWords; k++)
    if (!write_word(parked[1], workload_word(w->cookie, 0, k)))
      workload_die("write");
  child = fork();
  if (child < 0) workload_die("fork");
  if (child == 0) echo();
}

static void step(struct workload *w) {
  for (; sent < received + kUnderWay; sent++)
    if (!write_word(to_child[1], w->cookie + sent))
      workload_fail(w, "writing to the child's pipe failed");
  for (; pair_sent < pair_received + kUnderWay; pair_sent++)
    if (!write_word(pair[0], w->cookie ^ pair_sent))
      workload_fail(w, "writing to the socket pair failed");
  uint64_t word = 0;
  if (!read_word(from_child[0], &word) ||
      word != workload_mix(w->cookie + received))
    workload_fail(w, "the pipe returned a wrong word %llu",
                  (unsigned long long)received);
  received++;
  if (!read_word(pair[0], &word) ||
      word != ~workload_mix(w->cookie ^ pair_received))
    workload_fail(w, "the socket pair returned a wrong word %llu",
                  (unsigned long long)pair_received);
  pair_received++;
}

static void check(struct workload *w) {
  /* tee() duplicates the parked bytes and leaves them where they are. */
  size_t bytes = kParkedWords * sizeof(uint64_t);
  ssize_t n = tee(parked[0], scratch[1], 65536, SPLICE_F_NONBLOCK);
  if (n != (ssize_t)bytes)
    workload_fail(w, "%zd parked bytes, expected %zu", n, bytes);
  for (ssize_t k = 0; k < n / (ssize_t)sizeof(uint64_t); k++) {
    uint64_t word = 0;
    if (!read_word(scratch[0], &word) ||
        word != workload_word(w->cookie, 0, (size_t)k)) {
      workload_fail(w, "parked word %zd is wrong", k);
      break;
    }
  }
  if (waitpid(child, NULL, WNOHANG) != 0) workload_fail(w, "the child ended");
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  signal(SIGPIPE, SIG_IGN);
  return workload_main(argc, argv, &ops);
}
