/*
 * direct.h - unaligned O_DIRECT: bounce, read-modify-write.
 *
 * O_DIRECT takes whole blocks at aligned addresses; what is not so passes
 * through aligned memory here, and nothing is ever sent misaligned.
 */
#ifndef ONEFD_DIRECT_H
#define ONEFD_DIRECT_H

#include "engine.h"

/* Reads up to this size are widened as one request, longer ones in pieces. */
#define DIRECT_BOUNCE_MOST (1024 * 1024)

/* Whether the request can go as it is. */
bool direct_fits(const struct onefd_req *req);

/* Sets the range of whole blocks that the request touches. */
void direct_widen(struct onefd_req *req);

/* Gives a widened read its aligned memory; -ENOMEM. */
int direct_bounce(struct onefd_req *req);

/* Trims what arrived to what was asked, and frees the bounce. */
void direct_unbounce(struct onefd_req *req);

/* Off the loop's thread: a long unaligned read; any unaligned write. The
 * caller has made sure that no other write of ours shares a block with it. */
ssize_t direct_work_read(struct onefd_req *req);
ssize_t direct_work_write(struct onefd_req *req);

#endif
