/* SPDX-License-Identifier: GPL-2.0-only */
#include "copies.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

/* Of a pagemap entry; source: Documentation/admin-guide/mm/pagemap.rst */
#define PM_PRESENT (1ull << 63)
#define PM_SWAP (1ull << 62)
#define PM_FILE (1ull << 61)
#define PM_EXCLUSIVE (1ull << 56)
#define PM_NUMBER ((1ull << 55) - 1)

/* Pages that are compared at once, and how far a buffer is from where a read maps. */
#define BATCH 64
#define ODD 8

struct copy {
	uint64_t place; /* 0: free */
	uint64_t offset;
	int source;
};

/* Open addressing; at least a quarter is free. */
static struct {
	struct copy *slots;
	size_t nr, size; /* the size is a power of two */
	size_t nr_of_others;
} table;

/* Images that were copied to, open for reading until the end. */
static struct {
	int *fds;
	size_t nr;
} sources;

static struct {
	int pid, img_fd;
	int pagemap, mem, source; /* -1: not open yet */
	uint64_t vaddr, img_off;
	size_t nr;
	uint64_t places[COPIES_MAX_RANGE]; /* 0: nobody else can have it */
	bool moved[COPIES_MAX_RANGE]; /* What was copied from this place is another page. */
} range = { .pid = -1, .img_fd = -1, .pagemap = -1, .mem = -1, .source = -1 };

static uint64_t page_size;

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int open_proc(int *fd, int pid, const char *name)
{
	char path[64];

	if (*fd >= 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	return *fd < 0 ? -1 : 0;
}

static struct copy *slot_of(uint64_t place)
{
	size_t i = (place * 0x9e3779b97f4a7c15ull >> 20) & (table.size - 1);

	while (table.slots[i].place && table.slots[i].place != place)
		i = (i + 1) & (table.size - 1);
	return &table.slots[i];
}

static int grow(void)
{
	size_t i, old_size = table.size, size = old_size ? 2 * old_size : 4096;
	struct copy *old = table.slots, *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return -1;
	table.slots = slots;
	table.size = size;
	for (i = 0; i < old_size; i++) {
		if (old[i].place)
			*slot_of(old[i].place) = old[i];
	}
	free(old);
	return 0;
}

static int open_source(void)
{
	char path[64];
	int *grown;

	if (range.source >= 0)
		return 0;

	grown = realloc(sources.fds, (sources.nr + 1) * sizeof(*grown));
	if (!grown)
		return -1;
	sources.fds = grown;

	/* CRIU has it open for writing only */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", range.img_fd);
	range.source = open(path, O_RDONLY | O_CLOEXEC);
	if (range.source < 0)
		return -1;
	sources.fds[sources.nr++] = range.source;
	return 0;
}

void copies_begin_task(void)
{
	table.nr_of_others = table.nr;
}

bool copies_of_others(void)
{
	return table.nr_of_others > 0;
}

int copies_look_at(int pid, int img_fd, uint64_t vaddr, size_t nr_pages, uint64_t img_off)
{
	const ssize_t len = nr_pages * sizeof(range.places[0]);
	ssize_t ret;
	size_t i;

	if (!page_size)
		page_size = sysconf(_SC_PAGESIZE);
	if (range.pid != pid || range.img_fd != img_fd) {
		close_one(&range.pagemap);
		close_one(&range.mem);
		range.source = -1;
		range.pid = pid;
		range.img_fd = img_fd;
	}
	range.vaddr = vaddr;
	range.img_off = img_off;
	range.nr = nr_pages;

	if (open_proc(&range.pagemap, pid, "pagemap"))
		return -1;
	ret = pread(range.pagemap, range.places, len, vaddr / page_size * sizeof(range.places[0]));
	if (ret != len) {
		if (ret >= 0)
			errno = EIO;
		return -1;
	}

	for (i = 0; i < nr_pages; i++) {
		uint64_t entry = range.places[i];

		range.places[i] = 0;
		range.moved[i] = false;
		if (!(entry & (PM_PRESENT | PM_SWAP)) || (entry & (PM_FILE | PM_EXCLUSIVE)))
			continue;
		if (!(entry & PM_NUMBER)) {
			errno = EPERM;
			return -1;
		}
		range.places[i] = entry & (PM_PRESENT | PM_SWAP | PM_NUMBER);
	}
	return 0;
}

int copies_remember(size_t first, size_t nr_pages)
{
	size_t i;

	for (i = first; i < first + nr_pages; i++) {
		struct copy *slot;

		if (!range.places[i])
			continue;
		if (open_source() || (4 * (table.nr + 1) > 3 * table.size && grow()))
			return -1;
		slot = slot_of(range.places[i]);
		if (!slot->place)
			table.nr++;
		slot->place = range.places[i];
		slot->offset = range.img_off + i * page_size;
		slot->source = range.source;
	}
	return 0;
}

static const struct copy *find(size_t i)
{
	struct copy *slot;

	if (!range.places[i] || range.moved[i] || !table.size)
		return NULL;
	slot = slot_of(range.places[i]);
	return slot->place ? slot : NULL;
}

static void give_up(size_t first, size_t nr_pages)
{
	memset(range.moved + first, true, nr_pages);
}

/*
 * How many pages from the first on are what was copied; those that are not are not looked
 * at again. Read to odd addresses, so that the pages are copied and not mapped.
 */
static size_t nr_equal(size_t first, size_t nr_pages, const struct copy *copy)
{
	static char *buf;
	const ssize_t len = nr_pages * page_size;
	char *ours, *theirs;
	size_t i, nr = 0;

	if (!buf)
		buf = malloc(2 * BATCH * page_size + ODD);
	if (!buf || open_proc(&range.mem, range.pid, "mem")) {
		give_up(first, nr_pages);
		return 0;
	}
	/* malloc() aligns to 16 at least */
	ours = buf + ODD;
	theirs = ours + BATCH * page_size;
	if (pread(range.mem, ours, len, range.vaddr + first * page_size) != len ||
	    pread(copy->source, theirs, len, copy->offset) != len) {
		give_up(first, nr_pages);
		return 0;
	}
	for (i = 0; i < nr_pages; i++) {
		if (memcmp(ours + i * page_size, theirs + i * page_size, page_size))
			range.moved[first + i] = true;
		else if (nr == i)
			nr++;
	}
	return nr;
}

size_t copies_clone(size_t first)
{
	const struct copy *copy = find(first);
	struct file_clone_range clone;
	size_t nr;

	if (!copy)
		return 0;
	for (nr = 1; nr < BATCH && first + nr < range.nr; nr++) {
		const struct copy *next = find(first + nr);

		if (!next || next->source != copy->source || next->offset != copy->offset + nr * page_size)
			break;
	}

	nr = nr_equal(first, nr, copy);
	if (!nr)
		return 0;
	clone.src_fd = copy->source;
	clone.src_offset = copy->offset;
	clone.src_length = nr * page_size;
	clone.dest_offset = range.img_off + first * page_size;
	if (ioctl(range.img_fd, FICLONERANGE, &clone)) {
		give_up(first, nr);
		return 0;
	}
	return nr;
}

size_t copies_none(size_t first)
{
	size_t i;

	for (i = first + 1; i < range.nr && !find(i); i++)
		;
	return i - first;
}

void copies_end(void)
{
	size_t i;

	for (i = 0; i < sources.nr; i++)
		close(sources.fds[i]);
	free(sources.fds);
	free(table.slots);
	memset(&sources, 0, sizeof(sources));
	memset(&table, 0, sizeof(table));
	close_one(&range.pagemap);
	close_one(&range.mem);
	range.pid = -1;
	range.img_fd = -1;
	range.source = -1;
}
