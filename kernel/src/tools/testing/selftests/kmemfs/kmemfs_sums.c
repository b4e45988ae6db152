// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: checksums of what is stored
 *
 * Runs in the first mounted kmemfs of /proc/mounts, or in the directory that
 * $KMEMFS_DIR names; skips without one. Leaves nothing behind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kmemfs.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"

#define NR_PAGES	64

/* A new file, which has a name in @path: what has none is in no commit */
static int open_in(const char *dir, char *path)
{
	snprintf(path, PATH_MAX, "%s/kselftest.XXXXXX", dir);
	return mkostemp(path, O_CLOEXEC);
}

static int open_pool(char *path)
{
	const char *dir = getenv("KMEMFS_DIR");
	struct mntent *entry;
	int fd = -1;
	FILE *f;

	if (dir)
		return open_in(dir, path);

	f = setmntent("/proc/mounts", "r");
	if (!f)
		return -1;
	while (fd < 0 && (entry = getmntent(f)))
		if (!strcmp(entry->mnt_type, "kmemfs"))
			fd = open_in(entry->mnt_dir, path);
	endmntent(f);
	return fd;
}

FIXTURE(sums)
{
	size_t page;
	size_t len;
	int file;
	char path[PATH_MAX];
	char *bytes;
	struct kmemfs_info info;
	struct kmemfs_verify_range range;
};

/* Pages 0 to 63, and 65 behind a hole */
FIXTURE_SETUP(sums)
{
	self->page = sysconf(_SC_PAGESIZE);
	self->len = NR_PAGES * self->page;
	self->file = open_pool(self->path);
	if (self->file < 0)
		SKIP(return, "no kmemfs is mounted");
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &self->info));
	self->bytes = malloc(self->len);
	ASSERT_NE(NULL, self->bytes);
	memset(self->bytes, 7, self->len);
	ASSERT_EQ(self->len, pwrite(self->file, self->bytes, self->len, 0));
	ASSERT_EQ(1, pwrite(self->file, "x", 1, self->len + self->page));
	self->range.len = self->len + 2 * self->page;
}

FIXTURE_TEARDOWN(sums)
{
	free(self->bytes);
	if (self->file >= 0) {
		unlink(self->path);
		close(self->file);
	}
}

TEST_F(sums, are_made_when_asked_for)
{
	if (self->info.version < 2)
		SKIP(return, "the pool is of version 1");
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES + 1, self->range.pages_checked + self->range.pages_without_sum);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES + 1, self->range.pages_checked);
	EXPECT_EQ(0, self->range.pages_without_sum);
	EXPECT_EQ(self->range.len, self->range.done);
	EXPECT_EQ(~0ULL, self->range.first_bad);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &self->info));
	EXPECT_EQ(0, self->info.dirty);
}

TEST_F(sums, go_with_what_they_are_of)
{
	if (self->info.version < 2)
		SKIP(return, "the pool is of version 1");
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	ASSERT_EQ(1, pwrite(self->file, "y", 1, 3 * self->page));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES, self->range.pages_checked);
	EXPECT_EQ(1, self->range.pages_without_sum);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES + 1, self->range.pages_checked);
}

TEST_F(sums, follow_pages_that_are_used_again)
{
	int i;

	if (self->info.version < 2)
		SKIP(return, "the pool is of version 1");
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
		ASSERT_EQ(0, ftruncate(self->file, 0));
		ASSERT_EQ(0, fsync(self->file));
		memset(self->bytes, i, self->len);
		ASSERT_EQ(self->len, pwrite(self->file, self->bytes, self->len, 0));
		ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
		EXPECT_EQ(NR_PAGES, self->range.pages_checked + self->range.pages_without_sum);
	}
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES, self->range.pages_checked);
}

TEST_F(sums, are_of_clones_too)
{
	char path[PATH_MAX];
	int clone;

	if (self->info.version < 2)
		SKIP(return, "the pool is of version 1");
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	clone = open_pool(path);
	ASSERT_LE(0, clone);
	unlink(path);
	ASSERT_EQ(0, ioctl(clone, FICLONE, self->file));
	ASSERT_EQ(0, ioctl(clone, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES + 1, self->range.pages_checked);
	close(clone);
}

TEST_F(sums, a_reader_may_ask_for_a_part)
{
	char path[64];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, reader);
	self->range.offset = 2 * self->page;
	self->range.len = 5 * self->page;
	ASSERT_EQ(0, ioctl(reader, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(5, self->range.pages_checked + self->range.pages_without_sum);
	EXPECT_EQ(5 * self->page, self->range.done);
	self->range.offset = 1ULL << 40;	/* behind the end */
	ASSERT_EQ(0, ioctl(reader, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(0, self->range.pages_checked + self->range.pages_without_sum);
	close(reader);
}

static void nothing(int signal)
{
}

TEST_F(sums, verifying_ends_with_a_signal)
{
	struct sigaction action = { .sa_handler = nothing };

	/* holes for minutes */
	ASSERT_EQ(0, ftruncate(self->file, 1LL << 43));
	self->range.len = 1ULL << 43;
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	alarm(1);
	ASSERT_EQ(-1, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(EINTR, errno);
	EXPECT_LT(self->range.done, self->range.len);
	EXPECT_LE(self->len, self->range.done);
	EXPECT_EQ(~0ULL, self->range.first_bad);
}

TEST_F(sums, bad_ranges_are_refused)
{
	struct kmemfs_verify_range bad[] = {
		{ .offset = 1, .len = self->page },
		{ .offset = self->page, .len = 0 },
		{ .offset = -self->page, .len = self->page },
		{ .offset = self->page, .len = ~0ULL },
	};
	struct kmemfs_verify_range flag;
	unsigned int i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_VERIFY, &bad[i]));
		EXPECT_EQ(EINVAL, errno);
	}
	/* also one that only the kernel sets */
	for (i = 0; i < 64; i++) {
		flag = (struct kmemfs_verify_range){ .len = self->page, .flags = 1ULL << i };
		EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_VERIFY, &flag));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(self->page, flag.len);
	}
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(0, self->range.flags);
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_VERIFY, NULL));
	EXPECT_EQ(EFAULT, errno);
}

TEST_F(sums, only_of_files_that_can_be_read)
{
	const char *dir = getenv("KMEMFS_DIR");
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, ioctl(fd, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(EBADF, errno);
	close(fd);
	if (!dir)
		return;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, ioctl(fd, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(EINVAL, errno);
	close(fd);
}

TEST_F(sums, making_them_needs_the_capability)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_SUM, 1));
	EXPECT_EQ(EINVAL, errno);
	/* The harness runs each test in a process of its own. */
	ASSERT_EQ(0, syscall(SYS_capset, &header, data));
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
}

TEST_F(sums, version_1_has_none)
{
	if (self->info.version != 1)
		return;
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_SUM, 0));
	EXPECT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_VERIFY, &self->range));
	EXPECT_EQ(NR_PAGES + 1, self->range.pages_without_sum);
}

TEST_HARNESS_MAIN
