/* timer.h - deadlines: the part the loop calls. */
#ifndef ONEFD_LIB_TIMER_H
#define ONEFD_LIB_TIMER_H

#include "heap.h"

struct timers {
	struct heap heap;
	int fd;			/* a timerfd once the loop is embedded, else -1 */
	uint64_t armed;		/* what the timerfd is set to; 0: nothing */
	struct onefd_watch watch;
};

#endif
