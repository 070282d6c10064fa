/*
 * fs.h - onefd-fuse: the file system that its rooms share.
 *
 *	main.c		options, and the life of the process
 *	names.c		handlers that speak of names
 *	attr.c		handlers that speak of attributes, extended ones too
 *	dir.c		handlers that speak of open directories
 *	data.c		handlers that speak of open files
 *	locks.c		locks of open files
 *	pages.c		the pages that the kernel has of a file
 *	transfer.c	a request of the loop's about an open file
 *	call.c		a request that a worker answers
 *	fs.c		what the mount shows of an object
 *	file.c		an open file of the source
 *	inode.c		what the kernel knows, and the descriptors held for it
 *	mount.c		the mounts that the objects of the source are on
 *	closer.c	descriptors that are given back
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
	char *source;
	double timeout;			/* seconds for which the kernel may trust an answer */
	bool direct;			/* the source's files are opened with O_DIRECT */
	bool privileged;		/* may act as the caller */
	struct inodes inodes;
	struct inode *root;
	int own_mount;			/* its number: nothing is to be found there */
	dev_t *devices;			/* of the source's file systems */
	size_t device_count;
	uint64_t xattr_changes;		/* replied to */
	unsigned xattr_asked;		/* by so many readdirplus to come they are looked for */
	struct onefd_link dirs;		/* open directories */
	struct data_stats data;
	/* locks.c */
	struct onefd_link waiters;	/* for locks */
	bool waits_no_more;		/* the session has ended */
	struct onefd_task interrupts;	/* some of them were interrupted */
};

/* Handlers, put into @ops. */
void names_handlers(struct fuse_lowlevel_ops *ops);
void attr_handlers(struct fuse_lowlevel_ops *ops);
void xattr_handlers(struct fuse_lowlevel_ops *ops);	/* without, the kernel asks once */
void dir_handlers(struct fuse_lowlevel_ops *ops);
void data_handlers(struct fuse_lowlevel_ops *ops);

/* Those that are open, when nothing is in hand; closing here. */
void dirs_free(struct fs *fs);

/* Some lines for --stats. */
void data_report(const struct fs *fs, FILE *out);

/*
 * Each file system of the source numbers its inodes for itself, and the mount is one. Those of the
 * source's own keep theirs; the others' have what stands for the file system in the
 * highest bits, which are to be or-ed to them.
 */
uint64_t fs_device_bits(struct fs *fs, dev_t dev);
static inline ino_t fs_ino(uint64_t device_bits, ino_t ino)
{
	return ino >> 48 ? ino : ino | device_bits;
}

/* What the mount says of the source's attributes, as it is to be told now. */
struct stat fs_attr(struct fs *fs, struct inode *inode, const struct stat *st);

/* The kernel would believe in its attributes for as long as it was told to: no longer. */
void fs_forget_attr(const struct fs *fs, const struct inode *inode);

/* The inode of what was found, with one look-up more, and what the kernel shall know of
 * it. Takes found->fd, on failure too. 0, or -errno. */
int fs_entry(struct fs *fs, struct found *found, struct fuse_entry_param *ret);

#define FS_CAPABILITIES	"security.capability"

/*
 * Extended attributes that are not there are asked for all the time: capabilities before each
 * write, which is to take them away; ACLs by ls. The kernel remembers no such answer: we do, for
 * as long as it would any other, where it is not a matter of who asks when.
 * @changes: fs->xattr_changes before somebody looked. @all: not even capabilities alone.
 */
void fs_saw_none(struct fs *fs, struct inode *inode, uint64_t changes, bool all);
bool fs_has_none(struct fs *fs, const struct inode *inode, const char *name);

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct inode *inode_of(struct fs *fs, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fs->root : (struct inode *)(uintptr_t)ino;
}

#endif
