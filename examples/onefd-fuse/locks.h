/*
 * locks.h - locks of the mount's files, which are locks of the source's.
 *
 * Who works on the source itself sees those of the mount, and the other way round.
 * flock(2) is the open file's own. What fcntl(2) locks belongs to an owner that
 * the kernel names, in one descriptor for each inode and owner (F_OFD_SETLK).
 */
#ifndef LOCKS_H
#define LOCKS_H

#include "file.h"
#include "fs.h"

void locks_handlers(struct fuse_lowlevel_ops *ops);
void locks_init(struct fs *fs);

/* Flush and release of a file with locks to be given up: they answer the request and
 * close what is to be closed. False: there are none, the request is the caller's. */
bool locks_flush(fuse_req_t req, struct file *file, uint64_t owner);
bool locks_release(fuse_req_t req, struct file *file);

/* Nobody is kept waiting any longer: the session has ended. */
void locks_end(struct fs *fs);

/* All that are left, when nothing is in hand. */
void locks_free(struct fs *fs);

#endif
