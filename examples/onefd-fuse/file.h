/*
 * file.h - an open file of the source.
 *
 * One for each open file of the mount, from open or create until release; it stays
 * for as long as somebody has it pinned, and its descriptor with it. An inode knows
 * its open files: whoever wants a descriptor of it may borrow one of theirs.
 *
 * The loop's thread only; what is pinned may be used by a worker meanwhile.
 */
#ifndef FILE_H
#define FILE_H

#include <fcntl.h>
#include <stdbool.h>

#include "inode.h"

struct owner;

struct file {
	struct onefd_file of;		/* of.fd: the descriptor */
	struct inode *inode;
	struct onefd_link link;		/* in inode->files, until it is closed */
	int flags;			/* of the descriptor, as open(2) takes them */
	unsigned pins;			/* the mount's own, until it is closed, is one */
	/* locks.c */
	struct owner *locker;		/* whose locks of fcntl(2) the descriptor has */
	int flock;			/* LOCK_SH, LOCK_EX or none */
};

/* Takes @fd, which was opened with @flags, on failure too: 0, or -errno. The inode stays
 * for as long as the file does. */
int file_new(struct inodes *inodes, struct inode *inode, int fd, int flags, struct file **ret);

/* The mount has it no longer. */
void file_close(struct inodes *inodes, struct file *file);

static inline struct file *file_pin(struct file *file)
{
	file->pins++;
	return file;
}

void file_unpin(struct inodes *inodes, struct file *file);

static inline bool file_writes(const struct file *file)
{
	return (file->flags & O_ACCMODE) != O_RDONLY;
}

/* The inode's first open file, not pinned. NULL: there is none. */
struct file *file_of_inode(const struct inode *inode);

/* On a worker: a server may keep its errors until a close. 0, or -errno. */
int file_flush(int fd);

/* All that are open, when nothing is in hand; closing here. */
void files_free(struct inodes *inodes);

#endif
