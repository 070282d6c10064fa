/*
 * heap.h - a pairing heap of timers, intrusive, ordered by deadline.
 *
 * Not a container: nothing is allocated and the timers stay the caller's. A
 * timer that stands in no heap has prev == NULL; the root's prev is itself.
 */
#ifndef ONEFD_HEAP_H
#define ONEFD_HEAP_H

#include <onefd.h>

struct heap {
	struct onefd_timer *root;	/* the earliest deadline, or NULL */
};

void heap_insert(struct heap *heap, struct onefd_timer *timer);
void heap_remove(struct heap *heap, struct onefd_timer *timer);

#endif
