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
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/statvfs.h>

#include "core.h"
#include "file.h"
#include "prefetch.h"
#include "sys.h"

/* Buffers of one step; a longer array takes several. */
#define PARTS 16
/* What a step costs of a turn's budget, however little it moved. */
#define STEP_COST (8u * 1024)

/* Bytes free in a file system for writes to it to be tried. */
#define ROOM (64 << 20)

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

static ssize_t move(const struct onefd_req *req, const struct iovec *iov, size_t count,
		    off_t offset, int flags)
{
	flags |= req->rw_flags;
	if (req->op == OP_WRITE)
		return sys.pwritev2(req->file->fd, iov, count, offset, flags);
	return sys.preadv2(req->file->fd, iov, count, offset, flags);
}

ssize_t cached_step(struct onefd_req *req, size_t most, int flags)
{
	struct flight *f = flight(req);
	struct iovec parts[PARTS];
	size_t count;
	ssize_t n;

	if (req->op == OP_PREFETCH)
		return prefetch_step(req, most, flags);
	if (!f->done && most >= f->bytes) {
		n = move(req, req->iov, req->iovcnt, req->offset, flags);
	} else {
		count = slice(req, f->done, most, parts);
		n = move(req, parts, count, req->offset + (off_t)f->done, flags);
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
	loop->stats.hits += req->res >= 0 && !(f->flags & FLIGHT_SENDFILE);
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
	/* Or somebody has cut the file since. */
	if (n == 0 && !is_end(req))
		(void)file_learn_size(req->file);
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
	missing = sys.missing(req->file->fd, (off_t)at,
			      end - at < CACHED_HERE ? end - at : CACHED_HERE);
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
	return req->op == OP_READ && !(f->flags & FLIGHT_SENDFILE) && req->file->cold >= COLD &&
	       loop->requests.out > 2 && loop->requests.kaio && !f->done && f->bytes <= CACHED_HERE &&
	       !(req->rw_flags & RWF_NOWAIT);
}

/* Whether what was read reaches to where the file ends now. */
static bool has_ended(const struct onefd_req *req)
{
	if (!is_end(req))
		return false;
	(void)file_learn_size(req->file);
	return is_end(req);
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
		n = cached_step(req, CACHED_HERE, RWF_NOWAIT);
		cost = n > STEP_COST ? (uint64_t)n : STEP_COST;
		*budget -= cost < *budget ? cost : *budget;
		if (n <= 0 || f->done == f->bytes)
			return judge(loop, req, n);
		if (may_miss(req->file) || is_resident(loop, req))
			continue;
		return has_ended(req) ? finish(loop, req, 0) : leave(req);
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

/* ---- writes ------------------------------------------------------------------ */

/*
 * A write is copied into the page cache on the loop's thread where nothing can
 * make it wait. That is xfs alone, on a device that had stopped: ext4 refuses
 * RWF_NOWAIT, and btrfs reads the rest of a page in under it. What makes xfs
 * wait is kept away from it: a sync after the write, a start of writeback
 * (RWF_DONTCACHE), a signal for the thread that writes beyond RLIMIT_FSIZE,
 * quotas to be read in, and a file system so full that all dirty data is
 * written out to find room. An append stopped half-way would be torn.
 */

/* Off the loop's thread. Whether later writes to the file may be tried. */
static void learn(struct onefd_req *req)
{
	int fd = req->file->fd, inode = FS_SYNC_FL, flags = sys.getfl(fd);

	/* The ioctl may wait: the inode's lock is held over reading its extents. */
	flight(req)->learned.local = flags >= 0 && !(flags & O_DSYNC) &&
				     sys.ioctl(fd, FS_IOC_GETFLAGS, &inode) == 0 &&
				     !(inode & FS_SYNC_FL) && sys.size_limit() == UINT64_MAX;
}

ssize_t cached_write(struct onefd_req *req)
{
	struct flight *f = flight(req);
	ssize_t n = cached_step(req, f->bytes - f->done, 0);

	if (f->flags & FLIGHT_LEARN && n > 0)
		learn(req);
	return f->done ? (ssize_t)f->done : n;
}

void cached_learned(struct onefd_req *req)
{
	if (flight(req)->flags & FLIGHT_LEARN && req->res > 0)
		req->file->refused |= flight(req)->learned.local ? FILE_WRITTEN :
								   1u << file_way(req);
}

/* Asking is a look at counters in memory. */
static bool has_room(int fd)
{
	struct statfs st;

	return sys.statfs(fd, &st) == 0 && !(st.f_flags & ST_SYNCHRONOUS) &&
	       (uint64_t)st.f_bavail * (uint64_t)st.f_bsize >= ROOM;
}

/* Whether such a write could be tried, if its file has been written to before. */
static bool may_write(const struct onefd *loop, const struct onefd_req *req)
{
	const struct onefd_file *file = req->file;
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);

	if (file->flags & (ONEFD_FILE_APPEND | ONEFD_FILE_BLOCKDEV) ||
	    file_trust(file) != TRUST_NOWAIT || file->refused & 1u << file_way(req) ||
	    loop->requests.flags & ONEFD_NO_NOWAIT)
		return false;
	return !req->rw_flags && !req->ioprio && f->bytes && f->bytes <= CACHED_HERE &&
	       req->iovcnt <= PARTS;
}

static enum verdict written(struct onefd *loop, struct onefd_req *req)
{
	struct onefd_file *file = req->file;
	uint64_t end = (uint64_t)req->offset + flight(req)->done;

	req->res = (ssize_t)flight(req)->done;
	if (end > file->size)
		file->size = end;
	file_flowed(file, file_way(req));
	loop->stats.hits++;
	return VERDICT_DONE;
}

/*
 * Once a flush: the time of the last change is written anew at each tick of the
 * clock, and until that is done by a worker, none of that flush will do.
 */
static enum verdict balked(struct onefd *loop, struct onefd_file *file)
{
	file->balked = loop->requests.flushes;
	loop->stats.nowait_again++;
	loop->stats.demoted += file_blocked(file, 1, false);
	return VERDICT_WORKER;
}

enum verdict cached_try_write(struct onefd *loop, struct onefd_req *req, uint64_t *budget)
{
	struct onefd_file *file = req->file;
	struct flight *f = flight(req);
	ssize_t n;

	if (!may_write(loop, req))
		return VERDICT_WORKER;
	if (!(file->refused & FILE_WRITTEN)) {
		f->flags |= FLIGHT_LEARN;
		f->learned.local = false;
		return VERDICT_WORKER;
	}
	if (*budget < f->bytes || file->balked == loop->requests.flushes ||
	    file_detour(file, file_way(req)) || !has_room(file->fd))
		return VERDICT_WORKER;
	n = cached_step(req, f->bytes, RWF_NOWAIT);
	*budget -= f->done;
	if (f->done == f->bytes)
		return written(loop, req);
	f->flags |= f->done ? FLIGHT_PARTLY : 0;
	if (n == -EOPNOTSUPP)
		return refused(loop, req);
	return balked(loop, file);
}
