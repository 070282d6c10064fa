/*
 * ways.h - where a request can go next: to an engine, back into the queue, or to
 * its callback.
 *
 * Why it goes there is for those above to know.
 */
#ifndef ONEFD_WAYS_H
#define ONEFD_WAYS_H

#include "engine.h"

/* What one flush hands to the engines. */
struct sorted {
	struct onefd_link kaio, polls, pages, pool;
	struct onefd_link later;	/* for the next flush: enough was done */
	uint64_t copy;			/* bytes that may still be */
};

/* To a worker of that lane, who runs @work. */
void ways_pool(struct sorted *sorted, struct onefd_req *req, enum lane lane,
	       ssize_t (*work)(struct onefd_req *));

/* It is routed once more, in this flush or the next. */
void ways_requeue(struct onefd *loop, struct onefd_req *req);

/* What it took of its device's window is free again. */
void ways_leave_window(struct onefd_req *req);

/* It has its @res, and nothing of what it was given while it was out stays with it. */
void ways_answer(struct onefd *loop, struct onefd_req *req, ssize_t res);

/* The same, and a callback tells of it. It stands in no list. */
void ways_finish(struct onefd *loop, struct onefd_req *req, ssize_t res);

#endif
