/*
 * test_large.c - buffered reads far larger than one readahead, and into buffers of
 * odd sizes, of files that are in no memory. Usage: test_large [READS]
 */
#include "files.h"
#include "heart.h"

#define MEBI (1 << 20)
#define LARGE (16 * MEBI)
#define MOST_PARTS 512

static int reads = 8;

static void set_up(void)
{
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
}

static void evict(int fd)
{
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

/* A file for @reads of them, half of each being the next one's too. */
static int make_halves(int index)
{
	struct place place = place_of(index);
	char *piece = malloc(LARGE / 2);
	int fd = (int)must_libc(open(place.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));

	for (off_t i = 0; i <= reads; i++) {
		fill(piece, LARGE / 2, i * LARGE / 2);
		ck_assert_int_eq(pwrite(fd, piece, LARGE / 2, i * LARGE / 2), LARGE / 2);
	}
	must_libc(fdatasync(fd));
	free(piece);
	return fd;
}

/* ---- beside a heartbeat ------------------------------------------------------- */

/* Whether no beat was late, and no call on this thread ever gave up the processor:
 * this disk may be too fast to make a beat late. */
static bool is_calm_beside(struct job *jobs, int index, int fd, const char *what)
{
	struct onefd_file file;
	struct heart heart;
	uint64_t late, slept;

	heart_start(&heart);
	slept = turn_times().sleeps;
	must(onefd_file_init(loop, &file, fd));
	for (off_t i = 0; i < reads; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, LARGE, i * LARGE / 2);
		job_submit(loop, &jobs[i]);
	}
	while (onefd_pending(loop))
		must(onefd_dispatch(loop, -1));
	slept = turn_times().sleeps - slept;
	late = heart_measure(&heart, place_of(index).fs, what);
	for (off_t i = 0; i < reads; i++) {
		ck_assert_int_eq(jobs[i].calls, 1);
		ck_assert_int_eq(jobs[i].res, LARGE);
		check_bytes(jobs[i].buf, LARGE, i * LARGE / 2);
	}
	return late <= LATE && slept == 0;
}

/* Each time, in a loop that waits; a busy machine lets one of three pass. */
START_TEST(no_call_waits_beside_large_reads)
{
	struct job *jobs = make_jobs((size_t)reads, LARGE);
	int fd = make_halves(_i), tries = 0;

	do
		evict(fd);
	while (!is_calm_beside(jobs, _i, fd, "large reads, cold") && ++tries < 3);
	ck_assert_int_lt(tries, 3);
	tries = 0;
	while (!is_calm_beside(jobs, _i, fd, "large reads, warm") && ++tries < 3)
		;
	ck_assert_int_lt(tries, 3);
	free_jobs(jobs, (size_t)reads);
	close(fd);
}
END_TEST

/* ---- one request -------------------------------------------------------------- */

START_TEST(one_read_has_64_mebibytes)
{
	struct job *job = make_jobs(1, 4 * LARGE);
	int fd = make_file(_i, 4 * LARGE - 12345, O_RDONLY);
	struct onefd_file file;

	must(onefd_file_init(loop, &file, fd));
	evict(fd);
	onefd_prep_pread(&job->req, &file, job->buf, 4 * LARGE - 12345, 0);
	ck_assert_int_eq(job_run(loop, job), 4 * LARGE - 12345);
	check_bytes(job->buf, (size_t)job->res, 0);
	/* It begins at odd bytes, and the file ends before it does. */
	evict(fd);
	memset(job->buf, 0, 4 * LARGE);
	onefd_prep_pread(&job->req, &file, job->buf, 4 * LARGE, 777);
	ck_assert_int_eq(job_run(loop, job), 4 * LARGE - 12345 - 777);
	check_bytes(job->buf, (size_t)job->res, 777);
	free_jobs(job, 1);
	close(fd);
}
END_TEST

/* ---- odd buffers ----------------------------------------------------------------- */

/* Buffers of odd sizes, one behind the other: how many bytes. */
static size_t make_parts(struct iovec *iov, int count, char *at)
{
	static const size_t sizes[] = { 1, 4095, 4097, 0, 4096, 511, 0, 0, 8193, 2, 12288 };
	size_t sum = 0;

	for (int i = 0; i < count; i++) {
		iov[i] = (struct iovec){ at + sum, sizes[i % 11] };
		sum += iov[i].iov_len;
	}
	return sum;
}

START_TEST(odd_buffers_are_filled_as_by_preadv)
{
	static const int counts[] = { 1, 2, 3, 7, 15, 16, 17, 18, 33, 64, 200, MOST_PARTS };
	static const off_t offsets[] = { 0, 1, 4095, 65536, 131071, MEBI, MEBI + 99, 3 * MEBI };
	struct iovec parts[MOST_PARTS], plain_parts[MOST_PARTS];
	char *plain = aligned(3 * MEBI);
	struct job *job = make_jobs(1, 3 * MEBI);
	int fd = make_file(_i, MEBI + 100, O_RDONLY);
	struct onefd_file file;

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 12 * 8; i++) {
		int count = counts[i % 12];
		size_t sum = make_parts(parts, count, job->buf);

		make_parts(plain_parts, count, plain);
		memset(job->buf, 0x11, sum + 1);
		memset(plain, 0x11, sum + 1);
		evict(fd);
		onefd_prep_preadv(&job->req, &file, parts, (size_t)count, offsets[i / 12]);
		job_run(loop, job);
		ck_assert_int_eq(job->res, preadv(fd, plain_parts, count, offsets[i / 12]));
		ck_assert_mem_eq(job->buf, plain, sum + 1);
	}
	free(plain);
	free_jobs(job, 1);
	close(fd);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite = suite_create("large");
	TCase *tcase = add_case(suite, "large", set_up, tear_down);
	int places = place_count();

	if (argc > 1)
		reads = atoi(argv[1]);
	tcase_add_loop_test(tcase, no_call_waits_beside_large_reads, 0, places);
	tcase_add_loop_test(tcase, one_read_has_64_mebibytes, 0, places);
	tcase_add_loop_test(tcase, odd_buffers_are_filled_as_by_preadv, 0, places);
	return run_suite(suite);
}
