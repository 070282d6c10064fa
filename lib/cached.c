/*
 * cached.c - what the page cache gives at once.
 *
 * RWF_NOWAIT copies what is resident, starts readahead of what is not, and
 * answers -EAGAIN. That it starts readahead is the whole trick, and its only
 * danger: to find the blocks it may wait for the file system's metadata, and a
 * full block queue makes it wait too. So it is tried on the loop's thread only
 * where neither is to be feared, or where cachestat() has said that no
 * readahead will be needed.
 *
 * Knows no engine and sends nothing anywhere: it tries, and gives a verdict.
 */
#include "cached.h"

#include <errno.h>

#include "core.h"
#include "file.h"
#include "prefetch.h"
#include "sys.h"

/* Buffers of one step; a longer array takes several. */
#define PARTS 16
/* Most bytes of one step on the loop's thread: what a miss reads ahead. */
#define PIECE (128u * 1024)
/* What a step costs of a turn's budget, however little it moved. */
#define STEP_COST (8u * 1024)

/* A file counts as cold after two misses, as warm again after a row of hits. */
#define COLD 8
#define COLD_MISS 4
#define COLD_MOST 32
/* After so many questions to cachestat() about a file whose extents are not in
 * memory, a waiter reads them in. */
#define QUESTIONS 4

/* ---- a step ------------------------------------------------------------- */

/* The part of the buffers that begins @skip bytes in: how many pieces. */
static size_t slice(const struct onefd_req *req, size_t skip, size_t most, struct iovec *parts)
{
	size_t count = 0;

	for (size_t i = 0; i < req->iovcnt && most && count < PARTS; i++) {
		size_t length = req->iov[i].iov_len;

		if (skip >= length) {
			skip -= length;
			continue;
		}
		length = length - skip < most ? length - skip : most;
		parts[count++] = (struct iovec){ (char *)req->iov[i].iov_base + skip, length };
		most -= length;
		skip = 0;
	}
	return count;
}

ssize_t cached_step(struct onefd_req *req, size_t most, int flags)
{
	struct flight *f = flight(req);
	int fd = req->file->fd;
	struct iovec parts[PARTS];
	size_t count;
	ssize_t n;

	if (req->op == OP_PREFETCH)
		return prefetch_step(req, most, flags);
	if (!f->done && most >= f->bytes) {
		n = sys.preadv2(fd, req->iov, req->iovcnt, req->offset, req->rw_flags | flags);
	} else {
		count = slice(req, f->done, most, parts);
		n = sys.preadv2(fd, parts, count, req->offset + (off_t)f->done,
				req->rw_flags | flags);
	}
	if (n > 0)
		f->done += (size_t)n;
	return n;
}

ssize_t cached_work(struct onefd_req *req)
{
	struct flight *f = flight(req);
	ssize_t n;

	do
		n = cached_step(req, f->bytes - f->done, 0);
	while (n > 0 && f->done < f->bytes);
	/* What came before an error is told first, as pread(2) does. */
	return f->done || n > 0 ? (ssize_t)f->done : n;
}

/* ---- verdicts ------------------------------------------------------------- */

static enum verdict finish(struct onefd *loop, struct onefd_req *req, ssize_t error)
{
	struct flight *f = flight(req);

	req->res = f->done ? (ssize_t)f->done : error;
	loop->stats.hits += req->res >= 0;
	if (req->file->cold)
		req->file->cold--;
	return VERDICT_DONE;
}

static enum verdict miss(struct onefd *loop, struct onefd_req *req)
{
	struct onefd_file *file = req->file;

	/* The caller's own RWF_NOWAIT: that it would block is the answer. */
	if (req->rw_flags & RWF_NOWAIT)
		return finish(loop, req, -EAGAIN);
	loop->stats.nowait_again++;
	if (file->cold < COLD_MOST)
		file->cold += COLD_MISS;
	flight(req)->flags |= FLIGHT_TRIED;
	return VERDICT_WAIT;
}

/* The flags of the caller's own may be what is refused: a worker finds out. */
static enum verdict refused(struct onefd *loop, struct onefd_req *req)
{
	if (!req->rw_flags) {
		loop->stats.nowait_refused++;
		req->file->refused |= (uint16_t)(1u << file_way(req));
	}
	return VERDICT_WORKER;
}

/* Linux 5.9 and 5.10 could answer 0 for a miss: only beyond the size that is
 * known does it mean the end. */
static bool is_end(const struct onefd_req *req)
{
	return !(req->file->flags & ONEFD_FILE_BLOCKDEV) &&
	       (uint64_t)req->offset + flight((struct onefd_req *)(uintptr_t)req)->done >=
		       req->file->size;
}

static enum verdict judge(struct onefd *loop, struct onefd_req *req, ssize_t n)
{
	if (flight(req)->done == flight(req)->bytes)
		return finish(loop, req, 0);
	if (n > 0)
		return VERDICT_LATER;
	if (n == 0 && !is_end(req)) {
		flight(req)->marks |= MARK_END;
		return miss(loop, req);
	}
	if (n == -EAGAIN)
		return miss(loop, req);
	if (n == -EOPNOTSUPP)
		return refused(loop, req);
	return finish(loop, req, n);
}

enum verdict cached_judge(struct onefd *loop, struct onefd_req *req, ssize_t n)
{
	if (n > 0)
		flight(req)->done += (size_t)n;
	return judge(loop, req, n);
}

/* ---- a try on the loop's thread --------------------------------------------- */

/* Whether a miss may start its readahead here, without waiting for anything. */
static bool may_miss(const struct onefd_file *file)
{
	const struct onefd_device *queue = file->device->queue;

	if (queue->used >= queue->limit)
		return false;
	if (file->flags & ONEFD_FILE_BLOCKDEV)
		return true;
	return file_trust(file) != TRUST_NEVER && file->warm == WARM_DONE;
}

/* Whether all that a step would read is resident, or about to be. */
static bool is_resident(struct onefd *loop, const struct onefd_req *req)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);
	uint64_t at = (uint64_t)req->offset + f->done, end = (uint64_t)req->offset + f->bytes;
	int64_t missing;

	if (loop->requests.no_cachestat || req->file->refused & FILE_NO_CACHESTAT)
		return false;
	end = end < req->file->size ? end : req->file->size;
	if (at >= end)
		return false;
	missing = sys.missing(req->file->fd, (off_t)at, end - at < PIECE ? end - at : PIECE);
	if (missing == -ENOSYS)
		loop->requests.no_cachestat = true;
	else if (missing < 0)	/* EPERM: not our file, and not ours to write */
		req->file->refused |= FILE_NO_CACHESTAT;
	return missing == 0;
}

static bool is_worth_a_batch(const struct onefd *loop, const struct onefd_req *req)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);

	/* The block layer plugs from three on. */
	return req->op == OP_READ && req->file->cold >= COLD && loop->requests.out > 2 &&
	       loop->requests.kaio && !f->done && f->bytes <= PIECE && !(req->rw_flags & RWF_NOWAIT);
}

/* Not to be tried here, or no further. */
static enum verdict leave(const struct onefd_req *req)
{
	return req->rw_flags & RWF_NOWAIT ? VERDICT_WORKER : VERDICT_WAIT;
}

static enum verdict try_here(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	struct flight *f = flight(req);
	uint64_t cost;
	ssize_t n;

	while (*budget >= STEP_COST) {
		n = cached_step(req, PIECE, RWF_NOWAIT);
		cost = n > STEP_COST ? (uint64_t)n : STEP_COST;
		*budget -= cost < *budget ? cost : *budget;
		if (n <= 0 || f->done == f->bytes)
			return judge(loop, req, n);
		if (!may_miss(req->file) && !is_resident(loop, req))
			return leave(req);
	}
	return VERDICT_LATER;
}

enum verdict cached_try(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	struct onefd_file *file = req->file;

	if (!flight(req)->bytes || req->ioprio || file->refused & 1u << file_way(req) ||
	    loop->requests.flags & ONEFD_NO_NOWAIT)
		return VERDICT_WORKER;
	if (req->op == OP_PREFETCH && flight(req)->bytes > PREFETCH_HERE)
		return leave(req);
	if (may_miss(file) && !file_detour(file, file_way(req)))
		return is_worth_a_batch(loop, req) ? VERDICT_BATCH : try_here(loop, req, budget);
	if (file->warm == WARM_COLD && ++file->asked > QUESTIONS && file_trust(file) != TRUST_NEVER)
		return leave(req);
	return is_resident(loop, req) ? try_here(loop, req, budget) : leave(req);
}
