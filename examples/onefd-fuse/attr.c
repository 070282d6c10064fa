/*
 * attr.c - onefd-fuse: handlers that speak of attributes, extended ones too.
 *
 * What an inode's descriptor says at once is answered on the loop's thread. All
 * else is a worker's, and by a descriptor: no path is walked twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "call.h"
#include "pages.h"

#define ASKED	100u	/* readdirplus that follow who asked for an extended attribute */

/* ---- attributes ---------------------------------------------------------------- */

static int look(struct call *call)
{
	struct found found = { .fd = call->at[0].fd };
	int r = object_stat(&found);

	call->attr = found.st;
	return r;
}

static void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct inode *inode = inode_of(fs, ino);
	struct found found = { .fd = inode->fd };

	(void)fi;
	if (inode->fd >= 0 && inode->mount->met.local && object_stat(&found) == 0) {
		struct stat attr = fs_attr(fs, inode, &found.st);

		inode->mount->used = true;
		fuse_reply_attr(req, &attr, fs->timeout);
		return;
	}
	call_go(call_begin(req, ino, 0), look, reply_attr);
}

static int set_owner(const struct call *call)
{
	uid_t uid = call->valid & FUSE_SET_ATTR_UID ? call->attr.st_uid : (uid_t)-1;
	gid_t gid = call->valid & FUSE_SET_ATTR_GID ? call->attr.st_gid : (gid_t)-1;

	(void)work_drop_set_id(call->op->fuse, call->at[0].fd);
	return insist(fchownat(call->at[0].fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

static int set_mode(const struct call *call)
{
	return insist(chmod(proc_path(call->at[0].fd).path, call->attr.st_mode & 07777));
}

/* Who opened the file for writing may, whatever its mode is by now. */
static int set_size(const struct call *call)
{
	(void)work_drop_set_id(call->op->fuse, call->at[0].fd);
	if (call->file)
		return insist(ftruncate(call->file->of.fd, call->attr.st_size));
	return insist(truncate(proc_path(call->at[0].fd).path, call->attr.st_size));
}

/* @set and @now: which bits of @valid speak of it. */
static struct timespec time_to_set(struct timespec time, int valid, int set, int now)
{
	if (valid & now)
		time.tv_nsec = UTIME_NOW;
	else if (!(valid & set))
		time.tv_nsec = UTIME_OMIT;
	return time;
}

static int set_times(const struct call *call)
{
	int valid = call->valid;
	struct timespec times[2] = {
		time_to_set(call->attr.st_atim, valid, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW),
		time_to_set(call->attr.st_mtim, valid, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW),
	};

	return insist(utimensat(call->at[0].fd, "", times, AT_EMPTY_PATH));
}

/* The owner before the mode, for a change of owner takes set-id bits away; the times
 * last, for all others change them. */
static int do_setattr(struct call *call)
{
	int valid = call->valid, r = 0;

	if (valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = set_owner(call);
	if (r >= 0 && valid & FUSE_SET_ATTR_SIZE)
		r = set_size(call);
	if (r >= 0 && valid & FUSE_SET_ATTR_MODE)
		r = set_mode(call);
	if (r >= 0 && valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW |
			       FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		r = set_times(call);
	return r < 0 ? r : look(call);
}

static void reply_setattr(struct call *call)
{
	if (call->valid & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		pages_wrote(call->at[0].inode);
	reply_attr(call);
}

static void ll_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		       struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, ino, 0);

	call->attr = *attr;
	call->valid = valid;
	if (fi)
		call->file = file_pin(file_of(fi));
	call_go(call, do_setattr, reply_setattr);
}

/* ---- extended attributes ---------------------------------------------------------- */

static int do_getxattr(struct call *call)
{
	struct proc_path path = proc_path(call->at[0].fd);
	int r = insist(getxattr(path.path, call->name, call->op->memory, call->size));

	call->bare = r == -ENODATA && listxattr(path.path, NULL, 0) == 0;
	return r;
}

/* Leaves out of @names what none but the administrator is shown, as he is not who asks. */
static int without_trusted(char *names, int length)
{
	char *to = names;

	for (char *name = names, *next; name < names + length; name = next) {
		next = name + strlen(name) + 1;
		if (!strncmp(name, "trusted.", 8))
			continue;
		memmove(to, name, (size_t)(next - name));
		to += next - name;
	}
	return (int)(to - names);
}

/* All of them, for how many there are depends on who asks. */
static int do_listxattr(struct call *call)
{
	char *names = call->op->memory;
	int r = insist(listxattr(proc_path(call->at[0].fd).path, names, call->op->size));

	if (r > 0 && call->fs->privileged && fuse_req_ctx(call->op->fuse)->uid)
		r = without_trusted(names, r);
	return call->size && r > (int)call->size ? -ERANGE : r;
}

/* What there is, or, asked for with no room, how much that is. */
static void reply_xattr(struct call *call)
{
	if (call->res < 0)
		fuse_reply_err(call->op->fuse, -call->res);
	else if (call->size)
		fuse_reply_buf(call->op->fuse, call->op->memory, (size_t)call->res);
	else
		fuse_reply_xattr(call->op->fuse, (size_t)call->res);
}

static void reply_getxattr(struct call *call)
{
	if (call->bare || (call->res == -ENODATA && !strcmp(call->name, FS_CAPABILITIES)))
		fs_saw_none(call->fs, call->at[0].inode, call->changes, call->bare);
	reply_xattr(call);
}

static struct call *begin_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct call *call = call_begin(req, ino, 0);

	call->name = name;
	call->size = size < call->op->size ? size : call->op->size;
	call->changes = call->fs->xattr_changes;
	call->fails = true;
	return call;
}

static void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);

	fs->xattr_asked = ASKED;
	if (fs_has_none(fs, inode_of(fs, ino), name))
		fuse_reply_err(req, ENODATA);
	else
		call_go(begin_xattr(req, ino, name, size), do_getxattr, reply_getxattr);
}

static void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);

	fs->xattr_asked = ASKED;
	if (!fs_has_none(fs, inode_of(fs, ino), "user."))
		call_go(begin_xattr(req, ino, NULL, size), do_listxattr, reply_xattr);
	else if (size)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_xattr(req, 0);
}

/* An ACL changes the mode: as chmod(2) does, that takes the set-group-ID bit from who is not of
 * the group. */
static void drop_set_gid(struct call *call)
{
	fuse_req_t req = call->op->fuse;
	struct stat *attr = &call->attr;

	if (strcmp(call->name, "system.posix_acl_access") || !fuse_req_ctx(req)->uid ||
	    look(call) < 0 || !(attr->st_mode & S_ISGID) || work_is_in_group(req, attr->st_gid))
		return;
	attr->st_mode &= (mode_t)~S_ISGID;
	(void)set_mode(call);
}

static int do_setxattr(struct call *call)
{
	int r = insist(setxattr(proc_path(call->at[0].fd).path, call->name, call->value, call->size,
				call->flags));

	if (r >= 0)
		drop_set_gid(call);
	return r;
}

/* It fails or not: what was seen before is not to be believed, nor what comes back later. */
static void reply_setxattr(struct call *call)
{
	struct inode *inode = call->at[0].inode;

	call->fs->xattr_changes++;
	inode->plain_until = inode->bare_until = 0;
	fuse_reply_err(call->op->fuse, call->res < 0 ? -call->res : 0);
}

static void ll_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	struct call *call = call_begin(req, ino, 0);

	call->name = name;
	call->value = value;
	call->size = size;
	call->flags = flags;
	call->fails = true;
	call_go(call, do_setxattr, reply_setxattr);
}

static int do_removexattr(struct call *call)
{
	return insist(removexattr(proc_path(call->at[0].fd).path, call->name));
}

static void ll_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct call *call = call_begin(req, ino, 0);

	call->name = name;
	call_go(call, do_removexattr, reply_done);
}

/* ---- the file system ---------------------------------------------------------------- */

static int do_statfs(struct call *call)
{
	return insist(fstatvfs(call->at[0].fd, call->op->memory));
}

static void reply_statfs(struct call *call)
{
	fuse_reply_statfs(call->op->fuse, call->op->memory);
}

static void ll_statfs(fuse_req_t req, fuse_ino_t ino)
{
	call_go(call_begin(req, ino, 0), do_statfs, reply_statfs);
}

void attr_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = ll_getattr;
	ops->setattr = ll_setattr;
	ops->statfs = ll_statfs;
}

void xattr_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = ll_getxattr;
	ops->listxattr = ll_listxattr;
	ops->setxattr = ll_setxattr;
	ops->removexattr = ll_removexattr;
}
