/* transfer.c - a request of the loop's about an open file: see transfer.h. */
#include "transfer.h"

#include <errno.h>

#include "list.h"

/* Each try after twice as long as the one before, up to a quarter of a second: a minute
 * in all. */
#define TRIES		240u
#define WAIT_FIRST_NS	UINT64_C(1000000)
#define WAIT_DOUBLES	8u

struct transfer *transfer_begin(fuse_req_t req, struct file *file)
{
	struct fs *fs = fs_of(req);
	struct onefd_fuse_op *op = onefd_fuse_begin(fs->fuse, req);
	struct transfer *transfer = op->data;

	transfer->fs = fs;
	transfer->op = op;
	transfer->file = file_pin(file);
	transfer->began = onefd_now(fs->loop);
	transfer->ordered = false;
	transfer->tries = 0;
	return transfer;
}

/* ---- in order ---------------------------------------------------------------------- */

/* Whether a write before it overlaps. Few are under way at a time, and few of one file. */
static bool is_behind(const struct transfer *transfer)
{
	const struct onefd_link *head = &transfer->file->inode->transfers;

	for (struct onefd_link *at = transfer->order.prev; at != head; at = at->prev) {
		const struct transfer *other = onefd_container(at, struct transfer, order);

		if (other->writes && other->low < transfer->high && transfer->low < other->high)
			return true;
	}
	return false;
}

static void leave_order(struct transfer *transfer)
{
	list_remove(&transfer->order);
	transfer->ordered = false;
}

static struct transfer *first_free(const struct inode *inode)
{
	const struct onefd_link *head = &inode->transfers;

	for (struct onefd_link *at = head->next; inode->held && at != head; at = at->next) {
		struct transfer *transfer = onefd_container(at, struct transfer, order);

		if (transfer->held && !is_behind(transfer))
			return transfer;
	}
	return NULL;
}

/* A write has been carried out. */
static void release_held(struct inode *inode)
{
	struct transfer *transfer;

	while ((transfer = first_free(inode))) {
		transfer->held = false;
		inode->held--;
		if (!transfer->writes)
			leave_order(transfer);
		transfer_go(transfer, transfer->done);
	}
}

void transfer_go_in_order(struct transfer *transfer, off_t low, off_t high, bool writes,
			  onefd_req_fn *done)
{
	struct inode *inode = transfer->file->inode;

	if (!writes && list_empty(&inode->transfers)) {
		transfer_go(transfer, done);
		return;
	}
	transfer->low = low;
	transfer->high = high;
	transfer->writes = writes;
	transfer->done = done;
	transfer->ordered = true;
	list_push(&inode->transfers, &transfer->order);
	transfer->held = is_behind(transfer);
	if (transfer->held) {
		inode->held++;
		return;
	}
	if (!writes)
		leave_order(transfer);
	transfer_go(transfer, done);
}

/* ---- how it ends ------------------------------------------------------------------- */

void transfer_end(struct transfer *transfer)
{
	if (transfer->ordered) {
		leave_order(transfer);
		release_held(transfer->file->inode);
	}
	file_unpin(&transfer->fs->inodes, transfer->file);
	onefd_fuse_end(transfer->op);
}

static void fail(struct transfer *transfer, ssize_t error)
{
	/* Cancelled: for who waits is dying. */
	fuse_reply_err(transfer->op->fuse, error == -ECANCELED ? EINTR : (int)-error);
	transfer_end(transfer);
}

void transfer_go(struct transfer *transfer, onefd_req_fn *done)
{
	int r;

	transfer->done = done;
	r = onefd_fuse_submit(transfer->op, done);
	if (r < 0)
		fail(transfer, r);
}

static void once_more(struct onefd_timer *timer)
{
	struct transfer *transfer = onefd_container(timer, struct transfer, timer);

	transfer->fs->data.again++;
	transfer_go(transfer, transfer->done);
}

static void try_again(struct transfer *transfer)
{
	struct onefd *loop = transfer->fs->loop;
	unsigned doubled = transfer->tries < WAIT_DOUBLES ? transfer->tries : WAIT_DOUBLES;

	transfer->tries++;
	onefd_timer_init(&transfer->timer, once_more);
	onefd_timer_start(loop, &transfer->timer, onefd_now(loop) + (WAIT_FIRST_NS << doubled));
}

bool transfer_has_failed(struct transfer *transfer)
{
	ssize_t res = transfer->op->req.res;
	bool interrupted = res == -EAGAIN || res == -EINTR;

	if (res >= 0)
		return false;
	/* Who ends waits for what is in hand. */
	if (interrupted && transfer->tries < TRIES && !fuse_session_exited(transfer->fs->session))
		try_again(transfer);
	else
		fail(transfer, interrupted ? -EIO : res);
	return true;
}
