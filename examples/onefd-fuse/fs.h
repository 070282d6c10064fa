/*
 * fs.h - onefd-fuse: the file system that its rooms share.
 *
 *	main.c		options, and the life of the process
 *	names.c		handlers that speak of names and attributes
 *	data.c		handlers that speak of open files
 *	call.c		a request that a worker answers
 *	file.c		an open file of the source
 *	inode.c		what the kernel knows, and the descriptors held for it
 *	object.c	what an object of the source is, apart from its names
 *
 * A file calls what stands below it. Handlers and callbacks run on the loop's
 * thread; what runs on workers says so.
 */
#ifndef FS_H
#define FS_H

#define FUSE_USE_VERSION 35

#include <onefd/fuse.h>

#include "inode.h"

/* What became of data: counts. */
struct data_stats {
	uint64_t reads, writes, bytes_read, bytes_written;
	uint64_t at_once;		/* answered in the turn that they came in */
	uint64_t again;			/* asked anew: the source said EAGAIN or EINTR */
	uint64_t opened, kept;		/* files, and with the pages that the kernel had */
	uint64_t refused;		/* opened, by a file system that knows no O_DIRECT */
};

struct fs {
	struct onefd *loop;
	struct fuse_session *session;
	struct onefd_fuse *fuse;
	const char *source;
	double timeout;			/* seconds for which the kernel may trust an answer */
	bool direct;			/* the source's files are opened with O_DIRECT */
	bool privileged;		/* may act as the caller */
	struct inodes inodes;
	struct inode *root;
	struct data_stats data;
};

/* The handlers of names.c and data.c, put into @ops. */
void names_handlers(struct fuse_lowlevel_ops *ops);
void data_handlers(struct fuse_lowlevel_ops *ops);

/* Some lines for --stats. */
void data_report(const struct fs *fs, FILE *out);

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct inode *inode_of(struct fs *fs, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fs->root : (struct inode *)(uintptr_t)ino;
}

#endif
