/*
 * names.c - onefd-fuse: handlers that speak of names and attributes.
 *
 * What the kernel has in memory is answered on the loop's thread: a name by
 * openat(2) for O_PATH, attributes by the descriptor that is held. All else is a
 * worker's.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "call.h"

/* ---- look-up ------------------------------------------------------------------ */

static int do_lookup(struct call *call)
{
	if (call->found.fd < 0) {
		call->found.fd = openat(call->at[0].fd, call->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (call->found.fd < 0)
			return -errno;
	}
	return work_found(call);
}

/* Its name was looked up by the loop, at once or on a worker. */
static void looked_up(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct call *call = op->data;
	struct mount *mount;
	int r;

	if (req->res < 0) {
		fuse_reply_err(op->fuse, (int)-req->res);
		call_end(call);
		return;
	}
	call->found.fd = (int)req->res;
	object_identify(&call->found);
	mount = inodes_mount(&call->fs->inodes, call->found.id.mount);
	if (!mount || !mount->local) {
		call_go(call, do_lookup, reply_entry);
		return;
	}
	r = object_stat(&call->found);
	if (r < 0) {
		(void)close(call->found.fd);
		fuse_reply_err(op->fuse, -r);
	} else {
		reply_entry(call);
	}
	call_end(call);
}

static void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call *call = call_begin(req, parent, 0);

	call->name = name;
	if (call->at[0].fd < 0) {
		call_go(call, do_lookup, reply_entry);
		return;
	}
	onefd_prep_openat(&call->op->req, call->at[0].fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
	if (onefd_fuse_submit(call->op, looked_up) < 0)
		call_go(call, do_lookup, reply_entry);
}

static void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct fs *fs = fs_of(req);

	inode_forget(&fs->inodes, inode_of(fs, ino), lookups);
	fuse_reply_none(req);
}

static void ll_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = fs_of(req);

	for (size_t i = 0; i < count; i++)
		inode_forget(&fs->inodes, inode_of(fs, forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ---------------------------------------------------------------- */

static int do_getattr(struct call *call)
{
	return fstatat(call->at[0].fd, "", &call->attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ?
	       -errno : 0;
}

static void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct inode *inode = inode_of(fs, ino);
	struct found found = { .fd = inode->fd };

	(void)fi;
	if (inode->fd >= 0 && inode->mount->local) {
		int r = object_stat(&found);

		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &found.st, fs->timeout);
		return;
	}
	call_go(call_begin(req, ino, 0), do_getattr, reply_attr);
}

void names_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = ll_lookup;
	ops->forget = ll_forget;
	ops->forget_multi = ll_forget_multi;
	ops->getattr = ll_getattr;
}
