/*
 * onefd - one descriptor for everything a program waits for.
 *
 * File I/O completions, descriptor readiness, timers, signals, child exits and
 * messages from other threads reach the program through one call,
 * onefd_dispatch(), and one descriptor, onefd_fd(). Six rules hold throughout:
 *
 * Blocking   No call on the loop's thread waits for a disk.
 * Errors     An int result is >= 0 on success and -errno on failure; errno
 *            itself is never part of the answer.
 * Memory     onefd_new() allocates; the hot path does not. Watches, timers,
 *            signals, children, tasks, files and requests are the caller's
 *            memory, lent from start/submit/post until stop/completion/delivery.
 * Callbacks  Run only inside onefd_dispatch(), one at a time, never nested.
 *            A callback may start, stop, submit or free anything, itself
 *            included. It may not dispatch or free its own loop (-EBUSY).
 * Threads    A loop is used by one thread at a time. onefd_post() and
 *            onefd_wake() may be called from any thread.
 * Fork       A child's calls answer -ECHILD; it makes a loop of its own.
 *
 * Two errnos are common to every int function and not repeated below:
 * -EINVAL for a NULL argument, -ECHILD in a forked child of the maker. The other
 * functions do nothing then.
 */
#ifndef ONEFD_H
#define ONEFD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>		/* EPOLLIN and friends are our event words */
#include <sys/signalfd.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ONEFD_VERSION_MAJOR 0
#define ONEFD_VERSION_MINOR 1
#define ONEFD_VERSION_PATCH 0

/* The library is built so; 32-bit machines want -D_FILE_OFFSET_BITS=64. */
typedef char onefd_off_t_has_64_bits[sizeof(off_t) == 8 ? 1 : -1];

/* The struct that holds @ptr as its @member: how callbacks find their owner. */
#define onefd_container(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

struct onefd;			/* a loop; opaque, free to grow */
struct onefd_device;		/* private: a block device's window */
struct onefd_watch;
struct onefd_timer;
struct onefd_signal;
struct onefd_child;
struct onefd_task;
struct onefd_file;
struct onefd_req;
struct onefd_chunk;
struct onefd_stream;
struct statx;			/* <sys/stat.h> with _GNU_SOURCE */
struct open_how;		/* <linux/openat2.h> */

struct onefd_link {		/* private: a place in a ring */
	struct onefd_link *next, *prev;
};

/* ---- the loop ---------------------------------------------------------- */

/* Bits of onefd_config.flags: do without, as if the machine did not have it. */
#define ONEFD_NO_KAIO	(1u << 0)	/* kernel AIO: all requests go to workers */
#define ONEFD_NO_RING	(1u << 1)	/* user-space reaping: io_getevents() instead */
#define ONEFD_NO_NOWAIT	(1u << 2)	/* RWF_NOWAIT */
#define ONEFD_NO_SYSFS	(1u << 3)	/* queue limits: a default window */
#define ONEFD_NO_PROC	(1u << 4)	/* /proc: file system names, sysctl values */

/* Zero means the default. Reserved words must be zero (-EINVAL otherwise). */
struct onefd_config {
	uint32_t depth;		/* most requests in the kernel: 128, or its grant */
	uint32_t threads;	/* most workers of each class of blocking call, and of
				 * each device for reads and writes: 4 */
	uint32_t budget;	/* most callbacks of one kind per dispatch: 64 */
	uint32_t flags;		/* ONEFD_NO_... */
	void *ring_address;	/* page-aligned, unmapped: where to map the completion
				 * ring; NULL: anywhere */
	uint32_t spin_us;	/* most microseconds for which a blocking dispatch looks
				 * for a thread's answer to a single request, and a worker
				 * for the next, before they sleep: saves wakes, costs
				 * processors. 0: none */
	uint32_t pad;		/* zero */
	uint64_t reserved[2];
};

/*
 * Makes a loop; @config may be NULL. May block, and allocates. *@ret is
 * written on success only; free it with onefd_free(). A machine without
 * kernel AIO, or with fs.aio-max-nr spent, still gets a loop: see
 * onefd_describe().
 * -EINVAL: an unknown flag, a reserved word not zero, depth over 65536,
 * threads over 1024, spin_us over 1000, ring_address not page-aligned; -EMFILE, -ENFILE: out of
 * descriptors (it takes three); -ENOMEM; -ENOSPC: as for a watch.
 */
int onefd_new(struct onefd **ret, const struct onefd_config *config);

/*
 * Stops what is still started, then frees the loop; NULL is fine. The objects
 * themselves stay the caller's, stopped. Kernel contexts are destroyed on
 * another thread, for that blocks.
 * -EBUSY: requests are out or tasks undelivered (see onefd_drain()), a stream
 * is started, the loop is attached to a host (see onefd_detach()), or called from
 * inside a callback; nothing has changed then.
 */
int onefd_free(struct onefd *loop);

/*
 * One turn: waits up to @timeout_ms milliseconds (0: not at all; < 0: without
 * limit) until there is work, then runs callbacks, at most
 * onefd_config.budget of each kind, then sends what they submitted; of that, what
 * is answered on the spot, such as a read of cached pages, still calls back in this
 * turn if the budget allows. Due timers run first, then descriptors, then
 * completions, then tasks. Returns how many callbacks ran; 0 also after onefd_wake(), onefd_stop() or EINTR.
 * -EBUSY: called from inside a callback; -ENOMEM.
 */
int onefd_dispatch(struct onefd *loop, int timeout_ms);

/*
 * Dispatches until onefd_stop() (returns 0), or until nothing is started or
 * out that could ever make work (returns 0); a task that a thread may yet post
 * does not count. A pending onefd_stop() ends the next run before it waits.
 * -EBUSY: called from inside a callback; others as onefd_dispatch().
 */
int onefd_run(struct onefd *loop);

/* Makes onefd_run() return at the end of this turn. The loop's thread only;
 * elsewhere post a task that calls it. */
void onefd_stop(struct onefd *loop);

/*
 * Readable when onefd_dispatch() has work, timers and unsent requests
 * included, and not otherwise: watching it, level-triggered, is the whole of
 * embedding. Constant for the life of the loop. Never read, write or close it.
 * The first call switches the loop to embedded use: from then on it keeps a
 * timerfd armed.
 */
int onefd_fd(struct onefd *loop);

/*
 * For adapters (<onefd/libev.h> and its like): as onefd_fd(), and lends the
 * descriptor to a host until onefd_detach(). Until then onefd_free() refuses to
 * close it under the host. -EBUSY: attached already.
 */
int onefd_attach(struct onefd *loop);

/* The host watches the descriptor no more, or is gone. Any time, in callbacks
 * too; what is not attached is left alone. */
void onefd_detach(struct onefd *loop);

/* Sends what is queued now instead of at the end of the turn. Returns how
 * many requests went out; what has no room stays queued. Runs no callback. */
int onefd_flush(struct onefd *loop);

/*
 * Dispatches until no request is out and no task undelivered, @timeout_ms
 * milliseconds at most (< 0: without limit). Every callback runs as usual.
 * -ETIMEDOUT: some are still out; -EBUSY: called from inside a callback; others
 * as onefd_dispatch().
 */
int onefd_drain(struct onefd *loop, int timeout_ms);

/* Requests submitted whose callbacks have not started: the back-pressure. */
size_t onefd_pending(const struct onefd *loop);

/* CLOCK_MONOTONIC nanoseconds as of the start of this turn: one value per
 * turn. Outside a dispatch, the clock itself. */
uint64_t onefd_now(const struct onefd *loop);

/* "0.1.0": the library's version at run time. */
const char *onefd_version(void);

/* ---- watches: descriptor readiness ------------------------------------- */

/* @events: the EPOLL... bits that are ready. */
typedef void onefd_watch_fn(struct onefd_watch *watch, uint32_t events);

struct onefd_watch {
	void *data;		/* yours */
	onefd_watch_fn *fn;	/* yours */
	int fd;			/* read-only; the descriptor stays yours */
	uint32_t events;	/* read-only */
	/* private */
	struct onefd *loop;
	struct epoll_event *slot;
	struct onefd_link link;
	uint64_t reserved[2];
};

/* Fills in @watch; cannot fail. A zeroed struct with no init is -EINVAL to start. */
void onefd_watch_init(struct onefd_watch *watch, int fd, onefd_watch_fn *fn);

/*
 * Calls @watch's fn whenever @events (EPOLL... bits, level-triggered unless
 * EPOLLET) are ready. Stop it before its descriptor is closed.
 * -EINVAL: no fn, or bits epoll refuses; -EBUSY: started already; -EEXIST: the
 * descriptor has a watch in this loop; -EBADF; -EPERM: a regular file or
 * directory, use a request; -ELOOP: epolls nested too deep; -ENOMEM; -ENOSPC:
 * /proc/sys/fs/epoll/max_user_watches.
 */
int onefd_watch_start(struct onefd *loop, struct onefd_watch *watch,
		      uint32_t events);

/* Changes the events; re-arms EPOLLONESHOT. -EINVAL: not started, or bits epoll
 * refuses; -EBADF, -ENOENT or -EPERM: the descriptor was closed, and its number
 * stands for nothing, for another file, or for a regular one. */
int onefd_watch_update(struct onefd_watch *watch, uint32_t events);

/* At once, even for an event already fetched: fn will not run, the memory is
 * yours. Stopping twice, or what was never started, does nothing. */
void onefd_watch_stop(struct onefd_watch *watch);

/* ---- timers: absolute deadlines, CLOCK_MONOTONIC nanoseconds ----------- */

typedef void onefd_timer_fn(struct onefd_timer *timer);

struct onefd_timer {
	void *data;		/* yours */
	onefd_timer_fn *fn;	/* yours */
	uint64_t deadline;	/* read-only, nanoseconds */
	/* private */
	struct onefd *loop;
	struct onefd_timer *child, *next, *prev;
	uint64_t due;		/* the deadline, or the next turn if that is past */
};

void onefd_timer_init(struct onefd_timer *timer, onefd_timer_fn *fn);

/*
 * Runs fn once, at or after @deadline; a deadline in the past means the next
 * turn. Starting a started timer moves it. Cannot fail: a NULL or a timer
 * without fn is ignored. A periodic timer starts itself again in its callback,
 * from timer->deadline so as not to drift. Timers of equal deadline run in no
 * promised order. Allocates nothing.
 */
void onefd_timer_start(struct onefd *loop, struct onefd_timer *timer,
		       uint64_t deadline);
void onefd_timer_stop(struct onefd_timer *timer);	/* as onefd_watch_stop() */

/* ---- signals ----------------------------------------------------------- */

/* @info is valid during the call only. */
typedef void onefd_signal_fn(struct onefd_signal *signal,
			     const struct signalfd_siginfo *info);

struct onefd_signal {
	void *data;		/* yours */
	onefd_signal_fn *fn;	/* yours */
	int signo;		/* read-only */
	/* private */
	uint32_t pad;
	struct onefd *loop;
	struct onefd_link link;
	uint64_t reserved[1];
};

#define ONEFD_SIGNAL_BLOCK (1u << 0)	/* block @signo in the calling thread */

void onefd_signal_init(struct onefd_signal *signal, int signo,
		       onefd_signal_fn *fn);

/*
 * Calls fn for each arrival of signo; several may watch one signal. The signal
 * must be blocked in all threads of the process, or the kernel delivers it
 * elsewhere; ONEFD_SIGNAL_BLOCK in @flags blocks it in this one, and it stays
 * blocked after the stop: one that arrives late does not kill.
 * -EINVAL: not blocked here, not a signal, SIGKILL or SIGSTOP, no fn, unknown
 * flags; -EBUSY: started already; -EMFILE, -ENFILE, -ENOMEM; -ENOSPC: as for a
 * watch.
 */
int onefd_signal_start(struct onefd *loop, struct onefd_signal *signal,
		       unsigned flags);
void onefd_signal_stop(struct onefd_signal *signal);	/* as onefd_watch_stop() */

/* ---- children ---------------------------------------------------------- */

/*
 * @code and @status: si_code and si_status as waitid(2) fills them: CLD_EXITED
 * and the exit status, CLD_KILLED or CLD_DUMPED and the signal. @code is 0 when
 * the process was no child of ours or was reaped elsewhere.
 */
typedef void onefd_child_fn(struct onefd_child *child, int code, int status);

struct onefd_child {
	void *data;		/* yours */
	onefd_child_fn *fn;	/* yours */
	pid_t pid;		/* read-only */
	/* private */
	uint32_t pad;
	struct onefd *loop;
	struct onefd_watch watch;
	uint64_t reserved[1];
};

void onefd_child_init(struct onefd_child *child, pid_t pid, onefd_child_fn *fn);

/*
 * Reaps the process when it ends and calls fn once; it is stopped by then.
 * -EINVAL: pid not positive, no fn; -EBUSY: started already; -ESRCH: no such
 * process (a zombie counts as one); -ENOSYS: no pidfd_open (before Linux 5.3);
 * -EMFILE, -ENFILE, -ENOMEM; -ENOSPC: as for a watch.
 */
int onefd_child_start(struct onefd *loop, struct onefd_child *child);

/* As onefd_watch_stop(); the process is then the caller's to reap. */
void onefd_child_stop(struct onefd_child *child);

/* ---- tasks: messages from any thread ----------------------------------- */

typedef void onefd_task_fn(struct onefd_task *task);

struct onefd_task {
	void *data;		/* yours */
	onefd_task_fn *fn;	/* yours */
	/* private */
	struct onefd_task *next;
	uint32_t posted, pad;
	uint64_t reserved[1];
};

void onefd_task_init(struct onefd_task *task, onefd_task_fn *fn);

/*
 * Runs fn once on the loop's thread. Any thread; takes no lock. Tasks from one
 * thread run in the order posted. What the poster wrote before, fn sees, also
 * after -EALREADY. fn may free or post the task again. Nobody may post to a loop
 * that is being freed: join the posters first.
 * -EALREADY: posted and not yet run, it will run once; -EINVAL: no fn.
 */
int onefd_post(struct onefd *loop, struct onefd_task *task);

/* Makes a waiting dispatch return. Any thread, and signal handlers. */
void onefd_wake(struct onefd *loop);

/* ---- files: what the loop knows about a descriptor --------------------- */

/* Bits of onefd_file.flags. */
#define ONEFD_FILE_DIRECT	(1u << 0)	/* opened O_DIRECT */
#define ONEFD_FILE_APPEND	(1u << 1)	/* opened O_APPEND */
#define ONEFD_FILE_BLOCKDEV	(1u << 2)	/* a block device, not a regular file */

/*
 * Made once per open file: how it was opened, what alignment its device wants,
 * which queue it shares, what its file system said to RWF_NOWAIT. The
 * descriptor stays yours; the file outlives its requests, needs no undoing and is
 * of no use without its loop.
 */
struct onefd_file {
	void *data;		/* yours */
	int fd;			/* read-only */
	uint32_t flags;		/* read-only: ONEFD_FILE_... */
	uint32_t mem_align;	/* read-only: bytes, for O_DIRECT buffers */
	uint32_t off_align;	/* read-only: bytes, offsets and lengths */
	/* private */
	struct onefd *loop;
	struct onefd_device *device;
	struct onefd_link writes;
	uint64_t size, extent;
	uint32_t detour[2], streak[2], penalty[2];
	uint32_t rewrites, held;
	uint16_t refused, warm;
	uint32_t peers;
	uint16_t cold, asked;
	uint32_t balked, false_ends;
	uint64_t reserved[2];
};

/*
 * Learns what the descriptor is; blocks on no disk and sends nothing to a
 * remote server. Change of O_DIRECT or O_APPEND by fcntl() wants a new init.
 * @file's memory may hold anything before, but no request on it may be out.
 * -EBADF: not open; -ESPIPE: a pipe, socket or character device, use a watch;
 * -EISDIR; -ENOMEM.
 */
int onefd_file_init(struct onefd *loop, struct onefd_file *file, int fd);

/* STATX_TYPE, SIZE, MNT_ID and DIOALIGN, which not every header has. */
#define ONEFD_STATX_FILE	0x3201u

/*
 * The same from what the caller knows already, without a system call: @flags, as
 * open(2) had them, and @st, asked by statx(2) of the descriptor itself for
 * ONEFD_STATX_FILE at least. -EBADF: O_PATH; -EINVAL: no type or size in @st;
 * -ESPIPE, -EISDIR, -ENOMEM: as above.
 */
int onefd_file_init_statx(struct onefd *loop, struct onefd_file *file, int fd, int flags,
			  const struct statx *st);

/* ---- requests ---------------------------------------------------------- */

typedef void onefd_req_fn(struct onefd_req *req);

/*
 * From onefd_submit() until fn starts, the request and the memory it points
 * at are the loop's; fn runs exactly once; from then on they are yours again,
 * to submit anew or to free.
 */
struct onefd_req {
	void *data;		/* yours */
	int rw_flags;		/* yours, after prep: RWF_DSYNC, RWF_APPEND ... With
				 * RWF_NOWAIT, -EAGAIN is an answer */
	uint16_t ioprio;	/* yours, after prep: as ioprio_set(2); 0: the thread's */
	uint8_t op, state;	/* read-only */
	ssize_t res;		/* read-only, in fn: bytes moved, 0, or -errno */
	struct onefd_file *file;	/* read-only from here, set by prep */
	off_t offset;
	const struct iovec *iov;
	size_t iovcnt;
	struct iovec one;	/* where iov points for a single buffer */
	/* private */
	onefd_req_fn *fn;
	struct onefd *loop;
	struct onefd_link link;
	uint64_t engine[30];	/* the engine's own view, a struct iocb say */
};

/*
 * The preps fill in @req, all but data; they cannot fail, and what is wrong
 * with their arguments onefd_submit() says. Never prep a request that is out.
 *
 * Reads and writes take any offset, length and address, O_DIRECT or not; what
 * O_DIRECT cannot take as it is goes by way of aligned memory, in order with the
 * other writes to its blocks. Writes that fit may run in any order. res is the
 * count of bytes, short at the end of a file as pread(2) is. The iovec array is
 * lent as the buffers are.
 */
void onefd_prep_pread(struct onefd_req *req, struct onefd_file *file,
		      void *buf, size_t len, off_t offset);
void onefd_prep_pwrite(struct onefd_req *req, struct onefd_file *file,
		       const void *buf, size_t len, off_t offset);
void onefd_prep_preadv(struct onefd_req *req, struct onefd_file *file,
		       const struct iovec *iov, size_t iovcnt, off_t offset);
void onefd_prep_pwritev(struct onefd_req *req, struct onefd_file *file,
			const struct iovec *iov, size_t iovcnt, off_t offset);

/* Covers the writes that have called back. @datasync: as fdatasync(2). */
void onefd_prep_fsync(struct onefd_req *req, struct onefd_file *file,
		      int datasync);

/* One shot: res is the ready EPOLL... bits. The one device-less request that
 * can be cancelled in the kernel. Polls take none of the depth that file I/O
 * has: they have as much of their own. -EOPNOTSUPP without kernel AIO: use a
 * watch. */
void onefd_prep_poll(struct onefd_req *req, int fd, uint32_t events);

/*
 * Calls that block by nature run on a worker; res is the descriptor, or 0. The
 * path is lent as buffers are. A statx, and an openat of a regular file for
 * reading or of anything with O_PATH, are answered at once where the kernel has the
 * name in memory and, but for O_PATH, the file system is local; ioprio is then of
 * no effect. An openat of an empty path opens the file that dirfd stands for anew,
 * by /proc, whatever O_NOFOLLOW says.
 */
void onefd_prep_openat(struct onefd_req *req, int dirfd, const char *path,
		       int flags, mode_t mode);
void onefd_prep_statx(struct onefd_req *req, int dirfd, const char *path,
		      int flags, unsigned mask, struct statx *buf);
void onefd_prep_fallocate(struct onefd_req *req, struct onefd_file *file,
			  int mode, off_t offset, off_t len);

/* An openat by openat2(2), which can keep the path below dirfd and free of symbolic
 * links, and has no empty path; @how is lent as the path is. -ENOSYS: before Linux
 * 5.6, or forbidden by a filter. */
void onefd_prep_openat2(struct onefd_req *req, int dirfd, const char *path,
			const struct open_how *how);

/*
 * Readahead, then notify: res is the number of bytes from @offset on that were
 * found in the page cache, every one of them, short at the end of the file. That
 * is a word about the past: memory may be short. With RWF_NOWAIT it is what is
 * there now, -EAGAIN for nothing, and the rest is on its way. -EOPNOTSUPP: a
 * file open with O_DIRECT.
 */
void onefd_prep_prefetch(struct onefd_req *req, struct onefd_file *file,
			 off_t offset, size_t len);

/*
 * Up to @len bytes of the file from @offset into the socket, which need not be
 * non-blocking: neither the disk nor the socket is waited for on the loop's
 * thread. res is how many were sent, short at the end of the file or before an
 * error, which the next call then meets: as sendfile(2), but a full socket is no
 * end. The request's offset moves with what was sent, a cancelled one's too. No
 * SIGPIPE. One at a time to a socket; one that is full is waited for as by a poll, of
 * the depth that polls have. Into a non-blocking stream socket 256 KiB and
 * more go by a worker's sendfile(2), without a copy: then what is written to the file
 * before the other end has it may be what it gets. -ENOTSOCK; -EPIPE: its other end
 * is closed; -EOPNOTSUPP: a file open with O_DIRECT.
 */
void onefd_prep_sendfile(struct onefd_req *req, int sockfd,
			 struct onefd_file *file, off_t offset, size_t len);

/* Any other blocking call: @call runs on a worker, its answer becomes res. */
void onefd_prep_call(struct onefd_req *req, ssize_t (*call)(void *), void *arg);

/*
 * Hands the request to the loop. Never blocks, never calls fn. There is no
 * "full": past the depth, requests wait in their own memory. The kernel sees
 * it at the end of the turn, or at onefd_flush().
 * Refused here, fn will not run: -EBUSY: it is out already; -EINVAL: never
 * prepared, no fn, no file, a NULL iovec, path, how, statx or call, a file of
 * another loop, and for reads, writes, prefetches, sendfiles: a negative
 * offset, more than IOV_MAX (1024) buffers, lengths that add up past SSIZE_MAX
 * or reach past the largest offset, in whole blocks if O_DIRECT. Whatever the
 * kernel finds wrong later comes in res.
 */
int onefd_submit(struct onefd *loop, struct onefd_req *req, onefd_req_fn *fn);

/*
 * Does a prepared request here and now, if that takes no waiting. 1: it has its res,
 * no callback runs, and request and memory are yours as before. 0: it would have to
 * wait, or is of a kind that always may; submit it, as it is: what was done of it
 * is kept. For buffered reads, writes and prefetches, openat, openat2 and statx: what
 * is in memory is answered in the callback that asks. Each takes its time from the
 * turn: a loop over thousands keeps all else waiting. -EBUSY, -EINVAL: as
 * onefd_submit().
 */
int onefd_try(struct onefd *loop, struct onefd_req *req);

/*
 * 0: fn will run with -ECANCELED, after this call. -EBUSY: too late, a
 * device or a worker has it, or a part of it is written, fn will run with what came
 * of it; or it is cancelled already. -EINVAL: it is not out. Constant time.
 */
int onefd_cancel(struct onefd_req *req);

/* ---- streams: a file read in order, ahead of its reader ----------------- */

/* @chunk: the next bytes, the reader's until onefd_stream_release(). NULL: the
 * end, after which stream, chunks, memory and file are the caller's again. */
typedef void onefd_stream_fn(struct onefd_stream *stream, struct onefd_chunk *chunk);

/* One read of a stream: the caller's memory, which the stream fills in. */
struct onefd_chunk {
	void *data;		/* yours */
	char *buf;		/* read-only, from fn until release: the bytes, yours to change */
	size_t len;		/* how many; never 0 */
	off_t offset;		/* of the first of them in the file */
	/* private */
	struct onefd_stream *stream;
	struct onefd_link link;
	size_t want;
	int state, error;
	struct onefd_req req;
	uint64_t reserved[2];
};

struct onefd_stream {
	void *data;		/* yours, after init */
	onefd_stream_fn *fn;	/* yours */
	int rw_flags;		/* yours, after init: as in onefd_req; RWF_DONTCACHE ... */
	uint16_t ioprio;	/* yours, after init: as in onefd_req */
	uint16_t pad;
	struct onefd_file *file;	/* read-only */
	off_t offset;		/* read-only: of the next byte that fn has not been given */
	int res;		/* read-only, in fn without a chunk: 0 or -errno */
	/* private */
	uint32_t flags;
	struct onefd *loop;
	struct onefd_chunk *chunks;
	void *memory;
	size_t count, size, ahead, held, reading;
	off_t next, end;
	struct onefd_link free, order;
	struct onefd_task task;
	uint64_t reserved[4];
};

/*
 * Fills in @stream; cannot fail, what is wrong start says. Lends it @count
 * chunks and @memory of @count times @size bytes to read into: at a multiple of
 * file->mem_align, with @size a multiple of file->off_align, direct reads go
 * straight there, and anywhere else by a detour. 4 chunks of 256 KiB keep a disk
 * busy. The chunks' data is left as it is.
 */
void onefd_stream_init(struct onefd_stream *stream, onefd_stream_fn *fn,
		       struct onefd_chunk *chunks, size_t count,
		       void *memory, size_t size);

/*
 * Calls fn with @length bytes of @file from @offset, < 0: all to its end, in
 * order, chunk by chunk; then once without a chunk: with res 0 at the end of the
 * range or of the file (offset says where), with -errno of the read that failed,
 * after all before it was delivered, or with -ECANCELED after a stop. Never calls
 * fn itself. Reads one chunk ahead, and twice as many each time that the reader has
 * released all it had and finds none ready, up to @count; chunks not released
 * are not read into. Allocates nothing.
 * -EBUSY: started already; -EINVAL: no fn, chunks or memory, a negative offset,
 * a range past the largest offset, in whole blocks if O_DIRECT, a file of
 * another loop.
 */
int onefd_stream_start(struct onefd *loop, struct onefd_stream *stream,
		       struct onefd_file *file, off_t offset, off_t length);

/* The chunk may be read into again. In any order, in fn or later; none need be
 * released at the end. What is not the reader's is left alone. Never calls fn. */
void onefd_stream_release(struct onefd_chunk *chunk);

/*
 * No more chunks: fn runs once more, without one and with res set to
 * -ECANCELED, when the reads that are under way have ended: a device cannot be
 * told to stop writing to memory. That is in a later dispatch, or later in the
 * one that this is called from. Chunks that the reader has stay its own until
 * then. Stopping what is not started does nothing.
 */
void onefd_stream_stop(struct onefd_stream *stream);

/* ---- seeing inside ----------------------------------------------------- */

/* A histogram of nanoseconds: four buckets to each power of two. */
#define ONEFD_HISTOGRAM_BUCKETS 160
struct onefd_histogram {
	uint64_t count, sum, max;
	uint64_t bucket[ONEFD_HISTOGRAM_BUCKETS];
};

/* The value that a share of @q (0 to 1) of the samples does not exceed, as the
 * upper edge of its bucket, never over max; 0 when empty. */
uint64_t onefd_histogram_quantile(const struct onefd_histogram *histogram,
				  double q);

/* All counts are since onefd_new(). It only ever grows at its end. */
struct onefd_stats {
	uint64_t submitted, completed, cancelled;
	uint64_t reads, writes, syncs, polls, calls;	/* completed, by kind */
	uint64_t kaio, pool;		/* sent to: kernel AIO, workers */
	uint64_t submit_calls;		/* io_submit() calls */
	uint64_t submit_short;		/* ... that took only part of a batch */
	uint64_t submit_again;		/* ... refused for want of a slot */
	uint64_t nowait_again;		/* would have blocked: sent to a thread */
	uint64_t nowait_refused;	/* RWF_NOWAIT not supported there */
	uint64_t held;			/* waited for room in a device's window */
	uint64_t bounced;		/* unaligned direct reads */
	uint64_t rewritten;		/* unaligned direct writes */
	uint64_t narrowed;		/* windows made smaller */
	uint64_t demoted;		/* files sent to workers for a while */
	uint64_t turns, callbacks;
	uint64_t in_flight, in_flight_most;	/* in the kernel: now, at most */
	struct onefd_histogram submit_ns;	/* each io_submit() on the loop */
	struct onefd_histogram turn_ns;		/* each turn outside its wait */
	uint64_t hits;			/* buffered transfers done without any thread */
	uint64_t pages;			/* buffered reads sent to threads that wait for pages */
	uint64_t readaheads;		/* ... whose readahead had to be asked for */
	uint64_t false_ends;		/* ... told 0 bytes before the end of the file */
	uint64_t names;			/* openat, statx: answered without a worker */
	uint64_t prefetches;		/* completed */
	uint64_t sendfiles;		/* completed */
};

/* Copies the first @size bytes of the counters: sizeof(struct onefd_stats) as
 * the caller was compiled. What a newer header adds reads as 0. */
int onefd_stats(const struct onefd *loop, struct onefd_stats *stats, size_t size);

/* Writes a report to @out: what was chosen, and why, and the sysctl to raise.
 * -EIO: @out is in error. */
int onefd_describe(const struct onefd *loop, FILE *out);

/* The same for one file: how its requests would travel, and why. Errors as
 * onefd_describe(). */
int onefd_file_describe(const struct onefd_file *file, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
