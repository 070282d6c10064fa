/*
 * direct.c - unaligned O_DIRECT: bounce, read-modify-write.
 *
 * A write keeps the head and the tail of its blocks by reading them first
 * (Stef Bon's question on the linux-aio list, 2011). Past the end of a file
 * it pads, writes, and cuts the padding off again. Where the descriptor
 * cannot read back (O_WRONLY) or appends, the file is opened once more,
 * through /proc, for the page cache to do the same; its pages are then
 * written and dropped, for they would make later direct writes wait.
 */
#include "direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"
#include "sys.h"

#define PIECE ((size_t)DIRECT_BOUNCE_MOST)

static off_t round_down(off_t value, uint32_t align)
{
	return value - value % (off_t)align;
}

static off_t round_up(off_t value, uint32_t align)
{
	return round_down(value + ((off_t)align - 1), align);
}

bool direct_fits(const struct onefd_req *req)
{
	const struct onefd_file *file = req->file;

	uint64_t off = (uint64_t)req->offset, mem = 0;

	/* Alignments are powers of two, and a division a buffer is felt here. */
	for (size_t i = 0; i < req->iovcnt; i++) {
		mem |= (uintptr_t)req->iov[i].iov_base;
		off |= req->iov[i].iov_len;
	}
	return !((off & (file->off_align - 1)) | (mem & (file->mem_align - 1)));
}

void direct_widen(struct onefd_req *req)
{
	uint32_t align = req->file->off_align;

	flight(req)->low = round_down(req->offset, align);
	flight(req)->high =
		(uint64_t)round_up(req->offset + (off_t)req_length(req), align);
}

/* Pages at the least: devices with odd ideas of alignment all take those. */
static void *aligned(const struct onefd_file *file, size_t size)
{
	size_t align = file->mem_align > 4096 ? file->mem_align : 4096;

	return sys.alloc_aligned(align, size);
}

int direct_bounce(struct onefd_req *req)
{
	struct flight *f = flight(req);

	f->bounce = aligned(req->file, f->high - (uint64_t)f->low);
	return f->bounce ? 0 : -ENOMEM;
}

/* Copies @length bytes between @flat and the request's buffers at @skip. */
static void copy(const struct onefd_req *req, size_t skip, char *flat, size_t length, bool in)
{
	for (size_t i = 0; i < req->iovcnt && length; i++) {
		size_t size = req->iov[i].iov_len, n;
		char *at = (char *)req->iov[i].iov_base + skip;

		if (skip >= size) {
			skip -= size;
			continue;
		}
		n = size - skip < length ? size - skip : length;
		if (in)
			memcpy(at, flat, n);
		else
			memcpy(flat, at, n);
		flat += n;
		length -= n;
		skip = 0;
	}
}

/* Of @got bytes at @low, those that lie between @from and @end. */
static size_t overlap(off_t low, ssize_t got, off_t from, off_t end)
{
	off_t top = low + got < end ? low + got : end;

	return top > from ? (size_t)(top - from) : 0;
}

void direct_unbounce(struct onefd_req *req)
{
	struct flight *f = flight(req);

	if (req->res >= 0) {
		size_t n = overlap(f->low, req->res, req->offset,
				   req->offset + (off_t)req_length(req));

		copy(req, 0, (char *)f->bounce + (req->offset - f->low), n, true);
		req->res = (ssize_t)n;
	}
	sys.free(f->bounce);
	f->bounce = NULL;
}

static ssize_t read_at(const struct onefd_req *req, void *buf, size_t length, off_t offset)
{
	struct iovec iov = { buf, length };

	return sys.preadv2(req->file->fd, &iov, 1, offset, req->op == OP_READ ? req->rw_flags : 0);
}

ssize_t direct_work_read(struct onefd_req *req)
{
	off_t end = req->offset + (off_t)req_length(req), at = flight(req)->low;
	char *buf = aligned(req->file, PIECE);
	size_t done = 0;
	ssize_t got = 0;

	if (!buf)
		return -ENOMEM;
	while (at < end) {
		size_t ask = (size_t)(flight(req)->high - (uint64_t)at), n;
		off_t from = at > req->offset ? at : req->offset;

		if (ask > PIECE)
			ask = PIECE;
		got = read_at(req, buf, ask, at);
		if (got <= 0)
			break;
		n = overlap(at, got, from, end);
		copy(req, done, buf + (from - at), n, true);
		done += n;
		if ((size_t)got < ask)
			break;
		at += got;
	}
	sys.free(buf);
	return done || got >= 0 ? (ssize_t)done : got;
}

struct rewrite {
	struct onefd_req *req;
	char *buf;		/* a piece */
	off_t end;		/* of what is asked */
	off_t high;		/* of its last block */
	off_t size;		/* of the file, when it began */
};

/* One block into @buf, zeroed where the file has ended. */
static int fetch_block(const struct rewrite *rw, char *buf, off_t at)
{
	size_t size = rw->req->file->off_align;
	ssize_t got = at < rw->size ? read_at(rw->req, buf, size, at) : 0;

	if (got < 0)
		return (int)got;
	memset(buf + got, 0, size - (size_t)got);
	return 0;
}

/* The blocks [at, at + size): the first and the last filled from the file where
 * the request covers them in part only. */
static int fetch_edges(const struct rewrite *rw, off_t at, size_t size)
{
	off_t align = rw->req->file->off_align, last = at + (off_t)size - align;
	bool head = at < rw->req->offset, tail = last + align > rw->end;
	int r = 0;

	if (head)
		r = fetch_block(rw, rw->buf, at);
	if (r == 0 && tail && !(head && last == at))
		r = fetch_block(rw, rw->buf + (last - at), last);
	return r;
}

/* Bytes of the request's that the piece at @at wrote, or -errno. */
static ssize_t rewrite_piece(const struct rewrite *rw, off_t at)
{
	struct onefd_req *req = rw->req;
	size_t size = (size_t)(rw->high - at);
	off_t from = at > req->offset ? at : req->offset;
	struct iovec iov = { rw->buf, size < PIECE ? size : PIECE };
	ssize_t put;
	size_t n;
	int r;

	r = fetch_edges(rw, at, iov.iov_len);
	if (r < 0)
		return r;
	n = overlap(at, (ssize_t)iov.iov_len, from, rw->end);
	copy(req, (size_t)(from - req->offset), rw->buf + (from - at), n, false);
	put = sys.pwritev2(req->file->fd, &iov, 1, at, req->rw_flags);
	return put < 0 ? put : (ssize_t)overlap(at, put, from, rw->end);
}

static int file_size(int fd, off_t *ret)
{
	struct statx st;
	int r = sys.statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &st);

	if (r == 0)
		*ret = (off_t)st.stx_size;
	return r;
}

/* Cuts off the padding of a last block; somebody else's later growth stays. */
static int trim(const struct onefd_req *req, off_t was, off_t end)
{
	off_t size = 0, right = was > end ? was : end;
	int r = file_size(req->file->fd, &size);

	if (r < 0 || size <= right || size != round_up(end, req->file->off_align))
		return r;
	r = sys.ftruncate(req->file->fd, right);
	if (r == 0 && req->rw_flags & (RWF_DSYNC | RWF_SYNC))
		r = sys.fdatasync(req->file->fd);
	return r;
}

static ssize_t rewrite(struct rewrite *rw)
{
	struct onefd_req *req = rw->req;
	uint32_t align = req->file->off_align;
	bool regular = !(req->file->flags & ONEFD_FILE_BLOCKDEV);
	off_t at = round_down(req->offset, align);
	ssize_t done = 0, n = 0;
	int r = regular ? file_size(req->file->fd, &rw->size) : 0;

	if (r < 0)
		return r;
	while (at < rw->end && (n = rewrite_piece(rw, at)) > 0) {
		done += n;
		at = round_up(req->offset + done, align);
		if (at < rw->end && req->offset + done != at)
			break;	/* a short write: the caller sees how far it came */
	}
	if (done == 0 || n == -EBADF)
		return n;
	r = regular ? trim(req, rw->size, req->offset + done) : 0;
	return r < 0 ? r : done;
}

/* The same file without O_DIRECT: the page cache knows no alignment. */
static ssize_t write_through_cache(const struct onefd_req *req)
{
	char path[32];
	ssize_t n;
	int fd, r;

	if (req->loop->requests.flags & ONEFD_NO_PROC)
		return -EINVAL;
	snprintf(path, sizeof path, "/proc/self/fd/%d", req->file->fd);
	fd = sys.openat(AT_FDCWD, path,
			O_WRONLY | O_CLOEXEC |
				(req->file->flags & ONEFD_FILE_APPEND ? O_APPEND : 0), 0);
	if (fd == -ENOENT)	/* no /proc, or no such descriptor */
		return sys.getfl(req->file->fd) < 0 ? -EBADF : -EINVAL;
	if (fd < 0)
		return fd;
	n = sys.pwritev2(fd, req->iov, req->iovcnt, req->offset, req->rw_flags);
	r = n > 0 ? sys.fdatasync(fd) : 0;
	if (r == 0 && n > 0)
		(void)sys.drop_cache(fd);
	(void)sys.close(fd);
	return r < 0 ? r : n;
}

ssize_t direct_work_write(struct onefd_req *req)
{
	struct rewrite rw = {
		.req = req,
		.end = req->offset + (off_t)req_length(req),
		.size = INT64_MAX,
	};
	ssize_t n;

	if (req->file->flags & ONEFD_FILE_APPEND || req->rw_flags & RWF_APPEND)
		return write_through_cache(req);
	rw.high = round_up(rw.end, req->file->off_align);
	rw.buf = aligned(req->file, PIECE);
	if (!rw.buf)
		return -ENOMEM;
	n = rewrite(&rw);
	sys.free(rw.buf);
	return n == -EBADF ? write_through_cache(req) : n;	/* O_WRONLY */
}
