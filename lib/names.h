/*
 * names.h - names answered from the dentry cache, without a thread.
 */
#ifndef ONEFD_NAMES_H
#define ONEFD_NAMES_H

#include "engine.h"

/* What is known of a mount, by the number that no other mount ever has. */
struct mount {
	uint64_t id;		/* 0: an empty slot */
	bool local;		/* opening and asking take neither a disk nor a server */
	bool opened;		/* a regular file there has been opened before */
};

#define NAMES_MOUNTS 16		/* a power of two */

struct names {
	struct mount mounts[NAMES_MOUNTS];
	int error;		/* why none is tried; 0: they are */
	uint64_t began;		/* the first try of this flush; 0: none yet */
	bool spent;		/* this flush has no more time for them */
};

/* @flags: onefd_config.flags. */
void names_open(struct names *names, uint32_t flags);

/* For a flush: its time begins anew. */
void names_flush(struct names *names);

/* Whether this flush has spent its time on names. */
bool names_enough(struct names *names);

/* Tries an openat or statx on the loop's thread; true: res is final. */
bool names_try(struct onefd *loop, struct onefd_req *req);

/* Off the loop's thread: what a worker runs for the others. */
ssize_t names_work(struct onefd_req *req);

/* Takes down what that worker learned about the mount. */
void names_land(struct names *names, const struct onefd_req *req);

#endif
