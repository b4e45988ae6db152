// SPDX-License-Identifier: Apache-2.0
/*
 * write_runs FILE OFFSET BYTES FIRST END RUNS [STEP]: makes a kmemfs pool of the device of BYTES
 * bytes that starts at OFFSET in FILE, with one file, "runs", of RUNS pages, each a run of its own,
 * and each STEP pages (default: 1) after the one before. The kernel will use device pages FIRST to
 * END - 1. Data pages are not written.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <fcntl.h>
#include <linux/kmem_persist_header.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"

static unsigned char* device;
static __u64 next_page;

static void* take_page(struct kmemfs_sink* s, __u64* page) {
  (void)s;
  *page = next_page++;
  return device + *page * KMEMFS_PAGE_SIZE;
}

static void no_flush(struct kmemfs_sink* s, enum kmem_persist_step step, const void* addr, size_t len) {
  (void)s;
  (void)step;
  (void)addr;
  (void)len;
}

static void no_fence(struct kmemfs_sink* s, enum kmem_persist_step step) {
  (void)s;
  (void)step;
}

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static void check(int err, const char* what) {
  if (err) {
    fprintf(stderr, "write_runs: %s: %d\n", what, err);
    exit(1);
  }
}

static void write_tree(struct kmemfs_sink* s, __u64 first, __u64 end, __u64 runs, __u64 step) {
  /* pages in pairs, each pair the wrong way round: no run continues the one before */
  const __u64 data = (first + runs / KMEMFS_RUNS_PER_PAGE + 64) & ~1ULL;
  struct kmemfs_root_info root = {.generation = s->generation, .nr_inodes = 2, .nr_file_pages = runs};
  struct kmemfs_tree tree;
  struct kmemfs_inodes* leaf;
  __u64 leaf_page, top, i;
  __u32 height;

  if (data + runs + 1 > end) fail("device too small");
  kmemfs_tree_init(&tree, s, 2);
  for (i = 0; i < runs; i++) check(kmemfs_tree_add_run(&tree, i * step, 1, data + (i ^ 1)), "run");
  check(kmemfs_tree_finish(&tree, &top, &height), "extents");

  leaf = take_page(s, &leaf_page);
  kmemfs_inodes_init(leaf, s, 0);
  leaf->record[1].ino = leaf->record[1].parent = leaf->record[2].parent = htole64(1);
  leaf->record[1].mode = htole32(S_IFDIR | 0755);
  leaf->record[2].ino = htole64(2);
  leaf->record[2].mode = htole32(S_IFREG | 0644);
  leaf->record[2].size = htole64(runs * step * KMEMFS_PAGE_SIZE);
  leaf->record[2].extents = htole64(top);
  leaf->record[2].extents_height = htole32(height);
  leaf->record[2].nr_runs = leaf->record[2].nr_pages = htole64(runs);
  leaf->record[2].name_len = 4;
  memcpy(leaf->record[2].name, "runs", 4);
  kmemfs_inodes_finish(leaf, s);

  kmemfs_tree_init(&tree, s, 0);
  check(kmemfs_tree_add_leaf(&tree, leaf_page), "leaf");
  check(kmemfs_tree_finish(&tree, (__u64*)&root.itable, &root.itable_height), "table");
  root.nr_inode_pages = tree.leaves;
  root.nr_meta_pages = next_page - first;
  kmemfs_publish(s, (struct kmemfs_root*)(device + 2 * KMEMFS_PAGE_SIZE), &root);
}

int main(int argc, char** argv) {
  static const __u8 uuid[16] = {'s', 'c', 'a', 'l', 'e'};
  struct kmemfs_sink sink = {.alloc = take_page, .flush = no_flush, .fence = no_fence, .generation = 2};
  __u64 number[6] = {[5] = 1};
  int i, fd;

  if (argc != 7 && argc != 8) {
    fprintf(stderr, "usage: write_runs FILE OFFSET BYTES FIRST END RUNS [STEP]\n");
    return 64;
  }
  for (i = 2; i < argc; i++) number[i - 2] = strtoull(argv[i], NULL, 0);
  fd = open(argv[1], O_RDWR | O_CLOEXEC);
  if (fd < 0) fail(argv[1]);
  device = mmap(NULL, number[1], PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)number[0]);
  if (device == MAP_FAILED) fail("mmap");
  next_page = number[2];
  memcpy(sink.uuid, uuid, sizeof(uuid));
  kmem_persist_header_init((struct kmem_persist_header*)device, KMEM_PERSIST_FS, uuid, "scale", number[1]);
  kmemfs_mkfs((struct kmemfs_root*)(device + KMEMFS_PAGE_SIZE), uuid, 1, 0);
  write_tree(&sink, number[2], number[3], number[4], number[5]);
  if (munmap(device, number[1]) || close(fd)) fail("close");
  return 0;
}
