/*
 * onefd/fuse.h - a FUSE session on a onefd loop: see onefd-fuse(7).
 *
 * A file system of libfuse's low-level API, served by one thread beside whatever
 * else its loop does. The session reads /dev/fuse without waiting and calls
 * the handlers. One that has its answer replies and returns, as ever. One that
 * must wait for something keeps the request in hand: onefd_fuse_begin(), a
 * request to the loop, and from its completion the reply and onefd_fuse_end().
 *
 * A request in hand keeps the buffer that it came in, so its names and the bytes
 * of a write stay where the handler saw them until the end; those bytes are
 * aligned for O_DIRECT. When as many as config.depth are in hand, no more are
 * read: the kernel keeps them.
 *
 * Rules and errnos are onefd.h's; all is the loop's thread's. Link with
 * -lonefd-fuse; FUSE_USE_VERSION is the includer's, 35 or later.
 */
#ifndef ONEFD_FUSE_H
#define ONEFD_FUSE_H

#include <fuse_lowlevel.h>
#include <onefd.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct onefd_fuse;		/* a session on a loop; opaque */

/* Zero means the default. Reserved words must be zero (-EINVAL otherwise). */
struct onefd_fuse_config {
	uint32_t depth;		/* most requests in hand: 128 */
	uint32_t budget;	/* most requests received per turn: 32 */
	uint32_t transfer;	/* most bytes of a read or write: 1 MiB, and at most
				 * that; in whole pages. Below 64 KiB it bounds the
				 * values of attributes, too: E2BIG to who sets one */
	uint32_t extra;		/* bytes of the backend's in each op: op->data; most: 1 MiB */
	uint64_t flags;		/* ONEFD_FUSE_..., below */
	uint64_t reserved[3];
};

/*
 * The kernel's FUSE_HANDLE_KILLPRIV_V2, which libfuse before 3.17 does not know: the
 * backend takes a file's set-user-ID bit, its set-group-ID bit where the group may
 * execute it, and its capabilities when it is written, truncated or changes owner;
 * the bits not for who has CAP_FSETID. A file system below that is written
 * to as the caller does all that by itself. Without it the kernel asks for the
 * capabilities (getxattr) before each write.
 */
#define ONEFD_FUSE_HANDLE_KILLPRIV_V2 (UINT64_C(1) << 0)

/*
 * The bytes of large writes that follow upon each other come by splice(2), copied
 * once instead of twice: they need not be where the write handler is told, but
 * onefd_fuse_prep_pwrite() has them. A pipe holds one and a page: where none may be
 * larger than 1 MiB (pipe(7)), the kernel is asked for a page less than
 * transfer. Without pipes, or where libfuse's own reading was replaced before, all is
 * read. They are 8 at most.
 */
#define ONEFD_FUSE_SPLICE_WRITES (UINT64_C(1) << 1)

/* A request in hand: what a backend needs for it, without allocating. */
struct onefd_fuse_op {
	void *data;		/* yours: config.extra bytes, as the last user left them */
	struct onefd_req req;	/* yours: for what the loop is asked */
	bool interruptible;	/* yours, false after begin: see onefd_fuse_submit() */
	fuse_req_t fuse;	/* read-only: what to reply to, once */
	void *memory;		/* read-only: page-aligned room for an answer, no part
				 * of the request but of a write, whose bytes are there */
	size_t size;		/* read-only: config.transfer, and 64 KiB at least */
	/* private */
	struct onefd_fuse *session;
	struct onefd_link link;
	char *buffer;
	struct onefd_fuse_pipe *pipe;
	uint64_t reserved[1];
};

/*
 * Serves @session, mounted already, on @loop; @config may be NULL. Allocates, sends
 * nothing. The session and its mount stay the caller's. Its ops must not have
 * write_buf, for that is splice(2), which needs a thread. A daemon forks first,
 * for a loop does not survive that. *@ret is written on success only; free it
 * with onefd_fuse_free(), after which the loop may be freed.
 * -EINVAL: an unknown flag, a reserved word not zero, depth over 65536, transfer over 1 MiB or not in
 * whole pages, extra over 1 MiB, the session is not mounted; -ENOMEM.
 */
int onefd_fuse_new(struct onefd_fuse **ret, struct onefd *loop,
		   struct fuse_session *session,
		   const struct onefd_fuse_config *config);

/* NULL is fine. -EBUSY: started, not yet ended, or a request is in hand. */
int onefd_fuse_free(struct onefd_fuse *fuse);

/*
 * To be called in the init handler, which must exist: asks the kernel for transfer
 * as configured, for three quarters of depth in the background, so that a look-up
 * finds room, and keeps libfuse from splicing. Leaves all else to the caller. Where
 * FUSE_CAP_PARALLEL_DIROPS is wanted, as it is unless taken back before, and
 * libfuse is older than 3.17, whose answer forgets it, or with
 * ONEFD_FUSE_HANDLE_KILLPRIV_V2, this takes over the session's reading and
 * writing (fuse_session_custom_io()) to complete that answer.
 */
void onefd_fuse_init(struct onefd_fuse *fuse, struct fuse_conn_info *conn);

/*
 * @reason: 0 after onefd_fuse_stop(), or fuse_session_exit(), which shows with the
 * next request; -ENODEV: unmounted or aborted from outside; another -errno:
 * /dev/fuse failed. No request is in hand and none comes. Unmount, destroy and free
 * here, or later, in that order: until then whoever uses the mount waits.
 */
typedef void onefd_fuse_fn(struct onefd_fuse *fuse, void *data, int reason);

/*
 * Begins to receive. fn runs once, from a dispatch, when the session has ended, and
 * is given @data; then it may be started again. The session's descriptor becomes
 * non-blocking.
 * -EBUSY: started already; -EINVAL: no fn; others as onefd_watch_start().
 */
int onefd_fuse_start(struct onefd_fuse *fuse, onefd_fuse_fn *fn, void *data);

/* Receives no more, and interrupts what is interruptible; when all that is in hand
 * has been replied to, fn runs. Stopping twice, or what was never started, does
 * nothing. */
void onefd_fuse_stop(struct onefd_fuse *fuse);

/*
 * In a handler: takes the request in hand until onefd_fuse_end(). Once per
 * handler; cannot fail. What the handler was given pointers to stays, but for
 * struct fuse_file_info and struct stat, which are libfuse's own. NULL: outside
 * of a handler, or the second time in one.
 */
struct onefd_fuse_op *onefd_fuse_begin(struct onefd_fuse *fuse, fuse_req_t req);

/*
 * onefd_submit() of op->req. An interrupt of the process that waits is
 * an onefd_cancel() if the process is dying; with op->interruptible, also
 * if it merely had a signal, and when the session ends, as befits a wait for a lock.
 * Regular files know no EINTR, and few programs expect it.
 * -EINVAL: @op is not in hand; others as onefd_submit().
 */
int onefd_fuse_submit(struct onefd_fuse_op *op, onefd_req_fn *fn);

/*
 * onefd_prep_pwrite() into op->req of the bytes of a write in hand, wherever they are,
 * and of its rw_flags: @buf, @len and @offset are the write handler's. To be used
 * with ONEFD_FUSE_SPLICE_WRITES, of which a worker does the rest. Once for a
 * write: what a short one left the application writes.
 */
void onefd_fuse_prep_pwrite(struct onefd_fuse_op *op, struct onefd_file *file,
			    const void *buf, size_t len, off_t offset, int rw_flags);

/* The request was replied to; its memory is the session's again. Ending twice does
 * nothing. */
void onefd_fuse_end(struct onefd_fuse_op *op);

/* All counts are since onefd_fuse_new(). It only ever grows at its end. */
struct onefd_fuse_stats {
	uint64_t received;		/* requests, forgets and interrupts included */
	uint64_t begun;			/* ... taken in hand */
	uint64_t in_hand, in_hand_most;	/* now, at most */
	uint64_t full;			/* times reading stopped, for depth were in hand */
	uint64_t interrupted;		/* interrupts of what was in hand */
	uint64_t cancelled;		/* requests to the loop, by interrupts or at the end */
	uint64_t spliced;		/* writes whose bytes came by splice(2) */
};

/* As onefd_stats(). */
int onefd_fuse_stats(const struct onefd_fuse *fuse, struct onefd_fuse_stats *stats,
		     size_t size);

#ifdef __cplusplus
}
#endif
#endif
