/*
 * route.h - which engine takes a request, and what follows -EAGAIN.
 */
#ifndef ONEFD_ROUTE_H
#define ONEFD_ROUTE_H

#include "engine.h"

/* Before the first flush of a turn: what the loop's thread may do of the work by
 * itself, bytes to copy and time for names, it may do anew. */
void route_begin(struct onefd *loop);

/* Sends what is queued as far as windows and slots allow; how many went. */
int route_flush(struct onefd *loop);

/* Does a request that is not submitted, if that takes no waiting and nothing but
 * this thread; true: it has its res. */
bool route_try(struct onefd *loop, struct onefd_req *req);

/* What @engine hands back: each is done, and then stands at the end of
 * requests.done, or goes another way and is queued again. */
void route_reap(struct onefd *loop, struct engine *engine);

#endif
