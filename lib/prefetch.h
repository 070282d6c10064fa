/*
 * prefetch.h - bringing a range of a file into the page cache, and knowing
 * that it is there.
 */
#ifndef ONEFD_PREFETCH_H
#define ONEFD_PREFETCH_H

#include "engine.h"

/* Most bytes of one step: no less than a plain read of a page waiter's. */
#define PREFETCH_STEP (128u * 1024)

/* How far ahead of where it has got to the kernel is asked to read. */
#define PREFETCH_AHEAD (2u << 20)

/* A longer one is no work for the loop's thread, whether it is there or not. */
#define PREFETCH_HERE (1u << 20)

/* Any thread. One step of a prefetch, as cached_step() takes one of a read:
 * how many of the next @most bytes are resident, PREFETCH_STEP at most. */
ssize_t prefetch_step(struct onefd_req *req, size_t most, int flags);

/* Off the loop's thread: has the kernel read ahead of where the prefetch has
 * got to. May wait for a full queue, or for metadata. */
void prefetch_ahead(struct onefd_req *req);

#endif
