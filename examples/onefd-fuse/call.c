/* call.c - a request that a worker answers: see call.h. */
#include "call.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static void pin(struct call *call, int i, fuse_ino_t ino)
{
	if (!ino)
		return;
	call->at[i].inode = inode_of(call->fs, ino);
	call->at[i].fd = inode_pin(&call->fs->inodes, call->at[i].inode);
}

struct call *call_begin(fuse_req_t req, fuse_ino_t ino, fuse_ino_t other)
{
	struct fs *fs = fs_of(req);
	struct onefd_fuse_op *op = onefd_fuse_begin(fs->fuse, req);
	struct call *call = op->data;

	memset(call, 0, sizeof *call);
	call->fs = fs;
	call->op = op;
	call->found.fd = -1;
	pin(call, 0, ino);
	pin(call, 1, other);
	return call;
}

void call_end(struct call *call)
{
	struct inodes *inodes = &call->fs->inodes;

	for (int i = 0; i < 2; i++) {
		struct at *at = &call->at[i];

		if (at->inode && at->fresh)
			inode_reopened(inodes, at->inode, at->fd);
		if (at->inode)
			inode_unpin(inodes, at->inode);
	}
	if (call->file)
		file_unpin(inodes, call->file);
	if (call->other_file)
		file_unpin(inodes, call->other_file);
	onefd_fuse_end(call->op);
}

/* ---- on a worker ---------------------------------------------------------------- */

static int reopen(struct at *at)
{
	if (!at->inode || at->fd >= 0)
		return 0;
	at->fd = object_open(at->inode->mount->fd, &at->inode->id);
	at->fresh = at->fd >= 0;
	return at->fresh ? 0 : at->fd;
}

/*
 * The credentials of file systems are a thread's own. SECBIT_NO_SETUID_FIXUP
 * leaves us our capabilities meanwhile: whether the caller may, the kernel has asked
 * (default_permissions), with groups that we do not know.
 */
static void act_as(uid_t uid, gid_t gid)
{
	(void)syscall(SYS_setfsgid, gid);
	(void)syscall(SYS_setfsuid, uid);
}

static ssize_t run(void *arg)
{
	struct call *call = arg;
	const struct fuse_ctx *ctx = fuse_req_ctx(call->op->fuse);
	int r;

	for (int i = 0; i < 2; i++) {
		r = reopen(&call->at[i]);
		if (r < 0)
			return r;
	}
	if (!call->as_caller || !call->fs->privileged)
		return call->work(call);
	act_as(ctx->uid, ctx->gid);
	r = call->work(call);
	act_as(0, 0);
	return r;
}

struct proc_path proc_path(int fd)
{
	struct proc_path path;

	(void)snprintf(path.path, sizeof path.path, "/proc/self/fd/%d", fd);
	return path;
}

int work_found(struct call *call)
{
	int r;

	object_identify(&call->found);
	r = object_stat(&call->found);
	if (r < 0) {
		(void)close(call->found.fd);
		call->found.fd = -1;
		return r;
	}
	/* Whether the loop knows the mount is its to say: this costs little. */
	if (!call->at[0].inode || call->at[0].inode->id.mount != call->found.id.mount) {
		mount_meet(&call->found, &call->met);
		call->meets = true;
	}
	return 0;
}

/* ---- on the loop ------------------------------------------------------------------ */

static void done(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct call *call = op->data;

	call->res = (int)req->res;
	if (req->res < 0)
		fuse_reply_err(op->fuse, -call->res);
	else
		call->reply(call);
	call_end(call);
}

void call_go(struct call *call, int (*work)(struct call *), void (*reply)(struct call *))
{
	int r;

	call->work = work;
	call->reply = reply;
	onefd_prep_call(&call->op->req, run, call);
	r = onefd_fuse_submit(call->op, done);
	if (r < 0) {
		fuse_reply_err(call->op->fuse, -r);
		call_end(call);
	}
}

void reply_done(struct call *call)
{
	fuse_reply_err(call->op->fuse, 0);
}

void reply_attr(struct call *call)
{
	fuse_reply_attr(call->op->fuse, &call->attr, call->fs->timeout);
}

int call_entry(struct call *call, struct fuse_entry_param *ret)
{
	struct inodes *inodes = &call->fs->inodes;
	struct inode *inode;
	int r = 0;

	if (call->meets)
		r = inodes_add_mount(inodes, call->found.id.mount, &call->met);
	if (r < 0)
		return r;
	*ret = (struct fuse_entry_param){
		.attr = call->found.st,
		.attr_timeout = call->fs->timeout,
		.entry_timeout = call->fs->timeout,
	};
	inode = inode_get(inodes, &call->found);
	if (!inode)
		return -ENOMEM;
	ret->ino = (uintptr_t)inode;
	ret->generation = inode->generation;
	return 0;
}

void reply_entry(struct call *call)
{
	struct fuse_entry_param entry;
	int r = call_entry(call, &entry);

	if (r < 0)
		fuse_reply_err(call->op->fuse, -r);
	else if (fuse_reply_entry(call->op->fuse, &entry) == -ENOENT)
		inode_forget(&call->fs->inodes, (struct inode *)(uintptr_t)entry.ino, 1);
}
