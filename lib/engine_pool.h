/* engine_pool.h - workers: what stands beside the engine's own words. */
#ifndef ONEFD_ENGINE_POOL_H
#define ONEFD_ENGINE_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"

struct pool_lane {
	pthread_mutex_t lock;		/* never held across a system call that waits */
	pthread_cond_t more;
	struct onefd_link queue;
	uint32_t waiting, idle, threads;
	bool quit;
	struct engine_pool *pool;
	pthread_t *ids;			/* of the threads, joined at close */
};

struct engine_pool {
	struct engine engine;
	uint32_t most;			/* threads a lane may have */
	struct pool_lane lanes[LANES];
	_Atomic(struct onefd_req *) handed;	/* a stack, newest first */
	bool alone;			/* no thread could be made: the loop works itself */
};

int engine_pool_open(struct engine_pool *pool, struct onefd *loop, uint32_t threads);

#endif
