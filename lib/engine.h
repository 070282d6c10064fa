/*
 * engine.h - the whole of what the core knows about asynchronous file I/O.
 *
 * An engine takes requests, asks the kernel, and hands whole lists back: it
 * never calls up. Kernel AIO, the page waiters and the workers are engines.
 */
#ifndef ONEFD_ENGINE_H
#define ONEFD_ENGINE_H

#include <libaio.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "list.h"

enum op {
	OP_NONE, OP_READ, OP_WRITE, OP_FSYNC, OP_FDATASYNC, OP_POLL,
	OP_OPENAT, OP_STATX, OP_FALLOCATE, OP_CALL, OP_PREFETCH,
	OP_SENDFILE,
};

enum state {
	STATE_PREPARED,		/* the caller's; what submit takes */
	STATE_QUEUED,		/* ours, in a list: cancel is immediate */
	STATE_OUT,		/* an engine's */
	STATE_DONE,		/* res is final, the callback is due */
};

struct engine;

struct engine_ops {
	const char *name;
	/* Takes from the front of @batch; returns how many. What it leaves
	 * waits for a completion. A request refused outright comes back from
	 * reap() like any other, with its -errno. */
	int (*submit)(struct engine *engine, struct onefd_link *batch);
	/* Appends what has completed, res set. Never blocks. */
	void (*reap)(struct engine *engine, struct onefd_link *done);
	/* Whether reap() would find something: a load or two. */
	bool (*ready)(struct engine *engine);
	/* 0: it will be reaped with -ECANCELED; -EBUSY: too late. */
	int (*cancel)(struct engine *engine, struct onefd_req *req);
	void (*close)(struct engine *engine);	/* nothing may be out */
};

struct engine {
	const struct engine_ops *ops;
	struct onefd *loop;
};

/* Arguments of calls that move no bytes. */
struct call {
	const char *path;
	void *buf;
	union {
		ssize_t (*fn)(void *);		/* OP_CALL */
		const struct open_how *how;	/* OP_OPENAT; NULL: as openat(2) */
	};
	int fd, flags;
	unsigned mask;
	mode_t mode;
	off_t length;
};

/* What a worker found out. Of a file written to: whether the loop may try, @local. */
struct learned {
	uint64_t id;			/* the mount's, and no other's ever; 0: nothing */
	bool local, opened;		/* as in struct mount of names.h */
};

/* Bits of flight.flags: changed on the loop's thread only, while no worker has it. */
#define FLIGHT_TRY	(1u << 0)	/* RWF_NOWAIT is ours: -EAGAIN means a thread */
#define FLIGHT_WORKER	(1u << 1)	/* it has been seen that it would block */
#define FLIGHT_WARM	(1u << 2)	/* the worker first reads the file's extents in */
#define FLIGHT_SLOT	(1u << 3)	/* a worker submits it: a slot is kept for it */
#define FLIGHT_ADMITTED	(1u << 4)	/* it takes @cost of its device's window */
#define FLIGHT_PEER	(1u << 5)	/* it stands in its file's ring of writes */
#define FLIGHT_HELD	(1u << 6)	/* ... behind one that it overlaps */
#define FLIGHT_REWRITE	(1u << 7)	/* an unaligned direct write */
#define FLIGHT_CANCEL	(1u << 8)	/* cancelled in the kernel: the event follows */
#define FLIGHT_CACHE	(1u << 9)	/* by the page cache, for the file ends within a block */
#define FLIGHT_TRIED	(1u << 11)	/* the cache lacks its pages: readahead is running */
#define FLIGHT_WIDE	(1u << 10)	/* an unaligned read: it goes by way of a bounce */
#define FLIGHT_LEARN	(1u << 12)	/* the worker finds out about the mount or the file */
#define FLIGHT_PARTLY	(1u << 13)	/* part of it is written: too late to cancel */
#define FLIGHT_SENDFILE	(1u << 14)	/* a sendfile, whatever it is just now */
#define FLIGHT_FULL	(1u << 15)	/* ... whose socket takes no more */
#define FLIGHT_TURN	(1u << 16)	/* a worker's, by turns with others of its file */
_Static_assert(FLIGHT_TRY + FLIGHT_WORKER + FLIGHT_WARM + FLIGHT_SLOT + FLIGHT_ADMITTED +
	       FLIGHT_PEER + FLIGHT_HELD + FLIGHT_REWRITE + FLIGHT_CANCEL +
	       FLIGHT_CACHE + FLIGHT_TRIED + FLIGHT_WIDE + FLIGHT_LEARN + FLIGHT_PARTLY +
	       FLIGHT_SENDFILE + FLIGHT_FULL + FLIGHT_TURN == 0x1ffff, "two share a bit");

/* Bits of flight.marks: changed by whoever tries it, without a lock. */
#define MARK_END	(1u << 0)	/* the last try answered 0 */
#define MARK_FALSE_END	(1u << 1)	/* ... and that was not true */
#define MARK_READAHEAD	(1u << 2)	/* its readahead had to be asked for */

/* Most bytes of one io_submit() on the loop's thread. Pinning memory that was
 * never touched costs up to a nanosecond a byte, so this bounds the call. */
#define BATCH_BYTES (1u << 20)

/* What a worker's work answers when it gave the request to kernel AIO: nobody but
 * the completion's reaper may touch the request from then on. */
#define ANSWER_IN_RING	(-529)

/* Workers of different lanes never wait for one another. */
enum lane { LANE_DATA, LANE_SYNC, LANE_CALL, LANES };

/* What the engines keep in onefd_req.engine. */
struct flight {
	/* Every request's: kept together, for with many out each line of the
	 * cache that a request touches is felt. */
	struct engine *engine;		/* while OUT */
	uint32_t flags;
	uint32_t cost;			/* block requests it takes of the window */
	uint64_t bytes;			/* that a transfer asks for, in whole blocks if direct */
	uint64_t done;			/* how far a buffered one has got */
	uint32_t marks;			/* what the threads that wait for pages saw, */
	uint32_t rounds;		/* and how often they waited since it last got on */
	void *bounce;			/* aligned memory of an unaligned read */
	struct iocb iocb;		/* engine_kaio */
	/* Some requests': set by whoever uses them, not by prep. */
	union {
		struct {
			off_t low;	/* the range in whole blocks: of a bounce, */
			uint64_t high;	/* or of a write in its file's ring */
		};
		struct learned learned;	/* names.c, cached.c */
		struct {
			off_t ahead;	/* prefetch.c: so far the kernel was asked to read */
			off_t end;	/* sendfile.c: of what is to be sent */
		};
	};
	struct onefd_link peer;		/* in onefd_file.writes: order.c, engine_pool.c */
	ssize_t (*work)(struct onefd_req *req);	/* engine_pool: what a worker runs */
	enum lane lane;
	uint32_t extents;		/* what a warming worker counted */
	bool stopped;			/* the loop's: a worker's sendfile was cancelled */
	bool splices;			/* sendfile.c: by sendfile(2) */
	uint16_t misses;		/* sendfile.c: in a row */
	bool busy, dropped;		/* engine_pages: a thread tries it; cancelled meanwhile */
	struct hand *awaiting;		/* the thread that waits for its page */
	ssize_t answer;			/* the worker's */
	struct onefd_req *handed;	/* next in the stack that workers hand back */
	struct call call;
};

_Static_assert(sizeof(struct flight) <= sizeof(((struct onefd_req *)0)->engine),
	       "onefd_req.engine is too small");

static inline struct flight *flight(struct onefd_req *req)
{
	return (struct flight *)req->engine;
}

/* What it is asked of; -1: of none. A sendfile is by turns a poll, and that of its socket. */
static inline int req_fd(const struct onefd_req *req)
{
	bool file = req->file && req->op != OP_POLL;

	return file ? req->file->fd : ((const struct flight *)req->engine)->call.fd;
}

/* The sum of a request's buffers; submit has checked that it fits. */
static inline size_t req_length(const struct onefd_req *req)
{
	size_t length = 0;

	for (size_t i = 0; i < req->iovcnt; i++)
		length += req->iov[i].iov_len;
	return length;
}

#endif
