/*
 * work.h - what a worker runs: the plain, blocking calls.
 *
 * Everything here runs off the loop's thread, touches only the request it was
 * given, and answers what becomes its res.
 */
#ifndef ONEFD_WORK_H
#define ONEFD_WORK_H

#include "engine.h"

ssize_t work_transfer(struct onefd_req *req);	/* read or write, bounce included */
ssize_t work_fsync(struct onefd_req *req);
ssize_t work_call(struct onefd_req *req);	/* openat, statx, fallocate, any other */

/* Has the file's extents read in, so that later submissions need no metadata. */
void work_warm(struct onefd_req *req);

#endif
