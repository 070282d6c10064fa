/*
 * mount.h - the mounts that the objects of the source are on.
 *
 * A handle is opened by way of a descriptor on its mount, and a mount with a
 * descriptor cannot be unmounted: one that nobody used for a second or two is let
 * go, and found again by /proc/self/mountinfo. The source's own mount stays.
 */
#ifndef MOUNT_H
#define MOUNT_H

#include "closer.h"
#include "object.h"

/* What a worker learns of a mount. */
struct met {
	int fd;			/* open for reading: what open_by_handle_at(2) wants; -1: none */
	int number;		/* in mountinfo */
	bool handles;		/* it opens what it names */
	bool local;		/* fstat(2) asks no server */
	dev_t dev;
	uint64_t fsid;
};

struct mount {
	struct mount *next;
	struct met met;
	size_t inodes;		/* that the kernel knows */
	unsigned calls;		/* that may use met.fd */
	bool used;		/* since the last look */
};

/* On a worker: the mount of @found, or the one that was met before and let go. 0, or -errno. */
int mount_meet(const struct found *found, struct met *ret);
int mount_find_again(const struct met *known, struct met *ret);

/* The number of what is mounted at @place, the path as mountinfo has it, or -1. Asks no
 * file system. */
int mount_number(const char *place);

/* The mount of @number, or NULL: it must be met first, perhaps again. */
struct mount *mounts_get(struct mount *first, int number);

/* Takes met->fd, on failure too: NULL, no memory. */
struct mount *mounts_add(struct mount **first, const struct met *met, struct closer *closer);

/* Found again by mount_find_again(): takes met->fd. */
void mount_found_again(struct mount *mount, const struct met *met, struct closer *closer);
void mounts_remove(struct mount **first, struct mount *mount, struct closer *closer);

#endif
