/* order.h - which direct writes of a file wait for one another. */
#ifndef ONEFD_ORDER_H
#define ONEFD_ORDER_H

#include "engine.h"

/* Whether a write goes where the file ends by then. */
bool order_appends(const struct onefd_req *req);

/* A direct write, or an allocation, enters its file's ring; @fits: it changes
 * whole blocks. False: it is held, in no list, behind what it overlaps. */
bool order_join(struct onefd_req *req, bool fits);

/* It leaves; those that it held back are appended to @freed. */
void order_leave(struct onefd_req *req, struct onefd_link *freed);

#endif
