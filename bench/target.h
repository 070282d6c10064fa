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

#endif
