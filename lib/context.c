/*
 * context.c - one kernel AIO context: set up, submit a batch, reap its ring.
 *
 * Reaping reads the ring that the kernel maps into the process: an acquire of
 * its tail, a release of its head, no system call. The idea is the kernel
 * author's own (the ring's magic and features exist for it); where the ring
 * does not check out, io_getevents() with a zero timeout does the same.
 */
#include "context.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys.h"

#define RING_MAGIC 0xa10a10a1u

/* struct aio_ring of the kernel's fs/aio.c: an ABI though no header has it. */
struct ring {
	uint32_t id;
	uint32_t count;			/* places in events */
	_Atomic uint32_t head;		/* ours */
	_Atomic uint32_t tail;		/* the kernel's */
	uint32_t magic;
	uint32_t compat_features;
	uint32_t incompat_features;
	uint32_t header_length;
	struct io_event events[];
};

static size_t ring_size(const struct ring *ring)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = sizeof *ring + ring->count * sizeof ring->events[0];

	return (size + page - 1) & ~(page - 1);
}

static bool ring_is_known(const struct ring *ring)
{
	return ring->magic == RING_MAGIC && ring->incompat_features == 0 &&
	       ring->header_length == sizeof *ring;
}

/* The context's id is the ring's address, so the ring is where it is known. */
static const char *ring_move(struct context *context, struct ring *ring, void *address)
{
	size_t size = ring_size(ring);

	if (!sys.map(address, size))
		return "the address is taken";
	if (sys.move(ring, size, address) < 0) {
		sys.unmap(address, size);
		return "the kernel refused to move it";
	}
	context->id = address;
	return NULL;
}

int context_open(struct context *context, uint32_t depth, void *address, bool use_ring)
{
	struct ring *ring;
	int r;

	*context = (struct context){ .depth = depth };
	while ((r = sys.io_setup((int)context->depth, &context->id)) == -EAGAIN &&
	       context->depth > 1) {
		context->refused = r;
		context->depth /= 2;
	}
	if (r < 0)
		return r;

	ring = (struct ring *)context->id;
	if (!use_ring) {
		context->ring_why = "switched off";
		return 0;
	}
	if (!ring_is_known(ring)) {
		/* UNTESTED: gVisor has no ring, a future kernel another one. */
		context->ring_why = "the ring has an unknown layout";
		return 0;
	}
	if (address)
		context->moved_why = ring_move(context, ring, address);
	ring = (struct ring *)context->id;
	/* A forked child that saw the ring could take the parent's events. */
	(void)sys.madvise(ring, ring_size(ring), MADV_DONTFORK);
	context->ring = ring;
	return 0;
}

/* Runs on a thread of its own. */
static void *destroy(void *id)
{
	(void)sys.io_destroy(id);
	return NULL;
}

void context_close(struct context *context)
{
	if (sys.thread(NULL, destroy, context->id) < 0)
		(void)sys.io_destroy(context->id);
}

bool context_ready(const struct context *context)
{
	const struct ring *ring = context->ring;

	return ring && atomic_load_explicit(&ring->head, memory_order_relaxed) !=
		       atomic_load_explicit(&ring->tail, memory_order_acquire);
}

uint32_t context_reap(struct context *context, struct io_event *events, uint32_t count)
{
	struct ring *ring = context->ring;
	uint32_t head, tail, n = 0;

	if (!ring) {
		int r = sys.io_getevents(context->id, count, events);

		return r < 0 ? 0 : (uint32_t)r;
	}
	head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	/* Pairs with the kernel's barrier between an event and its tail. */
	tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	for (; head != tail && n < count; n++) {
		events[n] = ring->events[head];
		head = head + 1 == ring->count ? 0 : head + 1;
	}
	/* Released: the kernel may overwrite what has been copied, not before. */
	if (n)
		atomic_store_explicit(&ring->head, head, memory_order_release);
	return n;
}
