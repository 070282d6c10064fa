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
	struct onefd_link held;		/* requests that wait for room, oldest first */
	uint32_t major, minor;
	uint32_t most;			/* what the queue allows, in block requests */
	uint32_t limit;			/* most, or less after slow submissions */
	uint32_t used;
	uint32_t credit;		/* completions since limit last grew */
	uint64_t chunk;			/* bytes that one block request can move */
	uint32_t nr_requests;		/* as sysfs said; 0: unknown */
	uint32_t trust;			/* see file.c */
	char name[32];			/* file system, as far as known */
};

struct windows {
	struct onefd_link devices;
	struct onefd_link with_held;
};

#endif
