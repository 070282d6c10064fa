/*
 * file.h - what a descriptor is: kind, alignment, device, verdicts.
 *
 * A verdict belongs to a file and a direction (read, write): what its file
 * system answered so far, and so how the next request should go.
 */
#ifndef ONEFD_LIB_FILE_H
#define ONEFD_LIB_FILE_H

#include "engine.h"
#include "window.h"

/* What a quick return of io_submit() under RWF_NOWAIT is worth. */
enum trust {
	TRUST_UNKNOWN,
	TRUST_NOWAIT,	/* it never blocks: xfs, block devices */
	TRUST_WARM,	/* it does not, once the extents are in memory: ext4 */
	TRUST_NEVER,	/* it blocks anyway, or on somebody else: btrfs, fuse, nfs */
};

/* Bits of onefd_file.refused: RWF_NOWAIT that way (1u << file_way()), and: */
#define FILE_NO_CACHESTAT (1u << 2)
#define FILE_WRITTEN (1u << 3)		/* a worker wrote: the loop may try */
#define FILE_SYNC (1u << 4)		/* opened O_SYNC or O_DSYNC */

enum warm { WARM_COLD, WARM_WARMING, WARM_DONE };

/* The direction of a transfer, as an index. */
static inline int file_way(const struct onefd_req *req)
{
	return req->op == OP_WRITE;
}

enum trust file_trust(const struct onefd_file *file);

/* Whose window it has to fit into. */
static inline struct onefd_device *file_queue(const struct onefd_file *file)
{
	return file->device->queue;
}

/* Any thread. Whether opening and asking by name take neither a disk nor a server
 * in that mount, once the name is in the dentry cache. It reads mountinfo. */
bool file_names_are_local(uint64_t mount);

/* The size that it has now: somebody else may have cut it, or made it grow. */
uint64_t file_learn_size(struct onefd_file *file);

/* Whether it cannot be read back. */
bool file_is_write_only(const struct onefd_file *file);

/* Whether the next request that way goes to a worker though it need not. */
bool file_detour(struct onefd_file *file, int way);

/* It would have blocked, or, @slow, it did: true when that demoted the file. */
bool file_blocked(struct onefd_file *file, int way, bool slow);
void file_flowed(struct onefd_file *file, int way);

/* What a transfer that comes back shows of its file. */
void file_learn_from(struct onefd_req *req);

#endif
