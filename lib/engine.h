/*
 * engine.h - the whole of what the core knows about asynchronous file I/O.
 *
 * An engine takes requests, asks the kernel, and hands whole lists back: it
 * never calls up. Kernel AIO and the workers are engines.
 */
#ifndef ONEFD_ENGINE_H
#define ONEFD_ENGINE_H

#include <libaio.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "list.h"

enum op {
	OP_NONE, OP_READ, OP_WRITE, OP_FSYNC, OP_FDATASYNC, OP_POLL,
	OP_OPENAT, OP_STATX, OP_FALLOCATE, OP_CALL,
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
	 * waits for a completion. A request refused outright goes to reap()
	 * like any other, with its -errno. */
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
	const struct engine_ops *ops;	/* NULL: not there, and @why says so */
	struct onefd *loop;
};

/* Arguments of calls that move no bytes. */
struct call {
	const char *path;
	void *buf;
	ssize_t (*fn)(void *);
	int fd, flags;
	unsigned mask;
	mode_t mode;
};

/* Bits of flight.flags, touched on the loop's thread only. */
#define FLIGHT_TRY	(1u << 0)	/* RWF_NOWAIT is ours: -EAGAIN means a worker */
#define FLIGHT_WARM	(1u << 1)	/* the worker first reads the file's extents in */
#define FLIGHT_ASYNC	(1u << 2)	/* the worker submits it to kernel AIO */
#define FLIGHT_RETURNED	(1u << 3)	/* ... and that worker let go of it */
#define FLIGHT_LANDED	(1u << 4)	/* ... and its completion has been reaped */
#define FLIGHT_DIRECT	(1u << 5)	/* it touches a device: window and verdicts */
#define FLIGHT_PEER	(1u << 6)	/* it stands in its file's ring of writes */
#define FLIGHT_HELD	(1u << 7)	/* ... behind another it overlaps */
#define FLIGHT_REWRITE	(1u << 8)	/* unaligned direct write */
#define FLIGHT_CANCEL	(1u << 9)	/* cancelled in the kernel: the event follows */

/* What the engines keep in onefd_req.engine. */
struct flight {
	struct iocb iocb;		/* engine_kaio */
	struct call call;		/* from prep */
	struct engine *engine;		/* while OUT */
	struct onefd_link peer;		/* in onefd_file.writes */
	struct onefd_req *handed;	/* next in a worker's hand-back stack */
	void *bounce;			/* aligned memory of an unaligned read */
	ssize_t answer;			/* the worker's; the loop's once handed back */
	uint32_t cost;			/* block requests it takes of the window */
	uint32_t flags;
};

_Static_assert(sizeof(struct flight) <= sizeof(((struct onefd_req *)0)->engine),
	       "onefd_req.engine is too small");

static inline struct flight *flight(struct onefd_req *req)
{
	return (struct flight *)req->engine;
}

#endif
