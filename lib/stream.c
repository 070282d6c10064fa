/*
 * stream.c - a range of a file, read ahead and handed over in order.
 *
 * A user of the public requests like any other: one to each chunk of the
 * caller's memory. A chunk is free, being read, landed behind one that is not,
 * or with the reader:
 *
 *	free --ask--> reading --landed--> landed --deliver--> held --release--> free
 *
 * The stream is over once its last word is known: an error, the end, a stop.
 * That is said when no read is out any more, for the device writes to the
 * memory of each until then.
 */
#include <errno.h>

#include "core.h"

enum { CHUNK_FREE, CHUNK_READING, CHUNK_LANDED, CHUNK_HELD };

/* Bits of onefd_stream.flags. */
#define STREAM_STARTED	(1u << 0)
#define STREAM_OVER	(1u << 1)	/* @res is final, nothing more is delivered */
#define STREAM_POSTED	(1u << 2)	/* the last word comes by the task */

/* Reads begin on whole pages, also where the device has smaller blocks. */
#define PAGE 4096

static void on_read(struct onefd_req *req);
static void on_task(struct onefd_task *task);

void onefd_stream_init(struct onefd_stream *stream, onefd_stream_fn *fn,
		       struct onefd_chunk *chunks, size_t count, void *memory, size_t size)
{
	if (!stream)
		return;
	*stream = (struct onefd_stream){ .fn = fn };
	stream->chunks = chunks;
	stream->count = count;
	stream->memory = memory;
	stream->size = size;
	onefd_task_init(&stream->task, on_task);
}

/* ---- towards the file -------------------------------------------------- */

static bool is_direct(const struct onefd_stream *stream)
{
	return stream->file->flags & ONEFD_FILE_DIRECT;
}

/*
 * How much the next chunk takes. The first is cut so that those after it begin
 * on a block.
 */
static size_t share(const struct onefd_stream *stream)
{
	size_t block = stream->file->off_align > PAGE ? stream->file->off_align : PAGE;
	size_t skew = (size_t)stream->next % block;
	size_t len = stream->size > skew ? stream->size - skew : stream->size;

	return stream->end - stream->next < (off_t)len ? (size_t)(stream->end - stream->next) : len;
}

/* Asks for what @chunk lacks: whole blocks where there is room for them, which
 * spares a direct read the detour by aligned memory. */
static int ask(struct onefd_chunk *chunk)
{
	struct onefd_stream *stream = chunk->stream;
	off_t from = chunk->offset + (off_t)chunk->len;
	size_t len = chunk->want - chunk->len;
	size_t block = is_direct(stream) ? stream->file->off_align : 1;
	size_t whole = (len + block - 1) / block * block;
	int r;

	if (whole > stream->size - chunk->len)
		whole = len;
	onefd_prep_pread(&chunk->req, stream->file, chunk->buf + chunk->len, whole, from);
	chunk->req.rw_flags = stream->rw_flags;
	chunk->req.ioprio = stream->ioprio;
	r = onefd_submit(stream->loop, &chunk->req, on_read);
	if (r < 0)
		return r;
	chunk->state = CHUNK_READING;
	stream->reading++;
	return 0;
}

/* What is known of @chunk is all: short, it is the file's last. */
static void land(struct onefd_chunk *chunk, int error)
{
	chunk->state = CHUNK_LANDED;
	chunk->error = error;
	if (chunk->len < chunk->want)
		chunk->stream->next = chunk->stream->end;
}

/* As far ahead as it may go now. */
static int read_ahead(struct onefd_stream *stream)
{
	int r = 0;

	while (r == 0 && stream->reading < stream->ahead && stream->next < stream->end &&
	       !list_empty(&stream->free)) {
		struct onefd_chunk *chunk =
			list_entry(list_pop(&stream->free), struct onefd_chunk, link);

		chunk->offset = stream->next;
		chunk->want = share(stream);
		chunk->len = 0;
		list_push(&stream->order, &chunk->link);
		r = ask(chunk);
		if (r < 0)
			land(chunk, r);
		else
			stream->next += (off_t)chunk->want;
	}
	return r;
}

/* The last word, for when no read is out to bring it. */
static void post(struct onefd_stream *stream)
{
	if (!(stream->flags & STREAM_POSTED) && onefd_post(stream->loop, &stream->task) == 0)
		stream->flags |= STREAM_POSTED;
}

/* ---- towards the reader ------------------------------------------------ */

static struct onefd_chunk *front(struct onefd_stream *stream)
{
	return list_empty(&stream->order) ? NULL :
		list_entry(stream->order.next, struct onefd_chunk, link);
}

/* Nothing more is delivered. What waits for its turn need not be read. */
static void end(struct onefd_stream *stream, int res)
{
	stream->flags |= STREAM_OVER;
	stream->res = res;
	for (struct onefd_link *at = stream->order.next; at != &stream->order; at = at->next) {
		struct onefd_chunk *chunk = list_entry(at, struct onefd_chunk, link);

		if (chunk->state == CHUNK_READING)
			(void)onefd_cancel(&chunk->req);
	}
}

static void give(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	stream->offset += (off_t)chunk->len;
	stream->held++;
	chunk->state = CHUNK_HELD;
	/* Before the reader has its turn: the device works meanwhile. */
	if (read_ahead(stream) < 0)
		post(stream);
	stream->fn(stream, chunk);
}

/* What has landed, in order. */
static void deliver(struct onefd_stream *stream)
{
	struct onefd_chunk *chunk;

	while (!(stream->flags & STREAM_OVER) && (chunk = front(stream)) &&
	       chunk->state == CHUNK_LANDED) {
		/* Released, it may be asked for again when this returns. */
		bool last = chunk->len < chunk->want;
		int error = chunk->error;

		list_remove(&chunk->link);
		if (chunk->len)
			give(stream, chunk);
		if (!(stream->flags & STREAM_OVER) && (last || stream->offset == stream->end))
			end(stream, error);
	}
}

/* Delivers what can be; when that was all, says so and lets go of the stream. */
static void advance(struct onefd_stream *stream)
{
	deliver(stream);
	if (!(stream->flags & STREAM_OVER) || stream->reading || stream->flags & STREAM_POSTED)
		return;
	stream->flags = 0;
	stream->loop->streams--;
	stream->fn(stream, NULL);
}

static void on_read(struct onefd_req *req)
{
	struct onefd_chunk *chunk = onefd_container(req, struct onefd_chunk, req);
	struct onefd_stream *stream = chunk->stream;
	size_t lacks = chunk->want - chunk->len;
	int r = req->res < 0 ? (int)req->res : 0;

	stream->reading--;
	if (req->res > 0) {
		chunk->len += (size_t)req->res < lacks ? (size_t)req->res : lacks;
		/* Short, but whether that is the end only the next read tells. */
		if (chunk->len < chunk->want && !(stream->flags & STREAM_OVER)) {
			r = ask(chunk);
			if (r == 0)
				return;
		}
	}
	land(chunk, r);
	advance(stream);
}

static void on_task(struct onefd_task *task)
{
	struct onefd_stream *stream = onefd_container(task, struct onefd_stream, task);

	stream->flags &= ~STREAM_POSTED;
	advance(stream);
}

/* ---- the caller's calls ------------------------------------------------ */

/* Where a range may end: in whole blocks that must be an offset still. */
static off_t most(const struct onefd_file *file)
{
	return file->flags & ONEFD_FILE_DIRECT ? INT64_MAX - INT64_MAX % file->off_align :
						 INT64_MAX;
}

static int check(const struct onefd *loop, const struct onefd_stream *stream,
		 const struct onefd_file *file, off_t offset, off_t length)
{
	if (!stream->fn || !stream->chunks || !stream->count || !stream->memory ||
	    !stream->size || file->loop != loop || offset < 0)
		return -EINVAL;
	return length > 0 && length > most(file) - offset ? -EINVAL : 0;
}

static void reset(struct onefd_stream *stream)
{
	list_init(&stream->free);
	list_init(&stream->order);
	for (size_t i = 0; i < stream->count; i++) {
		struct onefd_chunk *chunk = &stream->chunks[i];

		chunk->buf = (char *)stream->memory + i * stream->size;
		chunk->stream = stream;
		chunk->state = CHUNK_FREE;
		list_push(&stream->free, &chunk->link);
	}
	stream->ahead = 1;
	stream->held = stream->reading = 0;
	stream->res = 0;
}

int onefd_stream_start(struct onefd *loop, struct onefd_stream *stream,
		       struct onefd_file *file, off_t offset, off_t length)
{
	int r;

	if (!loop || !stream || !file)
		return -EINVAL;
	if (!loop_is_ours(loop))
		return -ECHILD;
	if (stream->flags & STREAM_STARTED)
		return -EBUSY;
	r = check(loop, stream, file, offset, length);
	if (r < 0)
		return r;
	reset(stream);
	stream->loop = loop;
	stream->file = file;
	stream->offset = stream->next = offset;
	stream->end = length < 0 ? most(file) : offset + length;
	r = read_ahead(stream);
	if (r < 0)
		return r;
	stream->flags = STREAM_STARTED;
	loop->streams++;
	if (stream->next >= stream->end && !stream->reading) {
		stream->flags |= STREAM_OVER;
		post(stream);
	}
	return 0;
}

/* Whether the reader has nothing and would have to wait for more. */
static bool is_starved(struct onefd_stream *stream)
{
	return !stream->held && stream->reading && front(stream)->state == CHUNK_READING;
}

void onefd_stream_release(struct onefd_chunk *chunk)
{
	struct onefd_stream *stream = chunk ? chunk->stream : NULL;

	if (!stream || chunk->state != CHUNK_HELD || !loop_is_ours(stream->loop))
		return;
	chunk->state = CHUNK_FREE;
	list_push(&stream->free, &chunk->link);
	stream->held--;
	if (!(stream->flags & STREAM_STARTED) || stream->flags & STREAM_OVER)
		return;
	if (is_starved(stream) && stream->ahead < stream->count)
		stream->ahead = stream->ahead * 2 < stream->count ? stream->ahead * 2 :
								    stream->count;
	if (read_ahead(stream) < 0)
		post(stream);
}

void onefd_stream_stop(struct onefd_stream *stream)
{
	if (!stream || !(stream->flags & STREAM_STARTED) || !loop_is_ours(stream->loop))
		return;
	end(stream, -ECANCELED);
	if (!stream->reading)
		post(stream);
}
