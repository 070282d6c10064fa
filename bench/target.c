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
#include <sys/mman.h>
#include <sys/stat.h>
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

/* ---- the page cache -------------------------------------------------------- */

/* Pages of a range that are in the cache, or -errno. */
static int64_t resident(const struct target *target, uint64_t offset, uint64_t len)
{
	size_t pages = len / 4096;
	unsigned char *seen = malloc(pages + 1);
	void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, target->fd, (off_t)offset);
	int64_t count = 0;

	if (!seen || map == MAP_FAILED || mincore(map, len, seen) < 0)
		count = -errno;
	for (size_t i = 0; count >= 0 && i < pages; i++)
		count += seen[i] & 1;
	if (map != MAP_FAILED)
		munmap(map, len);
	free(seen);
	return count;
}

/* What mincore() says of a file that is neither ours nor ours to write: all
 * resident, whatever is true. */
static bool others(const struct target *target)
{
	struct stat st;

	return fstat(target->fd, &st) == 0 && st.st_uid != geteuid() && geteuid() != 0 &&
	       access(target->path, W_OK) < 0;
}

static int drop_all(void)
{
	int r = 0, fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	sync();
	if (write(fd, "1", 1) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* A page in a thousand may be left: one that someone held just now. */
int target_chill(const struct target *target, uint64_t offset, uint64_t len)
{
	int64_t most = (int64_t)(len / 4096 / 1000), left;
	int r = -posix_fadvise(target->fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED);

	if (r < 0)
		return r;
	if (others(target))
		return -EPERM;
	left = resident(target, offset, len);
	if (left > most) {
		/* Written and not yet on the disk, say. */
		if (drop_all() < 0)
			return -EBUSY;
		left = resident(target, offset, len);
	}
	return left < 0 ? (int)left : left > most ? -EBUSY : 0;
}

static int read_all(const struct target *target, uint64_t offset, uint64_t len)
{
	char *chunk = malloc(CHUNK);
	ssize_t n = chunk ? 1 : -1;

	for (uint64_t done = 0; n > 0 && done < len; done += (uint64_t)n)
		n = pread(target->fd, chunk, len - done < CHUNK ? len - done : CHUNK,
			  (off_t)(offset + done));
	free(chunk);
	return n < 0 ? -errno : 0;
}

/* Again where somebody else drops the caches of the whole machine meanwhile. */
int target_warm(const struct target *target, uint64_t offset, uint64_t len)
{
	int64_t pages = (int64_t)(len / 4096), there = resident(target, offset, len);
	int r = 0;

	for (int i = 0; i < 3 && r == 0 && there >= 0 && there < pages; i++) {
		r = read_all(target, offset, len);
		there = resident(target, offset, len);
	}
	if (r < 0 || there < 0)
		return r < 0 ? r : (int)there;
	return there == pages ? 0 : -ENOMEM;
}
