/*
 * outside.c - a program of somebody else: prints a file, a block at a time, with a
 * timer, a task and a report beside it. Not a test of the library but of what is
 * installed of it: strict C99 and C++11, the public header, nothing of ours.
 */
#define _POSIX_C_SOURCE 200809L
#include <onefd.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct reader {
	struct onefd *loop;
	struct onefd_file file;
	struct onefd_req req;
	struct onefd_timer timer;
	struct onefd_task task;
	off_t at;
	int rung, ran;
	char block[512];
};

static void block_read(struct onefd_req *req)
{
	struct reader *reader = onefd_container(req, struct reader, req);

	if (req->res <= 0)
		return;
	fwrite(reader->block, 1, (size_t)req->res, stdout);
	reader->at += req->res;
	onefd_prep_pread(req, &reader->file, reader->block, sizeof reader->block, reader->at);
	if (onefd_submit(reader->loop, req, block_read) < 0)
		onefd_stop(reader->loop);
}

static void ring(struct onefd_timer *timer)
{
	onefd_container(timer, struct reader, timer)->rung = 1;
}

static void run(struct onefd_task *task)
{
	onefd_container(task, struct reader, task)->ran = 1;
}

static int start(struct reader *reader, const char *name)
{
	int fd = open(name, O_RDONLY), r;

	r = onefd_file_init(reader->loop, &reader->file, fd);
	if (r < 0)
		return r;
	onefd_timer_init(&reader->timer, ring);
	onefd_timer_start(reader->loop, &reader->timer, onefd_now(reader->loop) + 1000);
	onefd_task_init(&reader->task, run);
	r = onefd_post(reader->loop, &reader->task);
	if (r < 0)
		return r;
	onefd_prep_pread(&reader->req, &reader->file, reader->block, sizeof reader->block, 0);
	return onefd_submit(reader->loop, &reader->req, block_read);
}

int main(int argc, char **argv)
{
	static struct reader reader;
	int r;

	if (argc != 2)
		return 2;
	if (strcmp(argv[1], "--version") == 0)
		return puts(onefd_version()) < 0;
	r = onefd_new(&reader.loop, NULL);
	if (r < 0)
		return 1;
	r = start(&reader, argv[1]);
	if (r == 0)
		r = onefd_run(reader.loop);
	if (onefd_free(reader.loop) < 0 || r < 0)
		return 1;
	return !reader.rung || !reader.ran || reader.req.res != 0;
}
