/*
 * cached.h - what the page cache gives at once.
 */
#ifndef ONEFD_CACHED_H
#define ONEFD_CACHED_H

#include "engine.h"

/* Most bytes that one step moves on a waiter's thread. */
#define CACHED_MOST (1u << 20)
/* ... and on the loop's: so much a miss reads ahead there. */
#define CACHED_HERE (128u * 1024)

/* What is to become of a buffered read. */
enum verdict {
	VERDICT_DONE,		/* res is final */
	VERDICT_BATCH,		/* tried together with others, in one io_submit() */
	VERDICT_WAIT,		/* its pages are not there: for a waiter */
	VERDICT_WORKER,		/* the cache cannot be asked: a worker's plain read */
	VERDICT_LATER,		/* this turn has copied enough */
};

/*
 * Any thread. One step of a buffered read: at most @most bytes into the
 * caller's buffers, from where it has got to. @flags: RWF_NOWAIT, or 0 to
 * wait. How many bytes, and flight.done has grown by them; 0: the end of the
 * file; or -errno. It touches nothing but the request.
 */
ssize_t cached_step(struct onefd_req *req, size_t most, int flags);

/* Off the loop's thread: all the rest of it, waiting. What becomes its res. */
ssize_t cached_work(struct onefd_req *req);

/* Tries it on the loop's thread as far as that cannot block. @budget: the bytes
 * that this turn may still copy. */
enum verdict cached_try(struct onefd *loop, struct onefd_req *req, uint64_t *budget);

/* What follows from @n, which the kernel answered to a try of a batch. */
enum verdict cached_judge(struct onefd *loop, struct onefd_req *req, ssize_t n);

/* The same for a buffered write: DONE or WORKER. */
enum verdict cached_try_write(struct onefd *loop, struct onefd_req *req, uint64_t *budget);

/* Off the loop's thread: all the rest of a write. What becomes its res. */
ssize_t cached_write(struct onefd_req *req);

/* Takes down what that worker learned about the file. */
void cached_learned(struct onefd_req *req);

#endif
