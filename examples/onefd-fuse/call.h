/*
 * call.h - a request that a worker answers.
 *
 * A handler begins a call, says what a worker shall do and what is replied, and goes.
 * The inodes that it names are pinned until the end, and those without a
 * descriptor are reopened by the worker first.
 *
 *	call = call_begin(req, parent, 0);
 *	call->name = name;		(stays: the request is in hand)
 *	call_go(call, do_unlink, reply_done);
 */
#ifndef CALL_H
#define CALL_H

#include "file.h"
#include "fs.h"

struct call {
	struct fs *fs;
	struct onefd_fuse_op *op;
	struct at {
		struct inode *inode;	/* pinned, or NULL */
		int fd;			/* its descriptor, once the worker runs */
		bool fresh;		/* ... which the worker opened */
	} at[2];
	int (*work)(struct call *);	/* on a worker: >= 0, or -errno */
	void (*reply)(struct call *);	/* on the loop, after a work that did not fail */
	int res;			/* what work answered */
	bool as_caller;			/* yours: work runs with the caller's uid, gid and umask */

	/* What handlers hand to work and back: whichever they need. */
	const char *name, *other;
	int flags, valid;
	mode_t mode;
	dev_t rdev;
	size_t size;
	off_t offset, other_offset;
	struct file *file, *other_file;	/* unpinned at the end */
	struct found found;
	struct stat attr;
	struct met met;			/* the mount of what was found, if it was not known: */
	bool meets;			/* ... met.fd and so on are to be taken */
};

/* Two inodes at most; 0 for none. */
struct call *call_begin(fuse_req_t req, fuse_ino_t ino, fuse_ino_t other);

/* Sends it to a worker. An errno of work is replied as it is; after a success reply()
 * must reply. Either way the call ends then. */
void call_go(struct call *call, int (*work)(struct call *), void (*reply)(struct call *));

/* For calls that went another way: replied to already. */
void call_end(struct call *call);

/* ---- what works have in common: on a worker ----------------------------------- */

/* "/proc/self/fd/N": a path for what has no call on an O_PATH descriptor. */
struct proc_path {
	char path[32];
};
struct proc_path proc_path(int fd);

/* Completes call->found from call->found.fd: also meets its mount. 0, or -errno and the
 * descriptor closed. */
int work_found(struct call *call);

/* ---- what replies have in common ----------------------------------------------- */

void reply_done(struct call *call);	/* no more than that it worked */
void reply_attr(struct call *call);	/* call->attr */

/* The inode of call->found and what the kernel shall know of it: 0, or -errno. */
int call_entry(struct call *call, struct fuse_entry_param *ret);
void reply_entry(struct call *call);

#endif
