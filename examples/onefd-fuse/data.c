/*
 * data.c - onefd-fuse: handlers that speak of open files.
 *
 * Data is read and written by the loop's requests: a cached read is answered in
 * the turn that it comes in, and the bytes of a write go down from where they
 * were received.
 *
 * The source's files are opened neither with O_APPEND nor with O_NONBLOCK. Who appends
 * says so with each write, which RWF_APPEND passes on; what the kernel writes back of a
 * mapping of the same file has its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "call.h"
#include "locks.h"
#include "pages.h"
#include "transfer.h"

#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif

/* Most bytes of one copy_file_range(2): how long it has a worker. */
#define COPY_MOST	(32u << 20)

/* ---- opening and closing ---------------------------------------------------------- */

/* How the source's file is opened for who opens with @flags. */
static int flags_below(const struct fs *fs, int flags)
{
	flags &= ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_DIRECT | O_APPEND | O_NONBLOCK);
	/* To write part of a block directly is to read it first. */
	if (fs->direct && (flags & O_ACCMODE) == O_WRONLY)
		flags = (flags & ~O_ACCMODE) | O_RDWR;
	return flags | O_CLOEXEC;
}

static int open_proc(int object, int flags)
{
	int fd = insist(open(proc_path(object).path, flags));

	/* Files with the attribute "append only" know no other writing. */
	if (fd == -EPERM && (flags & O_ACCMODE) != O_RDONLY)
		fd = insist(open(proc_path(object).path, flags | O_APPEND));
	return fd;
}

static int do_open(struct call *call)
{
	int flags = flags_below(call->fs, call->flags);
	int fd = open_proc(call->at[0].fd, flags);

	if (fd == -EACCES && (call->flags & O_ACCMODE) == O_WRONLY)
		fd = open_proc(call->at[0].fd, (flags & ~O_ACCMODE) | O_WRONLY);
	if (fd < 0)
		return fd;
	call->dropped = call->flags & O_TRUNC && work_drop_set_id(call->op->fuse, fd);
	if (fstat(fd, &call->attr) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

/* Makes the struct file of call->res, which it takes on failure, too; fills in @fi. */
static int take_file(struct call *call, struct inode *inode, const struct stat *st,
		     struct fuse_file_info *fi)
{
	struct fs *fs = call->fs;
	int flags = fcntl(call->res, F_GETFL), r;
	bool keeps = pages_keep(fs, inode, st);
	struct file *file;

	/* Not by open(2): one that refuses it may have made the file first. */
	if (fs->direct && fcntl(call->res, F_SETFL, flags | O_DIRECT) < 0)
		fs->data.refused++;
	r = file_new(&fs->inodes, inode, call->res, flags, &file);
	if (r < 0) {
		pages_forget(inode);
		return r;
	}
	fs->data.opened++;
	*fi = (struct fuse_file_info){
		.flags = call->flags, .fh = (uintptr_t)file, .keep_cache = keeps,
	};
	return 0;
}

/*
 * Of a file whose last name went behind our back the kernel may know a name still: told
 * that it is stale it looks again, and finds what is there now. It asks once more if it
 * came by no name but by an open file's, in /proc.
 */
static bool is_stale(struct inode *inode, const struct stat *st)
{
	if (st->st_nlink || inode->removed || inode->told_stale)
		return false;
	inode->told_stale = true;
	return true;
}

/*
 * What was written behind our back lost its set-id bits, and execve(2) would obey those that
 * the kernel believes in: it is to ask again before.
 */
static bool lost_set_id(const struct fs *fs, struct inode *inode, const struct stat *st)
{
	bool lost = inode->told_mode & ~st->st_mode & (S_ISUID | S_ISGID);

	if (lost) {
		inode->told_mode = st->st_mode;
		fs_forget_attr(fs, inode);
	}
	return lost;
}

static void reply_open(struct call *call)
{
	struct inode *inode = call->at[0].inode;
	struct fs *fs = call->fs;
	struct fuse_file_info fi;
	bool lost = lost_set_id(fs, inode, &call->attr);
	int r;

	if (is_stale(inode, &call->attr) || (lost && !call->dropped)) {
		closer_add(&fs->inodes.closer, call->res);
		fuse_reply_err(call->op->fuse, ESTALE);
		return;
	}
	r = take_file(call, inode, &call->attr, &fi);
	if (r < 0) {
		fuse_reply_err(call->op->fuse, -r);
		return;
	}
	if (fuse_reply_open(call->op->fuse, &fi) < 0) {
		pages_forget(inode);
		file_close(&fs->inodes, file_of(&fi));
	}
}

/* Opened by the loop, at once or on a worker. */
static void opened(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct call *call = op->data;

	call->res = (int)req->res;
	if (call->res < 0) {
		/* Whatever it is, a worker finds out. */
		call_go(call, do_open, reply_open);
		return;
	}
	(void)fstat(call->res, &call->attr);
	reply_open(call);
	call_end(call);
}

static void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, ino, 0);
	int flags = flags_below(call->fs, fi->flags);

	call->flags = fi->flags;
	if (call->at[0].fd < 0 || !call->at[0].inode->mount->met.local || flags & O_TRUNC ||
	    (flags & O_ACCMODE) != O_RDONLY) {
		call_go(call, do_open, reply_open);
		return;
	}
	onefd_prep_openat(&call->op->req, call->at[0].fd, "", flags, 0);
	if (onefd_fuse_submit(call->op, opened) < 0)
		call_go(call, do_open, reply_open);
}

/*
 * The name was made while the kernel asked for it. Its file would be opened without any
 * question of permission, for that is what creation means: but its owner may. For
 * others the kernel is to look once more, and open it.
 */
static int open_found(struct call *call, int flags)
{
	unsigned wanted = (flags & O_ACCMODE) == O_RDONLY ? S_IRUSR :
			  (flags & O_ACCMODE) == O_WRONLY ? S_IWUSR : S_IRUSR | S_IWUSR;
	struct found *found = &call->found;
	int fd = -ESTALE;

	found->fd = openat(call->at[0].fd, call->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (found->fd < 0)
		return -ESTALE;
	if (object_stat(found) == 0 && S_ISREG(found->st.st_mode) &&
	    found->st.st_uid == fuse_req_ctx(call->op->fuse)->uid &&
	    (found->st.st_mode & wanted) == wanted)
		fd = open_proc(found->fd, flags);
	if (fd >= 0 && flags & O_TRUNC)
		(void)work_drop_set_id(call->op->fuse, fd);
	(void)close(found->fd);
	found->fd = -1;
	return fd;
}

static int make(struct call *call)
{
	int flags = flags_below(call->fs, call->flags) & ~O_TRUNC;
	int fd = insist(openat(call->at[0].fd, call->name, flags | O_CREAT | O_EXCL, call->mode));

	if (fd == -EEXIST && !(call->flags & O_EXCL))
		fd = open_found(call, flags | (call->flags & O_TRUNC));
	return fd;
}

/* In two steps, for the second may be in want of a descriptor and be done again. */
static int do_create(struct call *call)
{
	struct found *found = &call->found;

	if (!call->made) {
		call->made_fd = make(call);
		call->made = call->made_fd >= 0;
	}
	if (!call->made)
		return call->made_fd;
	if (found->fd < 0)
		found->fd = insist(open(proc_path(call->made_fd).path, O_PATH | O_CLOEXEC));
	if (found->fd < 0)
		return found->fd;
	object_identify(found);
	return object_stat(found);
}

static void reply_create(struct call *call)
{
	struct inodes *inodes = &call->fs->inodes;
	struct fuse_entry_param entry;
	struct fuse_file_info fi;
	struct inode *inode;
	int r = call->res < 0 ? call->res : call_entry(call, &entry);

	if (r < 0) {
		if (call->made)
			closer_add(&inodes->closer, call->made_fd);
		fuse_reply_err(call->op->fuse, -r);
		return;
	}
	inode = (struct inode *)(uintptr_t)entry.ino;
	call->res = call->made_fd;
	r = take_file(call, inode, &entry.attr, &fi);
	if (r < 0) {
		fuse_reply_err(call->op->fuse, -r);
	} else if (fuse_reply_create(call->op->fuse, &entry, &fi) < 0) {
		pages_forget(inode);
		file_close(inodes, file_of(&fi));
		r = -ENOENT;
	}
	if (r < 0)
		inode_forget(inodes, inode, 1);
}

static void ll_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, parent, 0);

	call->name = name;
	call->mode = mode;
	call->flags = fi->flags;
	call->as_caller = true;
	call->fails = true;
	call_go(call, do_create, reply_create);
}

static int do_flush(struct call *call)
{
	return file_flush(call->file->of.fd);
}

static void ll_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *file = file_of(fi);
	struct call *call;

	(void)ino;
	if (locks_flush(req, file, fi->lock_owner))
		return;
	if (file->inode->mount->met.local || !file_writes(file)) {
		fuse_reply_err(req, 0);
		return;
	}
	call = call_begin(req, 0, 0);
	call->file = file_pin(file);
	call_go(call, do_flush, reply_done);
}

static void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (locks_release(req, file_of(fi)))
		return;
	file_close(&fs_of(req)->inodes, file_of(fi));
	fuse_reply_err(req, 0);
}

/* ---- reading and writing ------------------------------------------------------------ */

_Static_assert(sizeof(struct transfer) <= sizeof(struct call), "op->data has room for a call");

static void count(struct transfer *transfer, uint64_t *requests, uint64_t *bytes,
		  size_t moved)
{
	struct fs *fs = transfer->fs;

	pages_reach(transfer->file->inode, transfer->offset + (off_t)transfer->size);
	++*requests;
	*bytes += moved;
	fs->data.at_once += transfer->began == onefd_now(fs->loop);
}

static void read_on(struct transfer *transfer);

static void read_done(struct onefd_req *req)
{
	struct transfer *transfer = transfer_of(req);

	if (transfer_has_failed(transfer))
		return;
	transfer->moved += (size_t)req->res;
	/* What is short the kernel takes for the file's end, and on a disk it is. Elsewhere
	 * that is asked; an error is all that can be said then. */
	if (req->res && transfer->moved < transfer->size && !transfer->file->inode->mount->met.local) {
		read_on(transfer);
		return;
	}
	count(transfer, &transfer->fs->data.reads, &transfer->fs->data.bytes_read, transfer->moved);
	fuse_reply_buf(transfer->op->fuse, transfer->op->memory, transfer->moved);
	transfer_end(transfer);
}

/* On a worker: what follows a direct read that ended within a block. Mostly that is the
 * end of the file; if not, the rest is for the page cache. */
static ssize_t read_rest(void *arg)
{
	struct transfer *transfer = arg;
	off_t at = transfer->offset + (off_t)transfer->moved;
	struct stat st;
	ssize_t n;
	int fd;

	if (fstat(transfer->file->of.fd, &st) < 0)
		return -errno;
	if (at >= st.st_size)
		return 0;
	fd = open(proc_path(transfer->file->of.fd).path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, (char *)transfer->op->memory + transfer->moved,
		  transfer->size - transfer->moved, at);
	if (n < 0)
		n = -errno;
	(void)close(fd);
	return n;
}

static void read_on(struct transfer *transfer)
{
	struct onefd_file *file = &transfer->file->of;
	struct onefd_req *req = &transfer->op->req;
	size_t moved = transfer->moved;

	if (file->flags & ONEFD_FILE_DIRECT)
		onefd_prep_call(req, read_rest, transfer);
	else
		onefd_prep_pread(req, file, (char *)transfer->op->memory + moved,
				 transfer->size - moved, transfer->offset + (off_t)moved);
	transfer_go(transfer, read_done);
}

static void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct transfer *transfer = transfer_begin(req, file_of(fi));
	struct onefd_fuse_op *op = transfer->op;

	(void)ino;
	transfer->size = size < op->size ? size : op->size;
	transfer->moved = 0;
	transfer->offset = offset;
	onefd_prep_pread(&op->req, &transfer->file->of, op->memory, transfer->size, offset);
	transfer_go_in_order(transfer, offset, offset + (off_t)transfer->size, false, read_done);
}

static void write_done(struct onefd_req *req)
{
	struct transfer *transfer = transfer_of(req);

	if (transfer_has_failed(transfer))
		return;
	count(transfer, &transfer->fs->data.writes, &transfer->fs->data.bytes_written,
	      (size_t)req->res);
	pages_wrote(transfer->file->inode);
	fuse_reply_write(transfer->op->fuse, (size_t)req->res);
	transfer_end(transfer);
}

static ssize_t do_drop_set_id(void *arg)
{
	struct transfer *transfer = arg;

	return work_drop_set_id(transfer->op->fuse, transfer->file->of.fd);
}

static void dropped_set_id(struct onefd_req *req)
{
	struct transfer *transfer = transfer_of(req);

	if (transfer_has_failed(transfer))
		return;
	if (req->res)
		fs_forget_attr(transfer->fs, transfer->file->inode);
	transfer->then(transfer);
}

/* What others write to has none: that is seen at once where the source is a disk. */
static bool may_have_set_id(const struct transfer *transfer)
{
	fuse_req_t req = transfer->op->fuse;
	struct stat st = { .st_mode = S_IFREG | S_ISUID };

	if (transfer->file->inode->mount->met.local && takes_set_id(req, &st))
		(void)fstat(transfer->file->of.fd, &st);
	return takes_set_id(req, &st);
}

static void prep_drop_set_id(struct transfer *transfer, void (*then)(struct transfer *))
{
	transfer->then = then;
	onefd_prep_call(&transfer->op->req, do_drop_set_id, transfer);
}

/* Whose descriptor is written to. A direct write may put part of a block back, in order
 * with the others to the same struct onefd_file: so all go to one. */
static struct file *writer(const struct fs *fs, struct file *file)
{
	struct file *first = fs->direct ? file->inode->writer : NULL;

	return first && !(first->flags & O_APPEND) ? first : file;
}

/* The mount's file may append or be synchronous for this write alone. */
static int write_flags(const struct file *file, const struct fuse_file_info *fi)
{
	int flags = fi->flags & ~file->flags, rw = 0;

	if (flags & O_DSYNC)
		rw |= RWF_DSYNC;
	if (flags & (O_SYNC & ~O_DSYNC))
		rw |= RWF_SYNC;
	if (flags & O_APPEND && !fi->writepage)
		rw |= RWF_APPEND;
	return rw;
}

static void prep_write(struct transfer *transfer)
{
	onefd_fuse_prep_pwrite(transfer->op, &transfer->file->of, transfer->bytes, transfer->size,
			       transfer->offset, transfer->flags);
}

static void write_now(struct transfer *transfer)
{
	prep_write(transfer);
	transfer_go(transfer, write_done);
}

static void ll_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct transfer *transfer;
	bool drops;

	(void)ino;
	if (fi->writepage && file_of(fi)->flags & O_APPEND) {
		fuse_reply_err(req, EPERM);	/* a page of what may only be appended to */
		return;
	}
	transfer = transfer_begin(req, writer(fs_of(req), file_of(fi)));
	transfer->bytes = buf;
	transfer->size = size;
	transfer->offset = offset;
	transfer->flags = write_flags(transfer->file, fi);
	drops = may_have_set_id(transfer);
	if (drops)
		prep_drop_set_id(transfer, write_now);
	else
		prep_write(transfer);
	/* The file may end elsewhere than the kernel believes. */
	transfer_go_in_order(transfer, offset,
			     transfer->flags & RWF_APPEND ? INT64_MAX : offset + (off_t)size, true,
			     drops ? dropped_set_id : write_done);
}

/* ---- the rest -------------------------------------------------------------------------- */

static void no_more_done(struct onefd_req *req)
{
	struct transfer *transfer = transfer_of(req);

	if (transfer_has_failed(transfer))
		return;
	fuse_reply_err(transfer->op->fuse, 0);
	transfer_end(transfer);
}

static void ll_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct transfer *transfer = transfer_begin(req, file_of(fi));

	(void)ino;
	onefd_prep_fsync(&transfer->op->req, &transfer->file->of, datasync);
	transfer_go(transfer, no_more_done);
}

static void allocate_done(struct onefd_req *req)
{
	pages_wrote(transfer_of(req)->file->inode);
	no_more_done(req);
}

static void fallocate_now(struct transfer *transfer)
{
	onefd_prep_fallocate(&transfer->op->req, &transfer->file->of, transfer->flags,
			     transfer->offset, transfer->length);
	transfer_go(transfer, allocate_done);
}

static void ll_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct transfer *transfer = transfer_begin(req, writer(fs_of(req), file_of(fi)));

	(void)ino;
	transfer->flags = mode;
	transfer->offset = offset;
	transfer->length = length;
	if (!may_have_set_id(transfer)) {
		fallocate_now(transfer);
		return;
	}
	prep_drop_set_id(transfer, fallocate_now);
	transfer_go(transfer, dropped_set_id);
}

/* Nobody else uses the descriptor's own position. */
static int do_lseek(struct call *call)
{
	off_t at = lseek(call->file->of.fd, call->offset, call->flags);

	if (at < 0)
		return -errno;
	call->offset = at;
	return 0;
}

static void reply_lseek(struct call *call)
{
	fuse_reply_lseek(call->op->fuse, call->offset);
}

static void ll_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		     struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, 0, 0);

	(void)ino;
	call->file = file_pin(file_of(fi));
	call->offset = offset;
	call->flags = whence;
	call_go(call, do_lseek, reply_lseek);
}

static int copy(const struct call *call, int in, int out)
{
	off_t from = call->offset, to = call->other_offset;
	size_t size = call->size < COPY_MOST ? call->size : COPY_MOST;

	return insist(copy_file_range(in, &from, out, &to, size, (unsigned)call->flags));
}

/*
 * With O_DIRECT the kernel copies whole blocks alone: the page cache knows no alignment. If
 * they may not be opened for it, the mount's kernel is left to read and to write.
 */
static int copy_by_cache(const struct call *call)
{
	int in = open_proc(call->file->of.fd, O_RDONLY | O_CLOEXEC);
	int out = open_proc(call->other_file->of.fd, O_WRONLY | O_CLOEXEC);
	int r = in < 0 || out < 0 ? -EOPNOTSUPP : copy(call, in, out);

	if (in >= 0)
		(void)close(in);
	if (out >= 0)
		(void)close(out);
	return r;
}

static int do_copy(struct call *call)
{
	call->dropped = work_drop_set_id(call->op->fuse, call->other_file->of.fd);
	if ((call->file->of.flags | call->other_file->of.flags) & ONEFD_FILE_DIRECT)
		return copy_by_cache(call);
	return copy(call, call->file->of.fd, call->other_file->of.fd);
}

static void reply_copy(struct call *call)
{
	pages_wrote(call->other_file->inode);
	if (call->dropped)
		fs_forget_attr(call->fs, call->other_file->inode);
	fuse_reply_write(call->op->fuse, (size_t)call->res);
}

static void ll_copy_file_range(fuse_req_t req, fuse_ino_t ino, off_t offset,
			       struct fuse_file_info *fi, fuse_ino_t other, off_t other_offset,
			       struct fuse_file_info *other_fi, size_t size, int flags)
{
	struct call *call = call_begin(req, 0, 0);

	(void)ino;
	(void)other;
	call->file = file_pin(file_of(fi));
	call->other_file = file_pin(file_of(other_fi));
	call->offset = offset;
	call->other_offset = other_offset;
	call->size = size;
	call->flags = flags;
	call_go(call, do_copy, reply_copy);
}

void data_report(const struct fs *fs, FILE *out)
{
	const struct data_stats *data = &fs->data;

	fprintf(out, "reads %llu of %llu bytes, writes %llu of %llu bytes; at once %llu, asked again %llu\n",
		(unsigned long long)data->reads, (unsigned long long)data->bytes_read,
		(unsigned long long)data->writes, (unsigned long long)data->bytes_written,
		(unsigned long long)data->at_once, (unsigned long long)data->again);
	fprintf(out, "files opened %llu, with pages kept %llu\n",
		(unsigned long long)data->opened, (unsigned long long)data->kept);
	if (data->refused)
		fprintf(out, "O_DIRECT was refused for %llu: they go by the page cache\n",
			(unsigned long long)data->refused);
}

void data_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->open = ll_open;
	ops->create = ll_create;
	ops->flush = ll_flush;
	ops->release = ll_release;
	ops->read = ll_read;
	ops->write = ll_write;
	ops->fsync = ll_fsync;
	ops->fallocate = ll_fallocate;
	ops->lseek = ll_lseek;
	ops->copy_file_range = ll_copy_file_range;
}
