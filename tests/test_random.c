/*
 * test_random.c - buffered reads at random, while pages are evicted, reads are
 * cancelled and the file is cut and grown again beside them; held against what the
 * file must have. Usage: test_random [SEED [OPERATIONS]]
 *
 * The file's bytes are foretold, and below LOW it is never cut: there each read
 * must be whole and right. Above it a read may be short, and a byte that was being
 * cut off may be zero.
 */
#include "files.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>

#define MEBI (1 << 20)
#define PAGE 4096
#define SIZE (24 * MEBI)
#define LOW (16 * MEBI)
#define MOST (256 * 1024)
#define COUNT 32
#define PARTS 8
#define ROUNDS 20

static uint64_t seed = 20110607;
static long operations = 5000;
static struct onefd *loop;
static int fd;
static atomic_bool over;

static uint64_t random_below(uint64_t *state, uint64_t limit)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % limit;
}

/* ---- what happens to the file ---------------------------------------------- */

/* Mostly a range out of memory; at times an end cut off and written again. */
static void *disturb(void *arg)
{
	uint64_t state = *(uint64_t *)arg;
	char *bytes = malloc(SIZE - LOW);

	fill(bytes, SIZE - LOW, LOW);
	while (!over) {
		off_t at = (off_t)random_below(&state, SIZE);

		if (random_below(&state, 16)) {
			posix_fadvise(fd, at, (off_t)random_below(&state, 4 * MEBI) + 1,
				      POSIX_FADV_DONTNEED);
			continue;
		}
		at = LOW + at % (SIZE - LOW);
		must_libc(ftruncate(fd, at));
		for (off_t end; at < SIZE; at = end) {
			end = at + MEBI < SIZE ? at + MEBI : SIZE;
			ck_assert_int_eq(pwrite(fd, bytes + (at - LOW), (size_t)(end - at), at),
					 end - at);
		}
		/* Pages that are not on the disk are not evicted. */
		must_libc(fdatasync(fd));
	}
	free(bytes);
	return NULL;
}

/* ---- reads ------------------------------------------------------------------- */

struct read {
	struct job job;
	struct iovec iov[PARTS];
	size_t len;
	bool out, cancelled;
};

static void submit(struct read *one, struct onefd_file *file, uint64_t *state)
{
	size_t parts = 1 + random_below(state, PARTS), used = 0;
	size_t most = random_below(state, 4) ? 3 * PAGE : MOST / PARTS;

	for (size_t i = 0; i < parts; i++) {
		size_t len = random_below(state, 8) ? random_below(state, most) : 0;

		one->iov[i] = (struct iovec){ (char *)one->job.buf + used, len };
		used += len;
	}
	one->len = used;
	one->cancelled = false;
	onefd_prep_preadv(&one->job.req, file, one->iov, parts,
			  (off_t)random_below(state, SIZE + PAGE));
	job_submit(loop, &one->job);
}

static void check_above(const unsigned char *bytes, size_t len, off_t offset)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] && bytes[i] != pattern(offset + (off_t)i))
			ck_abort_msg("byte %lld is wrong", (long long)offset + (long long)i);
}

/* Of @len bytes from @offset, those that are before @end. */
static size_t before(off_t end, off_t offset, size_t len)
{
	if (offset >= end)
		return 0;
	return end - offset < (off_t)len ? (size_t)(end - offset) : len;
}

static void check(const struct read *one)
{
	const struct job *job = &one->job;
	off_t offset = job->req.offset;
	size_t safe = before(LOW, offset, one->len);

	ck_assert_int_eq(job->calls, 1);
	if (one->cancelled) {
		ck_assert_int_eq(job->res, -ECANCELED);
		return;
	}
	ck_assert_int_ge(job->res, (ssize_t)safe);
	ck_assert_int_le(job->res, (ssize_t)before(SIZE, offset, one->len));
	check_bytes(job->buf, safe, offset);
	check_above((unsigned char *)job->buf + safe, (size_t)job->res - safe,
		    offset + (off_t)safe);
}

/* One that is out is cancelled now and then; one that is not goes out again. */
static long step(struct read *one, struct onefd_file *file, uint64_t *state, bool more)
{
	long done = one->job.calls > 0;

	if (done) {
		check(one);
		one->job.calls = 0;
		one->out = false;
	}
	if (!one->out && more) {
		submit(one, file, state);
		one->out = true;
	} else if (one->out && random_below(state, 32) == 0) {
		one->cancelled |= job_cancel(&one->job) == 0;
	}
	return done;
}

/* About @count reads through a file of its own: what is learned of it, as that it
 * was cut once and so its ends are not to be trusted, does not stay for ever. */
static long run(struct read *all, uint64_t *state, long count)
{
	struct onefd_file file;
	long done = 0;

	must(onefd_file_init(loop, &file, fd));
	while (done < count) {
		for (int i = 0; i < COUNT; i++)
			done += step(&all[i], &file, state, true);
		must(onefd_dispatch(loop, -1));
	}
	must(onefd_drain(loop, -1));
	for (int i = 0; i < COUNT; i++)
		done += step(&all[i], &file, state, false);
	return done;
}

START_TEST(reads_are_what_the_file_has)
{
	uint64_t state = seed + (uint64_t)_i, other = state * 3;
	struct read *all = calloc(COUNT, sizeof *all);
	struct onefd_stats stats;
	pthread_t thread;
	long done = 0;

	printf("# %s: seed %" PRIu64 ", %ld operations\n", place_of(_i).fs, seed, operations);
	fd = make_file(_i, SIZE, O_RDWR);
	over = false;
	must(onefd_new(&loop, test_config()));
	ck_assert_int_eq(pthread_create(&thread, NULL, disturb, &other), 0);
	for (int i = 0; i < COUNT; i++)
		all[i].job.buf = aligned(MOST);
	for (; done < operations; done += run(all, &state, operations / ROUNDS + 1))
		;
	over = true;
	pthread_join(thread, NULL);
	must(onefd_stats(loop, &stats, sizeof stats));
	printf("# %" PRIu64 " hits, %" PRIu64 " sent to waiters, %" PRIu64 " to workers, %" PRIu64
	       " cancelled\n", stats.hits, stats.pages, stats.pool, stats.cancelled);
	fflush(stdout);
	for (int i = 0; i < COUNT; i++)
		free(all[i].job.buf);
	free(all);
	must(onefd_free(loop));
	close(fd);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite = suite_create("random");
	TCase *tcase = add_case(suite, "random", NULL, NULL);

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		operations = strtol(argv[2], NULL, 0);
	if (operations > 100000)
		tcase_set_timeout(tcase, 3600);
	tcase_add_loop_test(tcase, reads_are_what_the_file_has, 0, place_count());
	return run_suite(suite);
}
