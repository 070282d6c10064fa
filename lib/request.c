/*
 * request.c - a request's life: prepared, queued, out, done.
 *
 * Which engine takes it is route.c's business. Here stands the law: whatever
 * submit accepted is called back once, from dispatch and nowhere else.
 */
#include "request.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "core.h"
#include "probe.h"
#include "route.h"
#include "sys.h"
#include "ways.h"

#define DEFAULT_DEPTH 128
#define DEFAULT_THREADS 4

/* ---- preparation ------------------------------------------------------- */

/* False: there is nothing to prepare, and submit will say so. */
static bool prep(struct onefd_req *req, enum op op, struct onefd_file *file, off_t offset)
{
	if (!req)
		return false;
	req->rw_flags = 0;
	req->ioprio = 0;
	req->op = (uint8_t)op;
	req->state = STATE_PREPARED;
	req->res = 0;
	req->file = file;
	req->offset = offset;
	req->iov = &req->one;
	req->iovcnt = 0;
	req->loop = NULL;
	list_init(&req->link);
	flight(req)->flags = 0;
	flight(req)->bytes = 0;
	flight(req)->done = 0;
	flight(req)->marks = 0;
	flight(req)->bounce = NULL;
	return true;
}

static void prep_one(struct onefd_req *req, enum op op, struct onefd_file *file,
		     void *buf, size_t len, off_t offset)
{
	if (!prep(req, op, file, offset))
		return;
	req->one.iov_base = buf;
	req->one.iov_len = len;
	req->iovcnt = 1;
}

void onefd_prep_pread(struct onefd_req *req, struct onefd_file *file,
		      void *buf, size_t len, off_t offset)
{
	prep_one(req, OP_READ, file, buf, len, offset);
}

void onefd_prep_pwrite(struct onefd_req *req, struct onefd_file *file,
		       const void *buf, size_t len, off_t offset)
{
	prep_one(req, OP_WRITE, file, (void *)(uintptr_t)buf, len, offset);
}

void onefd_prep_preadv(struct onefd_req *req, struct onefd_file *file,
		       const struct iovec *iov, size_t iovcnt, off_t offset)
{
	if (!prep(req, OP_READ, file, offset))
		return;
	req->iov = iov;
	req->iovcnt = iovcnt;
}

void onefd_prep_pwritev(struct onefd_req *req, struct onefd_file *file,
			const struct iovec *iov, size_t iovcnt, off_t offset)
{
	if (!prep(req, OP_WRITE, file, offset))
		return;
	req->iov = iov;
	req->iovcnt = iovcnt;
}

void onefd_prep_fsync(struct onefd_req *req, struct onefd_file *file, int datasync)
{
	(void)prep(req, datasync ? OP_FDATASYNC : OP_FSYNC, file, 0);
}

void onefd_prep_poll(struct onefd_req *req, int fd, uint32_t events)
{
	if (!prep(req, OP_POLL, NULL, 0))
		return;
	flight(req)->call = (struct call){ .fd = fd, .flags = (int)events };
}

void onefd_prep_openat(struct onefd_req *req, int dirfd, const char *path,
		       int flags, mode_t mode)
{
	if (!prep(req, OP_OPENAT, NULL, 0))
		return;
	flight(req)->call = (struct call){
		.path = path, .fd = dirfd, .flags = flags, .mode = mode,
	};
}

void onefd_prep_openat2(struct onefd_req *req, int dirfd, const char *path,
			const struct open_how *how)
{
	if (!prep(req, OP_OPENAT, NULL, 0))
		return;
	/* Without a how it would be an openat: submit() refuses a NULL path. */
	flight(req)->call = (struct call){ .path = how ? path : NULL, .how = how, .fd = dirfd };
}

void onefd_prep_statx(struct onefd_req *req, int dirfd, const char *path,
		      int flags, unsigned mask, struct statx *buf)
{
	if (!prep(req, OP_STATX, NULL, 0))
		return;
	flight(req)->call = (struct call){
		.path = path, .buf = buf, .fd = dirfd, .flags = flags, .mask = mask,
	};
}

void onefd_prep_fallocate(struct onefd_req *req, struct onefd_file *file,
			  int mode, off_t offset, off_t len)
{
	if (!prep(req, OP_FALLOCATE, file, offset))
		return;
	flight(req)->call = (struct call){ .flags = mode, .length = len };
}

void onefd_prep_prefetch(struct onefd_req *req, struct onefd_file *file, off_t offset, size_t len)
{
	if (!prep(req, OP_PREFETCH, file, offset))
		return;
	flight(req)->bytes = len;
}

void onefd_prep_sendfile(struct onefd_req *req, int sockfd, struct onefd_file *file,
			 off_t offset, size_t len)
{
	if (!prep(req, OP_SENDFILE, file, offset))
		return;
	flight(req)->call = (struct call){ .fd = sockfd, .flags = EPOLLOUT, .length = (off_t)len };
}

void onefd_prep_call(struct onefd_req *req, ssize_t (*call)(void *), void *arg)
{
	if (!prep(req, OP_CALL, NULL, 0))
		return;
	flight(req)->call.fd = -1;
	flight(req)->call.fn = call;
	flight(req)->call.buf = arg;
}

/* ---- submission -------------------------------------------------------- */

/* These answer how many bytes it is about, or -errno. */
static ssize_t check_buffers(const struct onefd_req *req)
{
	const struct onefd_file *file = req->file;
	uint64_t most = INT64_MAX;
	size_t sum = 0;

	if (!req->iov || req->iovcnt > IOV_MAX || req->offset < 0)
		return -EINVAL;
	for (size_t i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len > SSIZE_MAX - sum)
			return -EINVAL;
		sum += req->iov[i].iov_len;
	}
	/* Widened to whole blocks it must be an offset still. */
	if (file->flags & ONEFD_FILE_DIRECT)
		most -= most % file->off_align;
	return (uint64_t)req->offset + sum > most ? -EINVAL : (ssize_t)sum;
}

static ssize_t check_range(const struct onefd_req *req)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);
	/* A sendfile that is submitted anew has had other things in @bytes. */
	uint64_t len = req->op == OP_SENDFILE ? (uint64_t)f->call.length : f->bytes;

	if (req->offset < 0 || len > SSIZE_MAX || len > (uint64_t)(INT64_MAX - req->offset))
		return -EINVAL;
	return (ssize_t)len;
}

static ssize_t check(const struct onefd *loop, const struct onefd_req *req)
{
	const struct call *call = &flight((struct onefd_req *)(uintptr_t)req)->call;

	switch (req->op) {
	case OP_READ:
	case OP_WRITE:
		if (!req->file || req->file->loop != loop)
			return -EINVAL;
		return check_buffers(req);
	case OP_SENDFILE:
	case OP_PREFETCH:
		if (!req->file || req->file->loop != loop)
			return -EINVAL;
		return check_range(req);
	case OP_FSYNC:
	case OP_FDATASYNC:
	case OP_FALLOCATE:
		return req->file && req->file->loop == loop ? 0 : -EINVAL;
	case OP_POLL:
		return 0;
	case OP_OPENAT:
		return call->path ? 0 : -EINVAL;
	case OP_STATX:
		return call->path && call->buf ? 0 : -EINVAL;
	case OP_CALL:
		return call->fn ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

/* Whether it may be sent: how many bytes it is about, or -errno. */
static ssize_t verify(struct onefd *loop, const struct onefd_req *req)
{
	if (!loop || !req)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (req->state != STATE_PREPARED)
		return -EBUSY;
	return check(loop, req);
}

static void count(struct onefd_stats *stats, const struct onefd_req *req)
{
	stats->completed++;
	stats->cancelled += req->res == -ECANCELED;
	switch (req->op) {
	case OP_READ:
		stats->reads++;
		break;
	case OP_WRITE:
		stats->writes++;
		break;
	case OP_FSYNC:
	case OP_FDATASYNC:
		stats->syncs++;
		break;
	case OP_SENDFILE:
		stats->sendfiles++;
		break;
	case OP_PREFETCH:
		stats->prefetches++;
		break;
	case OP_POLL:
		stats->polls++;
		break;
	default:
		stats->calls++;
	}
}

int onefd_try(struct onefd *loop, struct onefd_req *req)
{
	ssize_t r = verify(loop, req);

	if (r < 0)
		return (int)r;
	if (!route_try(loop, req))
		return 0;
	PROBE(submit, loop, req, req->op, req_fd(req), req->offset, r);
	PROBE(done, loop, req, req->op, req->res);
	loop->stats.submitted++;
	count(&loop->stats, req);
	return 1;
}

int onefd_submit(struct onefd *loop, struct onefd_req *req, onefd_req_fn *fn)
{
	ssize_t r = fn ? verify(loop, req) : -EINVAL;

	if (r < 0)
		return (int)r;
	PROBE(submit, loop, req, req->op, req_fd(req), req->offset, r);
	req->fn = fn;
	req->loop = loop;
	req->state = STATE_QUEUED;
	/* A host that waits on the descriptor must be told that a turn is due. */
	if (loop->embedded && !loop->dispatching && list_empty(&loop->requests.queued))
		wake_signal(&loop->wake);
	list_push(&loop->requests.queued, &req->link);
	loop->requests.out++;
	loop->stats.submitted++;
	return 0;
}

int onefd_cancel(struct onefd_req *req)
{
	struct onefd *loop = req ? req->loop : NULL;
	bool sendfile;
	int r;

	if (!loop || req->state == STATE_PREPARED)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	/* Also of one that a try wrote a part of, and that was submitted since. */
	if (req->state == STATE_DONE || flight(req)->flags & FLIGHT_PARTLY)
		return -EBUSY;
	if (req->state == STATE_QUEUED) {
		/* What is done already has been announced. */
		if (loop->embedded && !loop->dispatching && list_empty(&loop->requests.done))
			wake_signal(&loop->wake);
		list_remove(&req->link);
		ways_finish(loop, req, -ECANCELED);
		return 0;
	}
	sendfile = flight(req)->flags & FLIGHT_SENDFILE;
	if (sendfile && flight(req)->stopped)
		return -EBUSY;
	r = flight(req)->engine->ops->cancel(flight(req)->engine, req);
	if (!sendfile)
		return r;
	/* A worker may have it, but not for the whole of it. */
	flight(req)->stopped = true;
	return 0;
}

int onefd_flush(struct onefd *loop)
{
	int sent;

	if (!loop)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	sent = requests_flush(loop);
	if (loop->embedded && !loop->dispatching && requests_ready(loop))
		wake_signal(&loop->wake);
	return sent;
}

size_t onefd_pending(const struct onefd *loop)
{
	return loop && loop_is_ours(loop) ? loop->requests.out : 0;
}

/* ---- the loop's part --------------------------------------------------- */

int requests_open(struct onefd *loop, const struct onefd_config *asked)
{
	struct requests *requests = &loop->requests;
	struct onefd_config config = *asked;
	int r;

	if (!config.depth)
		config.depth = DEFAULT_DEPTH;
	if (!config.threads)
		config.threads = DEFAULT_THREADS;
	list_init(&requests->queued);
	list_init(&requests->names);
	list_init(&requests->backlog);
	list_init(&requests->polls_backlog);
	list_init(&requests->done);
	windows_open(&loop->windows);
	names_open(&loop->names, config.flags);
	requests->flags = config.flags;
	requests->spin_most = config.spin_us * UINT64_C(1000);
	r = engine_pool_open(&requests->pool_engine, loop, config.threads,
			     config.spin_us);
	if (r < 0)
		return r;
	requests->pool = &requests->pool_engine.engine;
	engine_pages_open(&requests->pages_engine, loop);
	requests->pages = &requests->pages_engine.engine;
	if (config.flags & ONEFD_NO_KAIO)
		requests->kaio_error = -EOPNOTSUPP;
	else
		requests->kaio_error = engine_kaio_open(&requests->kaio_engine, loop,
							&config, loop->wake.fd);
	if (requests->kaio_error == 0)
		requests->kaio = &requests->kaio_engine.engine;
	return 0;
}

void requests_close(struct onefd *loop)
{
	struct requests *requests = &loop->requests;

	/* A worker may still be on its way out of io_submit(). */
	requests->pool->ops->close(requests->pool);
	requests->pages->ops->close(requests->pages);
	if (requests->polls)
		requests->polls->ops->close(requests->polls);
	if (requests->kaio)
		requests->kaio->ops->close(requests->kaio);
	windows_close(&loop->windows);
}

static bool kaio_ready(struct engine_kaio *kaio, const struct onefd_link *backlog)
{
	return (!list_empty(backlog) && engine_kaio_has_slot(kaio)) ||
	       kaio->engine.ops->ready(&kaio->engine);
}

bool requests_ready(struct onefd *loop)
{
	struct requests *requests = &loop->requests;

	if (!requests->out)
		return false;
	return !list_empty(&requests->done) || !list_empty(&requests->queued) ||
	       !list_empty(&requests->names) ||
	       requests->pool->ops->ready(requests->pool) ||
	       requests->pages->ops->ready(requests->pages) ||
	       (requests->kaio && kaio_ready(&requests->kaio_engine, &requests->backlog)) ||
	       (requests->polls &&
		kaio_ready(&requests->polls_engine, &requests->polls_backlog)) ||
	       /* Polls that share the context of the others. */
	       (!requests->polls && !list_empty(&requests->polls_backlog) &&
		engine_kaio_has_slot(&requests->kaio_engine));
}

uint64_t requests_spin_ns(const struct onefd *loop, uint64_t now)
{
	const struct requests *requests = &loop->requests;
	uint64_t most = requests->spin_most, usual = requests->usual;

	/* The kernel's own answers come without a thread to wake: nothing is gained. */
	if (requests->out != 1 || !requests->lone_since || usual > most || loop->stats.in_flight)
		return 0;
	if (usual && usual * 2 < most)
		most = usual * 2;
	most += requests->lone_since;
	return most > now ? most - now : 0;
}

/* One has ended. Of those that were not alone nothing is learned. */
static void learn_usual(struct onefd *loop)
{
	struct requests *requests = &loop->requests;
	uint64_t took;

	if (requests->out || !requests->lone_since)
		return;
	/* One that a callback has flushed may be back within the turn, whose time stands. */
	took = loop->now > requests->lone_since ? loop->now - requests->lone_since : 0;
	requests->usual = requests->usual ? (requests->usual * 7 + took) / 8 : took;
	requests->lone_since = 0;
}

/* How long a lone request takes is asked only where it is of use. */
static int flush(struct onefd *loop)
{
	struct requests *requests = &loop->requests;
	int sent = route_flush(loop);

	if (sent)
		requests->lone_since = requests->out == 1 && requests->spin_most ? sys.now() : 0;
	return sent;
}

int requests_flush(struct onefd *loop)
{
	if (!loop->requests.out)
		return 0;
	route_begin(loop);
	return flush(loop);
}

int requests_dispatch(struct onefd *loop, uint32_t budget)
{
	struct requests *requests = &loop->requests;
	struct onefd_link *link;
	int ran = 0;

	if (!requests->out)
		return 0;
	route_reap(loop, requests->pool);
	route_reap(loop, requests->pages);
	if (requests->polls)
		route_reap(loop, requests->polls);
	if (requests->kaio)
		route_reap(loop, requests->kaio);
	while (budget-- && (link = list_pop(&requests->done))) {
		struct onefd_req *req = list_entry(link, struct onefd_req, link);

		count(&loop->stats, req);
		requests->out--;
		learn_usual(loop);
		/* From here the request is the caller's: fn may free it. */
		req->state = STATE_PREPARED;
		PROBE(done, loop, req, req->op, req->res);
		req->fn(req);
		ran++;
	}
	return ran;
}

int requests_follow(struct onefd *loop, uint32_t budget)
{
	struct requests *requests = &loop->requests;
	uint32_t ran = 0;
	int sent = 0;

	while (!sent && !loop->stopping && ran < budget && !list_empty(&requests->done)) {
		ran += (uint32_t)requests_dispatch(loop, budget - ran);
		loop->clock = 0;
		sent = requests->out ? flush(loop) : 0;
	}
	return (int)ran;
}
