/*
 * names.c - names answered from the dentry cache, without a thread.
 *
 * openat2(RESOLVE_CACHED) keeps the walk along the path from the disk, but not
 * the file's own open: that of a FUSE or network file system asks a server,
 * that of a FIFO waits for its peer, that of a btrfs directory for the disk.
 * So the name is first looked up with O_PATH, which calls no file system; the
 * descriptor tells mount and kind; and only a regular file of a file system that
 * is known to open in memory is then opened, for reading, under O_NONBLOCK,
 * which makes the holder of a lease a worker's to wait for. A request for O_PATH
 * has its answer there, and one that reopens a descriptor begins there.
 *
 * Mounts are learned from what workers have opened or asked: it takes reading
 * mountinfo, and the first open of all on an ext4 writes to its journal.
 *
 * What the kernel itself answers without a file system is passed on: a name
 * that is known not to be there is not there.
 *
 * Not here: encryption and fs-verity, whose first open reads; writers, for whom
 * quotas may be read in.
 */
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>

#include "core.h"
#include "file.h"
#include "sys.h"
#include "work.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

/* Most time that a flush gives to names: some sixty of them. */
#define NAMES_NS 200000

/* What openat2() takes beside O_PATH; openat() ignores the rest. */
#define PATH_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY)

/* Of openat2(), which refuses what it does not know: flags of which no name depends. */
#define OPENAT2_FLAGS (PATH_FLAGS | O_PATH | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_APPEND | \
		       O_DIRECT | O_LARGEFILE)

#define STATX_FLAGS (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC)

void names_open(struct names *names, uint32_t flags)
{
	/* Without /proc no mount can be told from another. */
	if (flags & ONEFD_NO_PROC)
		names->error = -EOPNOTSUPP;
}

void names_flush(struct names *names)
{
	names->began = 0;
	names->spent = false;
}

bool names_enough(struct names *names)
{
	uint64_t now;

	/* To pass one to a worker takes no time. */
	if (names->error)
		return false;
	/* Thousands may stand behind: each reading of the clock costs as much as a
	 * tenth of a name. */
	if (names->spent)
		return true;
	now = sys.now();
	if (!names->began)
		names->began = now;
	names->spent = now - names->began >= NAMES_NS;
	return names->spent;
}

/* ---- on the loop's thread ------------------------------------------------ */

static bool kind_is_known(const struct statx *st, enum op op)
{
	if (st->stx_attributes & (STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY))
		return false;
	/* A device's node may make the kernel look for its driver. */
	return op == OP_OPENAT ? S_ISREG(st->stx_mode) : !S_ISBLK(st->stx_mode);
}

/* Whether what @fd refers to can be opened or asked in memory alone. */
static bool in_memory(struct names *names, struct onefd_req *req, int fd)
{
	const struct mount *mount;
	struct statx st;

	if (sys.statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_MNT_ID_UNIQUE,
		      &st) < 0)
		return false;
	if (!(st.stx_mask & STATX_MNT_ID_UNIQUE)) {
		names->error = -ENOSYS;
		return false;
	}
	if (!kind_is_known(&st, req->op))
		return false;
	mount = &names->mounts[st.stx_mnt_id % NAMES_MOUNTS];
	if (mount->id != st.stx_mnt_id ||
	    (mount->local && !mount->opened && req->op == OP_OPENAT)) {
		flight(req)->flags |= FLIGHT_LEARN;
		flight(req)->learned = (struct learned){ 0 };
		return false;
	}
	return mount->local;
}

/* By names in memory alone; -EAGAIN for others. */
static int open_cached(const struct call *call, uint64_t flags)
{
	struct open_how how = { 0 };

	if (call->how)
		how = *call->how;
	how.flags = flags;
	how.resolve |= RESOLVE_CACHED;
	return sys.openat2(call->fd, call->path, &how);
}

/* An object by its name, without a word to its file system. */
static int look_up(struct names *names, const struct call *call, uint64_t flags)
{
	int fd = open_cached(call, O_PATH | flags);

	/* Before Linux 5.6 or 5.12, or a seccomp filter: not again. */
	if (fd == -ENOSYS || fd == -EPERM || (fd == -EINVAL && !call->how))
		names->error = fd;
	return fd;
}

static uint64_t open_flags(const struct call *call)
{
	return call->how ? call->how->flags : (unsigned)call->flags;
}

static int open_it(const struct call *call)
{
	uint64_t flags = open_flags(call);
	int fd = *call->path ? open_cached(call, flags | O_NONBLOCK) :
			       sys.reopen(call->fd, (int)flags | O_NONBLOCK);

	if (fd >= 0 && !(flags & O_NONBLOCK))
		(void)sys.setfl(fd, (int)flags);
	return fd;
}

static int try_open(struct names *names, struct onefd_req *req)
{
	const struct call *call = &flight(req)->call;
	const uint64_t flags = open_flags(call);
	int fd, r = -EAGAIN;

	if (call->how && (!*call->path || flags & ~(uint64_t)OPENAT2_FLAGS))
		return -EAGAIN;
	if (!*call->path && flags & O_PATH)
		return -EAGAIN;
	if (flags & O_PATH)
		return look_up(names, call, call->how ? flags : flags & PATH_FLAGS);
	if (flags & (O_ACCMODE | O_CREAT | O_TRUNC | __O_TMPFILE | O_DIRECTORY))
		return -EAGAIN;
	if (!*call->path)
		return in_memory(names, req, call->fd) ? open_it(call) : -EAGAIN;
	fd = look_up(names, call, O_CLOEXEC | (flags & O_NOFOLLOW));
	if (fd < 0)
		return fd;
	if (in_memory(names, req, fd))
		r = open_it(call);
	(void)sys.close(fd);
	return r;
}

static int ask(struct names *names, struct onefd_req *req, int fd)
{
	const struct call *call = &flight(req)->call;

	if (!in_memory(names, req, fd))
		return -EAGAIN;
	return sys.statx(fd, "", AT_EMPTY_PATH | (call->flags & AT_STATX_DONT_SYNC), call->mask,
			 call->buf);
}

static int try_statx(struct names *names, struct onefd_req *req)
{
	const struct call *call = &flight(req)->call;
	int fd, r;

	if (call->flags & ~STATX_FLAGS)
		return -EAGAIN;
	if (call->flags & AT_EMPTY_PATH && !*call->path)
		return ask(names, req, call->fd);
	fd = look_up(names, call, O_CLOEXEC | (call->flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0));
	if (fd < 0)
		return fd;
	r = ask(names, req, fd);
	(void)sys.close(fd);
	return r;
}

bool names_try(struct onefd *loop, struct onefd_req *req)
{
	struct names *names = &loop->names;
	int r;

	if (names->error)
		return false;
	r = req->op == OP_OPENAT ? try_open(names, req) : try_statx(names, req);
	/* Other errors are a worker's to find: some are only ours, as that there
	 * was no descriptor left for the look-up. */
	if (r < 0 && r != -ENOENT && r != -ENOTDIR)
		return false;
	req->res = r;
	loop->stats.names++;
	return true;
}

void names_land(struct names *names, const struct onefd_req *req)
{
	const struct flight *f = flight((struct onefd_req *)(uintptr_t)req);
	struct mount *mount = &names->mounts[f->learned.id % NAMES_MOUNTS];

	if (!(f->flags & FLIGHT_LEARN) || !f->learned.id)
		return;
	if (mount->id != f->learned.id)
		*mount = (struct mount){ .id = f->learned.id };
	mount->local = f->learned.local;
	mount->opened |= f->learned.opened;
}

/* ---- off the loop's thread ------------------------------------------------ */

static void learn(struct onefd_req *req, int fd)
{
	struct learned *learned = &flight(req)->learned;
	struct statx st, numbered;

	if (sys.statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_MNT_ID_UNIQUE,
		      &st) < 0 ||
	    sys.statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &numbered) < 0)
		return;
	/* mountinfo knows the number that is used again; @fd holds it in place. */
	learned->local = file_names_are_local(numbered.stx_mnt_id);
	learned->opened = req->op == OP_OPENAT && S_ISREG(st.stx_mode);
	learned->id = st.stx_mnt_id;
}

ssize_t names_work(struct onefd_req *req)
{
	const struct call *call = &flight(req)->call;
	ssize_t answer = work_call(req);
	int fd;

	if (!(flight(req)->flags & FLIGHT_LEARN) || answer < 0)
		return answer;
	if (req->op == OP_OPENAT) {
		learn(req, (int)answer);
	} else if (call->flags & AT_EMPTY_PATH && !*call->path) {
		learn(req, call->fd);
	} else {
		fd = sys.openat(call->fd, call->path, O_PATH | O_CLOEXEC |
				(call->flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0), 0);
		if (fd >= 0) {
			learn(req, fd);
			(void)sys.close(fd);
		}
	}
	return answer;
}
