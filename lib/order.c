/*
 * order.c - which direct writes of a file wait for one another.
 *
 * Those that fit never do: only a rewrite puts bytes back that it did not mean
 * to change, so only it, and what overlaps it, keeps the order of submission.
 * Does not know how a write is carried out.
 */
#include "order.h"

#include "direct.h"
#include "file.h"

bool order_appends(const struct onefd_req *req)
{
	return req->file->flags & ONEFD_FILE_APPEND || req->rw_flags & RWF_APPEND;
}

static bool conflict(struct onefd_req *a, struct onefd_req *b)
{
	struct flight *x = flight(a), *y = flight(b);

	return (x->flags | y->flags) & FLIGHT_REWRITE &&
	       (uint64_t)x->low < y->high && (uint64_t)y->low < x->high;
}

/*
 * How much of a file's ring is looked at. What stands further back waits unseen
 * once there is a rewrite: or each of n writes would be compared with n others,
 * all in one turn.
 */
#define VIEW 64

/* Whether an earlier write of the file must finish first. */
static bool must_wait(struct onefd_req *req)
{
	struct onefd_link *writes = &req->file->writes;

	for (struct onefd_link *at = flight(req)->peer.prev; at != writes; at = at->prev) {
		struct flight *f = list_entry(at, struct flight, peer);

		if (conflict(list_entry((uint64_t *)f, struct onefd_req, engine), req))
			return true;
	}
	return false;
}

/* The blocks that it may change, of which others keep clear. */
static void claim(struct onefd_req *req, bool fits)
{
	struct onefd_file *file = req->file;
	struct flight *f = flight(req);
	bool append = req->op == OP_WRITE && order_appends(req);

	direct_widen(req);
	/* An append that fits by now may not, once those before it have run. */
	if (!fits || (append && file->rewrites)) {
		f->flags |= FLIGHT_REWRITE;
		file->rewrites++;
		/* It may end up cutting the file: nothing later must grow it. */
		if (!(file->flags & ONEFD_FILE_BLOCKDEV) && f->high > file_learn_size(file))
			f->high = UINT64_MAX;
	}
	if (req->op == OP_FALLOCATE)	/* it grows the file, or moves what follows */
		f->high = UINT64_MAX;
	/* Somewhere; or by way of the page cache, whose pages are larger than
	 * blocks: what it wrote back would undo a neighbour's direct write. */
	if (append || (!fits && file_is_write_only(file))) {
		f->low = 0;
		f->high = UINT64_MAX;
	}
}

bool order_join(struct onefd_req *req, bool fits)
{
	struct onefd_file *file = req->file;
	struct flight *f = flight(req);

	claim(req, fits);
	f->flags |= FLIGHT_PEER;
	list_push(&file->writes, &f->peer);
	file->peers++;
	if (!file->rewrites || (file->peers <= VIEW && !must_wait(req)))
		return true;
	f->flags |= FLIGHT_HELD;
	file->held++;
	return false;
}

/* Those that waited for the one that left, and for none before them. */
static void release_held(struct onefd_file *file, struct onefd_link *freed)
{
	struct onefd_link *at = file->writes.next;

	for (int i = 0; file->held && i < VIEW && at != &file->writes; i++, at = at->next) {
		struct flight *f = list_entry(at, struct flight, peer);
		struct onefd_req *req = list_entry((uint64_t *)f, struct onefd_req, engine);

		if (!(f->flags & FLIGHT_HELD) || must_wait(req))
			continue;
		f->flags &= ~FLIGHT_HELD;
		file->held--;
		list_push(freed, &req->link);
	}
}

void order_leave(struct onefd_req *req, struct onefd_link *freed)
{
	struct flight *f = flight(req);
	struct onefd_file *file = req->file;

	list_remove(&f->peer);
	file->peers--;
	file->rewrites -= !!(f->flags & FLIGHT_REWRITE);
	file->held -= !!(f->flags & FLIGHT_HELD);
	f->flags &= ~(FLIGHT_PEER | FLIGHT_REWRITE | FLIGHT_HELD);
	if (file->held)
		release_held(file, freed);
}
