/*
 * sendfile.h - a range of a file into a socket, as far as it goes at once.
 *
 * On its way such a request is by turns a read, a prefetch and a poll: req->op
 * says which, until it is done. req->offset moves with what was sent.
 */
#ifndef ONEFD_SENDFILE_H
#define ONEFD_SENDFILE_H

#include "cached.h"

/* Most bytes of one step, and what the loop's thread has to pass them through. */
#define SENDFILE_STEP (64u * 1024)

struct sender {
	char bytes[SENDFILE_STEP];
};

/* What follows from a try. */
enum sent {
	SENT_DONE,		/* res is final */
	SENT_LATER,		/* this turn has copied enough */
	SENT_FULL,		/* the socket takes no more */
	SENT_MISS,		/* the next pages are not there: req is a prefetch of them */
	SENT_WORKER,		/* the cache cannot be asked */
};

/* A request that is submitted: nothing is sent yet. */
void sendfile_begin(struct onefd_req *req);

/* Sends from the loop's thread what is resident. @budget: bytes it may copy. */
enum sent sendfile_try(struct onefd *loop, struct onefd_req *req, uint64_t *budget);

/* What is told when it ends with @error or, 0, for there is no more. */
ssize_t sendfile_result(const struct onefd_req *req, ssize_t error);

/* No errnos: a file system may answer any of those, -EAGAIN too. */
enum { WORK_ON, WORK_END, WORK_FULL };

/* Off the loop's thread: sends some, waiting for the disk and not for the
 * socket. WORK_..., the last for a socket that is full, or -errno. */
ssize_t sendfile_work(struct onefd_req *req);

/* Off the loop's thread: waits a little for the socket, where kernel AIO cannot. */
ssize_t sendfile_work_poll(struct onefd_req *req);

#endif
