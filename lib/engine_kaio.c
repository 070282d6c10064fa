/*
 * engine_kaio.c - kernel AIO as an engine: one io_submit() for a batch.
 *
 * Whoever routes a request here has made sure that its submission does not
 * block: this file neither knows files nor windows. One request can pass
 * through two threads: where submission may block, a worker does it, on the
 * same context, and the completion arrives here like any other. It is then
 * complete when both the worker has let go of it and its event is in.
 */
#include "engine_kaio.h"

#include <errno.h>
#include <string.h>

#include "core.h"
#include "histogram.h"
#include "probe.h"
#include "sys.h"
#include "work.h"

#define IOCB_FLAG_RESFD (1 << 0)
#define IOCB_FLAG_IOPRIO (1 << 1)
#define EINTR_TRIES 8
/* One iocb costs 2 us and a batch some 100: more was spent waiting, except for
 * the nanosecond a byte that pinning fresh memory may take. */
#define SLOW_NS 2000000
/* Beyond this it was no mere preemption. */
#define STALLED_NS 20000000
/* After a slow one so many are watched for whether the thread slept in them. */
#define SUSPICIOUS 32

static struct engine_kaio *kaio_of(struct engine *engine)
{
	return onefd_container(engine, struct engine_kaio, engine);
}

static void fill_transfer(struct iocb *cb, struct onefd_req *req)
{
	struct flight *f = flight(req);
	bool write = req->op == OP_WRITE;

	cb->aio_rw_flags = (unsigned)req->rw_flags | (f->flags & FLIGHT_TRY ? RWF_NOWAIT : 0);
	cb->u.c.offset = req->offset;
	if (f->bounce) {
		cb->aio_lio_opcode = IO_CMD_PREAD;
		cb->u.c.buf = f->bounce;
		cb->u.c.nbytes = f->high - (uint64_t)f->low;
		cb->u.c.offset = f->low;
	} else if (req->iovcnt == 1) {
		cb->aio_lio_opcode = write ? IO_CMD_PWRITE : IO_CMD_PREAD;
		cb->u.c.buf = req->iov->iov_base;
		cb->u.c.nbytes = req->iov->iov_len;
	} else {
		cb->aio_lio_opcode = write ? IO_CMD_PWRITEV : IO_CMD_PREADV;
		cb->u.c.buf = (void *)(uintptr_t)req->iov;
		cb->u.c.nbytes = req->iovcnt;
	}
}

/* A try of the page cache is answered before io_submit() returns: whoever sends
 * it reaps it at once, and nobody is to be woken for it. */
static bool is_silent(const struct onefd_req *req)
{
	return req->op == OP_READ && !(req->file->flags & ONEFD_FILE_DIRECT);
}

static void fill(struct engine_kaio *kaio, struct onefd_req *req)
{
	struct iocb *cb = &flight(req)->iocb;

	memset(cb, 0, sizeof *cb);
	cb->data = req;
	switch (req->op) {
	case OP_FSYNC:
		cb->aio_lio_opcode = IO_CMD_FSYNC;
		break;
	case OP_FDATASYNC:
		cb->aio_lio_opcode = IO_CMD_FDSYNC;
		break;
	case OP_POLL:
		cb->aio_lio_opcode = IO_CMD_POLL;
		cb->u.poll.events = flight(req)->call.flags;
		break;
	default:
		fill_transfer(cb, req);
	}
	cb->aio_fildes = req_fd(req);
	if (!is_silent(req)) {
		cb->u.c.flags = IOCB_FLAG_RESFD;
		cb->u.c.resfd = (unsigned)kaio->wake_fd;
	}
	if (req->ioprio) {
		cb->u.c.flags |= IOCB_FLAG_IOPRIO;
		cb->aio_reqprio = (short)req->ioprio;
	}
}

static struct onefd_req *front(struct onefd_link *list)
{
	return list_entry(list->next, struct onefd_req, link);
}

/* Fills as many of the front of @list as there is room for, leaving them there. */
static long gather(struct engine_kaio *kaio, struct onefd_link *list, uint64_t *bytes)
{
	long room = kaio->cap - kaio->in_flight, count = 0;

	if (room > (long)(sizeof kaio->batch / sizeof kaio->batch[0]))
		room = sizeof kaio->batch / sizeof kaio->batch[0];
	*bytes = 0;
	for (struct onefd_link *at = list->next;
	     at != list && count < room && *bytes < BATCH_BYTES; at = at->next) {
		struct onefd_req *req = list_entry(at, struct onefd_req, link);

		fill(kaio, req);
		*bytes += flight(req)->bytes;
		kaio->batch[count++] = &flight(req)->iocb;
	}
	return count;
}

static int submit(struct engine_kaio *kaio, long count)
{
	int r, tries = 0;

	do
		r = sys.io_submit(kaio->context.id, count, kaio->batch);
	while (r == -EINTR && ++tries < EINTR_TRIES);
	return r;
}

/*
 * A slow submission blocked, or the thread was preempted in it, as happens on
 * any busy machine. Whether it slept tells which, but asking costs two system
 * calls: so only after a slow one are the next ones asked about.
 */
static bool judge_slow(struct engine_kaio *kaio, uint64_t bytes, long slept)
{
	bool slow = kaio->last_ns >= SLOW_NS + bytes;

	if (!slow) {
		kaio->suspicious -= kaio->suspicious > 0;
		return false;
	}
	kaio->suspicious = SUSPICIOUS;
	return slept || kaio->last_ns >= STALLED_NS + bytes;
}

static int submit_timed(struct engine_kaio *kaio, long count, uint64_t bytes)
{
	struct onefd_stats *stats = &kaio->engine.loop->stats;
	long slept = kaio->suspicious ? sys.sleeps() : 0;
	uint64_t began = sys.now();
	int r;

	PROBE(io_submit_begin, kaio->engine.loop, count);
	r = submit(kaio, count);
	kaio->engine.loop->clock = sys.now();
	kaio->last_ns = kaio->engine.loop->clock - began;
	PROBE(io_submit_end, kaio->engine.loop, r, kaio->last_ns);
	if (kaio->suspicious)
		slept = sys.sleeps() - slept;
	kaio->last_slow = judge_slow(kaio, bytes, slept);
	kaio->last_count = r > 0 ? (uint32_t)r : 0;
	histogram_add(&stats->submit_ns, kaio->last_ns);
	stats->submit_calls++;
	stats->submit_short += r >= 0 && r < count;
	stats->submit_again += r == -EAGAIN;
	return r;
}

static void take(struct engine_kaio *kaio, struct onefd_link *list, uint32_t count)
{
	struct onefd_stats *stats = &kaio->engine.loop->stats;
	struct onefd_req *req = NULL;

	kaio->in_flight += count;
	stats->kaio += count;
	for (uint32_t i = 0; i < count; i++) {
		req = kaio->batch[i]->data;
		req->state = STATE_OUT;
		flight(req)->engine = &kaio->engine;
		kaio->silent += is_silent(req);
		PROBE(sent, kaio->engine.loop, req, req->op, ROUTE_KAIO);
	}
	/* They stand in no list while they are out: cut off in one go. */
	list->next = req->link.next;
	list->next->prev = list;
	stats->in_flight += count;
	if (stats->in_flight > stats->in_flight_most)
		stats->in_flight_most = stats->in_flight;
}

/* An error speaks of the first request alone. */
static void refuse(struct engine_kaio *kaio, struct onefd_req *req, int error)
{
	list_remove(&req->link);
	req->state = STATE_OUT;
	req->res = error;
	flight(req)->engine = &kaio->engine;
	list_push(&kaio->refused, &req->link);
}

/* One io_submit() that sends something, or none that can. */
static int kaio_submit(struct engine *engine, struct onefd_link *batch)
{
	struct engine_kaio *kaio = kaio_of(engine);
	uint64_t bytes;
	long count = gather(kaio, batch, &bytes);
	int r;

	if (count == 0)
		return 0;
	r = submit_timed(kaio, count, bytes);
	if (r > 0) {
		take(kaio, batch, (uint32_t)r);
		return r;
	}
	/* No slot: only a completion of ours gives one. With none to come it
	 * would wait for ever, so it is refused after all. */
	if (r == -EAGAIN && kaio->in_flight) {
		kaio->full = true;
		return 0;
	}
	refuse(kaio, front(batch), r < 0 ? r : -EAGAIN);
	return 1;
}

static void land(struct engine_kaio *kaio, struct onefd_req *req, long res,
		 struct onefd_link *done)
{
	struct flight *f = flight(req);

	kaio->in_flight--;
	kaio->silent -= is_silent(req);
	kaio->full = false;
	kaio->engine.loop->stats.in_flight--;
	req->res = f->flags & FLIGHT_CANCEL ? -ECANCELED : res;
	f->flags &= ~FLIGHT_SLOT;
	list_push(done, &req->link);
}

static void kaio_reap(struct engine *engine, struct onefd_link *done)
{
	struct engine_kaio *kaio = kaio_of(engine);
	struct io_event events[32];
	uint32_t count;

	list_splice(done, &kaio->refused);
	if (!kaio->in_flight)
		return;
	/* To empty: what is left in the ring is announced by nobody. At most
	 * in_flight events can be there. */
	do {
		count = context_reap(&kaio->context, events, 32);
		/* Pairs with the release in engine_kaio_work(): the kernel
		 * passed the request on, but promised nothing of our own stores
		 * to it. After the events, or it misses who came in between. */
		(void)atomic_load_explicit(&kaio->passed, memory_order_acquire);
		for (uint32_t i = 0; i < count; i++)
			land(kaio, events[i].data, (long)events[i].res, done);
	} while (count == 32);
}

static bool kaio_ready(struct engine *engine)
{
	struct engine_kaio *kaio = kaio_of(engine);

	/* UNTESTED: one that no kernel here has left unanswered is asked after. */
	return !list_empty(&kaio->refused) || kaio->silent ||
	       (kaio->in_flight && context_ready(&kaio->context));
}

/* The kernel takes back polls only; for file I/O its answer is -EINVAL. */
static int kaio_cancel(struct engine *engine, struct onefd_req *req)
{
	struct engine_kaio *kaio = kaio_of(engine);

	if (req->op != OP_POLL || flight(req)->flags & FLIGHT_CANCEL)
		return -EBUSY;
	if (sys.io_cancel(kaio->context.id, &flight(req)->iocb) != -EINPROGRESS)
		return -EBUSY;
	flight(req)->flags |= FLIGHT_CANCEL;
	return 0;
}

static void kaio_close(struct engine *engine)
{
	context_close(&kaio_of(engine)->context);
}

static const struct engine_ops kaio_ops = {
	.name = "kernel AIO",
	.submit = kaio_submit,
	.reap = kaio_reap,
	.ready = kaio_ready,
	.cancel = kaio_cancel,
	.close = kaio_close,
};

int engine_kaio_open(struct engine_kaio *kaio, struct onefd *loop,
		     const struct onefd_config *config, int wake_fd)
{
	int r = context_open(&kaio->context, config->depth, config->ring_address,
			     !(config->flags & ONEFD_NO_RING));

	if (r < 0)
		return r;
	kaio->engine = (struct engine){ .ops = &kaio_ops, .loop = loop };
	/* The kernel rounds up and strands the surplus per CPU: count ourselves. */
	kaio->cap = kaio->context.depth;
	kaio->wake_fd = wake_fd;
	list_init(&kaio->refused);
	return 0;
}

bool engine_kaio_has_slot(const struct engine_kaio *kaio)
{
	return !kaio->full && kaio->in_flight < kaio->cap;
}

bool engine_kaio_reserve(struct engine_kaio *kaio, struct onefd_req *req)
{
	if (!engine_kaio_has_slot(kaio))
		return false;
	kaio->in_flight++;
	kaio->engine.loop->stats.in_flight++;
	fill(kaio, req);
	flight(req)->flags |= FLIGHT_SLOT;
	return true;
}

ssize_t engine_kaio_work(struct onefd_req *req)
{
	struct engine_kaio *kaio = &req->loop->requests.kaio_engine;
	struct iocb *cb = &flight(req)->iocb;

	if (flight(req)->flags & FLIGHT_WARM)
		work_warm(req);
	atomic_fetch_add_explicit(&kaio->passed, 1, memory_order_release);
	if (sys.io_submit(kaio->context.id, 1, &cb) == 1)
		return ANSWER_IN_RING;
	/* Refused for want of a slot or on its merits: the plain call finds
	 * which, and gives the answer that is the request's own. */
	return work_transfer(req);
}

void engine_kaio_release(struct engine_kaio *kaio)
{
	kaio->in_flight--;
	kaio->full = false;
	kaio->engine.loop->stats.in_flight--;
}
