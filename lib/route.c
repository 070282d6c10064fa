/*
 * route.c - which engine takes a request, and what follows -EAGAIN.
 *
 * Nothing goes to io_submit() on the loop's thread unless its submission is
 * believed not to block: direct transfers under RWF_NOWAIT, on files whose
 * file system answers that honestly or whose extents are in memory, within
 * the window of their device; tries of the page cache, by the same rule;
 * fsync and poll, which the kernel runs elsewhere. A direct transfer that
 * would block is submitted by a worker on the same context: only its
 * submission costs a thread. All else is a worker's from beginning to end, but
 * for what buffered.c, names.c and sendfile.c do in ways of their own.
 *
 * The states: QUEUED (in requests.queued or names, in requests.backlog when there was
 * no slot, in a device's list when there was no room, or in no list behind a
 * write that it overlaps) -> OUT -> DONE, or QUEUED again as FLIGHT_WORKER or
 * FLIGHT_TRIED.
 */
#include "route.h"

#include <errno.h>

#include "buffered.h"
#include "cached.h"
#include "core.h"
#include "direct.h"
#include "file.h"
#include "order.h"
#include "probe.h"
#include "sendfile.h"
#include "ways.h"
#include "work.h"

/* Most bytes that one flush copies out of the page cache. */
#define COPY_MOST (1u << 20)

static bool is_transfer(const struct onefd_req *req)
{
	return req->op == OP_READ || req->op == OP_WRITE;
}

/* What the page cache is asked for: a prefetch is a read that copies nothing. */
static bool is_buffered_read(const struct onefd_req *req)
{
	return req->op == OP_PREFETCH ||
	       (req->op == OP_READ && !(req->file->flags & ONEFD_FILE_DIRECT));
}

/* ---- towards the engines ----------------------------------------------- */

/* Whether it may be submitted on the loop's thread, to the best of our knowledge. */
static bool is_quick(struct onefd *loop, struct onefd_req *req)
{
	struct onefd_file *file = req->file;
	int way = file_way(req);
	enum trust trust = file_trust(file);

	if (flight(req)->flags & FLIGHT_WORKER || trust == TRUST_NEVER)
		return false;
	if (trust == TRUST_WARM && file->warm != WARM_DONE)
		return false;
	if (way && order_appends(req))
		return false;
	if (flight(req)->cost > file_queue(req->file)->most || flight(req)->bytes > BATCH_BYTES)
		return false;
	if (loop->requests.flags & ONEFD_NO_NOWAIT || file->refused & 1u << way)
		return false;
	return !file_detour(file, way);
}

/* A direct transfer for which the device's window has room. */
static void launch(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct onefd_file *file = req->file;
	struct flight *f = flight(req);

	/* No sooner: what waits for room waits in its own memory. */
	if (f->flags & FLIGHT_WIDE && !f->bounce && direct_bounce(req) < 0) {
		ways_finish(loop, req, -ENOMEM);
		return;
	}
	if (is_quick(loop, req)) {
		/* The caller's own RWF_NOWAIT means that -EAGAIN is an answer. */
		if (!(req->rw_flags & RWF_NOWAIT))
			f->flags |= FLIGHT_TRY;
		list_push(&sorted->kaio, &req->link);
		return;
	}
	if (!engine_kaio_reserve(&loop->requests.kaio_engine, req)) {
		ways_pool(sorted, req, LANE_DATA, work_transfer);
		return;
	}
	if (file->warm == WARM_COLD && file_trust(file) == TRUST_WARM) {
		file->warm = WARM_WARMING;
		f->flags |= FLIGHT_WARM;
		f->extents = 0;
	}
	ways_pool(sorted, req, LANE_DATA, engine_kaio_work);
}

static void to_device(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct onefd_device *queue = file_queue(req->file);
	struct flight *f = flight(req);

	f->cost = window_cost(queue, f->bytes, req->file->extent);
	if (list_empty(&queue->held) && window_admit(queue, f->cost)) {
		f->flags |= FLIGHT_ADMITTED;
		launch(loop, sorted, req);
		return;
	}
	loop->stats.held++;
	PROBE(held, loop, req, queue->major, queue->minor, queue->used, queue->limit);
	list_push(&queue->held, &req->link);
}

/* A direct read that does not fit as it is; false: it has gone elsewhere. */
static bool widen_read(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct flight *f = flight(req);

	loop->stats.bounced++;
	direct_widen(req);
	f->bytes = f->high - (uint64_t)f->low;
	if (f->bytes > DIRECT_BOUNCE_MOST || !loop->requests.kaio) {
		ways_pool(sorted, req, LANE_DATA, direct_work_read);
		return false;
	}
	f->flags |= FLIGHT_WIDE;
	return true;
}

/* An append must begin in a whole block, too, and that is where the file ends. */
static bool fits_as_it_is(struct onefd_req *req)
{
	struct onefd_file *file = req->file;

	if (!direct_fits(req))
		return false;
	return req->op == OP_READ || !order_appends(req) || file->flags & ONEFD_FILE_BLOCKDEV ||
	       file_learn_size(file) % file->off_align == 0;
}

static void route_direct(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct flight *f = flight(req);
	bool fits = fits_as_it_is(req), write = req->op == OP_WRITE;

	f->bytes = req_length(req);
	/* Not to be widened to a block: an empty write changes nothing. */
	if (!f->bytes) {
		ways_pool(sorted, req, LANE_DATA, work_transfer);
		return;
	}
	if (write && !(f->flags & FLIGHT_PEER) && !order_join(req, fits))
		return;
	if (write && !fits) {
		loop->stats.rewritten++;
		ways_pool(sorted, req, LANE_DATA, direct_work_write);
		return;
	}
	if (!fits && !widen_read(loop, sorted, req))
		return;
	if (loop->requests.kaio)
		to_device(loop, sorted, req);
	else
		ways_pool(sorted, req, LANE_DATA, work_transfer);
}

static void route_sync(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	if (loop->requests.kaio && !(flight(req)->flags & FLIGHT_WORKER))
		list_push(&sorted->kaio, &req->link);
	else
		ways_pool(sorted, req, LANE_SYNC, work_fsync);
}

static void route_fallocate(struct sorted *sorted, struct onefd_req *req)
{
	if (req->file->flags & ONEFD_FILE_DIRECT && !(flight(req)->flags & FLIGHT_PEER) &&
	    !order_join(req, true))
		return;
	ways_pool(sorted, req, LANE_SYNC, work_call);
}

/* In a list of their own: thousands are not looked at anew in each flush. */
static void route_names(struct onefd *loop, struct sorted *sorted)
{
	struct onefd_link *held = &loop->requests.names;

	while (!list_empty(held) && !names_enough(&loop->names)) {
		struct onefd_req *req = list_entry(list_pop(held), struct onefd_req, link);

		if (names_try(loop, req))
			ways_finish(loop, req, req->res);
		else
			ways_pool(sorted, req, LANE_CALL, names_work);
	}
}

static void route_one(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	if (flight(req)->flags & FLIGHT_CACHE) {
		ways_pool(sorted, req, LANE_DATA, direct_work_write);
		return;
	}
	if (flight(req)->flags & FLIGHT_ADMITTED && req->file->flags & ONEFD_FILE_DIRECT) {
		launch(loop, sorted, req);
		return;
	}
	switch (req->op) {
	case OP_READ:
	case OP_WRITE:
		if (req->file->flags & ONEFD_FILE_DIRECT)
			route_direct(loop, sorted, req);
		else if (req->op == OP_READ)
			buffered_read(loop, sorted, req);
		else
			buffered_write(loop, sorted, req);
		break;
	case OP_SENDFILE:
		sendfile_route(loop, sorted, req);
		break;
	case OP_PREFETCH:
		if (req->file->flags & ONEFD_FILE_DIRECT)
			ways_finish(loop, req, -EOPNOTSUPP);
		else
			buffered_read(loop, sorted, req);
		break;
	case OP_FSYNC:
	case OP_FDATASYNC:
		route_sync(loop, sorted, req);
		break;
	case OP_POLL:
		if (loop->requests.kaio)
			list_push(&sorted->polls, &req->link);
		else
			ways_finish(loop, req, -EOPNOTSUPP);
		break;
	case OP_FALLOCATE:
		route_fallocate(sorted, req);
		break;
	case OP_OPENAT:
	case OP_STATX:
		list_push(&loop->requests.names, &req->link);
		break;
	default:
		ways_pool(sorted, req, LANE_CALL, work_call);
	}
}

/* What waited for room, oldest first: a large one is not overtaken. */
static void admit_held(struct onefd *loop, struct sorted *sorted)
{
	struct onefd_link *devices = &loop->windows.devices;

	for (struct onefd_link *at = devices->next; at != devices; at = at->next) {
		struct onefd_device *queue = list_entry(at, struct onefd_device, link);

		while (!list_empty(&queue->held)) {
			struct onefd_req *req =
				list_entry(queue->held.next, struct onefd_req, link);

			if (!window_admit(queue, flight(req)->cost))
				break;
			list_remove(&req->link);
			flight(req)->flags |= FLIGHT_ADMITTED;
			launch(loop, sorted, req);
		}
	}
}

/*
 * The last io_submit() took long. Was the queue full, though it should not
 * have been? Then its window is too wide. Else the files needed something
 * from the disk first, and go to workers for a while.
 */
static void blame(struct onefd *loop, struct engine_kaio *kaio)
{
	struct onefd_device *narrowed = NULL;

	for (uint32_t i = 0; i < kaio->last_count; i++) {
		struct onefd_req *req = kaio->batch[i]->data;

		if (!is_transfer(req) || file_queue(req->file) == narrowed)
			continue;
		if (window_narrow(file_queue(req->file))) {
			narrowed = file_queue(req->file);
			loop->stats.narrowed++;
			PROBE(narrowed, loop, narrowed->major, narrowed->minor, narrowed->limit);
		} else if (!req->file->detour[file_way(req)]) {
			/* Once a submission, however many of the file it took: a
			 * second time would double the detour. */
			loop->stats.demoted += file_blocked(req->file, file_way(req), true);
		}
	}
}

/* What a turn may spend on submitting before it looks at its other events. */
#define SEND_NS 1000000

/* As far as slots and time allow; what is left stays for the next turn. */
static int submit_kaio(struct onefd *loop, struct engine_kaio *kaio, struct onefd_link *list)
{
	uint64_t spent = 0;
	int sent = 0, n;

	while (!list_empty(list) && spent < SEND_NS) {
		n = kaio->engine.ops->submit(&kaio->engine, list);
		if (n == 0)
			break;	/* no slot: each completion tries again */
		sent += n;
		spent += kaio->last_ns;
		if (kaio->last_slow)
			blame(loop, kaio);
	}
	return sent;
}

/*
 * A poll may be out for ever, so polls have a context of their own, made with
 * the first: on the other they would take the slots of file I/O.
 */
static struct engine_kaio *polls_of(struct onefd *loop)
{
	struct requests *requests = &loop->requests;
	struct onefd_config config = { .depth = requests->kaio_engine.cap,
				       .flags = requests->flags };

	if (!requests->polls && !requests->polls_error) {
		requests->polls_error = engine_kaio_open(&requests->polls_engine, loop, &config,
							 loop->wake.fd);
		if (requests->polls_error == 0)
			requests->polls = &requests->polls_engine.engine;
	}
	/* With fs.aio-max-nr spent they have to share. */
	return requests->polls ? &requests->polls_engine : &requests->kaio_engine;
}

static void route_queued(struct onefd *loop, struct sorted *sorted)
{
	struct onefd_link *link;

	while ((link = list_pop(&loop->requests.queued)))
		route_one(loop, sorted, list_entry(link, struct onefd_req, link));
	route_names(loop, sorted);
}

static int send_kaio(struct onefd *loop, struct sorted *sorted)
{
	struct requests *requests = &loop->requests;
	int sent = submit_kaio(loop, &requests->kaio_engine, &sorted->kaio);

	/* Tries of the page cache are answered already: what missed is on its
	 * way to a waiter before the turn ends. */
	if (requests->kaio_engine.silent) {
		route_reap(loop, requests->kaio);
		route_queued(loop, sorted);
	}
	list_splice(&requests->backlog, &sorted->kaio);
	return sent;
}

static int send_pages(struct onefd *loop, struct sorted *sorted)
{
	struct engine *pages = loop->requests.pages;
	int sent = pages->ops->submit(pages, &sorted->pages);
	struct onefd_link *link;

	/* No thread to be had. */
	while ((link = list_pop(&sorted->pages))) {
		struct onefd_req *req = list_entry(link, struct onefd_req, link);

		if (flight(req)->flags & FLIGHT_WARM)
			req->file->warm = WARM_COLD;
		flight(req)->flags &= ~FLIGHT_WARM;
		ways_pool(sorted, req, LANE_DATA, cached_work);
	}
	return sent;
}

static int send(struct onefd *loop, struct sorted *sorted)
{
	struct requests *requests = &loop->requests;
	int sent = send_kaio(loop, sorted);

	/* Also with nothing new: they may have kept some. */
	sent += send_pages(loop, sorted);
	sent += requests->pool->ops->submit(requests->pool, &sorted->pool);
	if (!list_empty(&sorted->polls)) {
		sent += submit_kaio(loop, polls_of(loop), &sorted->polls);
		list_splice(&requests->polls_backlog, &sorted->polls);
	}
	list_splice(&requests->queued, &sorted->later);
	return sent;
}

void route_begin(struct onefd *loop)
{
	names_flush(&loop->names);
	loop->requests.flushes++;
	loop->requests.copy = COPY_MOST;
}

int route_flush(struct onefd *loop)
{
	struct requests *requests = &loop->requests;
	struct sorted sorted = { .copy = requests->copy };

	list_init(&sorted.kaio);
	list_init(&sorted.polls);
	list_init(&sorted.pages);
	list_init(&sorted.pool);
	list_init(&sorted.later);
	list_splice(&sorted.kaio, &requests->backlog);
	list_splice(&sorted.polls, &requests->polls_backlog);
	admit_held(loop, &sorted);
	route_queued(loop, &sorted);
	requests->copy = sorted.copy;
	return send(loop, &sorted);
}

bool route_try(struct onefd *loop, struct onefd_req *req)
{
	bool done = false;

	switch (req->op) {
	case OP_READ:
	case OP_WRITE:
	case OP_PREFETCH:
		done = !(req->file->flags & ONEFD_FILE_DIRECT) && buffered_try(loop, req);
		break;
	case OP_OPENAT:
	case OP_STATX:
		done = names_try(loop, req);
	}
	if (done)
		ways_answer(loop, req, req->res);
	return done;
}

/* ---- back from the engines --------------------------------------------- */

/* NOWAIT may stop half-way. A short count that is not the end of the file, as
 * far as we know it, is done again as a whole: the buffer is still ours. */
static bool stopped_half_way(const struct onefd_req *req, uint64_t asked)
{
	return req->res > 0 && (uint64_t)req->res < asked &&
	       req->res % req->file->off_align == 0 &&
	       (uint64_t)(req->offset + req->res) != req->file->size;
}

/* Whether what came of a try is no answer, but a reason to ask a worker. */
static bool would_block(struct onefd *loop, struct onefd_req *req)
{
	struct flight *f = flight(req);
	struct onefd_file *file = req->file;

	switch (req->res) {
	case -EAGAIN:
		loop->stats.nowait_again++;
		break;
	case -EOPNOTSUPP:
		/* The flags of the caller's own may be what is refused. */
		if (req->rw_flags)
			return true;
		loop->stats.nowait_refused++;
		file->refused |= (uint16_t)(1u << file_way(req));
		return true;
	case -EINVAL:	/* before Linux 4.13 it is NOWAIT that is invalid */
		break;
	default:
		if (stopped_half_way(req, f->bytes))
			break;
		file_flowed(file, file_way(req));
		return false;
	}
	loop->stats.demoted += file_blocked(file, file_way(req), false);
	return true;
}

static void again(struct onefd *loop, struct onefd_req *req)
{
	flight(req)->flags &= FLIGHT_ADMITTED | FLIGHT_PEER | FLIGHT_REWRITE;
	flight(req)->flags |= FLIGHT_WORKER;
	ways_requeue(loop, req);
}

/* An append of whole blocks, which fits, to a file that ends within one. Only
 * the kernel knows: others may append too. */
static bool ends_within_a_block(const struct onefd_req *req, const struct flight *f)
{
	return req->res == -EINVAL && req->op == OP_WRITE && f->flags & FLIGHT_PEER &&
	       order_appends(req) && f->work != direct_work_write;
}

static void land(struct onefd *loop, struct onefd_req *req)
{
	uint32_t flags = flight(req)->flags;

	if (flags & FLIGHT_SENDFILE) {
		sendfile_land(loop, req);
		return;
	}
	if (is_buffered_read(req)) {
		buffered_land(loop, req);
		return;
	}
	if (is_transfer(req)) {
		file_learn_from(req);
		if (flags & FLIGHT_LEARN)
			cached_learned(req);
		if (flags & FLIGHT_TRY && would_block(loop, req)) {
			again(loop, req);
			return;
		}
		if (ends_within_a_block(req, flight(req))) {
			again(loop, req);
			flight(req)->flags |= FLIGHT_CACHE;
			return;
		}
	}
	if (req->op == OP_OPENAT || req->op == OP_STATX)
		names_land(&loop->names, req);
	/* UNTESTED: before Linux 4.18 kernel AIO has no fsync. */
	if (req->op <= OP_FDATASYNC && req->op >= OP_FSYNC && req->res == -EINVAL &&
	    !(flags & FLIGHT_WORKER)) {
		again(loop, req);
		return;
	}
	ways_finish(loop, req, req->res);
}

void route_reap(struct onefd *loop, struct engine *engine)
{
	struct onefd_link landed, *link;

	list_init(&landed);
	engine->ops->reap(engine, &landed);
	while ((link = list_pop(&landed)))
		land(loop, list_entry(link, struct onefd_req, link));
}
