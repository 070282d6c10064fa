/*
 * reads_loops.c - contenders that have a loop of their own: onefd and libuv.
 */
#include "reads.h"

#include <errno.h>
#include <onefd.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBUV
#include <uv.h>
#endif

/* ---- onefd ------------------------------------------------------------------------ */

static struct {
	struct onefd *loop;
	struct onefd_file file;
	struct onefd_req *req;
	struct onefd_timer timer;
	uint64_t due;
	struct onefd_stream stream;
	struct onefd_chunk *chunk;
} ours;

static void on_read(struct onefd_req *req);

static void ours_send(struct bench_run *run, struct reader *reader)
{
	struct onefd_req *req = &ours.req[reader - reads.reader];

	onefd_prep_pread(req, &ours.file, reader->buf, reader->len, reader->offset);
	req->data = run;
	if (onefd_submit(ours.loop, req, on_read) < 0) {
		run->failed++;
		reads.out--;
	}
}

static void on_read(struct onefd_req *req)
{
	struct reader *reader = &reads.reader[req - ours.req];

	if (reads_next(req->data, reader, req->res))
		ours_send(req->data, reader);
	if (!reads.out)
		onefd_timer_stop(&ours.timer);
}

static void on_beat(struct onefd_timer *timer)
{
	reads_beat(timer->data, &ours.due);
	onefd_timer_start(ours.loop, timer, ours.due);
}

/* Each chunk is one of the readers: what the others have in flight, the stream
 * may read ahead. The last of them are not released, and so it ends. */
static void on_chunk(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	struct bench_run *run = stream->data;

	if (!chunk) {
		run->failed += stream->res < 0 && stream->res != -ECANCELED;
		return;
	}
	if (reads_next(run, &reads.reader[chunk - ours.chunk], (ssize_t)chunk->len))
		onefd_stream_release(chunk);
	else if (!reads.out)
		onefd_stream_stop(stream);
}

static int prepare_stream(struct bench_run *run)
{
	ours.chunk = calloc(reads.depth, sizeof *ours.chunk);
	if (!ours.chunk)
		return -ENOMEM;
	onefd_stream_init(&ours.stream, on_chunk, ours.chunk, reads.depth, reads.reader[0].buf,
			  reads.block);
	ours.stream.data = run;
	return 0;
}

static int open_loop(struct bench_run *run, uint32_t spin_us)
{
	struct onefd_config config = { .depth = (uint32_t)run->work->depth, .spin_us = spin_us };
	int r = reads_setup(run);

	if (r < 0)
		return r;
	ours.req = calloc(reads.depth, sizeof *ours.req);
	if (!ours.req)
		return -ENOMEM;
	onefd_timer_init(&ours.timer, on_beat);
	ours.timer.data = run;
	r = prepare_stream(run);
	if (r == 0)
		r = onefd_new(&ours.loop, &config);
	if (r < 0)
		return r;
	return onefd_file_init(ours.loop, &ours.file, reads.fd);
}

int onefd_setup(struct bench_run *run)
{
	return open_loop(run, 0);
}

int onefd_spin_setup(struct bench_run *run)
{
	return open_loop(run, 200);
}

/* The longest turn since @before was taken, as the upper edge of its bucket. */
static uint64_t longest_since(const struct onefd_histogram *before,
			      const struct onefd_histogram *after)
{
	struct onefd_histogram since = *after;

	since.count -= before->count;
	for (unsigned i = 0; i < ONEFD_HISTOGRAM_BUCKETS; i++)
		since.bucket[i] -= before->bucket[i];
	return onefd_histogram_quantile(&since, 1);
}

static int begin(struct bench_run *run)
{
	for (unsigned i = 0; i < reads.depth; i++)
		if (reads_first(run, &reads.reader[i]) && !reads.streams)
			ours_send(run, &reads.reader[i]);
	return reads.streams ? onefd_stream_start(ours.loop, &ours.stream, &ours.file, 0, -1) : 0;
}

int onefd_play(struct bench_run *run)
{
	struct onefd_stats before, after;
	int r;

	(void)onefd_stats(ours.loop, &before, sizeof before);
	ours.due = bench_now() + READS_BEAT_NS;
	if (reads.beats)
		onefd_timer_start(ours.loop, &ours.timer, ours.due);
	r = begin(run);
	if (r == 0)
		r = onefd_run(ours.loop);
	(void)onefd_stats(ours.loop, &after, sizeof after);
	if (reads_timed())
		run->longest_ns = longest_since(&before.turn_ns, &after.turn_ns);
	return r;
}

static void explain(void)
{
	struct onefd_stats stats;

	(void)onefd_describe(ours.loop, stderr);
	(void)onefd_file_describe(&ours.file, stderr);
	(void)onefd_stats(ours.loop, &stats, sizeof stats);
	fprintf(stderr, "%llu turns, %llu submissions, %llu hits, %llu waits, %llu demotions\n",
		(unsigned long long)stats.turns, (unsigned long long)stats.submit_calls,
		(unsigned long long)stats.hits, (unsigned long long)stats.pages,
		(unsigned long long)stats.demoted);
}

void onefd_teardown(struct bench_run *run)
{
	if (run->options->verbose)
		explain();
	(void)onefd_free(ours.loop);
}

/* ---- libuv ------------------------------------------------------------------------ */

#ifdef HAVE_LIBUV
static struct {
	uv_loop_t loop;
	uv_fs_t *fs;
	uv_poll_t poll;
	struct beat beat;
} uv;

static void on_uv_read(uv_fs_t *fs);

static void uv_send(struct bench_run *run, struct reader *reader)
{
	uv_buf_t buf = uv_buf_init(reader->buf, (unsigned)reader->len);
	uv_fs_t *fs = &uv.fs[reader - reads.reader];

	fs->data = run;
	run->failed += uv_fs_read(&uv.loop, fs, reader->fd, &buf, 1, reader->offset,
				  on_uv_read) < 0;
}

static void on_uv_read(uv_fs_t *fs)
{
	struct reader *reader = &reads.reader[fs - uv.fs];
	struct bench_run *run = fs->data;

	uv_fs_req_cleanup(fs);
	if (reads_next(run, reader, fs->result))
		uv_send(run, reader);
	if (!reads.out)
		uv_poll_stop(&uv.poll);
}

static void on_uv_beat(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	beat_take(poll->data, &uv.beat);
}

/* Its own timers count in milliseconds, so the beat is a timerfd here as well.
 * The size of the pool is read at its first use, once in a process. */
static int uv_setup(struct bench_run *run, const char *threads)
{
	int r = reads_setup(run);

	if (r < 0)
		return r;
	setenv("UV_THREADPOOL_SIZE", threads, 1);
	uv.fs = calloc(reads.depth, sizeof *uv.fs);
	if (!uv.fs)
		return -ENOMEM;
	r = uv_loop_init(&uv.loop);
	if (r == 0)
		r = beat_open(&uv.beat);
	if (r == 0)
		r = uv_poll_init(&uv.loop, &uv.poll, uv.beat.fd);
	uv.poll.data = run;
	return r;	/* libuv's errors are -errno too */
}

int uv4_setup(struct bench_run *run)
{
	return uv_setup(run, "4");
}

int uv8_setup(struct bench_run *run)
{
	return uv_setup(run, "8");
}

int uv16_setup(struct bench_run *run)
{
	return uv_setup(run, "16");
}

int uv32_setup(struct bench_run *run)
{
	return uv_setup(run, "32");
}

int uv_play(struct bench_run *run)
{
	if (reads.beats)
		uv_poll_start(&uv.poll, UV_READABLE, on_uv_beat);
	beat_start(&uv.beat);
	for (unsigned i = 0; i < reads.depth; i++)
		if (reads_first(run, &reads.reader[i]))
			uv_send(run, &reads.reader[i]);
	uv_run(&uv.loop, UV_RUN_DEFAULT);
	beat_stop(&uv.beat);
	return 0;
}
#endif
