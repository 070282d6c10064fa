/*
 * fuse_stall.c - how long opening, asking and reading a file in memory takes beside
 * readers of what is not.
 *
 * Usage: fuse_stall prepare DIR | fuse_stall DIR SOURCE SECONDS
 *
 * DIR is a mount of SOURCE, on a slow disk. Twenty-four threads read the file "cold"
 * in it, anywhere; this one opens, asks (statx, not from the kernel's memory) and
 * reads (after the mount's own page was dropped) files of the directory "warm" in
 * turn, which SOURCE has in memory. A line for each: what, how many, and
 * microseconds at the median, p99 and most.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READERS 24
#define BLOCK 4096
#define COLD (160 << 20)
#define WARM 64
#define MOST_SAMPLES (1 << 20)

enum what { OPEN, STAT, READ, KINDS };

struct samples {
	const char *name;
	uint32_t *us;
	size_t count;
};

static struct samples samples[KINDS] = {
	{ .name = "open" },
	{ .name = "stat" },
	{ .name = "read" },
};
static atomic_bool over;
static atomic_ulong cold_reads;
static char cold_path[PATH_MAX];

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "fuse_stall: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void warm_path(char path[PATH_MAX], const char *dir, int i)
{
	snprintf(path, PATH_MAX, "%s/warm/%d", dir, i);
}

/* ---- files -------------------------------------------------------------------- */

static void make_file(const char *path, off_t size)
{
	static char bytes[1 << 20];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	memset(bytes, 'x', sizeof bytes);
	for (off_t at = 0; at < size; at += (off_t)sizeof bytes) {
		size_t len = size - at < (off_t)sizeof bytes ? (size_t)(size - at) : sizeof bytes;

		if (pwrite(fd, bytes, len, at) != (ssize_t)len)
			fail(path);
	}
	if (fsync(fd) < 0 || close(fd) < 0)
		fail(path);
}

static int prepare(const char *dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/cold", dir);
	make_file(path, COLD);
	snprintf(path, sizeof path, "%s/warm", dir);
	if (mkdir(path, 0700) < 0)
		fail(path);
	for (int i = 0; i < WARM; i++) {
		warm_path(path, dir, i);
		make_file(path, BLOCK);
	}
	return 0;
}

static void bring_into_memory(const char *source)
{
	char path[PATH_MAX], block[BLOCK];

	for (int i = 0; i < WARM; i++) {
		int fd;

		warm_path(path, source, i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, block, BLOCK) != BLOCK)
			fail(path);
		close(fd);
	}
}

/* ---- those beside --------------------------------------------------------------- */

static void *read_cold(void *arg)
{
	unsigned state = (unsigned)(uintptr_t)arg * 2654435761u + 1;
	int fd = open(cold_path, O_RDONLY | O_CLOEXEC);
	char block[BLOCK];

	if (fd < 0)
		fail(cold_path);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	while (!over) {
		off_t at = (off_t)(rand_r(&state) % (COLD / BLOCK)) * BLOCK;

		if (pread(fd, block, BLOCK, at) != BLOCK)
			fail(cold_path);
		cold_reads++;
	}
	close(fd);
	return NULL;
}

/* ---- what is measured -------------------------------------------------------------- */

static uint64_t sample(enum what what, uint64_t since)
{
	uint64_t now = now_us();

	if (samples[what].count < MOST_SAMPLES)
		samples[what].us[samples[what].count++] = (uint32_t)(now - since);
	return now;
}

static void use_one(const char *path)
{
	uint64_t at = now_us();
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char block[BLOCK];
	struct statx stx;

	if (fd < 0)
		fail(path);
	at = sample(OPEN, at);
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0)
		fail(path);
	(void)sample(STAT, at);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	at = now_us();
	if (pread(fd, block, BLOCK, 0) != BLOCK)
		fail(path);
	(void)sample(READ, at);
	close(fd);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void report(const struct samples *of)
{
	qsort(of->us, of->count, sizeof *of->us, by_size);
	printf("%s %zu %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", of->name, of->count,
	       of->us[of->count / 2], of->us[of->count * 99 / 100], of->us[of->count - 1]);
}

static void use_warm(const char *dir, uint64_t seconds)
{
	uint64_t end = now_us() + seconds * 1000000;
	char path[PATH_MAX];

	for (int i = 0; now_us() < end; i = (i + 1) % WARM) {
		warm_path(path, dir, i);
		use_one(path);
	}
}

int main(int argc, char **argv)
{
	pthread_t readers[READERS];

	if (argc == 3 && strcmp(argv[1], "prepare") == 0)
		return prepare(argv[2]);
	if (argc != 4) {
		fprintf(stderr, "usage: fuse_stall prepare DIR | fuse_stall DIR SOURCE SECONDS\n");
		return 2;
	}
	bring_into_memory(argv[2]);
	snprintf(cold_path, sizeof cold_path, "%s/cold", argv[1]);
	for (int i = 0; i < KINDS; i++)
		samples[i].us = calloc(MOST_SAMPLES, sizeof *samples[i].us);
	for (int i = 0; i < READERS; i++)
		if ((errno = pthread_create(&readers[i], NULL, read_cold, (void *)(uintptr_t)i)))
			fail("pthread_create");
	use_warm(argv[1], strtoull(argv[3], NULL, 10));
	over = true;
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	for (int i = 0; i < KINDS; i++)
		report(&samples[i]);
	printf("cold %lu\n", cold_reads);
	return 0;
}
