/*
 * pipe.h - pipes that the bytes of large writes go through.
 *
 * The kernel puts the pages of a write into a pipe as they are, and a worker splices
 * them on into the file: the one copy is into the page cache. A pipe is a request's
 * until that ends, and empty when it is free, or the next would find no room.
 *
 * The loop's thread only, but for pipe_write_out(). pipe.c is to this library what sys.c, which
 * is out of its reach, is to the other: the file that reads errno.
 */
#ifndef PIPE_H
#define PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../list.h"

/* One for each worker that may be writing out; 8 MiB of the kernel's memory at most. */
#define PIPES 8u

struct onefd_fuse_pipe {
	char *memory;		/* where its bytes go that a pipe is of no use for */
	size_t size;		/* yours: the bytes of a write, as it was begun */
	size_t left;		/* what is still in it */
	int fd, rw_flags;	/* yours: where they are to be written, as by pwritev2(2) */
	off_t offset;
	/* private */
	struct onefd_link link;
	int ends[2]; /* -1: not made yet */
};

struct pipes {
	size_t most; /* bytes of a request, with its header; 0: there are no pipes */
	/* private */
	struct onefd_fuse_pipe own[PIPES];
	struct onefd_link free;
};

void pipes_init(struct pipes *pipes);
void pipes_free(struct pipes *pipes);

/*
 * Each page of a write takes one of a pipe, and so does the header. Not everybody may have
 * a pipe larger than 1 MiB: then writes are to be a page shorter. The transfer there is;
 * where there are no pipes at all, @transfer.
 */
uint32_t pipes_fit(struct pipes *pipes, uint32_t transfer);

/* NULL: there is none that is free. One that cannot be made is not tried again. */
struct onefd_fuse_pipe *pipes_take(struct pipes *pipes, char *memory);

/* What is left in it is read out. */
void pipes_give_back(struct pipes *pipes, struct onefd_fuse_pipe *pipe);

/* A request of @device, which is taken as a whole: its bytes, or -errno. */
ssize_t pipe_fill(struct onefd_fuse_pipe *pipe, int device, size_t most);

/* Reads what is there: false, and all is lost, for want of memory. */
bool pipe_pull(struct onefd_fuse_pipe *pipe, char *to, size_t size);

/* What is left, to its memory: whether all of the write is there. */
bool pipe_gather(struct onefd_fuse_pipe *pipe);

/* On a worker: writes what is left, or all of it from its memory. As pwritev2(2), or -errno. */
ssize_t pipe_write_out(void *pipe);

#endif
