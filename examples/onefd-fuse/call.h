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

struct dir;

/* An open file is the handle that the kernel was given. */
static inline struct file *file_of(const struct fuse_file_info *fi)
{
	return (struct file *)(uintptr_t)fi->fh;
}

struct call {
	struct fs *fs;
	struct onefd_fuse_op *op;
	struct at {
		struct inode *inode;	/* pinned, or NULL */
		int fd;			/* its descriptor, once the worker runs */
		bool fresh;		/* ... which the worker opened */
		int mount_fd;
		struct met again;	/* its mount, which the worker found again: again.fd */
	} at[2];
	int (*work)(struct call *);	/* on a worker: >= 0, or -errno */
	void (*reply)(struct call *);	/* on the loop, after a work that did not fail */
	int res;			/* what work answered */
	bool as_caller;			/* yours: work runs with the caller's uid, gid and umask */
	bool removes;			/* yours: so it does where a directory has the sticky bit */
	bool fails;			/* yours: reply() replies to a failure, too */
	bool stale;			/* the source opens no handle of an inode's any more */
	unsigned tries;			/* of what may be borrowed */
	uint64_t short_since;		/* onefd_now() when there was no descriptor left, or 0 */
	struct closer_wait wait;
	struct onefd_timer timer;

	/* What handlers hand to work and back: whichever they need. */
	const char *name, *other;
	const void *value;
	int flags, valid;
	bool made;			/* the first of two steps */
	int made_fd;			/* ... what it opened */
	mode_t mode;
	dev_t rdev;
	size_t size;
	off_t offset, other_offset;
	struct file *file, *other_file;	/* unpinned at the end */
	struct dir *dir;
	size_t kept;			/* descriptors reserved */
	uint64_t changes;		/* fs->xattr_changes */
	bool bare, asked;
	bool dropped;			/* set-id bits */
	struct found found;		/* its descriptor is given back at the end, if it is there still */
	struct stat attr;
	struct met met;			/* the mount of what was found, if it was not known */
};

/* Two inodes at most; 0 for none. */
struct call *call_begin(fuse_req_t req, fuse_ino_t ino, fuse_ino_t other);

/*
 * Sends it to a worker. An errno of work is replied as it is, with one exception: for want
 * of descriptors it is done again when some are free. After a success reply() must
 * reply. Either way the call ends then. What was found is on a mount that is known by then.
 */
void call_go(struct call *call, int (*work)(struct call *), void (*reply)(struct call *));

/* For calls that went another way: replied to already. */
void call_end(struct call *call);

/* ---- what works have in common: on a worker ----------------------------------- */

/* "/proc/self/fd/N": a path for what has no call on an O_PATH descriptor. */
struct proc_path {
	char path[32];
};
struct proc_path proc_path(int fd);

bool work_is_in_group(fuse_req_t req, gid_t gid);

/*
 * Who may not set a file's set-id bits takes them from it by write(2), truncate(2) and the like.
 * The source's file system would see to that, were it not for root's right to leave them
 * (CAP_FSETID), which we have.
 */
bool takes_set_id(fuse_req_t req, const struct stat *st);	/* there may be any: for any thread */
bool work_drop_set_id(fuse_req_t req, int fd);			/* whether there were */

/* ---- what replies have in common ----------------------------------------------- */

void reply_done(struct call *call);	/* no more than that it worked */
void reply_attr(struct call *call);	/* call->attr */

/* The inode of call->found and what the kernel shall know of it: 0, or -errno. */
int call_entry(struct call *call, struct fuse_entry_param *ret);
void reply_entry(struct call *call);

#endif
