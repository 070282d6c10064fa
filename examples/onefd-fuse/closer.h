/*
 * closer.h - descriptors that are given back, on workers.
 *
 * close(2) of the last descriptor of a removed file gives its blocks back, which
 * may take long. The loop's thread only.
 */
#ifndef CLOSER_H
#define CLOSER_H

#include <onefd.h>
#include <stdbool.h>

#define CLOSER_LANES	3	/* workers at most: one file of many blocks delays no other */
#define CLOSER_BATCH	64

/* Waits until descriptors have been closed. */
struct closer_wait {
	struct onefd_link link;		/* private */
	void (*fn)(struct closer_wait *wait);
};

struct closer {
	struct onefd *loop;
	int *fds;			/* a ring with room for all that the process may have */
	size_t room, first, count;
	size_t out;			/* lanes that are with a worker */
	struct onefd_link waits;
	struct closer_lane {
		struct onefd_req req;
		struct closer *closer;
		size_t count;		/* 0: free */
		int fds[CLOSER_BATCH];
	} lanes[CLOSER_LANES];
};

int closer_init(struct closer *closer, struct onefd *loop, size_t limit);
void closer_free(struct closer *closer);	/* closes here what still waits */
void closer_add(struct closer *closer, int fd);

/* Descriptors that are still open. */
size_t closer_backlog(const struct closer *closer);

/* Calls wait->fn when some of those given back are closed; false: there are none. */
bool closer_wait(struct closer *closer, struct closer_wait *wait);

#endif
