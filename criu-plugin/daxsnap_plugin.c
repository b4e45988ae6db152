/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DOC: daxsnap_plugin - CRIU images whose pages are taken, not copied
 *
 * When the images of a dump are on kmemfs, the pages of the frozen task go into
 * the pages image by reference: CRIU offers a range with the hook DUMP_PAGES,
 * one ioctl puts it where CRIU would have written it. On any other filesystem,
 * or on a kernel without the ioctl, the plugin declines and CRIU copies.
 *
 * What the ioctl has to copy, as it is on another node, and tasks have in common,
 * the plugin has copied once: for the others it clones the part of the image.
 *
 * When images are restored from kmemfs, the hook SHARE_PAGES has each task of a
 * tree read its pages from there, which maps them: if the pages were put there by
 * this plugin, as then those that tasks had in common are one page of the pool.
 *
 * All state is memory and descriptors of the criu process, so a killed CRIU
 * leaves nothing behind. What the ioctl did is undone by removing the image.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/kmemfs.h>

#include "criu-log.h"
#include "criu-plugin.h"
#include "copies.h"
#include "daxsnap-stats.pb-c.h"

#undef LOG_PREFIX
#define LOG_PREFIX "daxsnap: "

#define STATS_FILE "daxsnap-stats.img"
/* More than the images of all PIDs that there can be would need. */
#define MAX_STATS (64 << 20)

/* The task whose pages come in, one at a time, and its pages image. */
static struct {
	int pid;
	int img_fd;
	int pidfd; /* -1: none yet, or the pages are declined */
	bool capture;
} task = { .pid = -1, .img_fd = -1, .pidfd = -1 };

/* A file for good: inode numbers are given again. */
struct image {
	uint64_t inode;
	int64_t birth_ns;
};

/* Pages images into which the plugin has put all that it was offered. */
static struct {
	struct image *images;
	size_t nr;
	/* One could not be noted, or tasks may not share in them what they had in common. */
	bool failed;
} taken;

static struct {
	uint64_t by_reference;
	uint64_t shared;
	uint64_t copied;
	uint64_t hole;
	uint64_t declined;
	uint64_t calls;
	uint64_t ns;
} stats;

static uint64_t page_size;

/* The kernel turned out not to know the ioctl: do not ask again. */
static bool unsupported;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void end_task(void)
{
	if (task.pidfd >= 0)
		close(task.pidfd);
	task.pid = -1;
	task.img_fd = -1;
	task.pidfd = -1;
	task.capture = false;
}

static int identify(int fd, struct image *image)
{
	const unsigned int want = STATX_INO | STATX_BTIME;
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, want, &st))
		return -errno;
	if ((st.stx_mask & want) != want)
		return -EOPNOTSUPP;
	image->inode = st.stx_ino;
	image->birth_ns = st.stx_btime.tv_sec * 1000000000ll + st.stx_btime.tv_nsec;
	return 0;
}

static void note_taken(int img_fd)
{
	struct image *grown = realloc(taken.images, (taken.nr + 1) * sizeof(*grown));

	if (grown)
		taken.images = grown;
	if (!grown || identify(img_fd, &grown[taken.nr]))
		taken.failed = true;
	else
		taken.nr++;
}

/*
 * To copy a page that is swapped out brings it back to where it was not, and to one of
 * the tasks that have it: nobody can tell then what they had in common.
 */
static bool is_swapped(int pid)
{
	unsigned long kib = 1;
	char text[128];
	FILE *status;

	snprintf(text, sizeof(text), "/proc/%d/status", pid);
	status = fopen(text, "re");
	while (status && fgets(text, sizeof(text), status) && sscanf(text, "VmSwap: %lu", &kib) != 1)
		;
	if (status)
		fclose(status);
	return kib > 0;
}

/*
 * CRIU dumps one task after another, each into a pages image of its own. The
 * pid is the one in CRIU's pid namespace, which is what pidfd_open() takes, and
 * it cannot be reused: CRIU has the task seized.
 */
static int begin_task(int pid, int img_fd)
{
	struct statfs fs;
	int err;

	end_task();

	if (fstatfs(img_fd, &fs)) {
		err = errno;
		pr_err("pid %d: can't tell the filesystem of the pages image: %s\n", pid, strerror(err));
		return -err;
	}

	if (fs.f_type == KMEMFS_SUPER_MAGIC) {
		task.pidfd = pidfd_open(pid, 0);
		if (task.pidfd < 0) {
			err = errno;
			pr_err("pid %d: can't open a pidfd: %s\n", pid, strerror(err));
			return -err;
		}
		task.capture = true;
		copies_begin_task();
		note_taken(img_fd);
		if (is_swapped(pid))
			taken.failed = true;
	} else {
		pr_info("pid %d: images are not on kmemfs, CRIU copies the pages\n", pid);
	}

	task.pid = pid;
	task.img_fd = img_fd;
	return 0;
}

/* Adds what a call did; returns how many bytes of its range that was. */
static uint64_t account(const struct kmemfs_capture *c)
{
	stats.by_reference += c->pages_by_reference;
	stats.shared += c->pages_shared;
	stats.copied += c->pages_copied;
	stats.hole += c->pages_hole;

	return (c->pages_by_reference + c->pages_shared + c->pages_copied + c->pages_hole) * page_size;
}

static const char *advice(int err)
{
	switch (err) {
	case ENOSPC:
	case EDQUOT:
		return "the pool is full; delete snapshots or stop tasks that use its memory";
	case ENOMEM:
		return "the kernel is out of memory; free some and try again";
	case EPERM:
	case EACCES:
		return "CRIU needs ptrace access to the task and CAP_CHECKPOINT_RESTORE";
	case ESRCH:
		return "the task was killed during the dump";
	case EROFS:
		return "the pool is mounted read-only; remount it";
	case EFBIG:
		return "CRIU's limit for the size of files (RLIMIT_FSIZE) is too low";
	case EIO:
		return "the pool failed; see the kernel log";
	default:
		return "see the kernel log";
	}
}

static bool means_unsupported(int err)
{
	return err == ENOTTY || err == EOPNOTSUPP || err == ENOSYS || err == EINVAL;
}

static int capture(uint64_t vaddr, uint64_t len, uint64_t img_off)
{
	uint64_t done = 0;

	while (done < len) {
		struct kmemfs_capture c = {
			.pidfd = task.pidfd,
			.addr = vaddr + done,
			.len = len - done,
			.offset = img_off + done,
		};
		int err = 0;
		uint64_t begin = now_ns();

		if (ioctl(task.img_fd, KMEMFS_IOC_CAPTURE, &c))
			err = errno;
		stats.ns += now_ns() - begin;
		stats.calls++;

		if (err && means_unsupported(err)) {
			/* CRIU writes the whole range over whatever is there. */
			pr_warn("this kernel can't capture pages (%s), CRIU copies them\n", strerror(err));
			unsupported = true;
			taken.failed = true;
			return -ENOTSUP;
		}

		done += account(&c);
		if (!err && done != len) {
			pr_err("pid %d: the kernel accounts for %" PRIu64 " of %" PRIu64 " bytes at %#" PRIx64
			       ": %s\n",
			       task.pid, done, len, vaddr, advice(EPROTO));
			return -EPROTO;
		}
		/* On a signal, for instance CRIU's alarm, go on with the rest. */
		if (err && err != EINTR) {
			pr_err("pid %d: can't capture %" PRIu64 " pages at %#" PRIx64 " into the pool: %s: %s\n",
			       task.pid, (len - done) / page_size, vaddr + done, strerror(err), advice(err));
			return -err;
		}
	}

	return 0;
}

/* As capture(), and remembers what had to be copied. */
static int capture_run(uint64_t vaddr, size_t first, size_t nr, uint64_t img_off)
{
	uint64_t before = stats.copied;
	int ret = capture(vaddr + first * page_size, nr * page_size, img_off + first * page_size);

	if (!ret && stats.copied > before && copies_remember(first, nr))
		taken.failed = true;
	return ret;
}

/*
 * Pages in common are shared by being captured, but for those that are copied. Where
 * earlier tasks had such, it is worth to look for them before; else only for what is
 * copied now, as most dumps copy next to nothing and to look costs time.
 */
static int capture_range(uint64_t vaddr, size_t nr, uint64_t img_off)
{
	const bool look_before = copies_of_others();
	const uint64_t copied = stats.copied;
	size_t done, run;
	int ret = 0;

	if (!look_before) {
		ret = capture(vaddr, nr * page_size, img_off);
		if (ret || stats.copied == copied)
			return ret;
	}
	if (copies_look_at(task.pid, task.img_fd, vaddr, nr, img_off)) {
		pr_warn("pid %d: can't tell what it has in common with others: %s\n", task.pid, strerror(errno));
		taken.failed = true;
		return look_before ? capture(vaddr, nr * page_size, img_off) : 0;
	}
	if (!look_before) {
		if (copies_remember(0, nr))
			taken.failed = true;
		return 0;
	}

	for (done = 0; done < nr && !ret; done += run) {
		run = copies_clone(done);
		stats.shared += run;
		if (!run) {
			run = copies_none(done);
			ret = capture_run(vaddr, done, run, img_off);
		}
	}
	return ret;
}

/* Of any length; a part that was captured is in the image, whatever follows. */
static int capture_ranges(uint64_t vaddr, uint64_t nr_pages, uint64_t img_off)
{
	uint64_t done, nr;
	int ret = 0;

	for (done = 0; done < nr_pages && !ret; done += nr) {
		nr = nr_pages - done < COPIES_MAX_RANGE ? nr_pages - done : COPIES_MAX_RANGE;
		ret = capture_range(vaddr + done * page_size, nr, img_off + done * page_size);
	}
	return ret;
}

static int daxsnap_dump_pages(int pid, uint64_t vaddr, uint64_t nr_pages, int img_fd, uint64_t img_off)
{
	int ret = -ENOTSUP;

	if (task.pid != pid || task.img_fd != img_fd) {
		int err = begin_task(pid, img_fd);

		if (err)
			return err;
	}

	if (task.capture && !unsupported)
		ret = capture_ranges(vaddr, nr_pages, img_off);
	if (ret == -ENOTSUP)
		stats.declined += nr_pages;

	return ret;
}

/* The message of STATS_FILE; NULL with errno, ENOENT if there is none. */
static Daxsnap__Criu__DumpStats *read_stats(int dir)
{
	Daxsnap__Criu__DumpStats *msg = NULL;
	struct stat st;
	uint8_t *buf;
	int fd, err;

	fd = openat(dir, STATS_FILE, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st)) {
		err = errno;
	} else if (st.st_size > MAX_STATS) {
		err = EFBIG;
	} else {
		buf = malloc(st.st_size + 1);
		err = buf ? 0 : ENOMEM;
		if (buf && read(fd, buf, st.st_size) == st.st_size)
			msg = daxsnap__criu__dump_stats__unpack(NULL, st.st_size, buf);
		if (!msg && !err)
			err = EBADMSG;
		free(buf);
	}
	close(fd);
	errno = err;
	return msg;
}

static bool is_listed(const Daxsnap__Criu__DumpStats *msg, const struct image *image)
{
	size_t i;

	for (i = 0; i < msg->n_taken_images; i++) {
		const Daxsnap__Criu__TakenImage *one = msg->taken_images[i];

		if (one->inode == image->inode && one->birth_ns == image->birth_ns)
			return true;
	}
	return false;
}

/* Is this the very file that the plugin has filled, or empty? 1, 0 or a negative errno */
static int is_taken(int img_dir, const char *name, const Daxsnap__Criu__DumpStats *msg)
{
	struct image image;
	struct statfs fs;
	struct stat st;
	int fd, ret;

	fd = openat(img_dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || fstatfs(fd, &fs))
		ret = -errno;
	else if (!st.st_size)
		ret = 1;
	else if (fs.f_type != KMEMFS_SUPER_MAGIC)
		ret = 0;
	else
		ret = identify(fd, &image) ?: is_listed(msg, &image);
	close(fd);
	return ret;
}

/*
 * The name of the pages image that a pagemap image is of: its number is all there is in
 * the head, which follows two magic numbers and its size. Source: open_pages_image_at()
 */
static int pages_image_of(int img_dir, const char *pagemap, char *name, size_t size)
{
	uint8_t buf[3 * sizeof(uint32_t) + 1 + 5], *byte = buf + 3 * sizeof(uint32_t), *end;
	unsigned int shift;
	uint32_t id = 0;
	ssize_t len;
	int fd, err;

	fd = openat(img_dir, pagemap, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = read(fd, buf, sizeof(buf));
	err = errno;
	close(fd);
	if (len < 0)
		return -err;

	/* Field 1, a varint */
	end = buf + len;
	if (end <= byte || *byte++ != 0x08)
		return -EBADMSG;
	for (shift = 0; byte < end; shift += 7) {
		id |= (uint32_t)(*byte & 0x7f) << shift;
		if (!(*byte++ & 0x80)) {
			snprintf(name, size, "pages-%" PRIu32 ".img", id);
			return 0;
		}
	}
	return -EBADMSG;
}

static bool is_of_task(const char *name)
{
	static const char prefix[] = "pagemap-";
	const size_t len = sizeof(prefix) - 1;

	/* And not pagemap-shmem-*: no task reads that */
	return !strncmp(name, prefix, len) && name[len] >= '0' && name[len] <= '9';
}

/* The same of the pages images of all tasks */
static int all_taken(int img_dir, const Daxsnap__Criu__DumpStats *msg)
{
	struct dirent *entry;
	int fd, ret = 1;
	char name[32];
	DIR *dir;

	fd = openat(img_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	while (ret > 0 && (errno = 0, entry = readdir(dir))) {
		if (!is_of_task(entry->d_name))
			continue;
		ret = pages_image_of(img_dir, entry->d_name, name, sizeof(name));
		if (!ret)
			ret = is_taken(img_dir, name, msg);
	}
	if (ret > 0 && errno)
		ret = -errno;
	closedir(dir);
	return ret;
}

/* Of images that were made before there was a list of them: was nothing copied? */
static int all_by_reference(int img_dir, const Daxsnap__Criu__DumpStats *msg)
{
	struct statfs fs;

	if (fstatfs(img_dir, &fs))
		return -errno;
	return fs.f_type == KMEMFS_SUPER_MAGIC && msg->pages_by_reference + msg->pages_shared > 0 &&
	       !msg->pages_copied && !msg->pages_declined;
}

/*
 * On kmemfs a read maps the page, and images of tasks that had a page in common
 * refer to one page of the pool if the plugin has put it there. Pre-dumps, page
 * servers, stock CRIU and those who copy images make a page for each task.
 */
static int daxsnap_share_pages(int img_dir)
{
	Daxsnap__Criu__DumpStats *msg;
	int ret;

	/* Only a tree's sharing depends on it, and CRIU's own way is right for any images. */
	msg = read_stats(img_dir);
	if (!msg) {
		if (errno != ENOENT)
			pr_warn("can't read %s: %s\n", STATS_FILE, strerror(errno));
		return -ENOTSUP;
	}
	ret = msg->n_taken_images ? all_taken(img_dir, msg) : all_by_reference(img_dir, msg);
	daxsnap__criu__dump_stats__free_unpacked(msg, NULL);
	if (ret < 0)
		pr_warn("can't look at the pages images: %s\n", strerror(-ret));
	return ret > 0 ? 0 : -ENOTSUP;
}

static int daxsnap_init(int stage)
{
	if (stage == CR_PLUGIN_STAGE__DUMP)
		page_size = sysconf(_SC_PAGESIZE);
	return 0;
}

/* The figures are for people: without them the snapshot is still good. */
static void write_stats(void)
{
	Daxsnap__Criu__DumpStats msg = DAXSNAP__CRIU__DUMP_STATS__INIT;
	Daxsnap__Criu__TakenImage *one, **all;
	uint8_t *buf;
	size_t len, i;
	int fd, dir = criu_get_image_dir();

	msg.has_pages_by_reference = true;
	msg.pages_by_reference = stats.by_reference;
	msg.has_pages_shared = true;
	msg.pages_shared = stats.shared;
	msg.has_pages_copied = true;
	msg.pages_copied = stats.copied;
	msg.has_pages_hole = true;
	msg.pages_hole = stats.hole;
	msg.has_pages_declined = true;
	msg.pages_declined = stats.declined;
	msg.has_capture_calls = true;
	msg.capture_calls = stats.calls;
	msg.has_capture_us = true;
	msg.capture_us = stats.ns / 1000;

	one = calloc(taken.nr, sizeof(*one));
	all = calloc(taken.nr, sizeof(*all));
	for (i = 0; one && all && i < taken.nr; i++) {
		daxsnap__criu__taken_image__init(&one[i]);
		one[i].has_inode = true;
		one[i].inode = taken.images[i].inode;
		one[i].has_birth_ns = true;
		one[i].birth_ns = taken.images[i].birth_ns;
		all[i] = &one[i];
	}
	msg.n_taken_images = taken.failed ? 0 : i;
	msg.taken_images = all;

	buf = malloc(daxsnap__criu__dump_stats__get_packed_size(&msg));
	len = buf ? daxsnap__criu__dump_stats__pack(&msg, buf) : 0;
	free(one);
	free(all);
	if (!buf) {
		pr_warn("no memory for %s\n", STATS_FILE);
		return;
	}

	fd = openat(dir, STATS_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		pr_warn("can't create %s: %s\n", STATS_FILE, strerror(errno));
		free(buf);
		return;
	}
	if (write(fd, buf, len) != (ssize_t)len) {
		pr_warn("can't write %s: %s\n", STATS_FILE, strerror(errno));
		unlinkat(dir, STATS_FILE, 0);
	}
	close(fd);
	free(buf);
}

static void daxsnap_exit(int stage, int ret)
{
	end_task();
	copies_end();

	if (stage != CR_PLUGIN_STAGE__DUMP || ret)
		return;

	pr_info("pages: %" PRIu64 " by reference, %" PRIu64 " shared, %" PRIu64 " copied, %" PRIu64 " holes, %" PRIu64
		" left to CRIU\n",
		stats.by_reference, stats.shared, stats.copied, stats.hole, stats.declined);
	write_stats();
}

CR_PLUGIN_REGISTER("daxsnap", daxsnap_init, daxsnap_exit)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_PAGES, daxsnap_dump_pages)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__SHARE_PAGES, daxsnap_share_pages)
