/*
 * sys.c - every system call of the library, once.
 *
 * The only file that reads errno. No policy lives here: what an answer means
 * is for the caller.
 */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>


#define NSEC_PER_SEC UINT64_C(1000000000)

static inline long answer(long result)
{
	return result < 0 ? -errno : result;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / NSEC_PER_SEC),
		.tv_nsec = (long)(ns % NSEC_PER_SEC),
	};
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int call_epoll_create(void)
{
	return (int)answer(epoll_create1(EPOLL_CLOEXEC));
}

static int call_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	return (int)answer(epoll_ctl(epfd, op, fd, event));
}

static int call_epoll_wait(int epfd, struct epoll_event *events, int count,
			   int timeout_ms)
{
	return (int)answer(epoll_wait(epfd, events, count, timeout_ms));
}

static int call_epoll_pwait2(int epfd, struct epoll_event *events, int count,
			     uint64_t timeout_ns)
{
	struct timespec ts = to_timespec(timeout_ns);

	return (int)answer(epoll_pwait2(epfd, events, count, &ts, NULL));
}

static int call_eventfd(void)
{
	return (int)answer(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static int call_eventfd_signal(int fd)
{
	uint64_t one = 1;
	int saved = errno;	/* a signal handler may have interrupted anyone */
	int r = (int)answer(write(fd, &one, sizeof one));

	errno = saved;
	return r < 0 ? r : 0;
}

static int call_timerfd_create(void)
{
	return (int)answer(timerfd_create(CLOCK_MONOTONIC,
					  TFD_NONBLOCK | TFD_CLOEXEC));
}

static int call_timerfd_arm(int fd, uint64_t deadline)
{
	struct itimerspec spec = { .it_value = to_timespec(deadline) };

	return (int)answer(timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL));
}

static int call_signalfd(int fd, const sigset_t *mask)
{
	return (int)answer(signalfd(fd, mask, SFD_NONBLOCK | SFD_CLOEXEC));
}

static int call_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return -pthread_sigmask(how, set, old);
}

static int call_pidfd_open(pid_t pid)
{
	return (int)answer(syscall(SYS_pidfd_open, pid, 0));
}

static int call_waitid(idtype_t type, id_t id, siginfo_t *info)
{
	info->si_pid = 0;
	return (int)answer(waitid(type, id, info, WEXITED | WNOHANG));
}

static ssize_t call_read(int fd, void *buf, size_t len)
{
	return answer(read(fd, buf, len));
}

static int call_close(int fd)
{
	return (int)answer(close(fd));
}

/* libaio's wrappers answer -errno themselves. */
static int call_io_setup(int depth, io_context_t *ctx)
{
	*ctx = NULL;
	return io_setup(depth, ctx);
}

static int call_io_destroy(io_context_t ctx)
{
	return io_destroy(ctx);
}

static int call_io_submit(io_context_t ctx, long count, struct iocb **batch)
{
	return io_submit(ctx, count, batch);
}

static int call_io_getevents(io_context_t ctx, long count, struct io_event *events)
{
	struct timespec zero = { 0, 0 };

	return io_getevents(ctx, 0, count, events, &zero);
}

static int call_io_cancel(io_context_t ctx, struct iocb *iocb)
{
	struct io_event event;

	return io_cancel(ctx, iocb, &event);
}

static ssize_t call_preadv2(int fd, const struct iovec *iov, size_t count,
			    off_t offset, int flags)
{
	/* Not by libc's function: in a program with threads that is a
	 * cancellation point, which costs a tenth of a read of cached data. */
	return answer(syscall(SYS_preadv2, fd, iov, count, (long)offset,
			      (long)((uint64_t)offset >> 32), flags));
}

static ssize_t call_pwritev2(int fd, const struct iovec *iov, size_t count,
			     off_t offset, int flags)
{
	return answer(pwritev2(fd, iov, (int)count, offset, flags));
}

/* The number is one for all machines but Alpha. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

static int64_t call_missing(int fd, off_t offset, uint64_t length)
{
	struct {
		uint64_t offset, length;
	} range = { (uint64_t)offset, length };
	struct {
		uint64_t cached, dirty, writeback, evicted, recently_evicted;
	} stat = { 0 };
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t pages = (range.offset + length - 1) / page - range.offset / page + 1;
	int64_t r = answer(syscall(SYS_cachestat, fd, &range, &stat, 0));

	return r < 0 ? r : (int64_t)(pages - stat.cached);
}

static int call_readahead(int fd, off_t offset, uint64_t length)
{
	return -posix_fadvise(fd, offset, (off_t)length, POSIX_FADV_WILLNEED);
}

static ssize_t call_send(int fd, const void *buf, size_t len)
{
	return answer(send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static ssize_t call_sendfile(int sockfd, int fd, off_t offset, size_t len)
{
	return answer(sendfile(sockfd, fd, &offset, len));
}

static int call_socket_type(int fd)
{
	int type;
	socklen_t size = sizeof type;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -errno : type;
}

static int call_poll_out(int fd, int timeout_ms)
{
	struct pollfd one = { .fd = fd, .events = POLLOUT };

	return (int)answer(poll(&one, 1, timeout_ms));
}

static int call_fsync(int fd)
{
	return (int)answer(fsync(fd));
}

static int call_fdatasync(int fd)
{
	return (int)answer(fdatasync(fd));
}

static int call_fallocate(int fd, int mode, off_t offset, off_t len)
{
	return (int)answer(fallocate(fd, mode, offset, len));
}

static int call_ftruncate(int fd, off_t size)
{
	return (int)answer(ftruncate(fd, size));
}

static int call_drop_cache(int fd)
{
	return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int call_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return (int)answer(openat(dirfd, path, flags, mode));
}

static int call_openat2(int dirfd, const char *path, const struct open_how *how)
{
	return (int)answer(syscall(SYS_openat2, dirfd, path, how, sizeof *how));
}

/* O_NOFOLLOW would stop at the link in /proc that stands for the file. */
static int call_reopen(int fd, int flags)
{
	char path[32];

	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return (int)answer(open(path, flags & ~O_NOFOLLOW));
}

static int call_statx(int dirfd, const char *path, int flags, unsigned mask,
		      struct statx *buf)
{
	return (int)answer(statx(dirfd, path, flags, mask, buf));
}

static int call_ioprio_set(int prio)
{
	return (int)answer(syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, prio));
}

static long call_sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : usage.ru_nvcsw;
}

static int call_statfs(int fd, struct statfs *buf)
{
	return (int)answer(fstatfs(fd, buf));
}

static uint64_t call_size_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) < 0)
		return 0;
	return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

static int call_getfl(int fd)
{
	return (int)answer(fcntl(fd, F_GETFL));
}

static int call_setfl(int fd, int flags)
{
	return (int)answer(fcntl(fd, F_SETFL, flags));
}

static int call_ioctl(int fd, unsigned long request, void *arg)
{
	return (int)answer(ioctl(fd, request, arg));
}

static int call_read_text(const char *path, char *buf, size_t size)
{
	size_t length = 0;
	int fd = (int)answer(open(path, O_RDONLY | O_CLOEXEC));
	ssize_t n = fd;

	if (fd < 0)
		return fd;
	while (length < size - 1 &&
	       (n = answer(read(fd, buf + length, size - 1 - length))) > 0)
		length += (size_t)n;
	close(fd);
	buf[length] = '\0';
	return n < 0 ? (int)n : (int)length;
}

static void *call_map(void *address, size_t size)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *at = mmap(address, size, PROT_READ | PROT_WRITE,
			address ? flags | MAP_FIXED_NOREPLACE : flags, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static void call_unmap(void *address, size_t size)
{
	munmap(address, size);
}

static int call_madvise(void *address, size_t size, int advice)
{
	return (int)answer(madvise(address, size, advice));
}

static int call_move(void *from, size_t size, void *to)
{
	void *at = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	return at == MAP_FAILED ? -errno : 0;
}

static void *call_alloc(size_t size)
{
	return calloc(1, size);
}

static void *call_alloc_aligned(size_t align, size_t size)
{
	void *ptr;

	return posix_memalign(&ptr, align, size) ? NULL : ptr;
}

static void call_free(void *ptr)
{
	free(ptr);
}

static int call_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int r = pthread_attr_init(&attr);

	if (r)
		return -r;
	if (!ret)
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* The thread inherits the mask: blocked now, there is no moment at
	 * which a signal meant for the loop could find it. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(ret ? ret : &thread, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

static void call_join(pthread_t thread)
{
	pthread_join(thread, NULL);
}

struct sys_calls sys = {
	.now = now,
	.epoll_create = call_epoll_create,
	.epoll_ctl = call_epoll_ctl,
	.epoll_wait = call_epoll_wait,
	.epoll_pwait2 = call_epoll_pwait2,
	.eventfd = call_eventfd,
	.eventfd_signal = call_eventfd_signal,
	.timerfd_create = call_timerfd_create,
	.timerfd_arm = call_timerfd_arm,
	.signalfd = call_signalfd,
	.sigmask = call_sigmask,
	.pidfd_open = call_pidfd_open,
	.waitid = call_waitid,
	.read = call_read,
	.close = call_close,
	.io_setup = call_io_setup,
	.io_destroy = call_io_destroy,
	.io_submit = call_io_submit,
	.io_getevents = call_io_getevents,
	.io_cancel = call_io_cancel,
	.preadv2 = call_preadv2,
	.pwritev2 = call_pwritev2,
	.missing = call_missing,
	.readahead = call_readahead,
	.send = call_send,
	.sendfile = call_sendfile,
	.socket_type = call_socket_type,
	.poll_out = call_poll_out,
	.fsync = call_fsync,
	.fdatasync = call_fdatasync,
	.fallocate = call_fallocate,
	.ftruncate = call_ftruncate,
	.drop_cache = call_drop_cache,
	.openat = call_openat,
	.openat2 = call_openat2,
	.reopen = call_reopen,
	.statx = call_statx,
	.ioprio_set = call_ioprio_set,
	.sleeps = call_sleeps,
	.statfs = call_statfs,
	.size_limit = call_size_limit,
	.getfl = call_getfl,
	.setfl = call_setfl,
	.ioctl = call_ioctl,
	.read_text = call_read_text,
	.map = call_map,
	.unmap = call_unmap,
	.madvise = call_madvise,
	.move = call_move,
	.alloc = call_alloc,
	.alloc_aligned = call_alloc_aligned,
	.free = call_free,
	.thread = call_thread,
	.join = call_join,
};
