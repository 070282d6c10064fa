/*
 * buffered.h - which way a read or a write by the page cache takes, and what follows
 * from what it met.
 */
#ifndef ONEFD_BUFFERED_H
#define ONEFD_BUFFERED_H

#include "ways.h"

void buffered_read(struct onefd *loop, struct sorted *sorted, struct onefd_req *req);
void buffered_write(struct onefd *loop, struct sorted *sorted, struct onefd_req *req);

/* What of it can be done without waiting, as one step; true: it has its res. */
bool buffered_try(struct onefd *loop, struct onefd_req *req);

/* A read or prefetch whose pages are not there: to the thread that waits for them. */
void buffered_wait(struct sorted *sorted, struct onefd_req *req);

/* A read or prefetch comes back from a try, from a waiter or from a worker. */
void buffered_land(struct onefd *loop, struct onefd_req *req);

/* What is known of the file by now, from one that comes back. */
void buffered_learn(struct onefd *loop, struct onefd_req *req);

#endif
