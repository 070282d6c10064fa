/*
 * inode.h - what the kernel knows of, and the descriptors held for it.
 *
 * An inode is there from the look-up that the kernel was answered until its forget. It
 * costs no descriptor but while one is of use: those of late are held, the oldest are
 * given back, and an inode without one is reopened by its handle, on a worker. Where the
 * source's file system knows no handles, or we may not use them, each inode holds its own;
 * so does one whose last name was removed.
 *
 * The loop's thread only.
 */
#ifndef INODE_H
#define INODE_H

#include <onefd.h>

#include "closer.h"
#include "list.h"
#include "mount.h"
#include "object.h"

struct inode {
	struct inode *next;	/* in its bucket */
	uint64_t lookups;	/* the kernel's references */
	uint64_t generation;
	struct mount *mount;
	struct onefd_link recent;	/* in inodes.recent while it has a descriptor unpinned */
	struct onefd_link files;	/* its open files */
	struct file *writer;	/* the first of them that may be written to, or NULL */
	unsigned pins;		/* requests that use it */
	int fd;			/* O_PATH, or -1 */
	bool removed;		/* its last name: nothing opens it anew */
	uint64_t plain_until, bare_until;	/* see fs_saw_none() */
	/* pages.c: what the file was when the kernel last had its pages */
	struct timespec mtime, ctime;
	off_t size;
	struct timespec wrote;	/* see pages_wrote() */
	off_t paged;		/* where the last of its pages may end */
	bool opened;		/* once: there may be pages */
	/* data.c */
	bool told_stale;	/* who opened it */
	mode_t told_mode;	/* what the kernel believes: see fs_attr() */
	/* transfer.c */
	struct onefd_link transfers;	/* writes under way, and what waits for them */
	size_t held;		/* of those that wait */
	struct locks *locks;	/* locks.c */
	struct identity id;	/* allocated as long as its handle is */
};

struct inodes {
	struct onefd *loop;
	struct inode **buckets;
	size_t bucket_count, count;
	struct onefd_link recent;	/* oldest first */
	size_t held, held_most;	/* descriptors of inodes */
	size_t files;		/* descriptors of open files */
	size_t reserved;	/* descriptors that workers may yet open */
	size_t others;		/* descriptors of everything else: loop, workers, calls */
	size_t limit;		/* of them all */
	struct mount *mounts, *kept;	/* all of them; the source's own */
	struct onefd_timer idle;
	bool idle_on;		/* a mount may be to be let go */
	struct closer closer;
	uint64_t reopened, evicted;	/* counts */
	uint64_t generation;
};

/* With @limit descriptors, of which it leaves @others alone. */
int inodes_init(struct inodes *inodes, struct onefd *loop, size_t limit, size_t others);
void inodes_free(struct inodes *inodes);	/* all of them, closing here */

/* The mount of @number, or NULL: it must be met. Takes met->fd, on failure too. */
struct mount *inodes_mount(struct inodes *inodes, int number);
int inodes_add_mount(struct inodes *inodes, const struct met *met);
void inodes_mount_found_again(struct inodes *inodes, struct mount *mount, const struct met *met);

/* The inode of what was found, known or new, with one look-up more. Takes found->fd, on failure
 * too, and needs none where the mount opens handles. The mount must be there. NULL: no memory. */
struct inode *inode_get(struct inodes *inodes, struct found *found);

/* What was found, and has lost its last name since: stays if the kernel knows it. Takes
 * found->fd. */
void inode_removed(struct inodes *inodes, struct found *found);

/* As the kernel says; what it no longer knows is freed when nobody has it pinned. */
void inode_forget(struct inodes *inodes, struct inode *inode, uint64_t lookups);

/* Between pin and unpin the inode and its descriptor stay, and its mount's. The descriptor, or -1:
 * there is none, see object_open(). */
int inode_pin(struct inodes *inodes, struct inode *inode);
void inode_unpin(struct inodes *inodes, struct inode *inode);

/* A worker reopened it: kept, or closed if there is one by now. Pinned. */
void inode_reopened(struct inodes *inodes, struct inode *inode, int fd);

/* An open file's descriptor comes or goes; counts against what inodes may hold. */
void inodes_file_opened(struct inodes *inodes);
void inodes_file_closed(struct inodes *inodes, int fd);	/* closes it, on a worker */

/* Leave to open @want descriptors for inodes: how many may be, without harm to those
 * that are held. To be given back when they are there or are not to come. */
size_t inodes_reserve(struct inodes *inodes, size_t want);
void inodes_unreserve(struct inodes *inodes, size_t count);

/* There was none left: gives some back, and says when they are free. False: there are none to
 * be given back. */
bool inodes_relieve(struct inodes *inodes, struct closer_wait *wait);

/* Whether it is only what is under way that has too many. */
bool inodes_have_room(const struct inodes *inodes);

#endif
