/*
 * transfer.h - a request of the loop's about an open file, for one of the kernel's.
 *
 * What the source interrupts is tried again, for a minute, unless the session ends: no program
 * expects EINTR or EAGAIN of a file.
 *
 * Writes that overlap are carried out in the order in which they came, and a read waits for
 * those before it. The kernel lets go of a page while it writes it through, and drops
 * it when the file has changed: read anew too early it would lack what was written,
 * and a mapping's change of it would put the old bytes back.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "file.h"
#include "fs.h"

struct transfer {			/* stands in op->data */
	struct fs *fs;
	struct onefd_fuse_op *op;
	struct file *file;		/* pinned */
	uint64_t began;			/* the turn that it came in */
	/* yours */
	size_t size, moved;		/* asked, and of a read there */
	off_t offset, length;
	const void *bytes;		/* to be written */
	int flags;
	void (*then)(struct transfer *);
	/* private */
	onefd_req_fn *done;
	struct onefd_link order;	/* in inode->transfers */
	off_t low, high;		/* the bytes that it reads or writes */
	bool ordered, writes, held;
	unsigned tries;
	struct onefd_timer timer;
};

/* Takes the request in hand. */
struct transfer *transfer_begin(fuse_req_t req, struct file *file);

static inline struct transfer *transfer_of(struct onefd_req *req)
{
	return onefd_container(req, struct onefd_fuse_op, req)->data;
}

/* Submits op->req, at once; in the second form when no write before it overlaps. */
void transfer_go(struct transfer *transfer, onefd_req_fn *done);
void transfer_go_in_order(struct transfer *transfer, off_t low, off_t high, bool writes,
			  onefd_req_fn *done);

/* In done: whether there is nothing more to be done, for it failed, which has been replied, or
 * is tried again. */
bool transfer_has_failed(struct transfer *transfer);

/* It was replied to. */
void transfer_end(struct transfer *transfer);

#endif
