/* engine_pages.h - the page waiters: what stands beside the engine's own words. */
#ifndef ONEFD_ENGINE_PAGES_H
#define ONEFD_ENGINE_PAGES_H

#include "engine.h"

struct engine_pages {
	struct engine engine;
	struct onefd_link queues;	/* one for each device that was ever waited for */
	int error;			/* why the last could not be made; 0: it was */
};

struct pages_queue;

/* Whether its threads ask for the pages, for there a miss does not. */
bool engine_pages_reads_ahead(const struct pages_queue *queue);

void engine_pages_open(struct engine_pages *pages, struct onefd *loop);

#endif
