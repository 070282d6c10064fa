/*
 * context.h - one kernel AIO context: set up, submit a batch, reap its ring.
 *
 * Knows iocbs and events, not requests.
 */
#ifndef ONEFD_CONTEXT_H
#define ONEFD_CONTEXT_H

#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>

struct ring;

struct context {
	io_context_t id;
	struct ring *ring;	/* NULL: io_getevents() */
	uint32_t depth;		/* what the kernel granted */
	int refused;		/* why io_setup gave less than asked; 0: it did not */
	const char *ring_why;	/* why there is no ring; NULL: there is */
	const char *moved_why;	/* why it is not at its address; NULL: it is */
};

/*
 * Asks for @depth, then half of that, and so on while fs.aio-max-nr is spent.
 * @address: where to map the ring, NULL for anywhere; a refusal there is no
 * failure. -ENOSYS, -EPERM: not on this machine; -EAGAIN: all spent; -ENOMEM.
 */
int context_open(struct context *context, uint32_t depth, void *address, bool use_ring);

/* Destroys it on another thread, for io_destroy() waits. */
void context_close(struct context *context);

bool context_ready(const struct context *context);

/* Moves at most @count events out; never waits. Fewer means empty. */
uint32_t context_reap(struct context *context, struct io_event *events, uint32_t count);

#endif
