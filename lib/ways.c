/*
 * ways.c - where a request can go next: to an engine, back into the queue, or to
 * its callback.
 */
#include "ways.h"

#include "core.h"
#include "direct.h"
#include "file.h"
#include "order.h"

void ways_pool(struct sorted *sorted, struct onefd_req *req, enum lane lane,
	       ssize_t (*work)(struct onefd_req *))
{
	flight(req)->lane = lane;
	flight(req)->work = work;
	list_push(&sorted->pool, &req->link);
}

void ways_requeue(struct onefd *loop, struct onefd_req *req)
{
	req->state = STATE_QUEUED;
	list_push(&loop->requests.queued, &req->link);
}

void ways_leave_window(struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (f->flags & FLIGHT_ADMITTED)
		window_release(file_queue(req->file), f->cost);
	f->flags &= ~FLIGHT_ADMITTED;
}

void ways_answer(struct onefd *loop, struct onefd_req *req, ssize_t res)
{
	struct flight *f = flight(req);

	req->res = res;
	/* A slot was kept for a worker, which did without. */
	if (f->flags & FLIGHT_SLOT)
		engine_kaio_release(&loop->requests.kaio_engine);
	ways_leave_window(req);
	if (f->bounce)
		direct_unbounce(req);
	if (f->flags & FLIGHT_PEER)
		order_leave(req, &loop->requests.queued);
	if (f->flags & FLIGHT_SENDFILE)
		req->op = OP_SENDFILE;
	f->flags = 0;
	f->marks = 0;
	f->done = 0;	/* it may be submitted anew as it is */
}

void ways_finish(struct onefd *loop, struct onefd_req *req, ssize_t res)
{
	ways_answer(loop, req, res);
	req->state = STATE_DONE;
	list_push(&loop->requests.done, &req->link);
}
