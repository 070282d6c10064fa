/*
 * stats.c - the counters as the caller sees them.
 *
 * The rooms count into struct onefd_stats themselves; what the counters mean
 * for a person is describe.c's to say.
 */
#include <errno.h>
#include <string.h>

#include "core.h"

int onefd_stats(const struct onefd *loop, struct onefd_stats *stats, size_t size)
{
	size_t known = size < sizeof loop->stats ? size : sizeof loop->stats;

	if (!loop || !stats)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	memset(stats, 0, size);
	memcpy(stats, &loop->stats, known);
	return 0;
}
