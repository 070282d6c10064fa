/*
 * target.c - the file that the contenders read.
 *
 * Written, not only allocated: an unwritten extent is answered without the
 * disk. Random bytes, so that nothing below can compress or share them.
 */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "harness.h"

#define CHUNK (UINT64_C(4) << 20)

static const char *made;	/* what is to be removed, or NULL */
static pid_t maker;		/* forked children leave it alone */

static void remove_made(void)
{
	if (made && getpid() == maker)
		unlink(made);
}

static void on_signal(int signo)
{
	remove_made();
	signal(signo, SIG_DFL);
	raise(signo);
}

static void remove_at_exit(const char *path)
{
	static const int fatal[] = { SIGHUP, SIGINT, SIGTERM };
	struct sigaction action = { .sa_handler = on_signal };

	made = path;
	maker = getpid();
	atexit(remove_made);
	for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
		sigaction(fatal[i], &action, NULL);
}

static int write_all(int fd, const char *data, uint64_t len)
{
	ssize_t n;

	while (len) {
		n = write(fd, data, len);
		if (n < 0)
			return -errno;
		data += n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int fill(int fd, uint64_t size)
{
	uint64_t seed = 88172645463325252u, *data = malloc(CHUNK);
	int r = data ? 0 : -ENOMEM;

	for (uint64_t done = 0; r == 0 && done < size; done += CHUNK) {
		for (uint64_t i = 0; i < CHUNK / sizeof *data; i++)
			data[i] = bench_random(&seed);
		r = write_all(fd, (char *)data, size - done < CHUNK ? size - done : CHUNK);
	}
	free(data);
	return r;
}

static int make(int fd, uint64_t size)
{
	int r;

	/* In one piece where the file system can; where it cannot, writes do. */
	if (fallocate(fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP)
		return -errno;
	r = fill(fd, size);
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return -errno;
	/* Clean pages of it would be in the way of direct reads. */
	return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int make_if_missing(const char *path, uint64_t size)
{
	int r, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	remove_at_exit(path);
	r = make(fd, size);
	close(fd);
	return r;
}

int target_open(struct target *target, const char *path, uint64_t size, int flags)
{
	int r = make_if_missing(path, size);
	off_t end;

	if (r < 0)
		return r;
	target->path = path;
	target->fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	if (target->fd < 0)
		return -errno;
	end = lseek(target->fd, 0, SEEK_END);	/* a block device has no st_size */
	if (end < 0)
		return -errno;
	target->size = (uint64_t)end;
	return 0;
}
