/*
 * sendfile.h - a range of a file into a socket, as far as it goes at once.
 *
 * On its way req->op says what it is just now. req->offset moves with what was
 * sent.
 */
#ifndef ONEFD_SENDFILE_H
#define ONEFD_SENDFILE_H

#include "ways.h"

/* Most bytes of one step, and what the loop's thread has to pass them through. */
#define SENDFILE_STEP (64u * 1024)

struct sender {
	char bytes[SENDFILE_STEP];
};

/* One that is submitted, or has not got to its end. */
void sendfile_route(struct onefd *loop, struct sorted *sorted, struct onefd_req *req);

/* What it was for a while comes back: an engine's prefetch, poll or work. */
void sendfile_land(struct onefd *loop, struct onefd_req *req);

#endif
