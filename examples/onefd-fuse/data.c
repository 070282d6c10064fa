/*
 * data.c - onefd-fuse: handlers that speak of open files.
 *
 * Data is read and written by the loop's requests: a cached read is answered in
 * the turn that it comes in, and the bytes of a write go down from where they
 * were received.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "call.h"

struct file {
	struct onefd_file of;
	struct inode *inode;
	int fd;
};

static struct file *file_of(const struct fuse_file_info *fi)
{
	return (struct file *)(uintptr_t)fi->fh;
}

/* ---- opening and closing ---------------------------------------------------------- */

static int do_open(struct call *call)
{
	int fd = open(proc_path(call->at[0].fd).path, call->flags);

	return fd < 0 ? -errno : fd;
}

static void reply_open(struct call *call)
{
	struct fuse_file_info fi = { .flags = call->flags };
	struct fs *fs = call->fs;
	struct file *file = malloc(sizeof *file);
	int r = file ? onefd_file_init(fs->loop, &file->of, call->res) : -ENOMEM;

	if (r < 0) {
		(void)close(call->res);
		free(file);
		fuse_reply_err(call->op->fuse, -r);
		return;
	}
	file->fd = call->res;
	file->inode = call->at[0].inode;
	inodes_file_opened(&fs->inodes);
	fi.fh = (uintptr_t)file;
	if (fuse_reply_open(call->op->fuse, &fi) == -ENOENT) {
		inodes_file_closed(&fs->inodes, file->fd);
		free(file);
	}
}

/* Opened by the loop, at once or on a worker. */
static void opened(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);
	struct call *call = op->data;

	call->res = (int)req->res;
	if (call->res < 0)
		fuse_reply_err(op->fuse, -call->res);
	else
		reply_open(call);
	call_end(call);
}

static void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call *call = call_begin(req, ino, 0);

	call->flags = (fi->flags & ~(O_NOFOLLOW | O_DIRECT | O_CREAT | O_EXCL)) | O_CLOEXEC |
		      (call->fs->direct ? O_DIRECT : 0);
	if (call->at[0].fd < 0) {
		call_go(call, do_open, reply_open);
		return;
	}
	onefd_prep_openat(&call->op->req, call->at[0].fd, "", call->flags, 0);
	if (onefd_fuse_submit(call->op, opened) < 0)
		call_go(call, do_open, reply_open);
}

static void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file = file_of(fi);

	(void)ino;
	inodes_file_closed(&fs->inodes, file->fd);
	free(file);
	fuse_reply_err(req, 0);
}

/* ---- reading and writing ------------------------------------------------------------ */

static void read_done(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);

	if (req->res < 0)
		fuse_reply_err(op->fuse, (int)-req->res);
	else
		fuse_reply_buf(op->fuse, op->memory, (size_t)req->res);
	onefd_fuse_end(op);
}

static void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct onefd_fuse_op *op = onefd_fuse_begin(fs_of(req)->fuse, req);
	int r;

	(void)ino;
	onefd_prep_pread(&op->req, &file_of(fi)->of, op->memory, size < op->size ? size : op->size,
			 offset);
	r = onefd_fuse_submit(op, read_done);
	if (r < 0) {
		fuse_reply_err(req, -r);
		onefd_fuse_end(op);
	}
}

static void write_done(struct onefd_req *req)
{
	struct onefd_fuse_op *op = onefd_container(req, struct onefd_fuse_op, req);

	if (req->res < 0)
		fuse_reply_err(op->fuse, (int)-req->res);
	else
		fuse_reply_write(op->fuse, (size_t)req->res);
	onefd_fuse_end(op);
}

static void ll_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct onefd_fuse_op *op = onefd_fuse_begin(fs_of(req)->fuse, req);
	int r;

	(void)ino;
	onefd_prep_pwrite(&op->req, &file_of(fi)->of, buf, size, offset);
	r = onefd_fuse_submit(op, write_done);
	if (r < 0) {
		fuse_reply_err(req, -r);
		onefd_fuse_end(op);
	}
}

void data_handlers(struct fuse_lowlevel_ops *ops)
{
	ops->open = ll_open;
	ops->release = ll_release;
	ops->read = ll_read;
	ops->write = ll_write;
}
