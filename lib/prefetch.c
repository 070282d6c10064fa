/*
 * prefetch.c - bringing a range of a file into the page cache, and knowing
 * that it is there.
 *
 * readahead() clips silently, and cachestat() counts pages that are still on
 * their way. What RWF_NOWAIT reads was there: so the range is read, in steps,
 * into a few pages of the stack, over and over the same; they stay in the
 * processor's cache, and a step costs what it takes to read the file's.
 */
#include "prefetch.h"

#include "sys.h"

#define PARTS 16
#define SCRATCH (PREFETCH_STEP / PARTS)

/* What one readahead() asks for: 128 KiB is what most devices are set to, and
 * more than that would be clipped to it. */
#define PIECE (128u * 1024)

ssize_t prefetch_step(struct onefd_req *req, size_t most, int flags)
{
	struct flight *f = flight(req);
	struct iovec parts[PARTS];
	char scratch[SCRATCH];
	size_t count = 0;
	ssize_t n;

	if (most > f->bytes - f->done)
		most = f->bytes - f->done;
	for (; most && count < PARTS; count++) {
		parts[count] = (struct iovec){ scratch, most < SCRATCH ? most : SCRATCH };
		most -= parts[count].iov_len;
	}
	n = sys.preadv2(req->file->fd, parts, count, req->offset + (off_t)f->done,
			req->rw_flags | flags);
	if (n > 0)
		f->done += (size_t)n;
	return n;
}

void prefetch_ahead(struct onefd_req *req)
{
	struct flight *f = flight(req);
	/* A sendfile will want what follows, too. */
	off_t end = f->flags & FLIGHT_SENDFILE ? f->end : req->offset + (off_t)f->bytes;
	off_t at = req->offset + (off_t)f->done;

	/* The kernel's own readahead grows with what sendfile(2) reads: to larger
	 * pieces than these, of larger folios, for a third of the time. */
	if (f->flags & FLIGHT_SENDFILE && f->splices)
		return;
	/* Whole pieces, also where that is further ahead: or each step of a few
	 * pages would ask for as few. */
	while (f->ahead < end && f->ahead - at < (off_t)PREFETCH_AHEAD) {
		off_t piece = end - f->ahead < (off_t)PIECE ? end - f->ahead : (off_t)PIECE;

		/* It fails where the file system has none: the reads do then. */
		(void)sys.readahead(req->file->fd, f->ahead, (uint64_t)piece);
		f->ahead += piece;
	}
}
