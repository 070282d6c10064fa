/*
 * sys.h - every system call of the library, once.
 *
 * Each answers >= 0 or -errno; errno is read in sys.c and nowhere else. The
 * table is the seam for faults: tests link the library statically and put
 * their own functions in. Not a portability layer: the names are Linux's.
 */
#ifndef ONEFD_SYS_H
#define ONEFD_SYS_H

#include <libaio.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>

struct open_how;

struct sys_calls {
	/* CLOCK_MONOTONIC, nanoseconds */
	uint64_t (*now)(void);

	int (*epoll_create)(void);
	int (*epoll_ctl)(int epfd, int op, int fd, struct epoll_event *event);
	int (*epoll_wait)(int epfd, struct epoll_event *events, int count,
			  int timeout_ms);
	/* -ENOSYS before Linux 5.11, -EPERM under older seccomp profiles */
	int (*epoll_pwait2)(int epfd, struct epoll_event *events, int count,
			    uint64_t timeout_ns);
	int (*eventfd)(void);		/* non-blocking, close-on-exec */
	int (*eventfd_signal)(int fd);	/* adds 1; safe in signal handlers */
	int (*timerfd_create)(void);
	int (*timerfd_arm)(int fd, uint64_t deadline);	/* absolute; 0 disarms */
	int (*signalfd)(int fd, const sigset_t *mask);	/* fd -1: a new one */
	int (*sigmask)(int how, const sigset_t *set, sigset_t *old);
	int (*pidfd_open)(pid_t pid);
	int (*waitid)(idtype_t type, id_t id, siginfo_t *info);	/* WEXITED | WNOHANG */
	ssize_t (*read)(int fd, void *buf, size_t len);
	int (*close)(int fd);

	int (*io_setup)(int depth, io_context_t *ctx);
	int (*io_destroy)(io_context_t ctx);
	int (*io_submit)(io_context_t ctx, long count, struct iocb **batch);
	/* Does not wait. */
	int (*io_getevents)(io_context_t ctx, long count, struct io_event *events);
	int (*io_cancel)(io_context_t ctx, struct iocb *iocb);

	ssize_t (*preadv2)(int fd, const struct iovec *iov, size_t count,
			   off_t offset, int flags);
	ssize_t (*pwritev2)(int fd, const struct iovec *iov, size_t count,
			    off_t offset, int flags);
	/* Pages of that range that are not in the page cache, nor on their way there;
	 * -ENOSYS before Linux 6.5, -EPERM on a file of somebody else's. */
	int64_t (*missing)(int fd, off_t offset, uint64_t length);
	int (*readahead)(int fd, off_t offset, uint64_t length);	/* POSIX_FADV_WILLNEED */
	ssize_t (*send)(int fd, const void *buf, size_t len);	/* does not wait; no SIGPIPE */
	/* Waits for the file, and for the socket if that is not O_NONBLOCK; a SIGPIPE is
	 * the thread's, which blocks it. */
	ssize_t (*sendfile)(int sockfd, int fd, off_t offset, size_t len);
	int (*socket_type)(int fd);		/* SOCK_... */
	int (*poll_out)(int fd, int timeout_ms);
	int (*fsync)(int fd);
	int (*fdatasync)(int fd);
	int (*fallocate)(int fd, int mode, off_t offset, off_t len);
	int (*ftruncate)(int fd, off_t size);
	int (*drop_cache)(int fd);	/* POSIX_FADV_DONTNEED, whole file */
	int (*openat)(int dirfd, const char *path, int flags, mode_t mode);
	int (*openat2)(int dirfd, const char *path, const struct open_how *how);
	/* What @fd refers to, opened anew. Wants /proc */
	int (*reopen)(int fd, int flags);
	int (*statx)(int dirfd, const char *path, int flags, unsigned mask,
		     struct statx *buf);
	int (*ioprio_set)(int prio);	/* of the calling thread */
	long (*sleeps)(void);		/* how often the calling thread has waited */
	int (*statfs)(int fd, struct statfs *buf);
	uint64_t (*size_limit)(void);	/* RLIMIT_FSIZE; UINT64_MAX: none */
	int (*getfl)(int fd);
	int (*setfl)(int fd, int flags);
	int (*ioctl)(int fd, unsigned long request, void *arg);
	/* A small file of /sys or /proc, NUL-terminated: its length. */
	int (*read_text)(const char *path, char *buf, size_t size);

	void *(*map)(void *address, size_t size);	/* anonymous; NULL: no memory */
	void (*unmap)(void *address, size_t size);
	int (*madvise)(void *address, size_t size, int advice);
	int (*move)(void *from, size_t size, void *to);	/* mremap onto @to */
	void *(*alloc)(size_t size);			/* zeroed; NULL: no memory */
	void *(*alloc_aligned)(size_t align, size_t size);	/* not zeroed */
	void (*free)(void *ptr);
	/* A thread with every signal blocked; detached when @ret is NULL. */
	int (*thread)(pthread_t *ret, void *(*fn)(void *), void *arg);
	void (*join)(pthread_t thread);
};

extern struct sys_calls sys;

#endif
