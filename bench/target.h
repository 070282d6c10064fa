/* target.h - the file that the contenders read: made of real blocks, and removed
 * at the end, also by a signal. */
#ifndef BENCH_TARGET_H
#define BENCH_TARGET_H

#include <stdint.h>

struct target {
	const char *path;
	uint64_t size;
	int fd;			/* opened O_RDONLY with the flags asked for */
};

/*
 * Opens @path with @flags beside O_RDONLY. A file that is not there is made,
 * @size bytes of written data, and removed at exit; one that is there is read
 * as it is, whatever its size, and stays. A program has one target.
 * 0 or -errno.
 */
int target_open(struct target *target, const char *path, uint64_t size, int flags);

/*
 * Makes a range of it cold, or warm: out of the page cache or in it, and looks
 * that it is so; changes nothing where it is so already. 0 or -errno. -EBUSY:
 * some of it is in the cache still, and we are not root, who could drop it
 * all. -ENOMEM: the memory does not hold the range. -EPERM: mincore() does not
 * say what others' files have in the cache.
 */
int target_chill(const struct target *target, uint64_t offset, uint64_t len);
int target_warm(const struct target *target, uint64_t offset, uint64_t len);

#endif
