/*
 * locks.c - locks of the mount's files: see locks.h.
 *
 * An inode's locks have one queue: what asks a server, or opens a descriptor, does so on
 * a worker, and the next waits for it; the rest is done at once. Nobody waits within
 * the kernel. A lock that cannot be had stands among the waiters; it is tried again
 * whenever something of the inode is unlocked here, and by a timer, if
 * somebody beyond the mount has it.
 *
 * What each owner has is written down, too: it says whose lock is in the way, and
 * that a wait would be one for ever.
 *
 * Not a request in hand: as many as like may wait.
 */
#include "locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "call.h"

#define WAIT_FIRST_NS	1000000u
#define WAIT_MOST_NS	100000000u
#define LOOK_MOST	1000	/* at who waits for whom */
#define RANGES_MOST	4096u	/* of a file: here and in the kernel each call goes through them */

struct range {			/* locked, of one owner; no two overlap */
	struct range *next;	/* further back */
	off_t start, end;	/* the last byte */
	short type;
	pid_t pid;
};

/* A process with its threads, or an open file for F_OFD_SETLK. */
struct owner {
	struct owner *next;
	uint64_t id;
	struct file *file;	/* through which it locked first; pinned */
	int fd;			/* the description that has its locks, or -1 */
	int mode;		/* ... O_RDONLY and so on */
	bool own;		/* ... which is not that of file */
	struct range *ranges;
};

struct locks {			/* of an inode, while there are any */
	struct fs *fs;
	struct inode *inode;
	struct owner *owners;
	size_t ranges;		/* of all owners */
	struct onefd_link queue;
	bool busy;		/* a worker has one */
	bool timed;		/* the timer is started */
	size_t waiters;
	uint64_t wait_ns;
	struct onefd_timer timer;
};

enum kind { SET, TEST, FLOCK, FLUSH, RELEASE };

struct lock {			/* something to be done */
	struct onefd_link link;	/* in locks->queue or fs->waiters */
	struct locks *locks;
	struct file *file;	/* pinned */
	fuse_req_t fuse;
	enum kind kind;
	uint64_t owner;		/* as the kernel names it */
	struct flock range;
	off_t end;		/* of range */
	int operation;		/* of flock(2) */
	bool waits;		/* rather than to be told EAGAIN */
	bool waiting;		/* among fs->waiters */
	bool outside;		/* ... for somebody beyond the mount */
	bool interrupted;
	bool asked;		/* to be told of interrupts */
	struct owner *holder;	/* from here: for the work */
	int fresh;		/* the descriptor that it opened */
	struct range *spare[2];
	struct onefd_req req;
};

/* ---- what an owner has ------------------------------------------------------- */

static struct owner **owner_at(struct locks *locks, uint64_t id)
{
	struct owner **at = &locks->owners;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static bool overlaps(const struct range *range, const struct lock *lock)
{
	return range->start <= lock->end && lock->range.l_start <= range->end;
}

static bool is_in_the_way(const struct range *range, const struct lock *lock)
{
	return overlaps(range, lock) && (range->type == F_WRLCK || lock->range.l_type == F_WRLCK);
}

/* The first lock of another owner's, from @owner on, that is in the way of @lock; at the
 * same time its owner. */
static const struct range *conflict(struct owner **owner, const struct lock *lock)
{
	for (; *owner; *owner = (*owner)->next)
		for (const struct range *at = (*owner)->ranges; at && (*owner)->id != lock->owner;
		     at = at->next)
			if (is_in_the_way(at, lock))
				return at;
	return NULL;
}

/* Makes it one with @lock, if it is of one kind and there is no gap. */
static bool absorb(const struct range *range, struct range *fresh)
{
	if (range->type != fresh->type || range->pid != fresh->pid ||
	    range->end < fresh->start - 1 || range->start - 1 > fresh->end)
		return false;
	if (range->start < fresh->start)
		fresh->start = range->start;
	if (range->end > fresh->end)
		fresh->end = range->end;
	return true;
}

static struct range *spare(struct lock *lock)
{
	struct range *range = lock->spare[0];

	lock->spare[0] = lock->spare[1];
	lock->spare[1] = NULL;
	return range;
}

static void range_free(struct locks *locks, struct range **at)
{
	struct range *range = *at;

	*at = range->next;
	free(range);
	locks->ranges--;
}

/* Cuts out of @*at what @fresh takes its place of; where to look next. */
static struct range **cut(struct range **at, const struct range *fresh, struct lock *lock)
{
	struct range *range = *at, *rest;

	if (range->start < fresh->start && range->end > fresh->end) {
		rest = spare(lock);
		*rest = *range;
		rest->start = fresh->end + 1;
		range->next = rest;
		lock->locks->ranges++;
	}
	if (range->start < fresh->start) {
		range->end = fresh->start - 1;
		return &range->next;
	}
	if (range->end > fresh->end) {
		range->start = fresh->end + 1;
		return &range->next;
	}
	range_free(lock->locks, at);
	return at;
}

/* Writes down what was locked or unlocked: takes two spare ranges at most. */
static void write_down(struct owner *owner, struct lock *lock)
{
	struct range *fresh = spare(lock), **at = &owner->ranges;

	*fresh = (struct range){ .start = lock->range.l_start, .end = lock->end,
				 .type = lock->range.l_type, .pid = lock->range.l_pid };
	while (*at) {
		struct range *range = *at;

		if (fresh->type != F_UNLCK && absorb(range, fresh)) {
			range_free(lock->locks, at);
		} else if (range->start <= fresh->end && range->end >= fresh->start) {
			at = cut(at, fresh, lock);
		} else {
			at = &range->next;
		}
	}
	if (fresh->type == F_UNLCK) {
		free(fresh);
		return;
	}
	for (at = &owner->ranges; *at && (*at)->start < fresh->start;)
		at = &(*at)->next;
	fresh->next = *at;
	*at = fresh;
	lock->locks->ranges++;
}

/* Whether there are too many to have more. To unlock is to have more where it cuts one in two. */
static bool is_full(const struct lock *lock)
{
	const struct range *at = lock->holder ? lock->holder->ranges : NULL;

	if (lock->locks->ranges < RANGES_MOST || lock->range.l_type != F_UNLCK)
		return lock->locks->ranges >= RANGES_MOST;
	while (at && !(at->start < lock->range.l_start && at->end > lock->end))
		at = at->next;
	return at;
}

static void give_up_fd(struct inodes *inodes, struct owner *owner)
{
	if (!owner->own)
		owner->file->locker = NULL;
	else if (owner->fd >= 0)
		inodes_file_closed(inodes, owner->fd);
}

static void owner_free(struct locks *locks, struct owner **at)
{
	struct inodes *inodes = &locks->fs->inodes;
	struct owner *owner = *at;

	*at = owner->next;
	while (owner->ranges)
		range_free(locks, &owner->ranges);
	give_up_fd(inodes, owner);
	file_unpin(inodes, owner->file);
	free(owner);
}

static struct owner *owner_new(struct locks *locks, const struct lock *lock)
{
	struct owner *owner = malloc(sizeof *owner);

	if (!owner)
		return NULL;
	*owner = (struct owner){ .next = locks->owners, .id = lock->owner, .fd = -1, .own = true,
				 .file = file_pin(lock->file) };
	/* The file's own description serves its first owner, if it is good for all. */
	if (!lock->file->locker && (lock->file->flags & O_ACCMODE) != O_WRONLY) {
		lock->file->locker = owner;
		owner->fd = lock->file->of.fd;
		owner->mode = lock->file->flags & O_ACCMODE;
		owner->own = false;
	}
	locks->owners = owner;
	return owner;
}

/* ---- what the kernel is asked: any thread ---------------------------------------- */

static int set_lock(int fd, short type, off_t start, off_t length)
{
	struct flock range = { .l_type = type, .l_whence = SEEK_SET, .l_start = start,
			       .l_len = length };

	if (fcntl(fd, F_OFD_SETLK, &range) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

static int open_for_locks(const struct lock *lock)
{
	struct proc_path path = proc_path(lock->file->of.fd);
	int fd = open(path.path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = open(path.path, (lock->file->flags & O_ACCMODE) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* To a descriptor that can be locked for writing from one that could not: what it has are
 * read locks, of which there may be two. */
static int move_locks(const struct owner *owner, int fd)
{
	int r = 0;

	for (const struct range *at = owner->ranges; at && r == 0; at = at->next)
		r = set_lock(fd, at->type, at->start,
			     at->end == INT64_MAX ? 0 : at->end - at->start + 1);
	if (r == 0)
		(void)set_lock(owner->fd, F_UNLCK, 0, 0);
	return r;
}

static int open_fresh(struct lock *lock)
{
	const struct owner *owner = lock->holder;

	lock->fresh = open_for_locks(lock);
	if (lock->fresh < 0)
		return -ENOLCK;
	if (owner->fd < 0 || move_locks(owner, lock->fresh) == 0)
		return 0;
	(void)close(lock->fresh);
	lock->fresh = -1;
	return -ENOLCK;
}

static int do_set(struct lock *lock)
{
	const struct flock *range = &lock->range;
	struct owner *owner = lock->holder;
	int r;

	if (!owner)
		return 0;	/* has none to be unlocked */
	if (lock->fresh == -EAGAIN) {
		r = open_fresh(lock);
		if (r < 0)
			return r;
	}
	return set_lock(lock->fresh < 0 ? owner->fd : lock->fresh, range->l_type, range->l_start,
			range->l_len);
}

static int do_test(struct lock *lock)
{
	int fd = lock->holder && lock->holder->fd >= 0 ? lock->holder->fd : lock->file->of.fd;

	lock->range.l_pid = 0;
	return fcntl(fd, F_OFD_GETLK, &lock->range) < 0 ? -errno : 0;
}

static int do_flock(struct lock *lock)
{
	return flock(lock->file->of.fd, lock->operation | LOCK_NB) < 0 ? -errno : 0;
}

static int do_flush(struct lock *lock)
{
	if (lock->holder && lock->holder->fd >= 0)
		(void)set_lock(lock->holder->fd, F_UNLCK, 0, 0);
	return lock->locks->inode->mount->met.local ? 0 : file_flush(lock->file->of.fd);
}

/* Those that it locked through this file: such as were its own, of F_OFD_SETLK. Its
 * descriptor may be closed later only. */
static int do_release(struct lock *lock)
{
	for (struct owner *owner = lock->locks->owners; owner; owner = owner->next)
		if (owner->file == lock->file && owner->fd >= 0)
			(void)set_lock(owner->fd, F_UNLCK, 0, 0);
	if (lock->file->flock)
		(void)flock(lock->file->of.fd, LOCK_UN);
	return 0;
}

static ssize_t do_it(void *arg)
{
	static int (*const does[])(struct lock *) = {
		[SET] = do_set, [TEST] = do_test, [FLOCK] = do_flock,
		[FLUSH] = do_flush, [RELEASE] = do_release,
	};
	struct lock *lock = arg;
	int r = -EINTR;

	for (int i = 0; r == -EINTR && i < 1000; i++)
		r = does[lock->kind](lock);
	return r;
}

/* ---- waiting ------------------------------------------------------------------------ */

static void run(struct locks *locks);

/* Those who wait for this inode are tried, first come, first served. */
static void try_waiters(struct locks *locks)
{
	struct onefd_link *waiters = &locks->fs->waiters;

	for (struct onefd_link *at = waiters->next, *next; at != waiters; at = next) {
		struct lock *lock = onefd_container(at, struct lock, link);

		next = at->next;
		if (lock->locks != locks)
			continue;
		list_remove(at);
		lock->waiting = false;
		locks->waiters--;
		list_push(&locks->queue, at);
	}
}

static void due(struct onefd_timer *timer)
{
	struct locks *locks = onefd_container(timer, struct locks, timer);

	locks->timed = false;
	locks->wait_ns = locks->wait_ns * 2 < WAIT_MOST_NS ? locks->wait_ns * 2 : WAIT_MOST_NS;
	try_waiters(locks);
	run(locks);
}

/* Beyond the mount nobody says that a lock is free. */
static void watch_outside(struct locks *locks)
{
	const struct onefd_link *waiters = &locks->fs->waiters;
	bool outside = false;

	for (struct onefd_link *at = waiters->next; at != waiters && !outside; at = at->next) {
		struct lock *lock = onefd_container(at, struct lock, link);

		outside = lock->locks == locks && lock->outside;
	}
	if (outside == locks->timed)
		return;
	locks->timed = outside;
	if (outside)
		onefd_timer_start(locks->fs->loop, &locks->timer,
				  onefd_now(locks->fs->loop) + locks->wait_ns);
	else
		onefd_timer_stop(&locks->timer);
}

/* Within libfuse's handling of the interrupt, which has the request locked. */
static void interrupted(fuse_req_t req, void *data)
{
	struct lock *lock = data;

	(void)req;
	lock->interrupted = true;
	if (lock->waiting)
		(void)onefd_post(lock->locks->fs->loop, &lock->locks->fs->interrupts);
}

static bool flock_is_in_the_way(const struct lock *lock)
{
	const struct onefd_link *files = &lock->file->inode->files;

	for (struct onefd_link *at = files->next; at != files; at = at->next) {
		const struct file *file = onefd_container(at, struct file, link);

		if (file != lock->file && file->flock &&
		    (file->flock == LOCK_EX || lock->operation == LOCK_EX))
			return true;
	}
	return false;
}

static bool is_outside(struct lock *lock)
{
	struct owner *owner = lock->locks->owners;

	return lock->kind == FLOCK ? !flock_is_in_the_way(lock) : !conflict(&owner, lock);
}

/* Whether @id waits for @lock to be had, by way of others or not. */
static bool is_waited_for(struct fs *fs, uint64_t id, const struct lock *lock, int *looks)
{
	struct owner *owner = lock->locks->owners;

	for (; (*looks)-- > 0 && conflict(&owner, lock); owner = owner->next) {
		if (owner->id == id)
			return true;
		for (struct onefd_link *at = fs->waiters.next; at != &fs->waiters; at = at->next) {
			struct lock *other = onefd_container(at, struct lock, link);

			if (other->kind == SET && other->owner == owner->id &&
			    is_waited_for(fs, id, other, looks))
				return true;
		}
	}
	return false;
}

static bool would_be_for_ever(struct lock *lock)
{
	int looks = LOOK_MOST;

	return lock->kind == SET && is_waited_for(lock->locks->fs, lock->owner, lock, &looks);
}

static void wait(struct lock *lock)
{
	struct locks *locks = lock->locks;

	lock->outside = is_outside(lock);
	if (!lock->asked) {
		lock->asked = true;
		locks->wait_ns = WAIT_FIRST_NS;
	}
	lock->waiting = true;
	locks->waiters++;
	list_push(&locks->fs->waiters, &lock->link);
	/* Calls back here if that has been. */
	fuse_req_interrupt_func(lock->fuse, interrupted, lock);
}

/* ---- what came of it ------------------------------------------------------------------ */

static void lock_free(struct lock *lock)
{
	free(lock->spare[0]);
	free(lock->spare[1]);
	file_unpin(&lock->locks->fs->inodes, lock->file);
	free(lock);
}

static void answer(struct lock *lock, int r)
{
	if (lock->kind == TEST && r == 0)
		fuse_reply_lock(lock->fuse, &lock->range);
	else
		fuse_reply_err(lock->fuse, -r);
	lock_free(lock);
}

/* The descriptor that the work opened is the owner's from now on. */
static void take_fresh(struct lock *lock)
{
	struct owner *owner = lock->holder;
	struct inodes *inodes = &lock->locks->fs->inodes;

	if (lock->fresh < 0)
		return;
	give_up_fd(inodes, owner);
	owner->fd = lock->fresh;
	owner->mode = fcntl(owner->fd, F_GETFL) & O_ACCMODE;
	owner->own = true;
	lock->fresh = -1;
	inodes_file_opened(inodes);
}

static void finish_set(struct lock *lock, int r)
{
	struct owner *owner = lock->holder;

	if (!owner)
		return;
	take_fresh(lock);
	if (r == 0) {
		write_down(owner, lock);
		/* Also of a write lock that is a read lock now. */
		if (lock->range.l_type != F_WRLCK)
			try_waiters(lock->locks);
	}
	if (owner->fd < 0)
		owner_free(lock->locks, owner_at(lock->locks, owner->id));
}

/* A lock that is converted and not got is lost, as flock(2) says. */
static void finish_flock(struct lock *lock, int r)
{
	int before = lock->file->flock;

	lock->file->flock = r < 0 ? 0 : lock->operation & ~LOCK_UN;
	if (before && lock->file->flock != LOCK_EX)
		try_waiters(lock->locks);
}

static void finish_release(struct lock *lock)
{
	struct locks *locks = lock->locks;

	for (struct owner **at = &locks->owners; *at;)
		if ((*at)->file == lock->file)
			owner_free(locks, at);
		else
			at = &(*at)->next;
	lock->file->flock = 0;
	file_close(&locks->fs->inodes, lock->file);
	try_waiters(locks);
}

static void finish(struct lock *lock, int r)
{
	switch (lock->kind) {
	case SET:
		finish_set(lock, r);
		break;
	case FLOCK:
		finish_flock(lock, r);
		break;
	case FLUSH:
		if (lock->holder)
			owner_free(lock->locks, owner_at(lock->locks, lock->owner));
		try_waiters(lock->locks);
		break;
	case RELEASE:
		finish_release(lock);
		break;
	case TEST:
		break;
	}
	if (r != -EAGAIN || !lock->waits)
		answer(lock, r);
	else if (lock->interrupted || lock->locks->fs->waits_no_more)
		answer(lock, -EINTR);
	else if (would_be_for_ever(lock))
		answer(lock, -EDEADLK);
	else
		wait(lock);
}

/* ---- in order -------------------------------------------------------------------------- */

static void worked(struct onefd_req *req)
{
	struct lock *lock = req->data;
	struct locks *locks = lock->locks;
	struct inode *inode = locks->inode;
	struct fs *fs = locks->fs;

	locks->busy = false;
	inode->lookups++;
	finish(lock, (int)req->res);
	run(locks);
	inode_forget(&fs->inodes, inode, 1);
}

static bool is_good_for(const struct owner *owner, short type)
{
	return owner->fd >= 0 && !(type == F_WRLCK && owner->mode == O_RDONLY) &&
	       !(type == F_RDLCK && owner->mode == O_WRONLY);
}

/* What the work needs to have: 0, or -errno. */
static int prepare(struct lock *lock)
{
	lock->fresh = -1;
	lock->holder = *owner_at(lock->locks, lock->owner);
	if (lock->kind != SET || (!lock->holder && lock->range.l_type == F_UNLCK))
		return 0;
	if (is_full(lock))
		return -ENOLCK;
	for (int i = 0; i < 2; i++)
		if (!lock->spare[i] && !(lock->spare[i] = malloc(sizeof *lock->spare[i])))
			return -ENOLCK;
	if (!lock->holder)
		lock->holder = owner_new(lock->locks, lock);
	if (!lock->holder)
		return -ENOLCK;
	if (!is_good_for(lock->holder, lock->range.l_type))
		lock->fresh = -EAGAIN;	/* to be opened */
	return 0;
}

/* An answer that needs nobody asked. */
static bool answer_here(struct lock *lock)
{
	struct owner *owner = lock->locks->owners;
	const struct range *range;

	if (lock->kind != TEST || !(range = conflict(&owner, lock)))
		return false;
	lock->range = (struct flock){
		.l_type = range->type, .l_whence = SEEK_SET, .l_start = range->start,
		.l_len = range->end == INT64_MAX ? 0 : range->end - range->start + 1,
		.l_pid = range->pid,
	};
	answer(lock, 0);
	return true;
}

static void start(struct lock *lock)
{
	struct locks *locks = lock->locks;
	int r = prepare(lock);

	if (r < 0) {
		answer(lock, r);
		return;
	}
	if (answer_here(lock))
		return;
	if (locks->inode->mount->met.local && lock->fresh != -EAGAIN) {
		finish(lock, (int)do_it(lock));
		return;
	}
	onefd_prep_call(&lock->req, do_it, lock);
	lock->req.data = lock;
	r = onefd_submit(locks->fs->loop, &lock->req, worked);
	if (r < 0)
		finish(lock, r);
	else
		locks->busy = true;
}

static void run(struct locks *locks)
{
	struct inode *inode = locks->inode;
	struct fs *fs = locks->fs;

	inode->lookups++;
	while (!locks->busy && !list_empty(&locks->queue)) {
		struct onefd_link *link = locks->queue.next;

		list_remove(link);
		start(onefd_container(link, struct lock, link));
	}
	watch_outside(locks);
	if (!locks->busy && !locks->owners && !locks->waiters) {
		inode->locks = NULL;	/* no waiter: no timer */
		free(locks);
	}
	inode_forget(&fs->inodes, inode, 1);
}

static struct locks *locks_of(struct fs *fs, struct inode *inode)
{
	struct locks *locks = inode->locks;

	if (locks)
		return locks;
	locks = calloc(1, sizeof *locks);
	if (!locks)
		return NULL;
	locks->fs = fs;
	locks->inode = inode;
	list_init(&locks->queue);
	locks->wait_ns = WAIT_FIRST_NS;
	onefd_timer_init(&locks->timer, due);
	inode->locks = locks;
	return locks;
}

static struct lock *lock_new(fuse_req_t req, struct file *file, enum kind kind, uint64_t owner)
{
	struct locks *locks = locks_of(fs_of(req), file->inode);
	struct lock *lock = locks ? calloc(1, sizeof *lock) : NULL;

	if (!lock)
		return NULL;
	lock->locks = locks;
	lock->file = file_pin(file);
	lock->fuse = req;
	lock->kind = kind;
	lock->owner = owner;
	return lock;
}

static void lock_go(struct lock *lock)
{
	struct locks *locks = lock->locks;

	list_push(&locks->queue, &lock->link);
	run(locks);
}

/* ---- handlers ---------------------------------------------------------------------------- */

static struct lock *range_lock(fuse_req_t req, const struct fuse_file_info *fi, enum kind kind,
			       const struct flock *range)
{
	struct lock *lock = lock_new(req, file_of(fi), kind, fi->lock_owner);

	if (!lock) {
		fuse_reply_err(req, ENOLCK);
		return NULL;
	}
	lock->range = *range;
	lock->end = range->l_len ? range->l_start + range->l_len - 1 : INT64_MAX;
	return lock;
}

static void ll_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range,
		     int sleep)
{
	struct lock *lock = range_lock(req, fi, SET, range);

	(void)ino;
	if (!lock)
		return;
	lock->waits = sleep;
	lock_go(lock);
}

static void ll_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range)
{
	struct lock *lock = range_lock(req, fi, TEST, range);

	(void)ino;
	if (lock)
		lock_go(lock);
}

static void ll_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int operation)
{
	struct lock *lock = lock_new(req, file_of(fi), FLOCK, 0);

	(void)ino;
	if (!lock) {
		fuse_reply_err(req, ENOLCK);
		return;
	}
	lock->operation = operation & ~LOCK_NB;
	lock->waits = !(operation & LOCK_NB);
	lock_go(lock);
}

bool locks_flush(fuse_req_t req, struct file *file, uint64_t owner)
{
	struct locks *locks = file->inode->locks;
	struct lock *lock;

	if (!locks || (!locks->busy && !*owner_at(locks, owner)))
		return false;
	lock = lock_new(req, file, FLUSH, owner);
	if (!lock)
		return false;
	lock_go(lock);
	return true;
}

bool locks_release(fuse_req_t req, struct file *file)
{
	struct locks *locks = file->inode->locks;
	struct owner *owner = locks ? locks->owners : NULL;
	struct lock *lock;

	while (owner && owner->file != file)
		owner = owner->next;
	if (!owner && !file->flock)
		return false;
	lock = lock_new(req, file, RELEASE, 0);
	if (!lock)
		return false;
	lock_go(lock);
	return true;
}

/* ---- interrupts, and the end --------------------------------------------------------------- */

static void end_wait(struct fs *fs, struct lock *lock)
{
	struct locks *locks = lock->locks;
	struct inode *inode = locks->inode;

	list_remove(&lock->link);
	locks->waiters--;
	/* Its file may be the last to hold the inode. */
	inode->lookups++;
	answer(lock, -EINTR);
	run(locks);
	inode_forget(&fs->inodes, inode, 1);
}

static void end_waits(struct fs *fs, bool all)
{
	for (struct onefd_link *at = fs->waiters.next, *next; at != &fs->waiters; at = next) {
		struct lock *lock = onefd_container(at, struct lock, link);

		next = at->next;
		if (all || lock->interrupted)
			end_wait(fs, lock);
	}
}

static void interrupts(struct onefd_task *task)
{
	end_waits(onefd_container(task, struct fs, interrupts), false);
}

void locks_end(struct fs *fs)
{
	fs->waits_no_more = true;	/* what a worker tries just now */
	end_waits(fs, true);
}

static void locks_free_of(struct inode *inode)
{
	struct locks *locks = inode->locks;

	while (locks && locks->owners)
		owner_free(locks, &locks->owners);
	inode->locks = NULL;
	free(locks);
}

void locks_free(struct fs *fs)
{
	const struct inodes *inodes = &fs->inodes;

	for (size_t i = 0; inodes->buckets && i < inodes->bucket_count; i++)
		for (struct inode *inode = inodes->buckets[i], *next; inode; inode = next) {
			next = inode->next;
			locks_free_of(inode);
		}
}

void locks_init(struct fs *fs)
{
	list_init(&fs->waiters);
	onefd_task_init(&fs->interrupts, interrupts);
}

void locks_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->setlk = ll_setlk;
	ops->getlk = ll_getlk;
	ops->flock = ll_flock;
}
