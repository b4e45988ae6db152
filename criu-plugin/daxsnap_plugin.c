/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DOC: daxsnap_plugin - CRIU images whose pages are taken, not copied
 *
 * When the images of a dump are on kmemfs, the pages of the frozen task go into
 * the pages image by reference: CRIU offers a range with the hook DUMP_PAGES,
 * one ioctl puts it where CRIU would have written it. On any other filesystem,
 * or on a kernel without the ioctl, the plugin declines and CRIU copies.
 *
 * When images are restored from kmemfs, the hook SHARE_PAGES has each task of a
 * tree read its pages from there, which maps them.
 *
 * All state is memory and descriptors of the criu process, so a killed CRIU
 * leaves nothing behind. What the ioctl did is undone by removing the image.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/kmemfs.h>

#include "criu-log.h"
#include "criu-plugin.h"
#include "daxsnap-stats.pb-c.h"

#undef LOG_PREFIX
#define LOG_PREFIX "daxsnap: "

#define STATS_FILE "daxsnap-stats.img"

/* The task whose pages come in, one at a time, and its pages image. */
static struct {
	int pid;
	int img_fd;
	int pidfd; /* -1: none yet, or the pages are declined */
	bool capture;
} task = { .pid = -1, .img_fd = -1, .pidfd = -1 };

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

static int daxsnap_dump_pages(int pid, uint64_t vaddr, uint64_t nr_pages, int img_fd, uint64_t img_off)
{
	int ret = -ENOTSUP;

	if (task.pid != pid || task.img_fd != img_fd) {
		int err = begin_task(pid, img_fd);

		if (err)
			return err;
	}

	if (task.capture && !unsupported)
		ret = capture(vaddr, nr_pages * page_size, img_off);
	if (ret == -ENOTSUP)
		stats.declined += nr_pages;

	return ret;
}

/*
 * On kmemfs a read maps the page, and images of tasks that had a page in common
 * refer to one page of the pool.
 */
static int daxsnap_share_pages(int img_dir)
{
	struct statfs fs;
	int err;

	if (fstatfs(img_dir, &fs)) {
		err = errno;
		pr_err("can't tell the filesystem of the images: %s\n", strerror(err));
		return -err;
	}

	return fs.f_type == KMEMFS_SUPER_MAGIC ? 0 : -ENOTSUP;
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
	uint8_t buf[128]; /* seven varints with their tags take at most 77 bytes */
	size_t len;
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

	if (daxsnap__criu__dump_stats__get_packed_size(&msg) > sizeof(buf)) {
		pr_err("the message of %s does not fit its buffer\n", STATS_FILE);
		return;
	}
	len = daxsnap__criu__dump_stats__pack(&msg, buf);

	fd = openat(dir, STATS_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		pr_warn("can't create %s: %s\n", STATS_FILE, strerror(errno));
		return;
	}
	if (write(fd, buf, len) != (ssize_t)len) {
		pr_warn("can't write %s: %s\n", STATS_FILE, strerror(errno));
		unlinkat(dir, STATS_FILE, 0);
	}
	close(fd);
}

static void daxsnap_exit(int stage, int ret)
{
	end_task();

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
