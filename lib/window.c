/*
 * window.c - how much may be in flight per device.
 *
 * Below nr_requests the block layer never makes a submitter sleep, and seven
 * eighths of it give the throughput of all of it. Other processes share the
 * queue unseen, so a slow submission halves the window and quiet brings
 * it back a block request at a time, as TCP does.
 */
#include "window.h"

#include <stdio.h>
#include <stdlib.h>

#include "sys.h"

/* For a device without a queue of its own to ask: btrfs, overlay, no sysfs. */
#define DEFAULT_REQUESTS 64
#define DEFAULT_CHUNK (128 * 1024)
#define LEAST 4

void windows_open(struct windows *windows)
{
	list_init(&windows->devices);
}

void windows_close(struct windows *windows)
{
	struct onefd_link *link;

	while ((link = list_pop(&windows->devices)))
		sys.free(list_entry(link, struct onefd_device, link));
}

/* A number from the queue's directory; a partition's queue is its parent's. */
static uint64_t queue_value(const struct onefd_device *device, const char *name)
{
	char path[96], text[32];

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/queue/%s", device->major,
		 device->minor, name);
	if (sys.read_text(path, text, sizeof text) > 0)
		return strtoull(text, NULL, 10);
	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../queue/%s", device->major,
		 device->minor, name);
	if (sys.read_text(path, text, sizeof text) > 0)
		return strtoull(text, NULL, 10);
	return 0;
}

static void ask_queue(struct onefd_device *device)
{
	uint64_t requests = queue_value(device, "nr_requests");
	uint64_t kilobytes = queue_value(device, "max_sectors_kb");
	uint64_t segments = queue_value(device, "max_segments");

	if (requests && requests < UINT32_MAX)
		device->nr_requests = (uint32_t)requests;
	if (kilobytes)
		device->chunk = kilobytes * 1024;
	/* A buffer's pages may lie apart: at worst a page to each segment. */
	if (segments && segments * 4096 < device->chunk)
		device->chunk = segments * 4096;
}

static struct onefd_device *find(struct windows *windows, uint32_t major, uint32_t minor)
{
	for (struct onefd_link *at = windows->devices.next; at != &windows->devices;
	     at = at->next) {
		struct onefd_device *device = list_entry(at, struct onefd_device, link);

		if (device->major == major && device->minor == minor)
			return device;
	}
	return NULL;
}

/* The disk of a partition, else the device itself. */
static struct onefd_device *queue_of(struct windows *windows, struct onefd_device *device)
{
	struct onefd_device *disk;
	unsigned major, minor;
	char path[96], text[32];

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", device->major,
		 device->minor);
	if (sys.read_text(path, text, sizeof text) < 0)
		return device;
	/* UNTESTED: needs a partitioned disk. */
	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", device->major, device->minor);
	if (sys.read_text(path, text, sizeof text) < 0 ||
	    sscanf(text, "%u:%u", &major, &minor) != 2)
		return device;
	disk = windows_device(windows, major, minor, true);
	return disk ? disk : device;
}

struct onefd_device *windows_device(struct windows *windows, uint32_t major, uint32_t minor,
				    bool use_sysfs)
{
	struct onefd_device *device = find(windows, major, minor);

	if (device)
		return device;
	device = sys.alloc(sizeof *device);
	if (!device)
		return NULL;
	device->major = major;
	device->minor = minor;
	device->chunk = DEFAULT_CHUNK;
	device->queue = device;
	/* Major 0 is a file system's own number: there is no queue behind it. */
	if (use_sysfs && major) {
		ask_queue(device);
		device->queue = queue_of(windows, device);
	}
	device->most = device->nr_requests ? device->nr_requests - device->nr_requests / 8 :
					     DEFAULT_REQUESTS;
	device->limit = device->most;
	list_init(&device->held);
	list_push(&windows->devices, &device->link);
	return device;
}

uint32_t window_cost(const struct onefd_device *device, uint64_t length, uint64_t extent)
{
	uint64_t piece = extent && extent < device->chunk ? extent : device->chunk;
	uint64_t cost;

	if (length <= piece)
		return 1;	/* nearly all: a division saved each time */
	cost = (length + piece - 1) / piece;
	return cost < UINT32_MAX ? (uint32_t)cost : UINT32_MAX;
}

bool window_admit(struct onefd_device *device, uint32_t cost)
{
	if (device->used && (uint64_t)device->used + cost > device->limit)
		return false;
	device->used += cost;
	return true;
}

void window_release(struct onefd_device *device, uint32_t cost)
{
	device->used -= cost;
	if (device->limit == device->most)
		return;
	device->calm += cost;
	if (device->calm >= device->limit * 4) {
		device->calm = 0;
		device->limit++;
	}
}

bool window_narrow(struct onefd_device *device)
{
	/* With little in flight the queue cannot have been full of ours. */
	if (device->used * 2 < device->limit || device->limit <= LEAST)
		return false;
	device->limit = device->limit / 2 > LEAST ? device->limit / 2 : LEAST;
	device->calm = 0;
	return true;
}
