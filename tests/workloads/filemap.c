/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: a private map with written and untouched pages, a shared map that a
 * descriptor sees too, and a descriptor with an offset.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workload.h"

enum { kPages = 256, kWords = WL_PAGE / sizeof(uint64_t) };
enum { kPrivate = 1ULL << 40, kShared = 2ULL << 40 };

static uint64_t *private_map;
static uint64_t *shared_map;
static uint32_t private_versions[kPages];
static uint32_t shared_versions[kPages];
static int shared_fd;
static int offset_fd;
static uint64_t turn;

static int make_file(const struct workload *w, const char *name, uint64_t id) {
  int fd = open(workload_path(w, name), O_RDWR | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) workload_die("%s", name);
  for (size_t page = 0; page < kPages; page++) {
    uint64_t words[kWords];
    workload_fill(words, kWords, id + page, 0);
    if (write(fd, words, sizeof(words)) != (ssize_t)sizeof(words))
      workload_die("%s", name);
  }
  if (fsync(fd) != 0) workload_die("%s", name);
  return fd;
}

static uint64_t *map(int fd, int flags) {
  void *p = mmap(NULL, kPages * WL_PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (p == MAP_FAILED) workload_die("mmap");
  return p;
}

static void start(struct workload *w) {
  int private_fd = make_file(w, "private.bin", kPrivate);
  private_map = map(private_fd, MAP_PRIVATE);
  close(private_fd);
  shared_fd = make_file(w, "shared.bin", kShared);
  shared_map = map(shared_fd, MAP_SHARED);
  offset_fd = make_file(w, "offset.bin", 0);
  if (lseek(offset_fd, 0, SEEK_SET) != 0) workload_die("lseek");
}

static void rewrite(uint64_t *map, uint32_t *versions, uint64_t id,
                    size_t page) {
  versions[page]++;
  workload_fill(map + page * kWords, kWords, id + page, versions[page]);
}

static void step(struct workload *w) {
  turn++;
  /* Even private pages are written, odd ones stay the file's. */
  rewrite(private_map, private_versions, kPrivate,
          workload_mix(turn) % (kPages / 2) * 2);
  rewrite(shared_map, shared_versions, kShared, workload_mix(turn) % kPages);
  uint64_t word = 0;
  off_t before = lseek(offset_fd, 0, SEEK_CUR);
  if (before == (off_t)(kPages * WL_PAGE))
    before = lseek(offset_fd, 0, SEEK_SET);
  if (read(offset_fd, &word, sizeof(word)) != sizeof(word) ||
      word != workload_word((uint64_t)before / WL_PAGE, 0,
                            (uint64_t)before % WL_PAGE / sizeof(word)))
    workload_fail(w, "offset.bin reads wrong at %lld", (long long)before);
}

static void check(struct workload *w) {
  for (size_t page = 0; page < kPages; page++) {
    if (!workload_matches(private_map + page * kWords, kWords, kPrivate + page,
                          private_versions[page]))
      workload_fail(w, "private map: page %zu is not its version %u", page,
                    private_versions[page]);
    if (!workload_matches(shared_map + page * kWords, kWords, kShared + page,
                          shared_versions[page]))
      workload_fail(w, "shared map: page %zu is not its version %u", page,
                    shared_versions[page]);
    uint64_t words[kWords];
    if (pread(shared_fd, words, sizeof(words), (off_t)(page * WL_PAGE)) !=
            (ssize_t)sizeof(words) ||
        memcmp(words, shared_map + page * kWords, sizeof(words)) != 0)
      workload_fail(w, "shared map and file differ at page %zu", page);
  }
  /* Reads are 8 bytes a turn from the start: the offset follows from turn. */
  off_t expected =
      (off_t)((turn - 1) % (kPages * WL_PAGE / 8) + 1) * (turn > 0 ? 8 : 0);
  if (lseek(offset_fd, 0, SEEK_CUR) != expected)
    workload_fail(w, "offset is %lld, expected %lld",
                  (long long)lseek(offset_fd, 0, SEEK_CUR),
                  (long long)expected);
}

int main(int argc, char **argv) {
  static const struct workload_ops ops = {0, start, step, check};
  return workload_main(argc, argv, &ops);
}
