/*
 * test_pages.c - buffered reads whose pages are not there.
 *
 * The page cache is a play: a page is there or not as the test says, and comes
 * when the test opens its gate, or at once when it has none. So each rule is
 * shown on any file system, and nothing depends on time.
 */
#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "../lib/core.h"
#include "../lib/file.h"
#include "../lib/sys.h"

#define PAGE 4096
#define PAGES 64
#define SIZE (PAGES * PAGE)

static struct onefd *loop;
static struct onefd_file file;
static struct sys_calls real;
static pthread_t loop_thread;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool there[PAGES];	/* in the cache */
static bool shut[PAGES];	/* does not come until it is opened */
static int waits[PAGES];	/* threads that wait for it now */
static atomic_int plain_reads, tries, readaheads, longest_try;
static atomic_long lowest_try;
static int plain_answers;	/* instead of what the file says; 0: nothing */
static int try_answers;		/* instead of what the cache says; 0: nothing */
static int missing_answers;
static bool ends_falsely;
static bool tries_hang, hanging;	/* a try off the loop's thread, until it may end */

static size_t length_of(const struct iovec *iov, size_t count)
{
	size_t length = 0;

	while (count--)
		length += iov++->iov_len;
	return length;
}

/* What a try may copy: up to the first page that is not there. */
static ssize_t resident(off_t offset, size_t length)
{
	off_t at = offset, end = offset + (off_t)length;

	end = end < SIZE ? end : SIZE;
	while (at < end && there[at / PAGE])
		at = at / PAGE * PAGE + PAGE;
	at = at < end ? at : end;
	if (at > offset || offset >= SIZE)
		return at > offset ? at - offset : 0;
	return ends_falsely ? 0 : -EAGAIN;
}

static void bring(off_t offset, size_t length)
{
	for (off_t page = offset / PAGE; page * PAGE < offset + (off_t)length && page < PAGES; page++) {
		waits[page]++;
		pthread_cond_broadcast(&changed);
		while (shut[page])
			pthread_cond_wait(&changed, &lock);
		waits[page]--;
		there[page] = true;
	}
}

static ssize_t read_part(int fd, const struct iovec *iov, size_t count, off_t offset, size_t length)
{
	struct iovec part[64];

	for (size_t i = 0; i < count; i++) {
		part[i] = iov[i];
		part[i].iov_len = iov[i].iov_len < length ? iov[i].iov_len : length;
		length -= part[i].iov_len;
	}
	return real.preadv2(fd, part, count, offset, 0);
}

static ssize_t play_preadv2(int fd, const struct iovec *iov, size_t count, off_t offset, int flags)
{
	size_t length = length_of(iov, count);
	ssize_t n;

	if (flags & RWF_NOWAIT) {
		tries++;
		if (pthread_equal(pthread_self(), loop_thread) && (int)length > longest_try)
			longest_try = (int)length;
		if (offset < lowest_try)
			lowest_try = offset;
		if (try_answers)
			return try_answers;
		pthread_mutex_lock(&lock);
		while (tries_hang && !pthread_equal(pthread_self(), loop_thread)) {
			hanging = true;
			pthread_cond_wait(&changed, &lock);
		}
		n = resident(offset, length);
		pthread_mutex_unlock(&lock);
		return n <= 0 ? n : read_part(fd, iov, count, offset, (size_t)n);
	}
	ck_assert(!pthread_equal(pthread_self(), loop_thread));
	plain_reads++;
	if (plain_answers)
		return plain_answers;
	pthread_mutex_lock(&lock);
	bring(offset, length);
	pthread_mutex_unlock(&lock);
	return real.preadv2(fd, iov, count, offset, 0);
}

static int64_t play_missing(int fd, off_t offset, uint64_t length)
{
	int64_t count = 0;

	(void)fd;
	if (missing_answers)
		return missing_answers;
	pthread_mutex_lock(&lock);
	for (off_t page = offset / PAGE; page * PAGE < offset + (off_t)length; page++)
		count += page >= PAGES || !there[page];
	pthread_mutex_unlock(&lock);
	return count;
}

static int play_readahead(int fd, off_t offset, uint64_t length)
{
	(void)fd, (void)offset, (void)length;
	readaheads++;
	return 0;
}

static void open_page(int page)
{
	pthread_mutex_lock(&lock);
	shut[page] = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* Dispatches until a thread waits for @page. */
static void until_waited_for(int page)
{
	bool waited;

	must(onefd_flush(loop));
	do {
		must(onefd_dispatch(loop, 0));
		pthread_mutex_lock(&lock);
		waited = waits[page];
		pthread_mutex_unlock(&lock);
	} while (!waited);
}

/* No kernel AIO: all tries then pass through preadv2(). */
static void set_up(void)
{
	struct onefd_config config = *test_config();

	config.flags |= ONEFD_NO_KAIO;
	real = sys;
	loop_thread = pthread_self();
	memset(there, 0, sizeof there);
	memset(shut, 0, sizeof shut);
	memset(waits, 0, sizeof waits);
	plain_reads = tries = readaheads = longest_try = 0;
	lowest_try = LONG_MAX;
	try_answers = plain_answers = missing_answers = 0;
	ends_falsely = tries_hang = hanging = false;
	sys.preadv2 = play_preadv2;
	sys.missing = play_missing;
	sys.readahead = play_readahead;
	must(onefd_new(&loop, &config));
	must(onefd_file_init(loop, &file, make_file_at(".", SIZE, O_RDONLY)));
	/* Whatever it is really on, a miss starts readahead without blocking. */
	file.device->trust = TRUST_NOWAIT;
	file.warm = WARM_DONE;
}

static void tear_down(void)
{
	for (int page = 0; page < PAGES; page++)
		open_page(page);
	must(onefd_drain(loop, -1));
	must(onefd_free(loop));
	close(file.fd);
	sys.preadv2 = real.preadv2;
	sys.missing = real.missing;
	sys.readahead = real.readahead;
	sys.thread = real.thread;
}

static void ask(struct job *job, int page, size_t length)
{
	onefd_prep_pread(&job->req, &file, job->buf, length, (off_t)page * PAGE);
	job_submit(loop, job);
}

static struct onefd_stats counters(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

START_TEST(what_is_there_needs_no_thread)
{
	struct job *job = make_jobs(1, PAGE);

	there[5] = true;
	ask(job, 5, PAGE);
	must(onefd_dispatch(loop, 0));
	ck_assert_int_eq(job->calls, 1);
	ck_assert_int_eq(job->res, PAGE);
	check_bytes(job->buf, PAGE, 5 * PAGE);
	ck_assert_uint_eq(counters().hits, 1);
	ck_assert_uint_eq(counters().pages, 0);
	free_jobs(job, 1);
}
END_TEST

START_TEST(what_is_not_there_comes_from_a_waiter)
{
	struct job *jobs = make_jobs(20, PAGE);

	for (int i = 0; i < 20; i++)
		ask(&jobs[i], i, PAGE);
	drain_jobs(loop, jobs, 20);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(jobs[i].res, PAGE);
		check_bytes(jobs[i].buf, PAGE, i * PAGE);
	}
	ck_assert_uint_eq(counters().pages, 20);
	free_jobs(jobs, 20);
}
END_TEST

START_TEST(hits_do_not_wait_for_misses)
{
	struct job *jobs = make_jobs(16, PAGE);

	for (int i = 0; i < 16; i++) {
		there[i] = i % 2;
		shut[i] = !there[i];
		ask(&jobs[i], i, PAGE);
	}
	must(onefd_dispatch(loop, 0));
	for (int i = 0; i < 16; i++)
		ck_assert_int_eq(jobs[i].calls, i % 2);
	for (int i = 0; i < 16; i++)
		open_page(i);
	drain_jobs(loop, jobs, 16);
	free_jobs(jobs, 16);
}
END_TEST

/* Half a range copied is not copied again. */
START_TEST(progress_is_kept)
{
	struct job *job = make_jobs(1, 8 * PAGE);

	for (int i = 0; i < 4; i++)
		there[i] = true;
	shut[4] = true;
	ask(job, 0, 8 * PAGE);
	until_waited_for(4);
	lowest_try = LONG_MAX;
	open_page(4);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, 8 * PAGE);
	check_bytes(job->buf, 8 * PAGE, 0);
	ck_assert_int_ge(lowest_try, 4 * PAGE);
	free_jobs(job, 1);
}
END_TEST

START_TEST(a_read_that_waits_is_cancelled_at_once)
{
	struct job *jobs = make_jobs(2, PAGE);

	shut[0] = shut[1] = true;
	ask(&jobs[0], 0, PAGE);
	ask(&jobs[1], 1, PAGE);
	until_waited_for(0);
	ck_assert_int_eq(job_cancel(&jobs[0]), 0);
	ck_assert_int_eq(job_cancel(&jobs[1]), 0);
	drain_jobs(loop, jobs, 2);
	ck_assert_int_eq(jobs[0].res, -ECANCELED);
	ck_assert_int_eq(jobs[1].res, -ECANCELED);

	/* The page comes after all: nobody writes to what is ours again. */
	memset(jobs[0].buf, 0x5a, PAGE);
	open_page(0);
	there[2] = true;
	ask(&jobs[1], 2, PAGE);
	drain_jobs(loop, &jobs[1], 1);
	for (int i = 0; i < PAGE; i++)
		ck_assert_int_eq(((char *)jobs[0].buf)[i], 0x5a);
	free_jobs(jobs, 2);
}
END_TEST

/* A try may need metadata from the disk, and finds no page then: what was asked
 * for in between holds, also where it would have found one. */
START_TEST(a_read_that_is_being_tried_is_cancelled)
{
	struct job *jobs = make_jobs(1, PAGE);
	bool tried;

	file.device->trust = TRUST_NEVER;
	missing_answers = 1;	/* so the loop does not try it itself */
	for (int pass = 0; pass < 2; pass++) {
		there[1] = pass == 1;
		shut[1] = pass == 0;
		tries_hang = true;
		hanging = false;
		ask(&jobs[0], 1, PAGE);
		must(onefd_flush(loop));
		for (tried = false; !tried; pthread_mutex_unlock(&lock)) {
			must(onefd_dispatch(loop, 0));
			pthread_mutex_lock(&lock);
			tried = hanging;
		}
		ck_assert_int_eq(job_cancel(&jobs[0]), 0);
		ck_assert_int_eq(job_cancel(&jobs[0]), -EBUSY);
		pthread_mutex_lock(&lock);
		tries_hang = false;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
		drain_jobs(loop, jobs, 1);
		ck_assert_int_eq(jobs[0].res, -ECANCELED);
	}
	free_jobs(jobs, 1);
}
END_TEST

/* Cancelled and submitted again, elsewhere, while the thread still waits. */
START_TEST(a_request_may_be_used_again_while_its_old_page_hangs)
{
	struct job *job = make_jobs(1, PAGE);

	shut[0] = true;
	ask(job, 0, PAGE);
	until_waited_for(0);
	ck_assert_int_eq(job_cancel(job), 0);
	drain_jobs(loop, job, 1);
	ask(job, 9, PAGE);
	must(onefd_flush(loop));
	open_page(0);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, PAGE);
	check_bytes(job->buf, PAGE, 9 * PAGE);
	free_jobs(job, 1);
}
END_TEST

START_TEST(a_page_that_never_comes_holds_up_nobody)
{
	struct job *jobs = make_jobs(30, PAGE);

	for (int i = 0; i < 30; i++) {
		shut[i] = i < 5;
		ask(&jobs[i], i, PAGE);
	}
	while (onefd_pending(loop) > 5)
		must(onefd_dispatch(loop, -1));
	for (int i = 0; i < 30; i++)
		ck_assert_int_eq(jobs[i].calls, i >= 5);
	for (int i = 0; i < 5; i++)
		open_page(i);
	drain_jobs(loop, jobs, 30);
	for (int i = 0; i < 30; i++)
		check_bytes(jobs[i].buf, PAGE, i * PAGE);
	free_jobs(jobs, 30);
}
END_TEST

static atomic_int threads_made;

static int count_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	threads_made++;
	return real.thread(ret, fn, arg);
}

/* Who was relieved in a wait leaves half a read behind, and the next lead sleeps,
 * for there was nothing that nobody waited for. */
START_TEST(what_a_relieved_thread_leaves_is_waited_for)
{
	struct job *jobs = make_jobs(2, 2 * PAGE);

	threads_made = 0;
	sys.thread = count_thread;
	for (int i = 0; i < 2; i++) {
		shut[10 * i] = shut[10 * i + 1] = true;
		ask(&jobs[i], 10 * i, 2 * PAGE);
	}
	until_waited_for(0);
	until_waited_for(10);
	/* The third lead makes its deputy before it looks: that is the fourth thread. */
	while (threads_made < 4)
		sched_yield();
	open_page(0);
	until_waited_for(1);
	open_page(10);
	until_waited_for(11);
	open_page(1);
	open_page(11);
	drain_jobs(loop, jobs, 2);
	for (int i = 0; i < 2; i++)
		check_bytes(jobs[i].buf, 2 * PAGE, 10 * i * PAGE);
	free_jobs(jobs, 2);
}
END_TEST

START_TEST(a_loop_ends_while_a_thread_hangs_in_a_cancelled_page)
{
	struct onefd *other;
	struct onefd_config config = *test_config();
	struct onefd *before = loop;
	struct onefd_file mine;
	struct job *job = make_jobs(1, PAGE);

	must(onefd_new(&other, &config));
	must(onefd_file_init(other, &mine, file.fd));
	mine.device->trust = TRUST_NOWAIT;
	mine.warm = WARM_DONE;
	shut[0] = true;
	onefd_prep_pread(&job->req, &mine, job->buf, PAGE, 0);
	loop = other;
	job_submit(loop, job);
	until_waited_for(0);
	ck_assert_int_eq(job_cancel(job), 0);
	drain_jobs(loop, job, 1);
	must(onefd_free(other));
	loop = before;
	free_jobs(job, 1);
	/* It comes back to nothing of the loop's: a sanitizer would say. */
	open_page(0);
	job = make_jobs(1, PAGE);
	ask(job, 0, PAGE);
	drain_jobs(loop, job, 1);
	free_jobs(job, 1);
}
END_TEST

START_TEST(the_end_of_the_file_is_a_short_count)
{
	struct job *jobs = make_jobs(3, 4 * PAGE);

	ask(&jobs[0], PAGES - 2, 4 * PAGE);
	ask(&jobs[1], PAGES, PAGE);
	drain_jobs(loop, jobs, 2);
	ck_assert_int_eq(jobs[0].res, 2 * PAGE);
	check_bytes(jobs[0].buf, 2 * PAGE, (PAGES - 2) * PAGE);
	ck_assert_int_eq(jobs[1].res, 0);
	free_jobs(jobs, 3);
}
END_TEST

/* As it is when others read ahead what we asked for, and memory is short. */
START_TEST(pages_that_vanish_again_are_read_all_the_same)
{
	struct job *job = make_jobs(1, 2 * PAGE);

	try_answers = -EAGAIN;
	ask(job, 0, 2 * PAGE);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, 2 * PAGE);
	check_bytes(job->buf, 2 * PAGE, 0);
	free_jobs(job, 1);
}
END_TEST

/* As a FUSE server may. It is no reason to ask it over and over. */
START_TEST(a_plain_read_that_says_eagain_is_an_answer)
{
	struct job *job = make_jobs(1, PAGE);

	plain_answers = -EAGAIN;
	ask(job, 0, PAGE);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, -EAGAIN);
	ck_assert_int_le(plain_reads, 4);
	free_jobs(job, 1);
}
END_TEST

/* Reads the extents in: as slow as the disk, or slower. */
static int hang_in_ioctl(int fd, unsigned long request, void *arg)
{
	(void)fd, (void)request, (void)arg;
	pthread_mutex_lock(&lock);
	bring((PAGES - 1) * PAGE, PAGE);
	pthread_mutex_unlock(&lock);
	return -ENOTTY;
}

START_TEST(what_is_done_does_not_wait_for_the_extents_of_another)
{
	struct job *jobs = make_jobs(2, PAGE);

	sys.ioctl = hang_in_ioctl;
	shut[0] = shut[PAGES - 1] = true;
	ask(&jobs[0], 0, PAGE);
	until_waited_for(0);
	file.device->trust = TRUST_WARM;
	file.warm = WARM_COLD;
	ask(&jobs[1], 1, PAGE);
	must(onefd_flush(loop));
	open_page(0);
	while (!jobs[0].calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(jobs[1].calls, 0);
	open_page(PAGES - 1);
	drain_jobs(loop, jobs, 2);
	sys.ioctl = real.ioctl;
	free_jobs(jobs, 2);
}
END_TEST

/* The loop asks for no more than it tries: the thread asks for the rest. */
START_TEST(a_long_read_is_read_ahead)
{
	struct job *jobs = make_jobs(2, SIZE);

	missing_answers = -EPERM;
	ask(&jobs[0], 0, 128 * 1024);
	drain_jobs(loop, jobs, 1);
	ck_assert_int_eq(readaheads, 0);
	memset(there, false, sizeof there);
	ask(&jobs[1], 0, SIZE);
	drain_jobs(loop, &jobs[1], 1);
	ck_assert_int_eq(jobs[1].res, SIZE);
	check_bytes(jobs[1].buf, SIZE, 0);
	ck_assert_int_gt(readaheads, 0);
	ck_assert_uint_eq(counters().readaheads, 0);
	free_jobs(jobs, 2);
}
END_TEST

START_TEST(a_miss_without_readahead_is_found_out)
{
	struct job *jobs = make_jobs(32, PAGE);
	char *text;

	for (int i = 0; i < 32; i++) {
		ask(&jobs[i], i, PAGE);
		drain_jobs(loop, &jobs[i], 1);
		ck_assert_int_eq(jobs[i].res, PAGE);
	}
	ck_assert_int_ge(readaheads, 20);
	ck_assert_int_eq(counters().readaheads, readaheads);
	text = describe(loop);
	ck_assert_ptr_nonnull(strstr(text, "starts no readahead here"));
	free(text);
	free_jobs(jobs, 32);
}
END_TEST

START_TEST(a_miss_with_readahead_is_not_asked_for_again)
{
	struct job *jobs = make_jobs(32, PAGE);

	missing_answers = -EPERM;
	for (int i = 0; i < 32; i++) {
		ask(&jobs[i], i, PAGE);
		drain_jobs(loop, &jobs[i], 1);
	}
	ck_assert_int_eq(readaheads, 0);
	free_jobs(jobs, 32);
}
END_TEST

/* Linux 5.9 and 5.10. It is asked no more after four: one may be a file that was
 * cut and has grown again. */
START_TEST(a_false_end_is_no_end)
{
	struct job *jobs = make_jobs(5, PAGE);
	int before;

	ends_falsely = true;
	for (int i = 0; i < 5; i++) {
		before = tries;
		ask(&jobs[i], i, PAGE);
		drain_jobs(loop, &jobs[i], 1);
		ck_assert_int_eq(jobs[i].res, PAGE);
		check_bytes(jobs[i].buf, PAGE, i * PAGE);
		ck_assert_int_eq(tries > before, i < 4);
	}
	ck_assert_uint_eq(counters().false_ends, 4);
	free_jobs(jobs, 5);
}
END_TEST

static void cut(off_t size)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", file.fd);
	must(truncate(path, size));
}

START_TEST(the_end_of_a_file_that_was_cut_is_the_end)
{
	struct job *job = make_jobs(1, PAGE);

	cut(PAGE);
	ends_falsely = true;
	for (int i = 0; i < 5; i++) {
		ask(job, 3, PAGE);
		must(onefd_dispatch(loop, 0));
		ck_assert_int_eq(job->calls, 1);
		ck_assert_int_eq(job->res, 0);
	}
	cut(SIZE);
	there[3] = true;
	ask(job, 3, PAGE);
	must(onefd_dispatch(loop, 0));
	ck_assert_int_eq(job->res, PAGE);
	ck_assert_uint_eq(counters().false_ends, 0);
	ck_assert_uint_eq(counters().pages, 0);
	free_jobs(job, 1);
}
END_TEST

START_TEST(a_file_system_that_refuses_is_asked_once)
{
	struct job *jobs = make_jobs(4, PAGE);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	try_answers = -EOPNOTSUPP;
	for (int i = 0; i < 4; i++) {
		ask(&jobs[i], i, PAGE);
		drain_jobs(loop, &jobs[i], 1);
		ck_assert_int_eq(jobs[i].res, PAGE);
	}
	ck_assert_int_eq(tries, 1);
	ck_assert_uint_eq(counters().nowait_refused, 1);
	ck_assert_uint_eq(counters().pool, 4);
	must(onefd_file_describe(&file, out));
	fclose(out);
	ck_assert_ptr_nonnull(strstr(text, "refuses RWF_NOWAIT"));
	free(text);
	free_jobs(jobs, 4);
}
END_TEST

/* Where a miss may block, the loop tries only what is resident. */
START_TEST(what_may_block_is_tried_by_the_waiter)
{
	struct job *jobs = make_jobs(2, PAGE);

	file.device->trust = TRUST_NEVER;
	there[1] = true;
	ask(&jobs[0], 0, PAGE);
	ask(&jobs[1], 1, PAGE);
	must(onefd_flush(loop));
	ck_assert_int_le(longest_try, PAGE);
	ck_assert_uint_eq(counters().hits, 1);
	ck_assert_uint_eq(counters().pages, 1);
	drain_jobs(loop, jobs, 2);
	free_jobs(jobs, 2);
}
END_TEST

static const int cachestat_errors[] = { -ENOSYS, -EPERM };

START_TEST(without_cachestat_the_waiter_tries_all)
{
	struct job *job = make_jobs(1, PAGE);

	missing_answers = cachestat_errors[_i];
	file.device->trust = TRUST_NEVER;
	there[0] = true;
	ask(job, 0, PAGE);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, PAGE);
	ck_assert_uint_eq(counters().pages, 1);
	ck_assert_int_eq(longest_try, 0);
	free_jobs(job, 1);
}
END_TEST

static atomic_int threads_refused;

/* The first thread that is asked for is a waiter's; the workers get theirs. */
static int one_thread_less(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	return threads_refused++ ? real.thread(ret, fn, arg) : -EAGAIN;
}

START_TEST(without_a_thread_a_worker_reads)
{
	struct job *job = make_jobs(1, PAGE);
	char *text;

	threads_refused = 0;
	sys.thread = one_thread_less;
	ask(job, 0, PAGE);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, PAGE);
	ck_assert_uint_eq(counters().pages, 0);
	ck_assert_uint_eq(counters().pool, 1);
	text = describe(loop);
	ck_assert_ptr_nonnull(strstr(text, "could not be made"));
	free(text);
	free_jobs(job, 1);
}
END_TEST

/* The loop's thread copies in pieces, and not all in one turn. */
START_TEST(a_long_read_keeps_no_turn)
{
	struct job *jobs = make_jobs(16, SIZE);
	int turns = 0;

	memset(there, true, sizeof there);
	for (int i = 0; i < 16; i++)
		ask(&jobs[i], 0, SIZE);
	while (onefd_pending(loop)) {
		must(onefd_dispatch(loop, 0));
		turns++;
	}
	ck_assert_int_gt(turns, 1);
	ck_assert_int_le(longest_try, 128 * 1024);
	drain_jobs(loop, jobs, 16);
	for (int i = 0; i < 16; i++) {
		ck_assert_int_eq(jobs[i].res, SIZE);
		check_bytes(jobs[i].buf, SIZE, 0);
	}
	free_jobs(jobs, 16);
}
END_TEST

START_TEST(rwf_nowait_of_the_caller_is_answered_with_eagain)
{
	struct job *job = make_jobs(1, PAGE);

	onefd_prep_pread(&job->req, &file, job->buf, PAGE, 0);
	job->req.rw_flags = RWF_NOWAIT;
	ck_assert_int_eq(job_run(loop, job), -EAGAIN);
	there[0] = true;
	onefd_prep_pread(&job->req, &file, job->buf, 2 * PAGE, 0);
	job->req.rw_flags = RWF_NOWAIT;
	ck_assert_int_eq(job_run(loop, job), PAGE);
	free_jobs(job, 1);
}
END_TEST

static int sleeps, looks;
static _Atomic uint64_t skew;	/* added to what the clock says */
static _Atomic bool stepping;	/* the clock is skew alone, */
static _Atomic uint64_t step;	/* and goes on by that when it is read */

/* One for all tests: threads of the library's read sys.now at any time. */
static uint64_t skewed_now(void)
{
	return stepping ? skew += step : real.now() + skew;
}

static uint64_t woken;		/* by that clock: when the last sleep ends */

/* Stands for epoll_pwait2(): counts who would sleep. */
static int count_waits(int epfd, struct epoll_event *events, int count, uint64_t timeout_ns)
{
	if (timeout_ns)
		sleeps++;
	else
		looks++;
	woken = skew + timeout_ns;
	return real.epoll_pwait2(epfd, events, count, timeout_ns);
}

static int count_plain_waits(int epfd, struct epoll_event *events, int count, int timeout_ms)
{
	if (timeout_ms)
		sleeps++;
	else
		looks++;
	return real.epoll_wait(epfd, events, count, timeout_ms);
}

static void make_spinning_loop(void)
{
	struct onefd_config config = *test_config();

	set_up();
	must(onefd_free(loop));
	config.spin_us = 1000;
	config.flags |= ONEFD_NO_KAIO;
	must(onefd_new(&loop, &config));
	must(onefd_file_init(loop, &file, file.fd));
	file.device->trust = TRUST_NOWAIT;
	file.warm = WARM_DONE;
	sleeps = looks = 0;
	skew = 0;
	stepping = false;
	step = 0;
	sys.now = skewed_now;
	sys.epoll_pwait2 = count_waits;
	sys.epoll_wait = count_plain_waits;
}

static void free_spinning_loop(void)
{
	tear_down();
	sys.epoll_pwait2 = real.epoll_pwait2;
	sys.epoll_wait = real.epoll_wait;
	sys.now = real.now;
}

static void stop_clock(void)
{
	skew = real.now();
	stepping = true;
}

START_TEST(a_spinning_loop_looks_before_it_sleeps)
{
	struct job *job = make_jobs(1, PAGE);

	stop_clock();
	shut[0] = true;
	ask(job, 0, PAGE);
	until_waited_for(0);
	step = 10000;
	looks = sleeps = 0;
	ck_assert_int_eq(onefd_dispatch(loop, 1), 0);
	/* One look is what every dispatch takes that finds work. */
	ck_assert_int_gt(looks, 1);
	open_page(0);
	drain_jobs(loop, job, 1);
	ck_assert_int_eq(job->res, PAGE);
	free_jobs(job, 1);
}
END_TEST

static sem_t call_gate;

static ssize_t wait_at_gate(void *arg)
{
	(void)arg;
	while (sem_wait(&call_gate) < 0)
		;
	return 1;
}

/* A worker's answer is looked for as a page is. */
START_TEST(a_spinning_loop_looks_for_any_lone_request)
{
	struct job job = { 0 };

	stop_clock();
	step = 10000;
	sem_init(&call_gate, 0, 0);
	onefd_prep_call(&job.req, wait_at_gate, NULL);
	job_submit(loop, &job);
	ck_assert_int_eq(onefd_dispatch(loop, 1), 0);
	ck_assert_int_gt(looks, 1);
	sem_post(&call_gate);
	drain_jobs(loop, &job, 1);
	ck_assert_int_eq(job.res, 1);
}
END_TEST

static struct job flushed, hit;

static ssize_t answer_at_once(void *arg)
{
	(void)arg;
	return 1;
}

/* A hit is called back in this turn, and with it what has come by then. */
static void flush_and_wait(struct onefd_req *req)
{
	(void)req;
	skew += 100000000;	/* the turn has been at work for so long */
	onefd_prep_call(&flushed.req, answer_at_once, NULL);
	job_submit(loop, &flushed);
	ck_assert_int_eq(onefd_flush(loop), 1);
	/* Anew: the worker may have held the lane's lock just then. */
	while (!handed_any(&loop->requests.pool_engine.handed))
		ck_assert_int_eq(onefd_flush(loop), 0);
	onefd_prep_pread(&hit.req, &file, hit.buf, PAGE, 0);
	job_submit(loop, &hit);
}

START_TEST(an_answer_within_its_turn_does_not_end_the_looking)
{
	struct onefd_req first = { 0 };
	struct job job = { 0 };

	stop_clock();
	step = 10000;
	there[0] = true;
	hit.buf = aligned(PAGE);
	onefd_prep_call(&first, answer_at_once, NULL);
	must(onefd_submit(loop, &first, flush_and_wait));
	while (!hit.calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(flushed.calls, 1);
	must(onefd_dispatch(loop, 0));	/* the wake that came with it */
	step = 100;
	sem_init(&call_gate, 0, 0);
	onefd_prep_call(&job.req, wait_at_gate, NULL);
	job_submit(loop, &job);
	looks = 0;
	ck_assert_int_eq(onefd_dispatch(loop, 1), 0);
	ck_assert_int_gt(looks, 1);
	sem_post(&call_gate);
	drain_jobs(loop, &job, 1);
	free(hit.buf);
}
END_TEST

static void no_timer(struct onefd_timer *timer)
{
	(void)timer;
}

/* By a clock that goes on by 10 us whenever it is read. */
START_TEST(a_timer_is_not_late_by_what_was_spun)
{
	struct job *job = make_jobs(1, PAGE);
	struct onefd_timer timer;

	stop_clock();
	shut[0] = true;
	ask(job, 0, PAGE);
	until_waited_for(0);
	step = 10000;
	onefd_timer_init(&timer, no_timer);
	onefd_timer_start(loop, &timer, skew + 5000000);
	looks = sleeps = 0;
	must(onefd_dispatch(loop, 20));
	ck_assert_int_gt(looks, 1);
	ck_assert_int_eq(sleeps, 1);
	ck_assert_uint_le(woken, timer.deadline + 100000);
	onefd_timer_stop(&timer);
	skew = 0;
	stepping = false;
	open_page(0);
	drain_jobs(loop, job, 1);
	free_jobs(job, 1);
}
END_TEST

START_TEST(a_spinning_loop_sleeps_when_pages_take_long)
{
	struct job *job = make_jobs(1, PAGE);

	shut[0] = true;
	ask(job, 0, PAGE);
	until_waited_for(0);
	skew = 5000000;
	open_page(0);
	drain_jobs(loop, job, 1);

	shut[1] = true;
	ask(job, 1, PAGE);
	until_waited_for(1);
	looks = sleeps = 0;
	ck_assert_int_eq(onefd_dispatch(loop, 1), 0);
	ck_assert_int_eq(looks, 0);
	ck_assert_int_gt(sleeps, 0);
	open_page(1);
	drain_jobs(loop, job, 1);
	free_jobs(job, 1);
}
END_TEST

START_TEST(a_dispatch_that_may_not_wait_does_not_spin)
{
	struct job *job = make_jobs(1, PAGE);

	shut[0] = true;
	ask(job, 0, PAGE);
	until_waited_for(0);
	looks = 0;
	must(onefd_dispatch(loop, 0));
	ck_assert_int_le(looks, 1);
	open_page(0);
	drain_jobs(loop, job, 1);
	free_jobs(job, 1);
}
END_TEST

START_TEST(scattered_buffers_are_filled_across_tries)
{
	struct job *job = make_jobs(1, 4 * PAGE);
	char *bytes = job->buf;
	struct iovec iov[40];
	size_t at = 0;

	/* 1, 2, 3 ... bytes, and empty ones between. */
	for (size_t i = 0; i < 40; i++) {
		iov[i] = (struct iovec){ bytes + at, i % 3 ? 11 * i : 0 };
		at += iov[i].iov_len;
	}
	there[0] = true;
	onefd_prep_preadv(&job->req, &file, iov, 40, PAGE - 100);
	ck_assert_int_eq(job_run(loop, job), (ssize_t)at);
	check_bytes(bytes, at, PAGE - 100);
	free_jobs(job, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pages");
	TCase *tcase = add_case(suite, "pages", set_up, tear_down);

	tcase_add_test(tcase, what_is_there_needs_no_thread);
	tcase_add_test(tcase, what_is_not_there_comes_from_a_waiter);
	tcase_add_test(tcase, hits_do_not_wait_for_misses);
	tcase_add_test(tcase, progress_is_kept);
	tcase_add_test(tcase, a_read_that_waits_is_cancelled_at_once);
	tcase_add_test(tcase, a_read_that_is_being_tried_is_cancelled);
	tcase_add_test(tcase, a_request_may_be_used_again_while_its_old_page_hangs);
	tcase_add_test(tcase, a_page_that_never_comes_holds_up_nobody);
	tcase_add_test(tcase, what_a_relieved_thread_leaves_is_waited_for);
	tcase_add_test(tcase, a_loop_ends_while_a_thread_hangs_in_a_cancelled_page);
	tcase_add_test(tcase, the_end_of_the_file_is_a_short_count);
	tcase_add_test(tcase, pages_that_vanish_again_are_read_all_the_same);
	tcase_add_test(tcase, a_plain_read_that_says_eagain_is_an_answer);
	tcase_add_test(tcase, what_is_done_does_not_wait_for_the_extents_of_another);
	tcase_add_test(tcase, a_long_read_is_read_ahead);
	tcase_add_test(tcase, a_miss_without_readahead_is_found_out);
	tcase_add_test(tcase, a_miss_with_readahead_is_not_asked_for_again);
	tcase_add_test(tcase, a_false_end_is_no_end);
	tcase_add_test(tcase, the_end_of_a_file_that_was_cut_is_the_end);
	tcase_add_test(tcase, a_file_system_that_refuses_is_asked_once);
	tcase_add_test(tcase, what_may_block_is_tried_by_the_waiter);
	tcase_add_loop_test(tcase, without_cachestat_the_waiter_tries_all, 0, 2);
	tcase_add_test(tcase, without_a_thread_a_worker_reads);
	tcase_add_test(tcase, a_long_read_keeps_no_turn);
	tcase_add_test(tcase, rwf_nowait_of_the_caller_is_answered_with_eagain);
	tcase_add_test(tcase, scattered_buffers_are_filled_across_tries);

	tcase = add_case(suite, "spin", make_spinning_loop, free_spinning_loop);
	tcase_add_test(tcase, a_spinning_loop_looks_before_it_sleeps);
	tcase_add_test(tcase, a_spinning_loop_looks_for_any_lone_request);
	tcase_add_test(tcase, an_answer_within_its_turn_does_not_end_the_looking);
	tcase_add_test(tcase, a_timer_is_not_late_by_what_was_spun);
	tcase_add_test(tcase, a_spinning_loop_sleeps_when_pages_take_long);
	tcase_add_test(tcase, a_dispatch_that_may_not_wait_does_not_spin);
	return run_suite(suite);
}
