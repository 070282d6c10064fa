/*
 * inode.h - what the kernel knows of, and the descriptors held for it.
 *
 * An inode is there from the look-up that the kernel was answered until its forget. It
 * costs no descriptor but while one is of use: those of late are held, the oldest are
 * given back, and an inode without one is reopened by its handle, on a worker. Where the
 * source's file system knows no handles, or we may not use them, each inode holds its own.
 *
 * The loop's thread only.
 */
#ifndef INODE_H
#define INODE_H

#include <onefd.h>

#include "object.h"

struct mount {			/* of the source, with objects that the kernel knows */
	struct mount *next;
	int number;
	int fd;			/* open for reading: what open_by_handle_at(2) wants */
	unsigned inodes;
	bool handles;		/* it opens what it names */
	bool local;		/* fstat(2) asks no server */
};

struct inode {
	struct inode *next;	/* in its bucket */
	uint64_t lookups;	/* the kernel's references */
	uint64_t generation;
	struct mount *mount;
	struct onefd_link recent;	/* in inodes.recent while it has a descriptor unpinned */
	struct onefd_link files;	/* its open files */
	unsigned pins;		/* requests that use it */
	int fd;			/* O_PATH, or -1 */
	/* data.c: what the file was when the kernel last had its pages */
	struct timespec mtime, ctime;
	off_t size;
	struct identity id;	/* allocated as long as its handle is */
};

/* Descriptors to be closed: close(2) of an object's last may truncate it on disk. */
struct closer {
	struct onefd *loop;
	struct onefd_req req;
	int *fds, *closing;
	size_t count, room, busy;
};

struct inodes {
	struct onefd *loop;
	struct inode **buckets;
	size_t bucket_count, count;
	struct onefd_link recent;	/* oldest first */
	size_t held, held_most;	/* descriptors of inodes */
	size_t files;		/* descriptors of open files */
	size_t limit;		/* RLIMIT_NOFILE */
	struct mount *mounts;
	struct closer closer;
	uint64_t reopened, evicted;	/* counts */
	uint64_t generation;
};

int inodes_init(struct inodes *inodes, struct onefd *loop);
void inodes_free(struct inodes *inodes);	/* all of them, closing here */

/* The mount of @number, or NULL: it must be met first. */
struct mount *inodes_mount(struct inodes *inodes, int number);

/* What a worker learns of a mount from @found, for inodes_add_mount(). */
struct met {
	int fd;
	bool handles, local;
};
void mount_meet(const struct found *found, struct met *ret);
int inodes_add_mount(struct inodes *inodes, int number, const struct met *met);

/* The inode of what was found, known or new, with one look-up more. Takes found->fd, on failure
 * too. Its mount must be there. NULL: no memory. */
struct inode *inode_get(struct inodes *inodes, struct found *found);

/* As the kernel says; what it no longer knows is freed when nobody has it pinned. */
void inode_forget(struct inodes *inodes, struct inode *inode, uint64_t lookups);

/* Between pin and unpin the inode and its descriptor stay. The descriptor, or -1: there is
 * none, see object_open(). */
int inode_pin(struct inodes *inodes, struct inode *inode);
void inode_unpin(struct inodes *inodes, struct inode *inode);

/* A worker reopened it: kept, or closed if there is one by now. Pinned. */
void inode_reopened(struct inodes *inodes, struct inode *inode, int fd);

/* An open file's descriptor comes or goes; counts against what inodes may hold. */
void inodes_file_opened(struct inodes *inodes);
void inodes_file_closed(struct inodes *inodes, int fd);	/* closes it, on a worker */

#endif
