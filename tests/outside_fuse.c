/*
 * outside_fuse.c - a program of somebody else that serves a FUSE session, on a device
 * that ends at once. Not a test of the library but of what is installed of it.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#define FUSE_USE_VERSION 35
#include <onefd/fuse.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t no_read(int fd, void *buf, size_t size, void *data)
{
	(void)fd, (void)buf, (void)size, (void)data;
	errno = ENODEV;
	return -1;
}

static ssize_t no_write(int fd, struct iovec *iov, int count, void *data)
{
	(void)fd, (void)iov, (void)count, (void)data;
	errno = ENODEV;
	return -1;
}

static void ended(struct onefd_fuse *fuse, void *data, int reason)
{
	(void)fuse;
	*(int *)data = reason;
}

static struct fuse_session *make_session(void)
{
	struct fuse_lowlevel_ops ops;
	struct fuse_custom_io io;
	struct fuse_session *session;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int fds[2];

	memset(&ops, 0, sizeof ops);
	memset(&io, 0, sizeof io);
	io.read = no_read;
	io.writev = no_write;
	if (fuse_opt_add_arg(&args, "outside") < 0 || pipe(fds) < 0)
		return NULL;
	session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	fuse_opt_free_args(&args);
	close(fds[1]);
	if (!session || fuse_session_custom_io(session, &io, fds[0]) != 0)
		return NULL;
	return session;
}

int main(void)
{
	struct fuse_session *session = make_session();
	struct onefd_fuse *fuse;
	struct onefd *loop;
	int reason = 0;

	if (!session || onefd_new(&loop, NULL) < 0 || onefd_fuse_new(&fuse, loop, session, NULL) < 0)
		return EXIT_FAILURE;
	if (onefd_fuse_start(fuse, ended, &reason) < 0 || onefd_run(loop) < 0)
		return EXIT_FAILURE;
	fuse_session_destroy(session);
	return onefd_fuse_free(fuse) < 0 || onefd_free(loop) < 0 || reason != -ENODEV;
}
