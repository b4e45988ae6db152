// SPDX-License-Identifier: GPL-2.0
/*
 * What the header of an attached device says, in pool/ of the DAX device: the
 * header itself cannot be read while the device is memory.
 */
#include <linux/device.h>
#include <linux/kmem_persist.h>
#include <linux/sysfs.h>
#include "dax-private.h"
#include "kmem_persist_driver.h"

/* The group is gone, with all its readers, before the device is */
static const struct kmem_persist *of_device(struct device *dev)
{
	return kmem_persist_find(to_dev_dax(dev));
}

static ssize_t type_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const struct kmem_persist *kp = of_device(dev);

	return kp ? sysfs_emit(buf, "%s\n", kp->type->name) : -ENXIO;
}
static DEVICE_ATTR_RO(type);

static ssize_t uuid_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const struct kmem_persist *kp = of_device(dev);

	return kp ? sysfs_emit(buf, "%pUb\n", kp->header.uuid) : -ENXIO;
}
static DEVICE_ATTR_RO(uuid);

static ssize_t label_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const struct kmem_persist *kp = of_device(dev);

	return kp ? sysfs_emit(buf, "%.*s\n", (int)sizeof(kp->header.label),
			       (const char *)kp->header.label) : -ENXIO;
}
static DEVICE_ATTR_RO(label);

static struct attribute *kmem_persist_attrs[] = {
	&dev_attr_type.attr,
	&dev_attr_uuid.attr,
	&dev_attr_label.attr,
	NULL
};

static const struct attribute_group kmem_persist_group = {
	.name = "pool",
	.attrs = kmem_persist_attrs,
};

int kmem_persist_show(struct kmem_persist *kp)
{
	return device_add_group(kp->dev, &kmem_persist_group);
}

void kmem_persist_hide(struct kmem_persist *kp)
{
	device_remove_group(kp->dev, &kmem_persist_group);
}
