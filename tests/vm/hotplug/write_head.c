// SPDX-License-Identifier: Apache-2.0
/*
 * write_head FILE OFFSET BYTES [VERSION]: makes an empty kmemfs pool of the device of BYTES
 * bytes that starts at OFFSET in FILE, of format version VERSION (default: 1), with the very
 * functions that snapctl uses.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kmem_persist_header.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "format.h"

static union {
  struct {
    struct kmem_persist_header header;
    struct kmemfs_root slots[KMEMFS_ROOT_SLOTS];
  } at;
  unsigned char bytes[KMEM_PERSIST_HEAD_PAGES * KMEM_PERSIST_PAGE_SIZE];
} head;

int main(int argc, char** argv) {
  __u8 uuid[16];

  if (argc != 4 && argc != 5) {
    fprintf(stderr, "usage: write_head FILE OFFSET BYTES [VERSION]\n");
    return 64;
  }
  /* Of its own each time, so that pages of the device's earlier life are not taken for this one's. */
  if (getrandom(uuid, sizeof(uuid), 0) != (ssize_t)sizeof(uuid)) {
    perror("getrandom");
    return 1;
  }
  kmem_persist_header_init(&head.at.header, KMEM_PERSIST_FS, uuid, "hotplug", strtoull(argv[3], NULL, 0));
  kmemfs_mkfs(head.at.slots, uuid, argc == 5 ? (__u32)strtoul(argv[4], NULL, 0) : 1, 0);

  int fd = open(argv[1], O_WRONLY | O_CLOEXEC);
  if (fd < 0 ||
      pwrite(fd, head.bytes, sizeof(head.bytes), (off_t)strtoull(argv[2], NULL, 0)) != (ssize_t)sizeof(head.bytes) ||
      close(fd)) {
    perror(argv[1]);
    return 1;
  }
  return 0;
}
