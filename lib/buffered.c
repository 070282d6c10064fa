/*
 * buffered.c - which way a read or a write by the page cache takes, and what follows
 * from what it met.
 *
 * What the cache has is copied on the loop's thread; a read that misses waits with
 * its device's waiter, with its readahead running; where the cache cannot be asked
 * it is a worker's. A prefetch is a read that copies nothing.
 */
#include "buffered.h"

#include <errno.h>

#include "cached.h"
#include "core.h"
#include "file.h"
#include "prefetch.h"

/* A file may be cut and grow again while it is read: it takes so many false ends
 * to show that it is the kernel that tells them. */
#define FALSE_ENDS 4

/* Readahead is I/O as any other; a waiter may go beyond the window, for it may
 * be made to wait. */
static bool admit_readahead(struct onefd_req *req)
{
	struct onefd_device *queue = file_queue(req->file);
	struct flight *f = flight(req);

	if (f->flags & FLIGHT_ADMITTED)
		return true;
	/* A long one goes in steps: it is never all in the queue. */
	f->cost = window_cost(queue, f->bytes < PREFETCH_AHEAD ? f->bytes : PREFETCH_AHEAD,
			      req->file->extent);
	if (!window_admit(queue, f->cost))
		return false;
	f->flags |= FLIGHT_ADMITTED;
	return true;
}

void buffered_wait(struct sorted *sorted, struct onefd_req *req)
{
	struct onefd_file *file = req->file;

	(void)admit_readahead(req);
	flight(req)->ahead = req->offset + (off_t)flight(req)->done;
	if (file->warm == WARM_COLD && file_trust(file) != TRUST_NEVER) {
		file->warm = WARM_WARMING;
		flight(req)->flags |= FLIGHT_WARM;
		flight(req)->extents = 0;
	}
	list_push(&sorted->pages, &req->link);
}

static void follow(struct onefd *loop, struct sorted *sorted, struct onefd_req *req,
		   enum verdict verdict)
{
	switch (verdict) {
	case VERDICT_DONE:
		ways_finish(loop, req, req->res);
		break;
	case VERDICT_BATCH:
		if (!admit_readahead(req)) {
			buffered_wait(sorted, req);
			break;
		}
		flight(req)->flags |= FLIGHT_TRY;
		list_push(&sorted->kaio, &req->link);
		break;
	case VERDICT_WAIT:
		buffered_wait(sorted, req);
		break;
	case VERDICT_WORKER:
		ways_pool(sorted, req, LANE_DATA, cached_work);
		break;
	case VERDICT_LATER:
		list_push(&sorted->later, &req->link);
	}
}

void buffered_read(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (req->op == OP_READ)
		f->bytes = req_length(req);
	if (f->flags & FLIGHT_WORKER)
		ways_pool(sorted, req, LANE_DATA, cached_work);
	else if (f->flags & FLIGHT_TRIED)
		buffered_wait(sorted, req);
	else
		follow(loop, sorted, req, cached_try(loop, req, &sorted->copy));
}

/* Whether the kernel does those of a file one by one, whoever asks: by the inode's lock.
 * A sync after the write is done without it, and one serves several; a block device has
 * none, and a network or a daemon its own. */
static bool takes_turns(const struct onefd_req *req)
{
	const struct onefd_file *file = req->file;

	return !req->rw_flags && !(file->flags & ONEFD_FILE_BLOCKDEV) &&
	       !(file->refused & FILE_SYNC) && file_trust(file) != TRUST_NEVER;
}

void buffered_write(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	flight(req)->bytes = req_length(req);
	if (cached_try_write(loop, req, &sorted->copy) == VERDICT_DONE) {
		ways_finish(loop, req, req->res);
		return;
	}
	flight(req)->flags |= takes_turns(req) ? FLIGHT_TURN : 0;
	ways_pool(sorted, req, LANE_DATA, cached_write);
}

bool buffered_try(struct onefd *loop, struct onefd_req *req)
{
	uint64_t budget = CACHED_HERE;

	if (req->op != OP_PREFETCH)
		flight(req)->bytes = req_length(req);
	if (req->op == OP_WRITE)
		return cached_try_write(loop, req, &budget) == VERDICT_DONE;
	return cached_try(loop, req, &budget) == VERDICT_DONE;
}

void buffered_learn(struct onefd *loop, struct onefd_req *req)
{
	struct flight *f = flight(req);

	file_learn_from(req);
	/* And what the threads that wait for pages saw of it and its kernel. */
	loop->stats.readaheads += (f->marks & MARK_READAHEAD) != 0;
	if (f->marks & MARK_FALSE_END) {
		loop->stats.false_ends++;
		if (++req->file->false_ends >= FALSE_ENDS)
			req->file->refused |= 1u << 0;
	}
	f->marks = 0;
}

void buffered_land(struct onefd *loop, struct onefd_req *req)
{
	struct flight *f = flight(req);
	enum verdict verdict = VERDICT_DONE;

	buffered_learn(loop, req);
	if (f->flags & FLIGHT_TRY)
		verdict = cached_judge(loop, req, req->res);
	else if (!(f->flags & FLIGHT_WORKER) && req->res == -EOPNOTSUPP)
		verdict = cached_judge(loop, req, req->res);
	if (verdict == VERDICT_DONE) {
		ways_finish(loop, req, req->res);
		return;
	}
	f->flags &= FLIGHT_ADMITTED | FLIGHT_TRIED;
	f->flags |= verdict == VERDICT_WORKER ? FLIGHT_WORKER : 0;
	ways_requeue(loop, req);
}
