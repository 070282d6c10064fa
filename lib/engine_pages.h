/* engine_pages.h - the page waiters: what stands beside the engine's own words. */
#ifndef ONEFD_ENGINE_PAGES_H
#define ONEFD_ENGINE_PAGES_H

#include "engine.h"

struct engine_pages {
	struct engine engine;
	struct onefd_link queues;	/* one for each device that was ever waited for */
	int error;			/* why the last could not be made; 0: it was */
	uint32_t out;			/* requests that were taken and not yet reaped */
	uint64_t spin_most;		/* onefd_config.spin_us, in nanoseconds */
	uint64_t sent;			/* when the only one was taken */
	uint64_t usual;			/* nanoseconds that a single one takes, of late */
};

struct pages_queue;

/* Whether its threads ask for the pages, for there a miss does not. */
bool engine_pages_reads_ahead(const struct pages_queue *queue);

/* For how long to look for the answer to the only request that is out: not at
 * all where such have taken longer than one may look. */
uint64_t engine_pages_spin_ns(const struct engine_pages *pages);

void engine_pages_open(struct engine_pages *pages, struct onefd *loop, uint32_t spin_us);

#endif
