// SPDX-License-Identifier: GPL-2.0
/*
 * kmemfs: capture of a task's memory by reference, and the read that maps
 *
 * Runs in the first mounted kmemfs of /proc/mounts, or in the directory that
 * $KMEMFS_DIR names; skips without one. Leaves nothing behind.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kmemfs.h>
#include <linux/mempolicy.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"

#define NR_PAGES	64

/* A new file without a name, or -1 */
static int open_in(const char *dir)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/kselftest.XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static int open_pool(void)
{
	const char *dir = getenv("KMEMFS_DIR");
	struct mntent *entry;
	int fd = -1;
	FILE *f;

	if (dir)
		return open_in(dir);

	f = setmntent("/proc/mounts", "r");
	if (!f)
		return -1;
	while (fd < 0 && (entry = getmntent(f)))
		if (!strcmp(entry->mnt_type, "kmemfs"))
			fd = open_in(entry->mnt_dir);
	endmntent(f);
	return fd;
}

FIXTURE(capture)
{
	size_t page;
	size_t len;
	int file;
	char *memory;
	struct kmemfs_info info;
	struct kmemfs_capture request;
};

/* Untouched memory that the pool's node gives, as long as it has some */
static char *node_memory(size_t len, int node)
{
	unsigned long mask[16] = {};
	char *memory;

	memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, len, MADV_NOHUGEPAGE);
	mask[node / (8 * sizeof(long))] = 1UL << node % (8 * sizeof(long));
	if (syscall(SYS_mbind, memory, len, MPOL_PREFERRED, mask, 8 * sizeof(mask), 0)) {
		munmap(memory, len);
		return NULL;
	}
	return memory;
}

static void fill(char *memory, size_t len, size_t page, char seed)
{
	size_t i;

	for (i = 0; i < len / page; i++)
		memset(memory + i * page, seed + i, page);
}

static size_t differing(const char *memory, size_t len, size_t page, char seed)
{
	size_t i, j, bad = 0;

	for (i = 0; i < len / page; i++)
		for (j = 0; j < page; j++)
			if (memory[i * page + j] != (char)(seed + i)) {
				bad++;
				break;
			}
	return bad;
}

FIXTURE_SETUP(capture)
{
	self->page = sysconf(_SC_PAGESIZE);
	self->len = NR_PAGES * self->page;
	self->file = open_pool();
	if (self->file < 0)
		SKIP(return, "no kmemfs is mounted");
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &self->info));
	self->memory = node_memory(self->len, self->info.node);
	ASSERT_NE(NULL, self->memory);
	fill(self->memory, self->len, self->page, 1);
	self->request.pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	ASSERT_LE(0, self->request.pidfd);
	self->request.addr = (unsigned long)self->memory;
	self->request.len = self->len;
}

FIXTURE_TEARDOWN(capture)
{
	if (self->memory)
		munmap(self->memory, self->len);
	if (self->file >= 0) {
		close(self->request.pidfd);
		close(self->file);
	}
}

TEST_F(capture, info_agrees_with_statfs)
{
	struct statfs fs;

	ASSERT_EQ(0, fstatfs(self->file, &fs));
	EXPECT_EQ(KMEMFS_SUPER_MAGIC, fs.f_type);
	EXPECT_EQ(self->info.page_size, fs.f_bsize);
	EXPECT_EQ(self->page, self->info.page_size);
	EXPECT_LT(0, self->info.total_pages);
	EXPECT_GE(self->info.total_pages, self->info.free_pages);
}

TEST_F(capture, takes_pages_and_leaves_the_source_alone)
{
	char *copy = malloc(self->len + 1);

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(NR_PAGES, self->request.pages_by_reference);
	EXPECT_EQ(0, self->request.pages_shared);
	EXPECT_EQ(0, self->request.pages_copied);
	EXPECT_EQ(0, self->request.pages_hole);
	EXPECT_EQ(0, differing(self->memory, self->len, self->page, 1));

	/* What the source writes later is not in the file. */
	fill(self->memory, self->len, self->page, 77);
	ASSERT_EQ(self->len, pread(self->file, copy + 1, self->len, 0));
	EXPECT_EQ(0, differing(copy + 1, self->len, self->page, 1));
	EXPECT_EQ(0, differing(self->memory, self->len, self->page, 77));
	free(copy);
}

TEST_F(capture, shares_what_did_not_change)
{
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	self->memory[3 * self->page] = 0;
	self->request.offset = self->len;
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(NR_PAGES - 1, self->request.pages_shared);
	EXPECT_EQ(1, self->request.pages_by_reference + self->request.pages_copied);
}

TEST_F(capture, untouched_memory_is_a_hole)
{
	struct stat st;

	ASSERT_EQ(0, madvise(self->memory, self->len, MADV_DONTNEED));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(NR_PAGES, self->request.pages_hole);
	ASSERT_EQ(0, fstat(self->file, &st));
	EXPECT_EQ(self->len, st.st_size);
	EXPECT_EQ(0, st.st_blocks);
}

TEST_F(capture, aligned_read_maps)
{
	struct kmemfs_info after;
	char *reader;

	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	reader = node_memory(self->len, self->info.node);
	ASSERT_NE(NULL, reader);
	ASSERT_EQ(self->len, pread(self->file, reader, self->len, 0));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &after));
	EXPECT_LE(self->info.read_installed + NR_PAGES, after.read_installed);
	EXPECT_EQ(0, differing(reader, self->len, self->page, 1));

	/* Copy-on-write, in each direction. */
	fill(reader, self->len, self->page, 50);
	EXPECT_EQ(0, differing(self->memory, self->len, self->page, 1));
	ASSERT_EQ(0, madvise(reader, self->len, MADV_DONTNEED));
	EXPECT_EQ(0, reader[0]);
	munmap(reader, self->len);
}

TEST_F(capture, of_another_task)
{
	int go[2], status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(go[1]);
		fill(self->memory, self->len, self->page, 9);
		_exit(read(go[0], &byte, 1) != 0 ||
		      differing(self->memory, self->len, self->page, 9));
	}
	close(go[0]);
	close(self->request.pidfd);
	self->request.pidfd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, self->request.pidfd);
	EXPECT_EQ(0, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(NR_PAGES, self->request.pages_by_reference + self->request.pages_shared +
			    self->request.pages_copied);
	close(go[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(capture, upgrade_needs_privilege)
{
	struct kmemfs_info after;
	int status;
	pid_t pid;

	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &self->info));
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_UPGRADE, 1));
	EXPECT_EQ(EINVAL, errno);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(setuid(65534) || ioctl(self->file, KMEMFS_IOC_UPGRADE, 0) != -1 ||
		      errno != EPERM);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &after));
	EXPECT_EQ(self->info.version, after.version);
	EXPECT_LE(1, after.version);
}

TEST_F(capture, splice_takes_pages)
{
	struct iovec piece = { .iov_base = self->memory, .iov_len = self->len };
	struct kmemfs_info after;
	loff_t at = 0;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_LE(self->len, fcntl(fds[1], F_SETPIPE_SZ, self->len));
	ASSERT_EQ(self->len, vmsplice(fds[1], &piece, 1, 0));
	while (at < self->len)
		ASSERT_LT(0, splice(fds[0], NULL, self->file, &at, self->len - at, 0));
	ASSERT_EQ(0, ioctl(self->file, KMEMFS_IOC_INFO, &after));
	EXPECT_EQ(self->info.spliced_by_reference + NR_PAGES, after.spliced_by_reference);
	EXPECT_EQ(self->info.spliced_copied, after.spliced_copied);

	/* What the source writes later is not in the file. */
	fill(self->memory, self->len, self->page, 77);
	ASSERT_EQ(self->len, pread(self->file, self->memory, self->len, 0));
	EXPECT_EQ(0, differing(self->memory, self->len, self->page, 1));
	close(fds[0]);
	close(fds[1]);
}

FIXTURE(refused)
{
	int file;
};

FIXTURE_VARIANT(refused)
{
	int error;
	int pidfd;	/* 0: a good one */
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 offset;
};

FIXTURE_VARIANT_ADD(refused, flags)
{
	.error = EINVAL, .flags = 1, .addr = 4096, .len = 65536,
};

FIXTURE_VARIANT_ADD(refused, unaligned_address)
{
	.error = EINVAL, .addr = 4097, .len = 65536,
};

FIXTURE_VARIANT_ADD(refused, unaligned_length)
{
	.error = EINVAL, .addr = 65536, .len = 65535,
};

FIXTURE_VARIANT_ADD(refused, no_length)
{
	.error = EINVAL, .addr = 65536,
};

FIXTURE_VARIANT_ADD(refused, unaligned_offset)
{
	.error = EINVAL, .addr = 65536, .len = 65536, .offset = 1,
};

FIXTURE_VARIANT_ADD(refused, no_task)
{
	.error = EBADF, .pidfd = -1, .addr = 65536, .len = 65536,
};

FIXTURE_SETUP(refused)
{
	self->file = open_pool();
	if (self->file < 0)
		SKIP(return, "no kmemfs is mounted");
}

FIXTURE_TEARDOWN(refused)
{
	if (self->file >= 0)
		close(self->file);
}

TEST_F(refused, and_nothing_changes)
{
	struct kmemfs_capture request = {
		.pidfd = variant->pidfd,
		.flags = variant->flags,
		.addr = variant->addr,
		.len = variant->len,
		.offset = variant->offset,
	};
	struct stat st;

	if (!variant->pidfd)
		request.pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_CAPTURE, &request));
	EXPECT_EQ(variant->error, errno);
	ASSERT_EQ(0, fstat(self->file, &st));
	EXPECT_EQ(0, st.st_size);
	if (!variant->pidfd)
		close(request.pidfd);
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	return syscall(SYS_capset, &header, data);
}

TEST_F(capture, needs_the_capability)
{
	/* The harness runs each test in a process of its own. */
	ASSERT_EQ(0, drop_capabilities());
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(EPERM, errno);
}

TEST_F(capture, needs_a_writable_file)
{
	char path[64];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, reader);
	EXPECT_EQ(-1, ioctl(reader, KMEMFS_IOC_CAPTURE, &self->request));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(0, ioctl(reader, KMEMFS_IOC_INFO, &self->info));
	close(reader);
}

TEST_F(capture, unknown_commands_are_not_known)
{
	EXPECT_EQ(-1, ioctl(self->file, _IO(0xdb, 0x7f), 0));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(self->file, KMEMFS_IOC_CAPTURE, NULL));
	EXPECT_EQ(EFAULT, errno);
}

TEST_HARNESS_MAIN
