/*
 * window.h - how much may be in flight per device.
 *
 * io_submit() blocks when a block queue is full and RWF_NOWAIT does not help,
 * so the depth of each queue is kept here, in user space, in block requests:
 * a large or fragmented transfer takes several. Knows devices, not files.
 */
#ifndef ONEFD_WINDOW_H
#define ONEFD_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct onefd_device {
	struct onefd_link link;		/* in windows.devices */
	struct onefd_device *queue;	/* whose window counts: a partition's is its disk's */
	struct onefd_link held;		/* requests that wait for room, oldest first */
	uint32_t major, minor;
	uint32_t nr_requests;		/* as sysfs said; 0: unknown */
	uint32_t most;			/* what may be in flight, in block requests */
	uint32_t limit;			/* most, or less after slow submissions */
	uint32_t used;
	uint32_t calm;			/* block requests done since limit changed */
	uint64_t chunk;			/* bytes that one block request can move */
	struct pages_queue *pages;	/* engine_pages.c: who waits for its pages */
	struct pool_lane *lane;		/* engine_pool.c: whose workers move its data */
	uint32_t trust;			/* file.c: what a quick submission is worth here */
	char name[24];			/* of the file system, where known */
};

struct windows {
	struct onefd_link devices;
};

void windows_open(struct windows *windows);
void windows_close(struct windows *windows);

/* The device of that number, made on first use: NULL: no memory. @use_sysfs:
 * whether its queue may be asked. */
struct onefd_device *windows_device(struct windows *windows, uint32_t major, uint32_t minor,
				    bool use_sysfs);

/* All that follows is for a queue: device->queue. */

/* Block requests that @length bytes take, @extent bytes being contiguous. */
uint32_t window_cost(const struct onefd_device *device, uint64_t length, uint64_t extent);

/* Whether there was room; then @cost is taken. An idle device has room for anything. */
bool window_admit(struct onefd_device *device, uint32_t cost);
void window_release(struct onefd_device *device, uint32_t cost);

/* A submission took long: whether the queue may be why, and was narrowed. */
bool window_narrow(struct onefd_device *device);

#endif
