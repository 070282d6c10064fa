/*
 * names.c - onefd-fuse: handlers that speak of names.
 *
 * A name that the kernel has in memory is looked up on the loop's thread, by
 * openat(2) for O_PATH. All else is a worker's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "call.h"

/* ---- look-up ------------------------------------------------------------------ */

/* This mount may be below its own source: there it has no end. */
static bool is_ourselves(const struct fs *fs, const struct found *found)
{
	return fs->own_mount >= 0 && found->id.mount == fs->own_mount;
}

static int do_lookup(struct call *call)
{
	struct found *found = &call->found;

	if (found->fd < 0) {
		found->fd = insist(openat(call->at[0].fd, call->name,
					  O_PATH | O_NOFOLLOW | O_CLOEXEC));
		if (found->fd < 0)
			return found->fd;
		object_identify(found);
	}
	return is_ourselves(call->fs, found) ? -ELOOP : object_stat(found);
}

/* Its name was looked up by the loop, at once or on a worker. */
static void looked_up(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct call *call = op->data;
	struct mount *mount = NULL;

	if (req->res == -ENOENT) {
		fuse_reply_err(op->fuse, ENOENT);
		call_end(call);
		return;
	}
	/* Whatever else it is, a worker finds out. */
	if (req->res >= 0) {
		call->found.fd = (int)req->res;
		object_identify(&call->found);
		mount = inodes_mount(&call->fs->inodes, call->found.id.mount);
	}
	if (!mount || !mount->met.local || object_stat(&call->found) < 0) {
		call_go(call, do_lookup, reply_entry);
		return;
	}
	reply_entry(call);
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

/* ---- making -------------------------------------------------------------------- */

/* Makes and looks, in two steps: the second alone is done again for want of descriptors. */
static int made(struct call *call, int r)
{
	if (r < 0)
		return r;
	call->made = true;
	return object_find(call->at[0].fd, call->name, &call->found);
}

static int do_mknod(struct call *call)
{
	return made(call, call->made ? 0 : insist(mknodat(call->at[0].fd, call->name, call->mode,
							  call->rdev)));
}

static int do_mkdir(struct call *call)
{
	return made(call, call->made ? 0 : insist(mkdirat(call->at[0].fd, call->name, call->mode)));
}

static int do_symlink(struct call *call)
{
	return made(call, call->made ? 0 : insist(symlinkat(call->other, call->at[0].fd,
							    call->name)));
}

static struct call *begin_making(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct call *call = call_begin(req, parent, 0);

	call->name = name;
	call->mode = mode;
	call->as_caller = true;
	return call;
}

static void ll_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct call *call = begin_making(req, parent, name, mode);

	call->rdev = rdev;
	call_go(call, do_mknod, reply_entry);
}

static void ll_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	call_go(begin_making(req, parent, name, mode), do_mkdir, reply_entry);
}

static void ll_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct call *call = begin_making(req, parent, name, 0);

	call->other = link;
	call_go(call, do_symlink, reply_entry);
}

/* Its inode is known: nothing is found anew. */
static int do_link(struct call *call)
{
	struct found object = { .fd = call->at[0].fd };
	int r = insist(linkat(AT_FDCWD, proc_path(object.fd).path, call->at[1].fd, call->name,
			      AT_SYMLINK_FOLLOW));

	if (r >= 0)
		r = object_stat(&object);
	call->attr = object.st;
	return r;
}

static void reply_link(struct call *call)
{
	struct inode *inode = call->at[0].inode;
	struct stat attr = fs_attr(call->fs, inode, &call->attr);
	struct fuse_entry_param entry = {
		.ino = (uintptr_t)inode,
		.generation = inode->generation,
		.attr = attr,
		.attr_timeout = call->fs->timeout,
		.entry_timeout = call->fs->timeout,
	};

	inode->removed = false;
	inode->lookups++;
	if (fuse_reply_entry(call->op->fuse, &entry) == -ENOENT)
		inode_forget(&call->fs->inodes, inode, 1);
}

static void ll_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct call *call = call_begin(req, ino, parent);

	call->name = name;
	call_go(call, do_link, reply_link);
}

/* ---- removing and renaming -------------------------------------------------------- */

/* What loses a name: it may be its last, while the kernel knows it. It must be found
 * before, for afterwards there is no handle that opens it. */
static int find_victim(struct call *call, int dir, const char *name)
{
	int r = object_find(dir, name, &call->found);

	return r == -EMFILE || r == -ENFILE ? r : 0;
}

/* It is kept if it has no name any more. */
static int keep_victim(struct call *call, int r)
{
	struct found *victim = &call->found;
	bool gone = r >= 0 && victim->fd >= 0 && object_stat(victim) >= 0 &&
		    (!victim->st.st_nlink || S_ISDIR(victim->st.st_mode));

	if (victim->fd >= 0 && !gone) {
		(void)close(victim->fd);
		victim->fd = -1;
	}
	return r;
}

static void reply_removed(struct call *call)
{
	if (call->found.fd >= 0)
		inode_removed(&call->fs->inodes, &call->found);
	fuse_reply_err(call->op->fuse, 0);
}

/* call->flags: AT_REMOVEDIR or 0. */
static int do_remove(struct call *call)
{
	int r = find_victim(call, call->at[0].fd, call->name);

	if (r < 0)
		return r;
	return keep_victim(call, insist(unlinkat(call->at[0].fd, call->name, call->flags)));
}

static void begin_removing(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
	struct call *call = call_begin(req, parent, 0);

	call->name = name;
	call->flags = flags;
	call->removes = true;
	call_go(call, do_remove, reply_removed);
}

static void ll_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	begin_removing(req, parent, name, 0);
}

static void ll_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	begin_removing(req, parent, name, AT_REMOVEDIR);
}

static int do_rename(struct call *call)
{
	unsigned flags = (unsigned)call->flags;
	int from = call->at[0].fd, to = call->at[1].fd, r = 0;

	if (!(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)))
		r = find_victim(call, to, call->other);
	if (r < 0)
		return r;
	/* Without flags by the older call, which every file system has. */
	r = flags ? insist(renameat2(from, call->name, to, call->other, flags)) :
		    insist(renameat(from, call->name, to, call->other));
	return keep_victim(call, r);
}

static void ll_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	struct call *call = call_begin(req, parent, new_parent);

	call->name = name;
	call->other = new_name;
	call->flags = (int)flags;
	call->removes = true;
	call_go(call, do_rename, reply_removed);
}

/* ---- where a link points ----------------------------------------------------------- */

static int do_readlink(struct call *call)
{
	char *target = call->op->memory;
	int length = insist(readlinkat(call->at[0].fd, "", target, PATH_MAX));

	if (length >= 0)
		target[length] = 0;
	return length;
}

static void reply_readlink(struct call *call)
{
	fuse_reply_readlink(call->op->fuse, call->op->memory);
}

static void ll_readlink(fuse_req_t req, fuse_ino_t ino)
{
	call_go(call_begin(req, ino, 0), do_readlink, reply_readlink);
}

void names_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = ll_lookup;
	ops->forget = ll_forget;
	ops->forget_multi = ll_forget_multi;
	ops->mknod = ll_mknod;
	ops->mkdir = ll_mkdir;
	ops->symlink = ll_symlink;
	ops->link = ll_link;
	ops->unlink = ll_unlink;
	ops->rmdir = ll_rmdir;
	ops->rename = ll_rename;
	ops->readlink = ll_readlink;
}
