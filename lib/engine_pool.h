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
	sem_t more;			/* posted once for each that sleeps and has work */
	pthread_mutex_t lock;		/* of what follows; see engine_pool.c */
	struct onefd_link queue;
	uint32_t idle;			/* workers that nobody has called */
	bool lone;			/* the last came alone, and none before it waited */
	_Atomic bool looks;		/* an idle one does, and is called by taking this */
	bool quit;
};

struct engine_pool {
	struct engine engine;
	uint32_t most;			/* threads a lane may have */
	uint64_t spin_ns;		/* for which a worker looks for more before it sleeps */
	struct pool_lane lanes[LANES];
	struct onefd_link all;		/* those, and the lanes of devices */
	struct handed handed;
	bool alone;			/* no thread could be made: the loop works itself */
};

int engine_pool_open(struct engine_pool *pool, struct onefd *loop, uint32_t threads,
		     uint32_t spin_us);

#endif
