/* engine_pool.h - workers: what stands beside the engine's own words. */
#ifndef ONEFD_ENGINE_POOL_H
#define ONEFD_ENGINE_POOL_H

#include <pthread.h>
#include <semaphore.h>

#include "engine.h"
#include "handed.h"

struct pool_lane {
	struct engine_pool *pool;
	struct onefd_link link;		/* in engine_pool.all */
	enum lane kind;
	bool allocated;			/* a device's own */
	struct onefd_link fresh;	/* the loop's: submitted, not yet in @queue */
	uint32_t fresh_count, threads;	/* the loop's */
	pthread_t *ids;			/* of the threads, joined at close */
	sem_t more;			/* posted once for each idle worker that has work */
	pthread_mutex_t lock;		/* of what follows; see engine_pool.c */
	struct onefd_link queue;
	uint32_t idle;			/* workers that nobody has posted @more for */
	bool quit;
};

struct engine_pool {
	struct engine engine;
	uint32_t most;			/* threads a lane may have */
	struct pool_lane lanes[LANES];
	struct onefd_link all;		/* those, and the lanes of devices */
	struct handed handed;
	bool alone;			/* no thread could be made: the loop works itself */
};

int engine_pool_open(struct engine_pool *pool, struct onefd *loop, uint32_t threads);

#endif
