/*
 * work.c - what a worker runs: the plain, blocking calls.
 */
#include "work.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>

#include "sys.h"

ssize_t work_transfer(struct onefd_req *req)
{
	struct flight *f = flight(req);
	struct iovec whole = { f->bounce, f->high - (uint64_t)f->low };

	if (req->op == OP_WRITE)
		return sys.pwritev2(req->file->fd, req->iov, req->iovcnt, req->offset,
				    req->rw_flags);
	if (f->bounce)
		return sys.preadv2(req->file->fd, &whole, 1, f->low, req->rw_flags);
	return sys.preadv2(req->file->fd, req->iov, req->iovcnt, req->offset, req->rw_flags);
}

ssize_t work_fsync(struct onefd_req *req)
{
	return req->op == OP_FSYNC ? sys.fsync(req->file->fd) : sys.fdatasync(req->file->fd);
}

ssize_t work_call(struct onefd_req *req)
{
	const struct call *call = &flight(req)->call;

	switch (req->op) {
	case OP_OPENAT:
		if (call->how)
			return sys.openat2(call->fd, call->path, call->how);
		if (!*call->path)
			return sys.reopen(call->fd, call->flags);
		return sys.openat(call->fd, call->path, call->flags, call->mode);
	case OP_STATX:
		return sys.statx(call->fd, call->path, call->flags, call->mask, call->buf);
	case OP_FALLOCATE:
		return sys.fallocate(req->file->fd, call->flags, req->offset,
				     call->length);
	default:
		return call->fn(call->buf);
	}
}

/*
 * ext4 looks extents up in io_submit() even under RWF_NOWAIT: a cold tree
 * blocks for a disk access each time (measured: 200 ms on a device of 100).
 * FIEMAP reads the whole tree in; asked to cache, where the file system knows
 * that, and merely to count, where it does not.
 */
void work_warm(struct onefd_req *req)
{
	struct fiemap map = { .fm_length = FIEMAP_MAX_OFFSET, .fm_flags = FIEMAP_FLAG_CACHE };

	flight(req)->extents = 0;
	if (sys.ioctl(req->file->fd, FS_IOC_FIEMAP, &map) < 0) {
		map = (struct fiemap){ .fm_length = FIEMAP_MAX_OFFSET };
		if (sys.ioctl(req->file->fd, FS_IOC_FIEMAP, &map) < 0)
			return;
	}
	flight(req)->extents = map.fm_mapped_extents;
}
