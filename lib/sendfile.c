/*
 * sendfile.c - a range of a file into a socket, as far as it goes at once.
 *
 * Not by sendfile(2): that waits for a page that is not there, and one that
 * was there a moment ago may be gone. What RWF_NOWAIT copies cannot be taken
 * away any more, and what the socket does not take is read again later.
 */
#include "sendfile.h"

#include <errno.h>

#include "core.h"
#include "sys.h"

/* What is waited for after a miss; the kernel reads on beyond it. */
#define WINDOW (256u * 1024)
/* Misses in a row: memory is short, and the pages go before they are sent. */
#define MISSES 3
/* What a worker sends before others have their turn, and waits for a socket. */
#define WORK_STEPS 16
#define WORK_POLL_MS 100

static uint64_t left(const struct onefd_req *req)
{
	return (uint64_t)(flight((struct onefd_req *)(uintptr_t)req)->end - req->offset);
}

void sendfile_begin(struct onefd_req *req)
{
	struct flight *f = flight(req);

	f->flags |= FLIGHT_SENDFILE;
	f->end = req->offset + f->call.length;
	f->misses = 0;
	f->stopped = false;
	f->work = NULL;
}

ssize_t sendfile_result(const struct onefd_req *req, ssize_t error)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);
	ssize_t sent = (ssize_t)((uint64_t)f->call.length - left(req));

	return error == -ECANCELED || !sent ? error : sent;
}

/* Reads the next of it into the loop's memory; how much, or the verdict. */
static enum verdict fetch(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	struct flight *f = flight(req);
	enum verdict verdict;

	f->bytes = left(req) < SENDFILE_STEP ? left(req) : SENDFILE_STEP;
	f->done = 0;
	req->op = OP_READ;
	req->one = (struct iovec){ loop->sender.bytes, f->bytes };
	req->iov = &req->one;
	req->iovcnt = 1;
	verdict = cached_try(loop, req, budget);
	req->op = OP_SENDFILE;
	return verdict;
}

static enum sent wait_for_pages(struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (++f->misses > MISSES)
		return SENT_WORKER;
	req->op = OP_PREFETCH;
	f->bytes = left(req) < WINDOW ? left(req) : WINDOW;
	f->done = 0;
	return SENT_MISS;
}

static enum sent finish(struct onefd_req *req, ssize_t error)
{
	req->res = sendfile_result(req, error);
	return SENT_DONE;
}

/* Whether it goes on: else *@ret says how. */
static bool step(struct onefd *loop, struct onefd_req *req, uint64_t *budget, enum sent *ret)
{
	struct flight *f = flight(req);
	enum verdict verdict = fetch(loop, req, budget);
	ssize_t n;

	if (f->done) {
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

enum sent sendfile_try(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	enum sent ret;

	while (left(req))
		if (!step(loop, req, budget, &ret))
			return ret;
	return finish(req, 0);
}

ssize_t sendfile_work(struct onefd_req *req)
{
	char bytes[SENDFILE_STEP];
	struct iovec iov = { bytes, 0 };
	ssize_t n, sent;

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

ssize_t sendfile_work_poll(struct onefd_req *req)
{
	return sys.poll_out(flight(req)->call.fd, WORK_POLL_MS);
}
