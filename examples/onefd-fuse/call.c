/* call.c - a request that a worker answers: see call.h. */
#include "call.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES_MOST	2u
#define PAUSE		UINT64_C(1000000)	/* nanoseconds between two tries, */
#define SHORT_MOST	UINT64_C(1000000000)	/* ... and from the first to the last */

static void pin(struct call *call, int i, fuse_ino_t ino)
{
	struct at *at = &call->at[i];

	if (!ino)
		return;
	at->inode = inode_of(call->fs, ino);
	at->fd = inode_pin(&call->fs->inodes, at->inode);
	at->mount_fd = at->inode->mount->met.fd;
	at->again.fd = -1;
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
	/* Nobody had a use for it: it failed since, or was cancelled. */
	if (call->found.fd >= 0)
		closer_add(&inodes->closer, call->found.fd);
	onefd_fuse_end(call->op);
}

/* ---- on a worker ---------------------------------------------------------------- */

static int reopen(struct call *call, struct at *at)
{
	int r = 0;

	if (!at->inode || at->fd >= 0)
		return 0;
	if (at->mount_fd < 0 && at->inode->mount->met.handles) {
		r = mount_find_again(&at->inode->mount->met, &at->again);
		at->mount_fd = at->again.fd;
	}
	if (r >= 0)
		r = object_open(at->mount_fd, &at->inode->id);
	if (r < 0) {
		call->stale = true;
		return r;
	}
	at->fd = r;
	at->fresh = true;
	return 0;
}

/*
 * The umask is a thread's own once it has left the process's. The source's file system applies
 * it, or the directory's default ACL in its place.
 */
static void have_umask(struct call *call, mode_t mask)
{
	static __thread bool left;

	if (!left)
		left = unshare(CLONE_FS) == 0;
	if (left)
		(void)umask(mask);
	else
		call->mode &= ~mask;	/* UNTESTED: where unshare(2) is forbidden */
}

/*
 * The credentials of file systems are a thread's own. SECBIT_NO_SETUID_FIXUP
 * leaves us our capabilities meanwhile: whether the caller may, the kernel has asked
 * (default_permissions), with groups that we do not know.
 */
static void act_as(const struct fs *fs, uid_t uid, gid_t gid)
{
	if (!fs->privileged)
		return;
	(void)syscall(SYS_setfsgid, gid);
	(void)syscall(SYS_setfsuid, uid);
}

/*
 * The right to remove what is another's from a directory with the sticky bit. The kernel
 * has asked who owns what it believes to have the name: the source's file system looks at
 * what has it now.
 */
static void own_all(const struct fs *fs, bool all)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];

	if (!fs->privileged || syscall(SYS_capget, &head, sets) < 0)
		return;
	sets[0].effective &= ~(1u << CAP_FOWNER);
	if (all)
		sets[0].effective |= sets[0].permitted & 1u << CAP_FOWNER;
	(void)syscall(SYS_capset, &head, sets);
}

static bool is_sticky(const struct at *at)
{
	struct stat st;

	return at->inode && fstat(at->fd, &st) == 0 && st.st_mode & S_ISVTX;
}

static int run_as_caller(struct call *call)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(call->op->fuse);
	int r;

	have_umask(call, ctx->umask);
	act_as(call->fs, ctx->uid, ctx->gid);
	if (call->removes)
		own_all(call->fs, !ctx->uid);
	r = call->work(call);
	if (call->removes)
		own_all(call->fs, true);
	act_as(call->fs, 0, 0);
	return r;
}

static ssize_t run(void *arg)
{
	struct call *call = arg;
	bool sticky = false;

	for (int i = 0; i < 2; i++) {
		int r = reopen(call, &call->at[i]);

		if (r < 0)
			return r;
		sticky |= call->removes && is_sticky(&call->at[i]);
	}
	return call->as_caller || sticky ? run_as_caller(call) : call->work(call);
}

struct proc_path proc_path(int fd)
{
	struct proc_path path;

	(void)snprintf(path.path, sizeof path.path, "/proc/self/fd/%d", fd);
	return path;
}

bool work_is_in_group(fuse_req_t req, gid_t gid)
{
	bool is = fuse_req_ctx(req)->gid == gid;
	int count = is ? 0 : fuse_req_getgroups(req, 0, NULL);
	gid_t *groups = count > 0 ? malloc((size_t)count * sizeof *groups) : NULL;
	int there = groups ? fuse_req_getgroups(req, count, groups) : 0;

	/* It says how many there are, of which it has put down no more than there was room for. */
	for (int i = 0; i < there && i < count && !is; i++)
		is = groups[i] == gid;
	free(groups);
	return is;
}

bool takes_set_id(fuse_req_t req, const struct stat *st)
{
	return fuse_req_ctx(req)->uid && S_ISREG(st->st_mode) && st->st_mode & (S_ISUID | S_ISGID);
}

/* Those that it has and that go, of all of its @mode. */
static mode_t set_id_to_drop(fuse_req_t req, int fd, mode_t *mode)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !takes_set_id(req, &st))
		return 0;
	*mode = st.st_mode & 07777;
	if (*mode & S_IXGRP || !work_is_in_group(req, st.st_gid))
		return *mode & (S_ISUID | S_ISGID);
	return *mode & S_ISUID;
}

bool work_drop_set_id(fuse_req_t req, int fd)
{
	mode_t mode, drop = set_id_to_drop(req, fd, &mode);

	if (!drop)
		return false;
	/* A change to no other owner takes them, and looks at the mode itself: one that its owner
	 * sets just now would be lost with chmod(2). Not all that ask a server do so. */
	if (fchownat(fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) == 0)
		drop = set_id_to_drop(req, fd, &mode);
	if (drop)
		(void)chmod(proc_path(fd).path, mode & ~drop);
	return true;
}

static ssize_t meet(void *arg)
{
	struct call *call = arg;

	return mount_meet(&call->found, &call->met);
}

/* ---- on the loop ------------------------------------------------------------------ */

static void answer(struct call *call)
{
	/* Cancelled: for who waits is dying. */
	if (call->res == -ECANCELED)
		call->res = -EINTR;
	if (call->res < 0 && !call->fails)
		fuse_reply_err(call->op->fuse, -call->res);
	else
		call->reply(call);
	call_end(call);
}

static void go(struct call *call);

static void descriptors_are_free(struct closer_wait *wait)
{
	go(onefd_container(wait, struct call, wait));
}

static void time_is_over(struct onefd_timer *timer)
{
	go(onefd_container(timer, struct call, timer));
}

/* An application knows nothing of our descriptors: for as long as there are any that others
 * can do without, or other requests have them for a moment, it waits for them. */
static bool waits_for_descriptors(struct call *call)
{
	struct inodes *inodes = &call->fs->inodes;
	uint64_t now = onefd_now(call->fs->loop);

	if (call->res != -EMFILE && call->res != -ENFILE)
		return false;
	if (!call->short_since)
		call->short_since = now;
	if (now - call->short_since > SHORT_MOST)
		return false;
	call->wait.fn = descriptors_are_free;
	if (inodes_relieve(inodes, &call->wait))
		return true;
	if (!inodes_have_room(inodes))
		return false;
	onefd_timer_init(&call->timer, time_is_over);
	onefd_timer_start(call->fs->loop, &call->timer, now + PAUSE);
	return true;
}

/* One without a name, removed behind our back: it is there as long as it is open. */
static bool borrows_descriptor(struct call *call)
{
	bool any = false;

	if (!call->stale || call->tries++ >= TRIES_MOST)
		return false;
	for (int i = 0; i < 2; i++) {
		struct at *at = &call->at[i];
		struct file *file = NULL;

		if (at->inode && at->fd < 0)
			file = file_of_inode(at->inode);
		if (!file)
			continue;
		/* By /proc: who owns locks is the open file, which this is none of. */
		at->fd = open(proc_path(file->of.fd).path, O_PATH | O_CLOEXEC);
		at->fresh = at->fd >= 0;
		any |= at->fresh;
	}
	if (any)
		go(call);
	return any;
}

static void met(struct onefd_req *req)
{
	struct call *call = onefd_container(req, struct onefd_fuse_op, req)->data;
	int r = (int)req->res;

	if (r >= 0)
		r = inodes_add_mount(&call->fs->inodes, &call->met);
	if (r < 0)
		call->res = r;
	answer(call);
}

/* Its mount is a worker's to look at, once. */
static bool meets_mount(struct call *call)
{
	const struct found *found = &call->found;

	if (call->res < 0 || found->fd < 0 || inodes_mount(&call->fs->inodes, found->id.mount))
		return false;
	onefd_prep_call(&call->op->req, meet, call);
	return onefd_fuse_submit(call->op, met) >= 0;
}

/* Before anything found there is looked at: of a link, say, no mount is met that opens handles. */
static void hand_over_mounts(struct call *call)
{
	for (int i = 0; i < 2; i++) {
		struct at *at = &call->at[i];

		if (!at->inode || at->again.fd < 0)
			continue;
		inodes_mount_found_again(&call->fs->inodes, at->inode->mount, &at->again);
		at->again.fd = -1;
		/* Others may have been first: then ours is given back, and the work may be done anew. */
		at->mount_fd = at->inode->mount->met.fd;
	}
}

static void done(struct onefd_req *req)
{
	struct call *call = onefd_container(req, struct onefd_fuse_op, req)->data;

	call->res = (int)req->res;
	hand_over_mounts(call);
	if (!waits_for_descriptors(call) && !borrows_descriptor(call) && !meets_mount(call))
		answer(call);
}

static void go(struct call *call)
{
	int r;

	call->stale = false;
	onefd_prep_call(&call->op->req, run, call);
	r = onefd_fuse_submit(call->op, done);
	if (r < 0) {
		call->res = r;
		answer(call);
	}
}

void call_go(struct call *call, int (*work)(struct call *), void (*reply)(struct call *))
{
	call->work = work;
	call->reply = reply;
	go(call);
}

void reply_done(struct call *call)
{
	fuse_reply_err(call->op->fuse, 0);
}

void reply_attr(struct call *call)
{
	struct stat attr = fs_attr(call->fs, call->at[0].inode, &call->attr);

	fuse_reply_attr(call->op->fuse, &attr, call->fs->timeout);
}

int call_entry(struct call *call, struct fuse_entry_param *ret)
{
	return fs_entry(call->fs, &call->found, ret);
}

/* The application's death may come before the answer: the kernel knows nothing then. */
void reply_entry(struct call *call)
{
	struct fuse_entry_param entry;
	int r = call_entry(call, &entry);

	if (r < 0)
		fuse_reply_err(call->op->fuse, -r);
	else if (fuse_reply_entry(call->op->fuse, &entry) == -ENOENT)
		inode_forget(&call->fs->inodes, (struct inode *)(uintptr_t)entry.ino, 1);
}
