/*
 * handed.h - a stack by which threads hand requests back to the loop, without
 * a lock.
 *
 * Any thread pushes; the loop's alone takes, and takes all.
 */
#ifndef ONEFD_HANDED_H
#define ONEFD_HANDED_H

#include <stdatomic.h>

#include "engine.h"

struct handed {
	_Atomic(struct onefd_req *) newest;
};

/* Any thread. True: the stack was empty, so the loop is to be woken; whoever
 * pushes more at once may do so after the last. */
static inline bool handed_push(struct handed *handed, struct onefd_req *req, ssize_t answer)
{
	struct flight *f = flight(req);
	struct onefd_req *newest = atomic_load_explicit(&handed->newest, memory_order_relaxed);

	f->answer = answer;
	/* Released: what this thread wrote to the buffers goes before. From then
	 * on the request may be freed at any moment. */
	do
		f->handed = newest;
	while (!atomic_compare_exchange_weak_explicit(&handed->newest, &newest, req,
						      memory_order_release,
						      memory_order_relaxed));
	return !newest;
}

static inline bool handed_any(const struct handed *handed)
{
	return atomic_load_explicit(&handed->newest, memory_order_relaxed);
}

/* Appends all to @done, the one first handed first, each with its answer as res. */
static inline void handed_take(struct handed *handed, struct onefd_link *done)
{
	struct onefd_link *after = done->prev;
	struct onefd_req *req;

	if (!handed_any(handed))
		return;
	req = atomic_exchange_explicit(&handed->newest, NULL, memory_order_acquire);

	/* The stack is newest first: each goes before the one handed later. */
	while (req) {
		struct onefd_req *older = flight(req)->handed;

		req->res = flight(req)->answer;
		list_push(after->next, &req->link);
		req = older;
	}
}

#endif
