/* timer.h - deadlines: the part the loop calls. */
#ifndef ONEFD_LIB_TIMER_H
#define ONEFD_LIB_TIMER_H

#include <stdbool.h>

#include "heap.h"

struct timers {
	struct heap heap;
	int fd;			/* a timerfd, armed once the loop is embedded */
	uint64_t armed;		/* what it is set to; 0: nothing */
};

int timers_open(struct onefd *loop);
void timers_close(struct timers *timers);	/* marks them all stopped */

/* Runs what is due by loop->now, at most loop->budget; how many. */
int timers_dispatch(struct onefd *loop);

/* Sets the timerfd to the earliest deadline; embedded loops only. Also clears
 * it when that deadline was run. */
void timers_arm(struct timers *timers);

/* When the next is due; UINT64_MAX when none is started. */
static inline uint64_t timers_next(const struct timers *timers)
{
	return timers->heap.root ? timers->heap.root->due : UINT64_MAX;
}

#endif
