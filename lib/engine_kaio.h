/* engine_kaio.h - kernel AIO: what stands beside the engine's own words. */
#ifndef ONEFD_ENGINE_KAIO_H
#define ONEFD_ENGINE_KAIO_H

#include <stdatomic.h>

#include "context.h"
#include "engine.h"

struct engine_kaio {
	struct engine engine;
	struct context context;
	uint32_t cap;			/* most in flight */
	uint32_t in_flight;
	uint32_t silent;		/* of those, tries of the page cache: they signal nothing */
	int wake_fd;			/* what a completion signals */
	_Atomic uint32_t passed;	/* submitted by workers: orders their stores */
	bool full;			/* the kernel had no slot; until a completion */
	uint64_t last_ns;		/* how long the last io_submit() took */
	bool last_slow;			/* longer than its work explains: it blocked */
	uint32_t suspicious;		/* submissions yet to be watched closely */
	uint32_t last_count;		/* how many it took: the front of @batch */
	struct onefd_link refused;	/* failed at submission, to be reaped */
	struct iocb *batch[64];
};

/* Errors as context_open(); the loop then does without. */
int engine_kaio_open(struct engine_kaio *kaio, struct onefd *loop,
		     const struct onefd_config *config, int wake_fd);

/* Whether a submit could send something. */
bool engine_kaio_has_slot(const struct engine_kaio *kaio);

/* Whether there is a slot for a worker to submit @req by; it is then taken, and
 * engine_kaio_work() is what the worker runs. */
bool engine_kaio_reserve(struct engine_kaio *kaio, struct onefd_req *req);

/* Off the loop's thread. ANSWER_IN_RING: it was submitted and will be reaped
 * after all; else not, and the slot is to be given back. */
ssize_t engine_kaio_work(struct onefd_req *req);
void engine_kaio_release(struct engine_kaio *kaio);

#endif
