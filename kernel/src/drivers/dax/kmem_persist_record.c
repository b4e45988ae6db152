// SPDX-License-Identifier: GPL-2.0
/**
 * DOC: a log of what is made durable, for tests
 *
 * What is stored in emulated persistent memory is there after a "power cut",
 * whether it was written back or not; so a test that cuts the power cannot see
 * that a write-back, a fence or a request to the device is missing. This records
 * them, with the bytes, in memory that outlives the machine and that nobody else
 * uses, such as the BAR of an emulated device. From the log a program makes the
 * states of the device that a power cut could have left.
 *
 * Parameters, kmem_persist_record.* on the command line:
 *
 *   log      "ADDRESS,SIZE", physical, not RAM: record from now on, for good. A
 *            device that was attached before is not recorded.
 *   mark     text that goes to the log
 *   without  a step or an order (kmem_persist_step_name()) that is left out from
 *            now on, "all" steps, or "none". What is left out is recorded as such,
 *            and the kernel is tainted (TEST) from then on.
 *   error    what the next attempt to make data durable fails with: a negative
 *            error number; 0: nothing
 */
#define pr_fmt(fmt) "kmem_persist_record: " fmt

#include <linux/err.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kmem_persist.h>
#include <linux/kmem_persist_record.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#define LINE_SIZE	64

static DEFINE_RAW_SPINLOCK(record_lock);
static struct kmem_record_log *record_log;	/* set once; contents under record_lock */
static u64 record_size;

#define WITHOUT_NONE	(-1)
#define WITHOUT_ALL	(-2)
static int record_without = WITHOUT_NONE;

static int record_error;

/* What kmem_persist_make_durable() is to fail with, once; or 0 */
int kmem_persist_record_error(void)
{
	return READ_ONCE(record_error) ? xchg(&record_error, 0) : 0;
}

bool kmem_persist_without(enum kmem_persist_step step)
{
	const int without = READ_ONCE(record_without);

	return without == (int)step || (without == WITHOUT_ALL && step < KMEM_NR_STEPS);
}

/* Nothing comes after a record that does not fit. */
static void append(const struct kmem_record *record, const void *bytes)
{
	const u32 len = le32_to_cpu(record->len);
	const u64 room = sizeof(*record) + round_up((u64)len, 8);
	u64 used;
	void *to;

	guard(raw_spinlock_irqsave)(&record_lock);
	used = le64_to_cpu(record_log->used);
	if (record_log->lost || room > record_size - sizeof(*record_log) - used) {
		le64_add_cpu(&record_log->lost, 1);
		return;
	}
	to = (void *)(record_log + 1) + used;
	memcpy(to, record, sizeof(*record));
	memcpy(to + sizeof(*record), bytes, len);
	record_log->used = cpu_to_le64(used + room);
}

static void add(const struct kmem_persist *kp, enum kmem_record_kind kind, unsigned int step,
		u64 at, const void *bytes, u32 len)
{
	const struct kmem_record record = {
		.kind = cpu_to_le16(kind),
		.step = cpu_to_le16(step),
		.len = cpu_to_le32(len),
		.at = cpu_to_le64(at),
		.task = cpu_to_le32(task_pid_nr(current)),
		.node = cpu_to_le16(kp ? kp->nid : 0),
		.flags = cpu_to_le16(step && kmem_persist_without(step) ? KMEM_RECORD_WITHOUT : 0),
	};

	/* pairs with the release in set_log() */
	if (smp_load_acquire(&record_log))
		append(&record, bytes);
}

/* A page at a time */
static void add_bytes(const struct kmem_persist *kp, enum kmem_record_kind kind, unsigned int step,
		      u64 at, const void *bytes, size_t len)
{
	while (len) {
		const u32 n = min_t(size_t, len, PAGE_SIZE - offset_in_page(at));

		add(kp, kind, step, at, bytes, n);
		at += n;
		bytes += n;
		len -= n;
	}
}

static u64 device_offset(const struct kmem_persist *kp, const void *addr)
{
	if (addr >= kp->head && addr < kp->head + PFN_PHYS(kp->nr_head))
		return addr - kp->head;
	return virt_to_phys((void *)addr) - PFN_PHYS(kp->start_pfn);
}

void kmem_persist_record_write_back(const struct kmem_persist *kp, enum kmem_persist_step step,
				    const void *addr, size_t len)
{
	const void *from = PTR_ALIGN_DOWN(addr, LINE_SIZE);
	const void *to = PTR_ALIGN(addr + len, LINE_SIZE);

	if (READ_ONCE(record_log))
		add_bytes(kp, KMEM_RECORD_WRITE_BACK, step, device_offset(kp, from), from,
			  to - from);
}

void kmem_persist_record_fence(const struct kmem_persist *kp, enum kmem_persist_step step)
{
	add(kp, KMEM_RECORD_FENCE, step, 0, NULL, 0);
}

/* Devices that need not be asked have done their part. */
void kmem_persist_record_sync(const struct kmem_persist *kp, enum kmem_persist_step step)
{
	if (kmem_persist_is_async(kp))
		add(kp, KMEM_RECORD_SYNC, step, 0, NULL, 0);
}

/* References that a store gives back; those are left out that others have, too */
void kmem_persist_record_free(const struct kmem_persist *kp, const u32 *pages, unsigned long nr)
{
	unsigned long i;

	if (!READ_ONCE(record_log))
		return;
	for (i = 0; i < nr; i++)
		if (pages[i] && page_count(kmem_persist_page(kp, pages[i])) == 1)
			add(kp, KMEM_RECORD_FREE, 0, PFN_PHYS((u64)pages[i]), NULL, 0);
}

void kmem_persist_record_attach(const struct kmem_persist *kp)
{
	const struct kmem_record_device device = {
		.nr_pages = cpu_to_le64(kp->nr_pages),
		.first = cpu_to_le64(kp->first),
		.end = cpu_to_le64(kp->end),
		.type = cpu_to_le64(le32_to_cpu(kp->header.type)),
		.async = cpu_to_le64(kmem_persist_is_async(kp)),
	};

	add(kp, KMEM_RECORD_ATTACH, 0, 0, &device, sizeof(device));
	add_bytes(kp, KMEM_RECORD_HEAD, 0, 0, kp->head, PFN_PHYS(kp->nr_head));
}

void kmem_persist_record_free_rest(const struct kmem_persist *kp)
{
	add(kp, KMEM_RECORD_FREE_REST, 0, 0, NULL, 0);
}

/* ---- parameters ----------------------------------------------------------- */

static int set_log(const char *val, const struct kernel_param *kp)
{
	struct kmem_record_log *log;
	long long address, size;

	if (sscanf(val, "%lli,%lli", &address, &size) != 2 || address <= 0 ||
	    size < (long long)PAGE_SIZE || address > LLONG_MAX - size)
		return -EINVAL;
	/* memremap() needs the allocator, which comes after the command line */
	if (system_state != SYSTEM_RUNNING)
		return -EAGAIN;
	if (region_intersects(address, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) !=
	    REGION_DISJOINT)
		return -EINVAL;
	if (record_log)
		return -EBUSY;
	log = memremap(address, size, MEMREMAP_WB);
	if (!log)
		return -ENOMEM;
	*log = (struct kmem_record_log) {
		.magic = cpu_to_le32(KMEM_RECORD_MAGIC),
		.version = cpu_to_le32(KMEM_RECORD_VERSION),
	};
	record_size = size;
	/* the log has its head, and record_size is set */
	smp_store_release(&record_log, log);
	pr_info("recording to %#llx, %lld bytes\n", address, size);
	return 0;
}

static const struct kernel_param_ops log_ops = { .set = set_log };
module_param_cb(log, &log_ops, NULL, 0200);
MODULE_PARM_DESC(log, "Where to record to: physical ADDRESS,SIZE");

static int set_mark(const char *val, const struct kernel_param *kp)
{
	if (!record_log)
		return -ENXIO;
	add(NULL, KMEM_RECORD_MARK, 0, 0, val, strcspn(val, "\n"));
	return 0;
}

static const struct kernel_param_ops mark_ops = { .set = set_mark };
module_param_cb(mark, &mark_ops, NULL, 0200);
MODULE_PARM_DESC(mark, "Text that goes to the log");

static int step_of(const char *name)
{
	int step;

	if (sysfs_streq(name, "none"))
		return WITHOUT_NONE;
	if (sysfs_streq(name, "all"))
		return WITHOUT_ALL;
	for (step = 0; step < KMEM_NR_ORDERS; step++) {
		const char *known = kmem_persist_step_name(step);

		if (known && sysfs_streq(name, known))
			return step;
	}
	return -EINVAL;
}

static const char *without_name(int without)
{
	if (without == WITHOUT_ALL)
		return "all";
	return without == WITHOUT_NONE ? "none" : kmem_persist_step_name(without);
}

static int set_without(const char *val, const struct kernel_param *kp)
{
	const int step = step_of(val);

	if (step == -EINVAL)
		return step;
	WRITE_ONCE(record_without, step);
	if (step == WITHOUT_NONE)
		return 0;
	add_taint(TAINT_TEST, LOCKDEP_STILL_OK);
	pr_notice("without %s: data will not survive a power cut\n", without_name(step));
	return 0;
}

static int get_without(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", without_name(READ_ONCE(record_without)));
}

static const struct kernel_param_ops without_ops = { .set = set_without, .get = get_without };
module_param_cb(without, &without_ops, NULL, 0600);
MODULE_PARM_DESC(without, "Step or order to leave out: a name, all, or none");

static int set_error(const char *val, const struct kernel_param *kp)
{
	int error, rc = kstrtoint(val, 0, &error);

	if (rc)
		return rc;
	if (error > 0 || error < -MAX_ERRNO)
		return -EINVAL;
	if (error)
		add_taint(TAINT_TEST, LOCKDEP_STILL_OK);
	WRITE_ONCE(record_error, error);
	return 0;
}

static const struct kernel_param_ops error_ops = { .set = set_error, .get = param_get_int };
module_param_cb(error, &error_ops, &record_error, 0600);
MODULE_PARM_DESC(error, "What making data durable fails with, once: a negative error number");
