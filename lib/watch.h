/* watch.h - descriptor readiness: the part the loop and other rooms call. */
#ifndef ONEFD_LIB_WATCH_H
#define ONEFD_LIB_WATCH_H

#include "list.h"

struct watches {
	struct onefd_link started;	/* the user's: they keep onefd_run() going */
	int ran;			/* callbacks of this batch */
};

void watches_open(struct watches *watches);
void watches_close(struct watches *watches);	/* marks them all stopped */

/* Announces a batch just fetched: from here on a stop takes its event out. */
void watches_fetched(struct onefd *loop, int count);
/* Runs the callbacks of that batch; how many of the user's ran. */
int watches_dispatch(struct onefd *loop, int count);

/*
 * The loop's own watches: as onefd_watch_start() and _stop(), but they stand
 * in no ring of ours, so that they do not keep onefd_run() going. Whoever
 * attached one detaches it, or marks it stopped when the loop goes.
 */
int watch_attach(struct onefd *loop, struct onefd_watch *watch, uint32_t events);
void watch_detach(struct onefd_watch *watch);

/* Says, from the fn of an attached watch, how many of the user's callbacks ran
 * in its place. */
static inline void watches_ran(struct watches *watches, int count)
{
	watches->ran += count - 1;
}

#endif
