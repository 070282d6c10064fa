/* pipe.c - pipes that the bytes of large writes go through: see pipe.h. */
#include "pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096u

static void unmake(struct onefd_fuse_pipe *pipe)
{
	for (int i = 0; i < 2; i++) {
		if (pipe->ends[i] >= 0)
			(void)close(pipe->ends[i]);
		pipe->ends[i] = -1;
	}
}

static bool make(struct onefd_fuse_pipe *pipe, size_t size)
{
	if (pipe->ends[0] >= 0)
		return true;
	if (pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	if (fcntl(pipe->ends[1], F_SETPIPE_SZ, (int)size) >= (int)size)
		return true;
	unmake(pipe);
	return false;
}

void pipes_init(struct pipes *pipes)
{
	pipes->most = 0;
	list_init(&pipes->free);
	for (size_t i = 0; i < PIPES; i++) {
		struct onefd_fuse_pipe *pipe = &pipes->own[i];

		pipe->ends[0] = pipe->ends[1] = -1;
		list_push(&pipes->free, &pipe->link);
	}
}

void pipes_free(struct pipes *pipes)
{
	for (size_t i = 0; i < PIPES; i++)
		unmake(&pipes->own[i]);
}

uint32_t pipes_fit(struct pipes *pipes, uint32_t transfer)
{
	if (sysconf(_SC_PAGESIZE) != PAGE)
		return transfer;
	for (uint32_t less = 0; less <= PAGE; less += PAGE) {
		pipes->most = transfer + PAGE - less;
		if (make(&pipes->own[0], pipes->most))
			return transfer - less;
	}
	pipes->most = 0;
	return transfer;
}

struct onefd_fuse_pipe *pipes_take(struct pipes *pipes, char *memory)
{
	struct onefd_fuse_pipe *pipe;

	if (list_empty(&pipes->free))
		return NULL;
	pipe = list_entry(pipes->free.next, struct onefd_fuse_pipe, link);
	list_remove(&pipe->link);
	pipe->memory = memory;
	pipe->size = pipe->left = 0;
	return make(pipe, pipes->most) ? pipe : NULL;
}

void pipes_give_back(struct pipes *pipes, struct onefd_fuse_pipe *pipe)
{
	(void)pipe_gather(pipe);
	list_push_front(&pipes->free, &pipe->link);
}

ssize_t pipe_fill(struct onefd_fuse_pipe *pipe, int device, size_t most)
{
	ssize_t n = splice(device, NULL, pipe->ends[1], NULL, most, SPLICE_F_NONBLOCK);

	if (n < 0)
		return -errno;
	pipe->left = (size_t)n;
	return n;
}

bool pipe_pull(struct onefd_fuse_pipe *pipe, char *to, size_t size)
{
	while (size) {
		ssize_t n = read(pipe->ends[0], to, size);

		if (n <= 0) { /* UNTESTED: for want of memory */
			unmake(pipe);
			pipe->size = pipe->left = 0;
			return false;
		}
		to += n;
		size -= (size_t)n;
		pipe->left -= (size_t)n;
	}
	return true;
}

bool pipe_gather(struct onefd_fuse_pipe *pipe)
{
	return pipe_pull(pipe, pipe->memory, pipe->left) && pipe->size;
}

/* As write(2), which tells what came before an error. */
static ssize_t pour(struct onefd_fuse_pipe *pipe)
{
	off_t at = pipe->offset;
	ssize_t n = 1;
	int error = EIO;

	while (pipe->left && n > 0) {
		n = splice(pipe->ends[0], NULL, pipe->fd, &at, pipe->left, 0);
		if (n > 0)
			pipe->left -= (size_t)n;
		else if (n < 0)
			error = errno;
	}
	return at > pipe->offset ? (ssize_t)(at - pipe->offset) : -error;
}

ssize_t pipe_write_out(void *arg)
{
	struct onefd_fuse_pipe *pipe = arg;
	struct iovec bytes = { pipe->memory, pipe->size };
	ssize_t n = -EINVAL;

	if (!pipe->rw_flags && pipe->left)
		n = pour(pipe);
	/* Not every file takes from a pipe: none that is opened to append does. */
	if (n != -EINVAL)
		return n;
	if (!pipe_gather(pipe))
		return -EIO; /* UNTESTED: for want of memory */
	n = pwritev2(pipe->fd, &bytes, 1, pipe->offset, pipe->rw_flags);
	return n < 0 ? -errno : n;
}
