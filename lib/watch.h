/* watch.h - descriptor readiness: the part the loop calls. */
#ifndef ONEFD_LIB_WATCH_H
#define ONEFD_LIB_WATCH_H

#include "list.h"

struct watches {
	struct onefd_link started;
	uint64_t count;		/* started by the user: keeps onefd_run() going */
};

void watches_open(struct watches *watches);
void watches_close(struct watches *watches);	/* stops them all */
/* Runs the callbacks of a fetched batch; how many. */
int watches_dispatch(struct onefd *loop, int count);

#endif
