/* test_stream.c - a range of a file in order, ahead of its reader, and its end. */
#include "files.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "../lib/sys.h"

#define CHUNKS 8
#define SIZE 8192
#define ROUNDS 300
#define GUARD 0xa5

static struct onefd *loop;
static struct sys_calls real;

/* What a reader has seen of its stream. */
struct reader {
	struct onefd_stream stream;
	struct onefd_chunk chunks[CHUNKS];
	struct onefd_file file;
	struct onefd_chunk *held[CHUNKS];
	char *memory;
	size_t holding, given, most_pending;
	off_t at;		/* of the next byte */
	int fd, ends, res;
	void (*then)(struct reader *reader, struct onefd_chunk *chunk);
};

static void set_up(void)
{
	real = sys;
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	/* No more than was replaced: a context may still be on its way out. */
	sys.preadv2 = real.preadv2;
}

static void release_at_once(struct reader *reader, struct onefd_chunk *chunk)
{
	(void)reader;
	onefd_stream_release(chunk);
}

static void hold(struct reader *reader, struct onefd_chunk *chunk)
{
	reader->held[reader->holding++] = chunk;
}

static void on_chunk(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	struct reader *reader = onefd_container(stream, struct reader, stream);

	if (in_library)
		ck_abort_msg("called from inside start, release or stop");
	if (reader->ends)
		ck_abort_msg("called after the end");
	if (onefd_pending(loop) > reader->most_pending)
		reader->most_pending = onefd_pending(loop);
	if (!chunk) {
		reader->ends++;
		reader->res = stream->res;
		return;
	}
	reader->given++;
	if (chunk->offset != reader->at || !chunk->len)
		ck_abort_msg("%zu bytes of %lld instead of %lld", chunk->len,
			     (long long)chunk->offset, (long long)reader->at);
	check_bytes(chunk->buf, chunk->len, chunk->offset);
	reader->at += (off_t)chunk->len;
	if (stream->offset != reader->at)
		ck_abort_msg("the stream believes to be elsewhere");
	reader->then(reader, chunk);
}

/* @unit bytes of memory off the alignment of all. */
static void open_reader(struct reader *reader, int fd, size_t count, size_t size, size_t unit)
{
	memset(reader, 0, sizeof *reader);
	reader->fd = fd;
	reader->then = release_at_once;
	reader->memory = aligned(count * size + unit + 1);
	must(onefd_file_init(loop, &reader->file, fd));
	onefd_stream_init(&reader->stream, on_chunk, reader->chunks, count,
			  reader->memory + unit, size);
}

static void close_reader(struct reader *reader)
{
	free(reader->memory);
	close(reader->fd);
}

static int start(struct reader *reader, off_t offset, off_t length)
{
	int r;

	reader->ends = 0;
	reader->at = offset;
	in_library = true;
	r = onefd_stream_start(loop, &reader->stream, &reader->file, offset, length);
	in_library = false;
	return r;
}

static void stop(struct reader *reader)
{
	in_library = true;
	onefd_stream_stop(&reader->stream);
	in_library = false;
}

static void release(struct onefd_chunk *chunk)
{
	in_library = true;
	onefd_stream_release(chunk);
	in_library = false;
}

/* Runs to the end: its res. */
static int finish(struct reader *reader)
{
	while (!reader->ends)
		must(onefd_dispatch(loop, -1));
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(reader->ends, 1);
	ck_assert_uint_eq(onefd_pending(loop), 0);
	return reader->res;
}

static int run(struct reader *reader, off_t offset, off_t length)
{
	must(start(reader, offset, length));
	return finish(reader);
}

static void run_sizes(int index, int flags)
{
	static const size_t sizes[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, SIZE - 1, SIZE,
					SIZE + 1, 3 * SIZE, 3 * SIZE + 511, 40 * SIZE + 4097 };
	struct reader reader;

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		open_reader(&reader, make_file(index, sizes[i], O_RDONLY | flags), 4, SIZE, 0);
		ck_assert_int_eq(run(&reader, 0, -1), 0);
		ck_assert_int_eq(reader.at, (off_t)sizes[i]);
		ck_assert_uint_eq(reader.given, (sizes[i] + SIZE - 1) / SIZE);
		/* Known beforehand, the end is the same. */
		ck_assert_int_eq(run(&reader, 0, (off_t)sizes[i]), 0);
		ck_assert_int_eq(reader.at, (off_t)sizes[i]);
		close_reader(&reader);
	}
}

START_TEST(bytes_come_in_order_and_the_end_once)
{
	run_sizes(_i, 0);
}
END_TEST

START_TEST(direct_bytes_come_in_order_and_the_end_once)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	run_sizes(_i, O_DIRECT);
}
END_TEST

static struct onefd_stats stats(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

/* Of an odd range only the first chunk cannot go straight to its memory. */
START_TEST(aligned_memory_is_read_into_directly)
{
	struct reader reader;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	open_reader(&reader, make_file(_i, 20 * SIZE, O_RDONLY | O_DIRECT), 4, SIZE, 0);
	ck_assert_int_eq(run(&reader, 4097, 10 * SIZE + 100), 0);
	ck_assert_int_eq(reader.at, 4097 + 10 * SIZE + 100);
	ck_assert_uint_eq(stats().bounced, 1);
	close_reader(&reader);
}
END_TEST

START_TEST(range_ends_where_it_was_asked_to)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 10 * SIZE, O_RDONLY), 3, SIZE, 0);
	ck_assert_int_eq(run(&reader, 100, 5 * SIZE), 0);
	ck_assert_int_eq(reader.at, 100 + 5 * SIZE);
	/* Past the end of the file the offset says where that was. */
	ck_assert_int_eq(run(&reader, SIZE, 100 * SIZE), 0);
	ck_assert_int_eq(reader.stream.offset, 10 * SIZE);
	ck_assert_int_eq(run(&reader, 50 * SIZE, SIZE), 0);
	ck_assert_int_eq(reader.at, 50 * SIZE);
	close_reader(&reader);
}
END_TEST

START_TEST(nothing_is_an_end_at_once)
{
	struct reader reader;

	open_reader(&reader, make_file(0, SIZE, O_RDONLY), 2, SIZE, 0);
	must(start(&reader, 0, 0));
	ck_assert_int_eq(onefd_free(loop), -EBUSY);
	ck_assert_int_eq(must(onefd_dispatch(loop, -1)), 1);
	ck_assert_int_eq(reader.ends, 1);
	ck_assert_int_eq(reader.res, 0);
	ck_assert_uint_eq(reader.given, 0);
	close_reader(&reader);
}
END_TEST

START_TEST(what_is_not_released_is_not_read_into)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 20 * SIZE, O_RDONLY), 3, SIZE, 0);
	reader.then = hold;
	must(start(&reader, 0, -1));
	must(onefd_drain(loop, -1));
	ck_assert_uint_eq(reader.given, 3);
	ck_assert_int_eq(reader.ends, 0);
	for (size_t i = 0; i < 3; i++)
		check_bytes(reader.held[i]->buf, SIZE, (off_t)i * SIZE);
	/* One makes room for one, and its release a second time for none. */
	reader.holding = 1;
	release(reader.held[1]);
	release(reader.held[1]);
	must(onefd_drain(loop, -1));
	ck_assert_uint_eq(reader.given, 4);
	ck_assert_ptr_eq(reader.held[1], &reader.chunks[1]);
	check_bytes(reader.held[0]->buf, SIZE, 0);
	check_bytes(reader.held[2]->buf, SIZE, 2 * SIZE);
	stop(&reader);
	ck_assert_int_eq(finish(&reader), -ECANCELED);
	close_reader(&reader);
}
END_TEST

static size_t after_first;

static void note_growth(struct reader *reader, struct onefd_chunk *chunk)
{
	size_t before = onefd_pending(loop), after;

	onefd_stream_release(chunk);
	after = onefd_pending(loop);
	if (reader->given == 1)
		after_first = after;
	if (before < 4 && after > 2 * before)
		ck_abort_msg("%zu reads ahead grew to %zu", before, after);
	if (after > reader->most_pending)
		reader->most_pending = after;
}

/* One worker: what is read first has landed first. */
START_TEST(read_ahead_doubles_while_the_reader_waits)
{
	struct onefd_config config = { .threads = 1, .flags = ONEFD_NO_KAIO | ONEFD_NO_NOWAIT };
	struct onefd *usual = loop;
	struct reader reader;

	must(onefd_new(&loop, &config));
	open_reader(&reader, make_file(_i, 200 * SIZE, O_RDONLY), CHUNKS, SIZE, 0);
	reader.then = note_growth;
	must(start(&reader, 0, -1));
	ck_assert_uint_eq(onefd_pending(loop), 1);
	ck_assert_int_eq(finish(&reader), 0);
	ck_assert_uint_eq(after_first, 2);
	ck_assert_uint_eq(reader.most_pending, CHUNKS);
	close_reader(&reader);
	must(onefd_free(loop));
	loop = usual;
}
END_TEST

static void release_the_one_before(struct reader *reader, struct onefd_chunk *chunk)
{
	if (reader->holding)
		onefd_stream_release(reader->held[--reader->holding]);
	hold(reader, chunk);
}

START_TEST(read_ahead_stays_small_while_the_reader_has_some)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 50 * SIZE, O_RDONLY), CHUNKS, SIZE, 0);
	reader.then = release_the_one_before;
	ck_assert_int_eq(run(&reader, 0, -1), 0);
	ck_assert_uint_eq(reader.given, 50);
	ck_assert_uint_eq(reader.most_pending, 1);
	close_reader(&reader);
}
END_TEST

static void stop_at_third(struct reader *reader, struct onefd_chunk *chunk)
{
	onefd_stream_release(chunk);
	if (reader->given == 3) {
		stop(reader);
		stop(reader);
	}
}

START_TEST(stop_in_its_callback_is_the_last_but_one)
{
	struct reader reader;

	for (size_t count = 1; count <= CHUNKS; count++) {
		open_reader(&reader, make_file(_i, 50 * SIZE, O_RDONLY), count, SIZE, 0);
		reader.then = stop_at_third;
		ck_assert_int_eq(run(&reader, 0, -1), -ECANCELED);
		ck_assert_uint_eq(reader.given, 3);
		stop(&reader);
		must(onefd_drain(loop, -1));
		ck_assert_int_eq(reader.ends, 1);
		close_reader(&reader);
	}
}
END_TEST

/* The memory is written over by its owner as soon as it is said to be his. */
static void stop_with_reads_out(int index, int flags)
{
	struct reader reader;
	size_t turns;

	for (turns = 0; turns < 12; turns++) {
		open_reader(&reader, make_file(index, 1000 * SIZE, O_RDONLY | flags), CHUNKS, SIZE,
			    0);
		must(start(&reader, 0, -1));
		for (size_t i = 0; i < turns && !reader.ends; i++)
			must(onefd_dispatch(loop, 0));
		stop(&reader);
		while (!reader.ends)
			must(onefd_dispatch(loop, -1));
		ck_assert_uint_eq(onefd_pending(loop), 0);
		memset(reader.memory, GUARD, CHUNKS * SIZE);
		must(onefd_drain(loop, -1));
		ck_assert_int_eq(reader.res, -ECANCELED);
		for (size_t i = 0; i < CHUNKS * SIZE; i++)
			if ((unsigned char)reader.memory[i] != GUARD)
				ck_abort_msg("written to at %zu after the end", i);
		close_reader(&reader);
	}
}

START_TEST(stop_waits_for_reads_under_way)
{
	stop_with_reads_out(_i, 0);
	if (has_direct(_i))
		stop_with_reads_out(_i, O_DIRECT);
}
END_TEST

START_TEST(stop_takes_back_what_was_not_sent)
{
	struct reader reader;

	open_reader(&reader, make_file(0, SIZE, O_RDONLY), 2, SIZE, 0);
	must(start(&reader, 0, -1));
	stop(&reader);
	ck_assert_int_eq(finish(&reader), -ECANCELED);
	ck_assert_uint_eq(stats().cancelled, 1);
	close_reader(&reader);
}
END_TEST

/* One read finds the bytes, one that they are all. */
START_TEST(nothing_is_read_past_the_end_once_known)
{
	struct reader reader;

	open_reader(&reader, make_file(0, SIZE / 2, O_RDONLY), 4, SIZE, 0);
	ck_assert_int_eq(run(&reader, 0, -1), 0);
	ck_assert_uint_eq(stats().reads, 2);
	close_reader(&reader);
}
END_TEST

START_TEST(stop_while_the_reader_has_all_ends_too)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 20 * SIZE, O_RDONLY), 2, SIZE, 0);
	reader.then = hold;
	must(start(&reader, 0, -1));
	must(onefd_drain(loop, -1));
	stop(&reader);
	release(reader.held[0]);
	check_bytes(reader.held[1]->buf, SIZE, SIZE);
	ck_assert_int_eq(finish(&reader), -ECANCELED);
	ck_assert_uint_eq(reader.given, 2);
	release(reader.held[1]);
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(reader.ends, 1);
	close_reader(&reader);
}
END_TEST

static void truncate_at_second(struct reader *reader, struct onefd_chunk *chunk)
{
	if (reader->given == 2)
		must_libc(ftruncate(reader->fd, 5 * SIZE + 100));
	onefd_stream_release(chunk);
}

START_TEST(truncated_file_ends_where_it_ends_now)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 100 * SIZE, O_RDWR), 4, SIZE, 0);
	reader.then = truncate_at_second;
	ck_assert_int_eq(run(&reader, 0, 100 * SIZE), 0);
	ck_assert_int_eq(reader.at, 5 * SIZE + 100);
	close_reader(&reader);
}
END_TEST

/* Another file stands behind the descriptor, and that one cannot be read. */
static void break_at_third(struct reader *reader, struct onefd_chunk *chunk)
{
	if (reader->given == 3) {
		int other = open("/dev/null", O_WRONLY | O_CLOEXEC);

		must_libc(dup2(other, reader->fd));
		close(other);
	}
	onefd_stream_release(chunk);
}

START_TEST(error_comes_after_what_was_read_before_it)
{
	struct reader reader;

	open_reader(&reader, make_file(_i, 100 * SIZE, O_RDONLY), 4, SIZE, 0);
	reader.then = break_at_third;
	ck_assert_int_eq(run(&reader, 0, -1), -EBADF);
	ck_assert_int_ge(reader.at, 3 * SIZE);
	ck_assert_int_le(reader.at, 8 * SIZE);
	close_reader(&reader);
}
END_TEST

static void lose_the_file(struct reader *reader, struct onefd_chunk *chunk)
{
	if (reader->given == 3)
		reader->file.loop = NULL;
	onefd_stream_release(chunk);
}

START_TEST(request_refused_on_the_way_is_an_end)
{
	struct reader reader;

	for (size_t count = 1; count <= 3; count++) {
		open_reader(&reader, make_file(0, 100 * SIZE, O_RDONLY), count, SIZE, 0);
		reader.then = lose_the_file;
		ck_assert_int_eq(run(&reader, 0, -1), -EINVAL);
		ck_assert_uint_ge(reader.given, 3);
		close_reader(&reader);
	}
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	struct reader reader;
	struct onefd_stream *stream = &reader.stream;
	struct onefd *other;

	open_reader(&reader, make_file(0, SIZE, O_RDONLY), 2, SIZE, 0);
	ck_assert_int_eq(onefd_stream_start(NULL, stream, &reader.file, 0, 1), -EINVAL);
	ck_assert_int_eq(onefd_stream_start(loop, NULL, &reader.file, 0, 1), -EINVAL);
	ck_assert_int_eq(onefd_stream_start(loop, stream, NULL, 0, 1), -EINVAL);
	ck_assert_int_eq(start(&reader, -1, 1), -EINVAL);
	ck_assert_int_eq(start(&reader, 1, LLONG_MAX), -EINVAL);
	must(onefd_new(&other, NULL));
	ck_assert_int_eq(onefd_stream_start(other, stream, &reader.file, 0, 0), -EINVAL);
	must(onefd_free(other));
	onefd_stream_init(stream, NULL, reader.chunks, 2, reader.memory, SIZE);
	ck_assert_int_eq(start(&reader, 0, 1), -EINVAL);
	onefd_stream_init(stream, on_chunk, NULL, 2, reader.memory, SIZE);
	ck_assert_int_eq(start(&reader, 0, 1), -EINVAL);
	onefd_stream_init(stream, on_chunk, reader.chunks, 0, reader.memory, SIZE);
	ck_assert_int_eq(start(&reader, 0, 1), -EINVAL);
	onefd_stream_init(stream, on_chunk, reader.chunks, 2, NULL, SIZE);
	ck_assert_int_eq(start(&reader, 0, 1), -EINVAL);
	onefd_stream_init(stream, on_chunk, reader.chunks, 2, reader.memory, 0);
	ck_assert_int_eq(start(&reader, 0, 1), -EINVAL);
	onefd_stream_init(NULL, on_chunk, reader.chunks, 2, reader.memory, SIZE);
	onefd_stream_release(NULL);
	onefd_stream_stop(NULL);
	onefd_stream_init(stream, on_chunk, reader.chunks, 2, reader.memory, SIZE);
	stop(&reader);
	must(start(&reader, 0, -1));
	ck_assert_int_eq(start(&reader, 0, -1), -EBUSY);
	ck_assert_int_eq(finish(&reader), 0);
	ck_assert_int_eq(reader.at, SIZE);
	close_reader(&reader);
}
END_TEST

START_TEST(flags_go_with_every_read)
{
	struct reader reader;

	open_reader(&reader, make_file(0, SIZE, O_RDONLY), 2, SIZE, 0);
	reader.stream.rw_flags = 1 << 30;	/* no kernel knows it */
	ck_assert_int_lt(run(&reader, 0, -1), 0);
	ck_assert_uint_eq(reader.given, 0);
	close_reader(&reader);
}
END_TEST

static int again;

static void restart(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	if (chunk)
		onefd_stream_release(chunk);
	else if (again--)
		must(onefd_stream_start(loop, stream, stream->file, 0, again % 2 ? 0 : -1));
}

START_TEST(last_callback_may_start_it_again)
{
	struct reader reader;

	again = 10;
	open_reader(&reader, make_file(0, 3 * SIZE + 1, O_RDONLY), 2, SIZE, 0);
	reader.stream.fn = restart;
	must(start(&reader, 0, -1));
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(again, -1);
	close_reader(&reader);
}
END_TEST

/* Or what its reader releases later would be read into by a loop that is gone. */
START_TEST(loop_is_not_freed_under_a_reader_with_all_the_chunks)
{
	struct reader reader;

	open_reader(&reader, make_file(0, 9 * SIZE, O_RDONLY), 2, SIZE, 0);
	reader.then = hold;
	must(start(&reader, 0, -1));
	while (reader.holding < 2)
		must(onefd_dispatch(loop, -1));
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(onefd_free(loop), -EBUSY);
	stop(&reader);
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(reader.res, -ECANCELED);
	release(reader.held[0]);
	close_reader(&reader);
}
END_TEST

START_TEST(direct_range_ends_at_a_whole_block)
{
	struct reader reader;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	open_reader(&reader, make_file(_i, SIZE, O_RDONLY | O_DIRECT), 2, SIZE, 0);
	ck_assert_int_eq(start(&reader, 0, LLONG_MAX), -EINVAL);
	ck_assert_int_eq(start(&reader, LLONG_MAX, 1), -EINVAL);
	ck_assert_int_eq(run(&reader, LLONG_MAX, 0), 0);
	ck_assert_int_eq(run(&reader, LLONG_MAX, -1), 0);
	ck_assert_int_eq(run(&reader, 0, LLONG_MAX - LLONG_MAX % 4096), 0);
	ck_assert_int_eq(reader.at, SIZE);
	close_reader(&reader);
}
END_TEST

struct owned {
	struct onefd_stream stream;
	struct onefd_chunk chunks[3];
	struct onefd_file file;
	char memory[3 * SIZE];
};

static void free_at_end(struct onefd_stream *stream, struct onefd_chunk *chunk)
{
	struct owned *owned = onefd_container(stream, struct owned, stream);

	if (chunk) {
		onefd_stream_release(chunk);
		if (owned->stream.offset > 5 * SIZE)
			onefd_stream_stop(stream);
		return;
	}
	close(owned->file.fd);
	memset(owned, GUARD, sizeof *owned);
	free(owned);
}

START_TEST(last_callback_may_free_all)
{
	for (int i = 0; i < 50; i++) {
		struct owned *owned = malloc(sizeof *owned);

		must(onefd_file_init(loop, &owned->file, make_file(0, (size_t)i * 1000, O_RDONLY)));
		onefd_stream_init(&owned->stream, free_at_end, owned->chunks, 3, owned->memory,
				  SIZE);
		must(onefd_stream_start(loop, &owned->stream, &owned->file, 0, -1));
	}
	must(onefd_drain(loop, -1));
}
END_TEST

/* A part of what was asked for, as signals and network file systems do it. */
static ssize_t read_little(int fd, const struct iovec *iov, size_t count, off_t offset, int flags)
{
	struct iovec some = *iov;

	(void)count;
	some.iov_len = some.iov_len * 5 / 8 + 1;
	if (some.iov_len > iov->iov_len)
		some.iov_len = iov->iov_len;
	return real.preadv2(fd, &some, 1, offset, flags);
}

START_TEST(short_reads_within_the_file_are_continued)
{
	struct onefd_config config = { .flags = ONEFD_NO_KAIO };
	struct onefd *usual = loop;
	struct reader reader;

	must(onefd_new(&loop, &config));
	sys.preadv2 = read_little;
	open_reader(&reader, make_file(_i, 20 * SIZE + 77, O_RDONLY), 4, SIZE, 0);
	ck_assert_int_eq(run(&reader, 0, -1), 0);
	ck_assert_int_eq(reader.at, 20 * SIZE + 77);
	ck_assert_uint_eq(reader.given, 21);
	close_reader(&reader);
	must(onefd_free(loop));
	sys.preadv2 = real.preadv2;
	loop = usual;
}
END_TEST

/* ---- anything, at random ----------------------------------------------- */

static unsigned seed;

static size_t random_below(size_t limit)
{
	return limit ? (size_t)rand_r(&seed) % limit : 0;
}

/* Gives back some of what it has, now the oldest, now any. */
static void release_some(struct reader *reader, size_t count)
{
	while (count-- && reader->holding) {
		size_t i = random_below(2) ? 0 : random_below(reader->holding);
		struct onefd_chunk *chunk = reader->held[i];

		check_bytes(chunk->buf, chunk->len, chunk->offset);
		reader->held[i] = reader->held[--reader->holding];
		onefd_stream_release(chunk);
	}
}

static void do_anything(struct reader *reader, struct onefd_chunk *chunk)
{
	hold(reader, chunk);
	release_some(reader, random_below(4));
	if (random_below(100) == 0)
		stop(reader);
}

static void read_at_random(int fd, size_t file_size)
{
	size_t count = 1 + random_below(CHUNKS), room;
	size_t unit = random_below(2) ? 0 : random_below(600);
	size_t size = random_below(2) ? 4096 * (1 + random_below(8)) : 1 + random_below(30000);
	off_t offset = (off_t)random_below(file_size * 5 / 4);
	off_t length = random_below(2) ? -1 : (off_t)random_below(file_size * 5 / 4);
	off_t last = length < 0 || offset + length > (off_t)file_size ? (off_t)file_size :
			     offset + length;
	struct reader reader;
	int res;

	/* Not many chunks to each file: most time would go there. */
	if (file_size / size > 200)
		size = file_size / 200 + 1;
	room = count * size;
	open_reader(&reader, fd, count, size, unit);
	memset(reader.memory, GUARD, unit + room + 1);
	reader.then = do_anything;
	must(start(&reader, offset, length));
	while (!reader.ends) {
		if (!onefd_pending(loop))
			release_some(&reader, 1 + random_below(CHUNKS));
		if (!reader.ends)
			must(onefd_dispatch(loop, onefd_pending(loop) ? -1 : 0));
	}
	res = reader.res;
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(reader.ends, 1);
	ck_assert(res == 0 || res == -ECANCELED);
	if (res == 0 && last > offset)
		ck_assert_int_eq(reader.at, last);
	for (size_t i = 0; i < unit; i++)
		ck_assert_uint_eq((unsigned char)reader.memory[i], GUARD);
	ck_assert_uint_eq((unsigned char)reader.memory[unit + room], GUARD);
	close_reader(&reader);
}

static void rounds_at_random(int index, int flags)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t size;

		seed = i * 2654435761u + 1;
		size = random_below(4) ? random_below(300000) : random_below(10000);
		read_at_random(make_file(index, size, O_RDONLY | flags), size);
	}
}

START_TEST(whatever_the_reader_does_it_gets_the_file)
{
	rounds_at_random(_i, 0);
}
END_TEST

START_TEST(whatever_the_reader_does_it_gets_the_direct_file)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	rounds_at_random(_i, O_DIRECT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stream");
	TCase *tcase = add_case(suite, "stream", set_up, tear_down);
	TCase *random = add_case(suite, "random", set_up, tear_down);
	int count = place_count();

	tcase_add_loop_test(tcase, bytes_come_in_order_and_the_end_once, 0, count);
	tcase_add_loop_test(tcase, direct_bytes_come_in_order_and_the_end_once, 0, count);
	tcase_add_loop_test(tcase, aligned_memory_is_read_into_directly, 0, count);
	tcase_add_loop_test(tcase, range_ends_where_it_was_asked_to, 0, count);
	tcase_add_test(tcase, nothing_is_an_end_at_once);
	tcase_add_loop_test(tcase, what_is_not_released_is_not_read_into, 0, count);
	tcase_add_loop_test(tcase, read_ahead_doubles_while_the_reader_waits, 0, count);
	tcase_add_loop_test(tcase, read_ahead_stays_small_while_the_reader_has_some, 0, count);
	tcase_add_loop_test(tcase, stop_in_its_callback_is_the_last_but_one, 0, count);
	tcase_add_loop_test(tcase, stop_waits_for_reads_under_way, 0, count);
	tcase_add_test(tcase, stop_takes_back_what_was_not_sent);
	tcase_add_test(tcase, nothing_is_read_past_the_end_once_known);
	tcase_add_loop_test(tcase, stop_while_the_reader_has_all_ends_too, 0, count);
	tcase_add_loop_test(tcase, truncated_file_ends_where_it_ends_now, 0, count);
	tcase_add_loop_test(tcase, error_comes_after_what_was_read_before_it, 0, count);
	tcase_add_test(tcase, request_refused_on_the_way_is_an_end);
	tcase_add_test(tcase, bad_arguments_are_refused);
	tcase_add_test(tcase, flags_go_with_every_read);
	tcase_add_test(tcase, last_callback_may_start_it_again);
	tcase_add_test(tcase, loop_is_not_freed_under_a_reader_with_all_the_chunks);
	tcase_add_loop_test(tcase, direct_range_ends_at_a_whole_block, 0, count);
	tcase_add_test(tcase, last_callback_may_free_all);
	tcase_add_loop_test(tcase, short_reads_within_the_file_are_continued, 0, count);
	tcase_add_loop_test(random, whatever_the_reader_does_it_gets_the_file, 0, count);
	tcase_add_loop_test(random, whatever_the_reader_does_it_gets_the_direct_file, 0, count);
	return run_suite(suite);
}
