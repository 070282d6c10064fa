/*
 * heap.h - a pairing heap of timers, intrusive, ordered by due.
 *
 * Not a container: nothing is allocated and the timers stay the caller's. A
 * timer's prev is the sibling before it, for a first child its parent; the
 * root's is itself, and NULL in a timer that stands in no heap.
 */
#ifndef ONEFD_HEAP_H
#define ONEFD_HEAP_H

#include <onefd.h>

struct heap {
	struct onefd_timer *root;	/* the earliest due, or NULL */
	uint64_t inserted;		/* since the root last changed */
};

void heap_insert(struct heap *heap, struct onefd_timer *timer);
void heap_remove(struct heap *heap, struct onefd_timer *timer);

#endif
