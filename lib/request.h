/* request.h - a request's life: the part the loop calls. */
#ifndef ONEFD_LIB_REQUEST_H
#define ONEFD_LIB_REQUEST_H

#include <stdbool.h>

#include "engine_kaio.h"
#include "engine_pages.h"
#include "engine_pool.h"
#include "list.h"

struct requests {
	struct onefd_link queued;	/* submitted, not yet sent anywhere */
	struct onefd_link names;	/* those for which a flush had no time left */
	struct onefd_link backlog;	/* for kernel AIO, which had no slot */
	struct onefd_link polls_backlog;	/* the same for its polls */
	struct onefd_link done;		/* res is final, callbacks due */
	uint32_t flushes;		/* numbers the present one, with what follows it */
	uint64_t copy;			/* bytes that it may still copy */
	size_t out;			/* submitted, callback not started */
	uint32_t flags;			/* onefd_config.flags */
	int kaio_error;			/* why there is no kernel AIO; 0: there is */
	int polls_error;		/* why polls have no context of their own */
	bool no_cachestat;		/* the kernel has none */
	uint64_t spin_most;		/* onefd_config.spin_us, in nanoseconds */
	uint64_t lone_since;		/* when the only one was sent; 0: it came among others */
	uint64_t usual;			/* nanoseconds that such a one takes, of late */
	struct engine *kaio;		/* NULL: not there */
	struct engine *pool, *pages;
	struct engine *polls;		/* NULL: none wanted yet, or as kaio */
	struct engine_kaio kaio_engine, polls_engine;
	struct engine_pages pages_engine;
	struct engine_pool pool_engine;
};

/* Without kernel AIO it works on; -ENOMEM. */
int requests_open(struct onefd *loop, const struct onefd_config *config);
void requests_close(struct onefd *loop);	/* nothing may be out */

/* Whether requests_flush() or requests_dispatch() would do something now. */
bool requests_ready(struct onefd *loop);

/* For how long from @now to look for the answer to the only request that is out, if a
 * thread has it: not at all where such have taken longer than one may look. */
uint64_t requests_spin_ns(const struct onefd *loop, uint64_t now);

/* Sends what is queued; how many went. */
int requests_flush(struct onefd *loop);

/* Reaps, then runs at most @budget callbacks; how many. */
int requests_dispatch(struct onefd *loop, uint32_t budget);

/*
 * After a flush that sent nothing: runs at most @budget callbacks of what it
 * answered on the spot, and sends what these submit as part of the same flush, until
 * that leaves this thread. How many ran.
 */
int requests_follow(struct onefd *loop, uint32_t budget);

#endif
