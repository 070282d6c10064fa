/* test_prefetch.c - a range that is said to be resident is, and nobody waited for it. */
#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "../lib/sys.h"

#define PAGE 4096
#define LARGE (24 << 20)

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;
static struct job *job;
static int fd;
static size_t length;

static void set_up(void)
{
	real = sys;
	must(onefd_new(&loop, test_config()));
	job = make_jobs(1, 0);
}

static void tear_down(void)
{
	free_jobs(job, 1);
	must(onefd_free(loop));
	/* No more than was replaced: a context may still be on its way out, and a
	 * thread on its way into the wait for a page that was cancelled. */
	if (sys.readahead != real.readahead)
		sys.readahead = real.readahead;
	if (sys.preadv2 != real.preadv2)
		sys.preadv2 = real.preadv2;
}

static void evict(void)
{
	ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static void open_cold(int index, size_t size)
{
	length = size;
	fd = make_file(index, size, O_RDWR);
	must(onefd_file_init(loop, &file, fd));
	evict();
}

/* By the kernel's word, which is no read: how many pages of the range are there. */
static size_t resident(off_t offset, size_t len)
{
	off_t from = offset / PAGE * PAGE;
	size_t pages = (len + (size_t)(offset - from) + PAGE - 1) / PAGE, count = 0;
	unsigned char *there = malloc(pages + 1);
	void *map = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, from);

	ck_assert_ptr_ne(map, MAP_FAILED);
	must_libc(mincore(map, pages * PAGE, there));
	for (size_t i = 0; i < pages; i++)
		count += there[i] & 1;
	munmap(map, pages * PAGE);
	free(there);
	return count;
}

static void check_resident(off_t offset, size_t len)
{
	size_t pages = (size_t)((offset + (off_t)len + PAGE - 1) / PAGE - offset / PAGE);

	ck_assert_uint_eq(resident(offset, len), pages);
}

static ssize_t prefetch(off_t offset, size_t len)
{
	onefd_prep_prefetch(&job->req, &file, offset, len);
	return job_run(loop, job);
}

/* tmpfs and the like: all is in memory, and RWF_NOWAIT is refused. */
static bool has_nowait(void)
{
	char byte;
	ssize_t n = preadv2(fd, &(struct iovec){ &byte, 1 }, 1, 0, RWF_NOWAIT);

	return n >= 0 || errno == EAGAIN;
}

static struct onefd_stats stats(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

START_TEST(what_it_counts_is_resident)
{
	open_cold(_i, LARGE + 123);
	ck_assert_int_eq(prefetch(5, 1), 1);
	check_resident(5, 1);
	evict();
	ck_assert_int_eq(prefetch(PAGE - 1, 2), 2);
	check_resident(PAGE - 1, 2);
	evict();
	ck_assert_int_eq(prefetch(777, LARGE - 1000), LARGE - 1000);
	check_resident(777, LARGE - 1000);
	ck_assert_uint_eq(stats().prefetches, 3);
	close(fd);
}
END_TEST

START_TEST(it_is_short_at_the_end_of_the_file)
{
	open_cold(_i, 10 * PAGE + 123);
	ck_assert_int_eq(prefetch(PAGE, LARGE), 9 * PAGE + 123);
	check_resident(PAGE, 9 * PAGE + 123);
	ck_assert_int_eq(prefetch(10 * PAGE + 123, 1), 0);
	ck_assert_int_eq(prefetch(LARGE, 1), 0);
	ck_assert_int_eq(prefetch(LLONG_MAX - PAGE, PAGE), 0);
	ck_assert_int_eq(prefetch(0, 0), 0);
	close(fd);
}
END_TEST

START_TEST(what_is_there_takes_no_thread)
{
	open_cold(_i, 16 * PAGE);
	if (has_nowait()) {
		ck_assert_int_eq(prefetch(0, length), (ssize_t)length);
		ck_assert_int_eq(prefetch(0, length), (ssize_t)length);
		ck_assert_uint_le(stats().pages, 1);
		ck_assert_uint_ge(stats().hits, 1);
		ck_assert_uint_eq(stats().pool, 0);
	}
	close(fd);
}
END_TEST

static pthread_t loops_thread;

static int no_readahead(int of, off_t offset, uint64_t len)
{
	(void)of;
	(void)offset;
	(void)len;
	return pthread_equal(pthread_self(), loops_thread) ? (abort(), 0) : 0;
}

/* readahead() may read less than it was asked for, and says nothing. */
START_TEST(what_readahead_left_out_is_waited_for)
{
	open_cold(_i, LARGE);
	loops_thread = pthread_self();
	sys.readahead = no_readahead;
	ck_assert_int_eq(prefetch(0, LARGE), LARGE);
	check_resident(0, LARGE);
	close(fd);
}
END_TEST

static _Atomic off_t asked_to;
static atomic_int gaps;

static int readahead_in_order(int of, off_t offset, uint64_t len)
{
	gaps += asked_to != offset;
	asked_to = offset + (off_t)len;
	return real.readahead(of, offset, len);
}

/* Two pages of each step, as if the rest had not come yet. */
static ssize_t read_two_pages(int of, const struct iovec *iov, size_t count, off_t offset,
			      int flags)
{
	return real.preadv2(of, iov, count > 1 ? 1 : count, offset, flags);
}

START_TEST(all_of_it_is_asked_for_however_slowly_it_comes)
{
	open_cold(_i, LARGE + 123);
	if (has_nowait()) {
		evict();
		sys.readahead = readahead_in_order;
		sys.preadv2 = read_two_pages;
		ck_assert_int_eq(prefetch(0, LARGE + 123), LARGE + 123);
		ck_assert_int_eq(gaps, 0);
		ck_assert_int_eq(asked_to, LARGE + 123);
	}
	close(fd);
}
END_TEST

static void submit_large(void)
{
	onefd_prep_prefetch(&job->req, &file, 0, LARGE);
	job_submit(loop, job);
}

/* A worker's alone, where the cache cannot be asked, is out of reach. */
START_TEST(cancel_is_in_time_wherever_it_stands)
{
	open_cold(_i, LARGE);
	for (int turns = 0; turns < 20; turns++) {
		int r;

		evict();
		submit_large();
		for (int i = 0; i < turns && !job->calls; i++)
			must(onefd_dispatch(loop, 0));
		if (job->calls)
			continue;
		r = job_cancel(job);
		if (has_nowait() && r == -EBUSY)	/* done, then, and not out */
			must(onefd_dispatch(loop, 0));
		drain_jobs(loop, job, 1);
		ck_assert_int_eq(job->res, r == 0 ? -ECANCELED : LARGE);
	}
	close(fd);
}
END_TEST

static atomic_int trying;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* Stands still in the middle of a try, on the waiter's thread. */
static int readahead_at_gate(int of, off_t offset, uint64_t len)
{
	trying++;
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return real.readahead(of, offset, len);
}

START_TEST(cancel_is_in_time_in_the_middle_of_a_try)
{
	open_cold(_i, LARGE);
	if (has_nowait()) {
		evict();
		sys.readahead = readahead_at_gate;
		pthread_mutex_lock(&gate);
		submit_large();
		while (!trying)
			must(onefd_dispatch(loop, 0));
		ck_assert_int_eq(job_cancel(job), 0);
		must(onefd_dispatch(loop, 0));
		ck_assert_int_eq(job->calls, 0);
		pthread_mutex_unlock(&gate);
		drain_jobs(loop, job, 1);
		ck_assert_int_eq(job->res, -ECANCELED);
	}
	close(fd);
}
END_TEST

START_TEST(truncated_below_it_ends)
{
	open_cold(_i, LARGE);
	for (int turns = 0; turns < 5; turns++) {
		must_libc(ftruncate(fd, LARGE));
		submit_large();
		for (int i = 0; i < turns; i++)
			must(onefd_dispatch(loop, 0));
		must_libc(ftruncate(fd, PAGE));
		drain_jobs(loop, job, 1);
		ck_assert_int_ge(job->res, 0);
		ck_assert_int_le(job->res, LARGE);
	}
	close(fd);
}
END_TEST

/* The readahead that a miss starts may be there before the kernel looks whether
 * it is, where this thread lost its processor in between: then once more. */
static ssize_t prefetch_cold(size_t len)
{
	ssize_t res = 0;

	for (int tries = 0; res >= 0 && tries < 100; tries++) {
		do
			evict();
		while (resident(0, len));
		onefd_prep_prefetch(&job->req, &file, 0, len);
		job->req.rw_flags = RWF_NOWAIT;
		res = job_run(loop, job);
		ck_assert(res == -EAGAIN || res == (ssize_t)len);
	}
	return res;
}

START_TEST(without_waiting_it_says_what_is_there)
{
	open_cold(_i, LARGE);
	if (has_nowait()) {
		/* What the probe asked for must have come before it can go. */
		ck_assert_int_eq(prefetch(0, LARGE), LARGE);
		ck_assert_int_eq(prefetch_cold(8 * PAGE), -EAGAIN);
		ck_assert_int_eq(prefetch(0, 8 * PAGE), 8 * PAGE);
		onefd_prep_prefetch(&job->req, &file, 0, 8 * PAGE);
		job->req.rw_flags = RWF_NOWAIT;
		ck_assert_int_eq(job_run(loop, job), 8 * PAGE);
	}
	close(fd);
}
END_TEST

START_TEST(submitted_anew_it_begins_anew)
{
	open_cold(_i, LARGE);
	ck_assert_int_eq(prefetch(0, LARGE), LARGE);
	for (int i = 0; i < 3; i++) {
		evict();
		ck_assert_int_eq(job_run(loop, job), LARGE);
		check_resident(0, LARGE);
	}
	close(fd);
}
END_TEST

/* Reads that come while a long prefetch is out do not wait for its end. */
START_TEST(reads_overtake_a_long_one)
{
	struct job *reads = make_jobs(8, PAGE);

	open_cold(_i, LARGE);
	submit_large();
	for (int i = 0; i < 8; i++) {
		onefd_prep_pread(&reads[i].req, &file, reads[i].buf, PAGE, i * 3 * (LARGE / 32));
		job_submit(loop, &reads[i]);
	}
	drain_jobs(loop, reads, 8);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, LARGE);
	for (int i = 0; i < 8; i++)
		check_bytes(reads[i].buf, PAGE, i * 3 * (LARGE / 32));
	free_jobs(reads, 8);
	close(fd);
}
END_TEST

START_TEST(direct_files_have_no_cache)
{
	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, PAGE, O_RDONLY | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	ck_assert_int_eq(prefetch(0, PAGE), -EOPNOTSUPP);
	close(fd);
}
END_TEST

START_TEST(files_that_cannot_be_read_cannot_be_prefetched)
{
	fd = make_file(_i, PAGE, O_WRONLY);
	must(onefd_file_init(loop, &file, fd));
	ck_assert_int_eq(prefetch(0, PAGE), -EBADF);
	close(fd);
}
END_TEST

static int submit(off_t offset, size_t len)
{
	onefd_prep_prefetch(&job->req, &file, offset, len);
	return onefd_submit(loop, &job->req, job_done);
}

START_TEST(bad_arguments_are_refused)
{
	struct onefd *other;

	open_cold(0, PAGE);
	ck_assert_int_eq(submit(-1, 1), -EINVAL);
	ck_assert_int_eq(submit(0, SIZE_MAX), -EINVAL);
	ck_assert_int_eq(submit(LLONG_MAX, 1), -EINVAL);
	onefd_prep_prefetch(NULL, &file, 0, 1);
	onefd_prep_prefetch(&job->req, NULL, 0, 1);
	ck_assert_int_eq(onefd_submit(loop, &job->req, job_done), -EINVAL);
	must(onefd_new(&other, NULL));
	onefd_prep_prefetch(&job->req, &file, 0, 1);
	ck_assert_int_eq(onefd_submit(other, &job->req, job_done), -EINVAL);
	must(onefd_free(other));
	close(fd);
}
END_TEST

/* Each as if the machine did not have it. */
START_TEST(poorer_loops_bring_it_all_the_same)
{
	static const uint32_t without[] = { ONEFD_NO_KAIO, ONEFD_NO_NOWAIT, ONEFD_NO_SYSFS,
					    ONEFD_NO_KAIO | ONEFD_NO_NOWAIT | ONEFD_NO_PROC };
	struct onefd *usual = loop;

	for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
		struct onefd_config config = { .flags = without[i] };

		must(onefd_new(&loop, &config));
		open_cold(_i, LARGE);
		ck_assert_int_eq(prefetch(1, LARGE), LARGE - 1);
		check_resident(1, LARGE - 1);
		close(fd);
		must(onefd_free(loop));
	}
	loop = usual;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("prefetch");
	TCase *tcase = add_case(suite, "prefetch", set_up, tear_down);
	int count = place_count();

	tcase_add_loop_test(tcase, what_it_counts_is_resident, 0, count);
	tcase_add_loop_test(tcase, it_is_short_at_the_end_of_the_file, 0, count);
	tcase_add_loop_test(tcase, what_is_there_takes_no_thread, 0, count);
	tcase_add_loop_test(tcase, what_readahead_left_out_is_waited_for, 0, count);
	tcase_add_loop_test(tcase, all_of_it_is_asked_for_however_slowly_it_comes, 0, count);
	tcase_add_loop_test(tcase, cancel_is_in_time_wherever_it_stands, 0, count);
	tcase_add_loop_test(tcase, cancel_is_in_time_in_the_middle_of_a_try, 0, count);
	tcase_add_loop_test(tcase, truncated_below_it_ends, 0, count);
	tcase_add_loop_test(tcase, without_waiting_it_says_what_is_there, 0, count);
	tcase_add_loop_test(tcase, submitted_anew_it_begins_anew, 0, count);
	tcase_add_loop_test(tcase, reads_overtake_a_long_one, 0, count);
	tcase_add_loop_test(tcase, direct_files_have_no_cache, 0, count);
	tcase_add_loop_test(tcase, files_that_cannot_be_read_cannot_be_prefetched, 0, count);
	tcase_add_test(tcase, bad_arguments_are_refused);
	tcase_add_loop_test(tcase, poorer_loops_bring_it_all_the_same, 0, count);
	return run_suite(suite);
}
