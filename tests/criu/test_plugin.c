/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A CRIU plugin that stands in for the real one where there is no kmemfs, and
 * fails on purpose. DAXSNAP_TEST_PLUGIN says what it does with a range:
 *
 *   copy      fills the image from /proc/PID/mem
 *   mix       copies two ranges of three, leaves the third to CRIU
 *   decline   leaves all to CRIU
 *   noop      makes the image long enough, no more: what CRIU itself costs
 *   fail:N    declines, but fails the Nth range with -EIO
 *   stop:N    copies, but stops CRIU (SIGSTOP) when it is offered the Nth range
 *
 * and in a restore
 *
 *   share       has each task read all of its pages
 *   fail-share  fails when it is asked about that
 *
 * It appends lines to the file DAXSNAP_TEST_PLUGIN_LOG: "loaded" when CRIU loads
 * it, "asked" when it is offered the first range, and when CRIU unloads it
 * "calls C pages P" (P: pages that it took). A pre-dump never unloads plugins.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criu-log.h"
#include "criu-plugin.h"

#undef LOG_PREFIX
#define LOG_PREFIX "test plugin: "

enum mode { COPY, MIX, DECLINE, NOOP, FAIL, STOP, SHARE, FAIL_SHARE };

static enum mode mode;
static unsigned long calls, pages, nth;
static char buf[1 << 20];

static void note(const char *format, ...)
{
	const char *path = getenv("DAXSNAP_TEST_PLUGIN_LOG");
	va_list args;
	FILE *f;

	if (!path)
		return;
	f = fopen(path, "ae");
	if (!f) {
		pr_perror("can't open %s", path);
		return;
	}
	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	fclose(f);
}

static int test_init(int stage)
{
	const char *arg = getenv("DAXSNAP_TEST_PLUGIN");

	if (!arg)
		return -1;
	if (!strcmp(arg, "copy"))
		mode = COPY;
	else if (!strcmp(arg, "mix"))
		mode = MIX;
	else if (!strcmp(arg, "decline"))
		mode = DECLINE;
	else if (!strcmp(arg, "noop"))
		mode = NOOP;
	else if (!strcmp(arg, "share"))
		mode = SHARE;
	else if (!strcmp(arg, "fail-share"))
		mode = FAIL_SHARE;
	else if (sscanf(arg, "fail:%lu", &nth) == 1)
		mode = FAIL;
	else if (sscanf(arg, "stop:%lu", &nth) == 1)
		mode = STOP;
	else
		return -1;
	note("loaded\n");
	return 0;
}

static void test_exit(int stage, int ret)
{
	note("calls %lu pages %lu\n", calls, pages);
}

static int extend(int fd, uint64_t end)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < end && ftruncate(fd, end))
		return -errno;
	return 0;
}

static int copy(int pid, uint64_t vaddr, uint64_t len, int fd, uint64_t off)
{
	char path[32];
	uint64_t done = 0;
	int mem, ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0)
		return -errno;

	while (done < len) {
		size_t want = len - done < sizeof(buf) ? len - done : sizeof(buf);
		ssize_t n = pread(mem, buf, want, vaddr + done);

		if (n <= 0 || pwrite(fd, buf, n, off + done) != n) {
			ret = -EIO;
			break;
		}
		done += n;
	}

	close(mem);
	return ret;
}

static int test_dump_pages(int pid, uint64_t vaddr, uint64_t nr_pages, int img_fd, uint64_t img_off)
{
	uint64_t len = nr_pages * sysconf(_SC_PAGESIZE);
	int ret;

	if (!calls++)
		note("asked\n");
	if (mode == STOP && calls == nth)
		raise(SIGSTOP);
	if (mode == FAIL && calls == nth) {
		pr_err("fails range %lu as told\n", calls);
		return -EIO;
	}
	if (mode == FAIL || mode == DECLINE || (mode == MIX && calls % 3 == 0))
		return -ENOTSUP;

	if (mode == NOOP)
		ret = extend(img_fd, img_off + len);
	else
		ret = copy(pid, vaddr, len, img_fd, img_off);
	if (!ret)
		pages += nr_pages;
	return ret;
}

static int test_share_pages(int img_dir)
{
	if (mode == FAIL_SHARE)
		return -EIO;
	return mode == SHARE ? 0 : -ENOTSUP;
}

CR_PLUGIN_REGISTER("daxsnap-test", test_init, test_exit)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_PAGES, test_dump_pages)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__SHARE_PAGES, test_share_pages)
