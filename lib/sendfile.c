/*
 * sendfile.c - a range of a file into a socket, as far as it goes at once.
 *
 * On the loop's thread not by sendfile(2): that waits for a page that is not there,
 * and one that was there a moment ago may be gone. What RWF_NOWAIT copies cannot be
 * taken away any more, and what the socket does not take is read again later. So
 * such a request is by turns a try, a prefetch and a poll.
 *
 * But it copies nothing, and to copy costs three times as much as all else. So a
 * worker sends what is long by sendfile(2), a piece at a time, if the socket is a
 * stream and lets nobody wait. The next page is waited for first, as in the other way:
 * a disk that hangs holds the thread that waits for its pages, and not all workers.
 */
#include "sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "buffered.h"
#include "cached.h"
#include "core.h"
#include "sys.h"

/* What is waited for after a miss; the kernel reads on beyond it. */
#define WINDOW (256u * 1024)
/* Misses in a row: memory is short, and the pages go before they are sent. */
#define MISSES 3
/* From so much on, by sendfile(2); and so much of it before others have their turn. */
#define SPLICE_LEAST (256u * 1024)
#define SPLICE_STEP (512u * 1024)
#define SPLICE_TRIES 4
/* What a worker sends before others have their turn, and waits for a socket. */
#define WORK_STEPS 16
#define WORK_POLL_MS 100

/* What follows from a try. */
enum sent {
	SENT_DONE,		/* res is final */
	SENT_LATER,		/* this turn has copied enough */
	SENT_FULL,		/* the socket takes no more */
	SENT_MISS,		/* the next pages are not there: req is a prefetch of them */
	SENT_WORKER,		/* the cache cannot be asked */
};

/* No errnos: a file system may answer any of those, -EAGAIN too. */
enum { WORK_ON, WORK_END, WORK_FULL };

/* What sendfile(2) would send: neither may it wait, nor must pieces have a border. */
static bool may_splice(const struct onefd_req *req)
{
	const struct call *call = &flight((struct onefd_req *)(uintptr_t)req)->call;

	return call->length >= (off_t)SPLICE_LEAST && !req->rw_flags &&
	       sys.socket_type(call->fd) == SOCK_STREAM && sys.getfl(call->fd) & O_NONBLOCK;
}

static uint64_t left(const struct onefd_req *req)
{
	return (uint64_t)(flight((struct onefd_req *)(uintptr_t)req)->end - req->offset);
}

/* A request that is submitted: nothing is sent yet. */
static void begin(struct onefd_req *req)
{
	struct flight *f = flight(req);

	f->flags |= FLIGHT_SENDFILE;
	f->end = req->offset + f->call.length;
	f->misses = 0;
	f->stopped = false;
	f->splices = may_splice(req);
	f->work = NULL;
}

static bool splices(const struct onefd_req *req)
{
	return flight((struct onefd_req *)(uintptr_t)req)->splices && left(req) >= SPLICE_LEAST;
}

/* What is told when it ends with @error or, 0, for there is no more. */
static ssize_t result(const struct onefd_req *req, ssize_t error)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);
	ssize_t sent = (ssize_t)((uint64_t)f->call.length - left(req));

	return error == -ECANCELED || !sent ? error : sent;
}

/* Reads the next @most bytes of it into the loop's memory; how much, or the verdict. */
static enum verdict fetch(struct onefd *loop, struct onefd_req *req, uint64_t most,
			  uint64_t *budget)
{
	struct flight *f = flight(req);
	enum verdict verdict;

	f->bytes = left(req) < most ? left(req) : most;
	f->done = 0;
	req->op = OP_READ;
	req->one = (struct iovec){ loop->sender.bytes, f->bytes };
	req->iov = &req->one;
	req->iovcnt = 1;
	verdict = cached_try(loop, req, budget);
	req->op = OP_SENDFILE;
	return verdict;
}

/* One byte tells that its page is there: a worker may wait for those that follow. */
static enum sent wait_for_pages(struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (++f->misses > MISSES)
		return SENT_WORKER;
	req->op = OP_PREFETCH;
	f->bytes = splices(req) ? 1 : left(req) < WINDOW ? left(req) : WINDOW;
	f->done = 0;
	return SENT_MISS;
}

static enum sent finish(struct onefd_req *req, ssize_t error)
{
	req->res = result(req, error);
	return SENT_DONE;
}

/* Whether it goes on: else *@ret says how. */
static bool step(struct onefd *loop, struct onefd_req *req, uint64_t *budget, enum sent *ret)
{
	struct flight *f = flight(req);
	bool whole = splices(req);
	enum verdict verdict = fetch(loop, req, whole ? 1 : SENDFILE_STEP, budget);
	ssize_t n;

	if (f->done && whole) {
		f->misses = 0;
		*ret = SENT_WORKER;
	} else if (f->done) {
		n = sys.send(f->call.fd, loop->sender.bytes, f->done);
		if (n > 0) {
			req->offset += n;
			f->misses = 0;
		}
		if (n == -EAGAIN || (n >= 0 && (uint64_t)n < f->done))
			*ret = SENT_FULL;
		else if (n < 0)
			*ret = finish(req, n);
		else
			return true;
	} else if (verdict == VERDICT_DONE) {
		*ret = finish(req, req->res);
	} else if (verdict == VERDICT_LATER) {
		*ret = SENT_LATER;
	} else {
		*ret = verdict == VERDICT_WAIT ? wait_for_pages(req) : SENT_WORKER;
	}
	return false;
}

/* Sends from the loop's thread what is resident. @budget: bytes it may copy. */
static enum sent try(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	enum sent ret;

	while (left(req))
		if (!step(loop, req, budget, &ret))
			return ret;
	return finish(req, 0);
}

/* Off the loop's thread: a piece by sendfile(2). */
static ssize_t work_splice(struct onefd_req *req)
{
	uint64_t most = left(req) < SPLICE_STEP ? left(req) : SPLICE_STEP;
	int sockfd = flight(req)->call.fd;
	ssize_t n = -EAGAIN;

	/* There may be room by the time that one looks. */
	for (int i = 0; i < SPLICE_TRIES && n == -EAGAIN; i++) {
		n = sys.sendfile(sockfd, req->file->fd, req->offset, most);
		if (n == -EAGAIN && sys.poll_out(sockfd, 0) == 0)
			return WORK_FULL;
	}
	if (n > 0)
		req->offset += n;
	/* Of an error, the socket's or the file's: to copy is to find out whose. */
	flight(req)->splices = n > 0;
	return n > 0 && (uint64_t)n < most ? WORK_FULL : WORK_ON;
}

/* Off the loop's thread: sends some, waiting for the disk and not for the
 * socket. WORK_..., the last for a socket that is full, or -errno. */
static ssize_t work(struct onefd_req *req)
{
	char bytes[SENDFILE_STEP];
	struct iovec iov = { bytes, 0 };
	ssize_t n, sent;

	if (splices(req))
		return work_splice(req);
	for (int i = 0; i < WORK_STEPS && left(req); i++) {
		iov.iov_len = left(req) < sizeof bytes ? left(req) : sizeof bytes;
		n = sys.preadv2(req->file->fd, &iov, 1, req->offset, req->rw_flags);
		if (n <= 0)
			return n < 0 ? n : WORK_END;
		sent = sys.send(flight(req)->call.fd, bytes, (size_t)n);
		if (sent < 0)
			return sent == -EAGAIN ? WORK_FULL : sent;
		req->offset += sent;
		if (sent < n)
			return WORK_FULL;
	}
	return WORK_ON;
}

/* Off the loop's thread: waits a little for the socket, where kernel AIO cannot. */
static ssize_t work_poll(struct onefd_req *req)
{
	return sys.poll_out(flight(req)->call.fd, WORK_POLL_MS);
}

static void to_poll(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	bool refused = flight(req)->flags & FLIGHT_WORKER;

	flight(req)->flags &= FLIGHT_SENDFILE;
	if (!loop->requests.kaio || refused) {
		ways_pool(sorted, req, LANE_CALL, work_poll);
		return;
	}
	req->op = OP_POLL;
	list_push(&sorted->polls, &req->link);
}

static void try_here(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	switch (try(loop, req, &sorted->copy)) {
	case SENT_DONE:
		ways_finish(loop, req, req->res);
		break;
	case SENT_LATER:
		list_push(&sorted->later, &req->link);
		break;
	case SENT_FULL:
		to_poll(loop, sorted, req);
		break;
	case SENT_MISS:
		flight(req)->flags &= ~FLIGHT_TRIED;
		buffered_wait(sorted, req);
		break;
	case SENT_WORKER:
		ways_pool(sorted, req, LANE_DATA, work);
	}
}

void sendfile_route(struct onefd *loop, struct sorted *sorted, struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (!(f->flags & FLIGHT_SENDFILE))
		begin(req);
	if (req->file->flags & ONEFD_FILE_DIRECT)
		ways_finish(loop, req, -EOPNOTSUPP);
	else if (f->flags & FLIGHT_FULL)
		to_poll(loop, sorted, req);
	else if (f->flags & FLIGHT_WORKER)
		ways_pool(sorted, req, LANE_DATA, work);
	else
		try_here(loop, sorted, req);
}

/* What it was just now is done: it is a sendfile again. */
void sendfile_land(struct onefd *loop, struct onefd_req *req)
{
	struct flight *f = flight(req);
	bool polled = req->op == OP_POLL || f->work == work_poll;
	bool worked = f->work == work;
	ssize_t r = req->res;

	if (req->op == OP_PREFETCH)
		buffered_learn(loop, req);
	ways_leave_window(req);
	req->op = OP_SENDFILE;
	f->flags = FLIGHT_SENDFILE;
	f->work = NULL;
	f->misses = worked ? 0 : f->misses;
	if (r == -ECANCELED || f->stopped) {
		ways_finish(loop, req, -ECANCELED);
		return;
	}
	/* UNTESTED: before Linux 4.18 kernel AIO has no poll. */
	if (polled && r < 0)
		f->flags |= FLIGHT_WORKER | FLIGHT_FULL;
	else if (worked && r == WORK_FULL)
		f->flags |= FLIGHT_FULL;
	/* Of RWF_NOWAIT; from a worker, who did without, it is the answer. */
	else if (!worked && r == -EOPNOTSUPP)
		f->flags |= FLIGHT_WORKER;
	else if (r < 0 || (worked && r == WORK_END)) {
		ways_finish(loop, req, result(req, r < 0 ? r : 0));
		return;
	}
	ways_requeue(loop, req);
}
