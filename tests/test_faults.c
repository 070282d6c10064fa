/*
 * test_faults.c - system calls made to fail, through the table in sys.h, and
 * bugs that other libraries had. Whatever fails, every request calls back once
 * and nothing leaks.
 */
#include "files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "../lib/sys.h"

#define BLOCK 4096
#define MILLISECOND UINT64_C(1000000)

static struct onefd *loop;
static struct sys_calls real;
static atomic_int countdown;	/* the call that brings it to 0 fails */
static atomic_int faults;	/* how many were made */
static int fault;		/* what it answers */
static pthread_t loop_thread;
static atomic_int loop_faults;	/* those that the loop's own thread met */

static void set_up(void)
{
	real = sys;
	loop_thread = pthread_self();
	must(onefd_new(&loop, test_config()));
}

/* The table stays as the test left it: each test is a process of its own, and
 * threads that outlive the loop still read it. */
static void tear_down(void)
{
	must(onefd_free(loop));
}

static void remake_loop(struct onefd_config config)
{
	config.flags |= test_config()->flags;
	must(onefd_free(loop));
	must(onefd_new(&loop, &config));
}

static struct onefd_stats stats_now(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

static bool fails_now(void)
{
	bool fails = atomic_fetch_sub(&countdown, 1) == 1;

	faults += fails;
	loop_faults += fails && pthread_equal(pthread_self(), loop_thread);
	return fails;
}

static int direct_flag(int index)
{
	return has_direct(index) ? O_DIRECT : 0;
}

/* ---- a batch of reads under a faulty io_submit() ------------------------- */

enum { READS = 64 };

struct reads {
	struct onefd_file file;
	struct job *jobs;
	int fd;
};

static void reads_submit(struct reads *reads, int index)
{
	reads->fd = make_file(index, READS * BLOCK, O_RDONLY | direct_flag(index));
	reads->jobs = make_jobs(READS, BLOCK);
	must(onefd_file_init(loop, &reads->file, reads->fd));
	for (int i = 0; i < READS; i++) {
		struct job *job = &reads->jobs[i];

		onefd_prep_pread(&job->req, &reads->file, job->buf, BLOCK, i * BLOCK);
		job_submit(loop, job);
	}
}

/* Drains: how many answered @error; all others brought their bytes. */
static int reads_finish(struct reads *reads, int error)
{
	int failed = 0;

	drain_jobs(loop, reads->jobs, READS);
	for (int i = 0; i < READS; i++) {
		if (error && reads->jobs[i].res == error) {
			failed++;
			continue;
		}
		ck_assert_int_eq(reads->jobs[i].res, BLOCK);
		check_bytes(reads->jobs[i].buf, BLOCK, i * BLOCK);
	}
	free_jobs(reads->jobs, READS);
	close(reads->fd);
	return failed;
}

static int submit_fails_once(io_context_t ctx, long count, struct iocb **batch)
{
	return fails_now() ? fault : real.io_submit(ctx, count, batch);
}

static int submit_takes_one(io_context_t ctx, long count, struct iocb **batch)
{
	(void)count;
	return real.io_submit(ctx, 1, batch);
}

static int submit_takes_half(io_context_t ctx, long count, struct iocb **batch)
{
	return real.io_submit(ctx, (count + 1) / 2, batch);
}

/* The n-th call finds no slot: with others in flight, and with none. */
START_TEST(submit_without_a_slot_loses_nothing)
{
	fault = -EAGAIN;
	sys.io_submit = submit_fails_once;
	for (int n = 1; n <= 8; n++) {
		struct reads reads;

		remake_loop((struct onefd_config){ .depth = 8 });
		countdown = n;
		reads_submit(&reads, _i);
		ck_assert_int_eq(reads_finish(&reads, 0), 0);
	}
}
END_TEST

START_TEST(submit_that_is_interrupted_loses_nothing)
{
	fault = -EINTR;
	sys.io_submit = submit_fails_once;
	for (int n = 1; n <= 4; n++) {
		struct reads reads;

		remake_loop((struct onefd_config){ .depth = 8 });
		countdown = n;
		reads_submit(&reads, _i);
		ck_assert_int_eq(reads_finish(&reads, 0), 0);
	}
}
END_TEST

START_TEST(short_submit_loses_nothing)
{
	int (*const submits[])(io_context_t, long, struct iocb **) = {
		submit_takes_one, submit_takes_half,
	};

	for (int i = 0; i < 2; i++) {
		struct reads reads;

		/* Remade first: workers of the one before still read the table. */
		remake_loop((struct onefd_config){ 0 });
		sys.io_submit = submits[i];
		reads_submit(&reads, _i);
		ck_assert_int_eq(reads_finish(&reads, 0), 0);
	}
	if (has_direct(_i) && stats_now().kaio > 1)
		ck_assert_uint_gt(stats_now().submit_short, 0);
}
END_TEST

/* An error speaks of the first of a batch, and of no other. What a worker could
 * not submit it does by a plain call, so that only the loop's own faults show. */
START_TEST(submit_error_is_of_one_request)
{
	fault = -EBADF;
	sys.io_submit = submit_fails_once;
	for (int n = 1; n <= 4; n++) {
		struct reads reads;

		remake_loop((struct onefd_config){ .depth = 8 });
		countdown = n;
		loop_faults = 0;
		reads_submit(&reads, _i);
		ck_assert_int_eq(reads_finish(&reads, -EBADF), loop_faults);
	}
}
END_TEST

static int submit_never_has_a_slot(io_context_t ctx, long count, struct iocb **batch)
{
	(void)ctx;
	(void)count;
	(void)batch;
	return -EAGAIN;
}

/* None is in flight whose completion would free a slot: it must not wait. */
START_TEST(submit_that_never_finds_a_slot_ends)
{
	struct reads reads;

	sys.io_submit = submit_never_has_a_slot;
	reads_submit(&reads, _i);
	(void)reads_finish(&reads, -EAGAIN);
}
END_TEST

/* ---- completions ----------------------------------------------------------- */

/* As the kernel does it: a signal shows when there was no event to bring. */
static int getevents_interrupted(io_context_t ctx, long count, struct io_event *events)
{
	int r = real.io_getevents(ctx, count, events);

	faults += r == 0;
	return r == 0 ? -EINTR : r;
}

/* ---- a submission that took long ----------------------------------------- */

enum { FEW = 16 };		/* so few that the window is not to blame */

static uint64_t stopped_clock;
static atomic_bool slow;		/* the next io_submit() of the loop's thread is */
static unsigned slow_ms;	/* so much */
static long naps;		/* what sys.sleeps() answers */

static uint64_t stopped_now(void)
{
	return stopped_clock;
}

static int submit_slow_once(io_context_t ctx, long count, struct iocb **batch)
{
	if (slow && pthread_equal(pthread_self(), loop_thread)) {
		stopped_clock += slow_ms * MILLISECOND;
		slow = false;
	}
	return real.io_submit(ctx, count, batch);
}

static void read_few(struct reads *reads)
{
	for (int i = 0; i < FEW; i++) {
		struct job *job = &reads->jobs[i];

		onefd_prep_pread(&job->req, &reads->file, job->buf, BLOCK, i * BLOCK);
		job_submit(loop, job);
	}
	drain_jobs(loop, reads->jobs, FEW);
}

/* Whether a batch went by kernel AIO from the loop's thread. */
static bool few_went_by_kaio(struct reads *reads)
{
	uint64_t before = stats_now().kaio;

	read_few(reads);
	return stats_now().kaio == before + FEW;
}

/* It was one submission, so it is one detour of 64 and not one for each of its
 * requests, each twice as long as the one before. */
START_TEST(slow_submission_is_blamed_once)
{
	struct reads reads;
	struct onefd_stats before;
	int batches = 0;

	sys.now = stopped_now;
	sys.io_submit = submit_slow_once;
	slow_ms = 50;		/* no preemption takes so long */
	reads_submit(&reads, _i);
	drain_jobs(loop, reads.jobs, READS);
	slow = few_went_by_kaio(&reads);
	before = stats_now();
	if (slow) {
		read_few(&reads);
		ck_assert_uint_eq(stats_now().demoted, before.demoted + 1);
		while (!few_went_by_kaio(&reads))
			ck_assert_int_lt(++batches, 64 / FEW + 1);
		ck_assert_uint_eq(stats_now().pool, before.pool + 64);
	}
	reads_finish(&reads, 0);
}
END_TEST

static long counted_naps(void)
{
	return naps;
}

static long counted_naps_grow(void)
{
	return naps++;
}

/* On a busy machine the thread is preempted in io_submit(): slow, yet not blocked.
 * Whether it slept is asked from the second time on. */
START_TEST(slow_submission_is_blamed_if_the_thread_slept)
{
	struct reads reads;
	uint64_t before;

	sys.now = stopped_now;
	sys.io_submit = submit_slow_once;
	sys.sleeps = counted_naps;
	slow_ms = 10;
	reads_submit(&reads, _i);
	drain_jobs(loop, reads.jobs, READS);
	if (few_went_by_kaio(&reads)) {
		before = stats_now().demoted;
		for (int i = 0; i < 3; i++) {
			slow = true;
			read_few(&reads);
		}
		ck_assert_uint_eq(stats_now().demoted, before);
		sys.sleeps = counted_naps_grow;
		slow = true;
		read_few(&reads);
		ck_assert_uint_eq(stats_now().demoted, before + 1);
	}
	reads_finish(&reads, 0);
}
END_TEST

START_TEST(getevents_that_are_interrupted_lose_nothing)
{
	struct reads reads;

	sys.io_getevents = getevents_interrupted;
	remake_loop((struct onefd_config){ .flags = ONEFD_NO_RING });
	reads_submit(&reads, _i);
	ck_assert_int_eq(reads_finish(&reads, 0), 0);
}
END_TEST

/* A loop that reaped 64 once per wake slept on the other 192 for ever. */
START_TEST(ring_of_256_with_budget_64_is_drained)
{
	enum { COUNT = 256 };
	static const uint32_t flags[] = { 0, ONEFD_NO_RING };
	int fd = make_file(_i, COUNT * BLOCK, O_RDONLY | direct_flag(_i));

	for (int pass = 0; pass < 2; pass++) {
		struct job *jobs = make_jobs(COUNT, BLOCK);
		struct onefd_file file;
		int ran = 0;

		remake_loop((struct onefd_config){ .depth = 512, .budget = 64,
						   .flags = flags[pass] });
		must(onefd_file_init(loop, &file, fd));
		for (int i = 0; i < COUNT; i++) {
			onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
			job_submit(loop, &jobs[i]);
		}
		must(onefd_flush(loop));
		while (ran < COUNT) {
			int r = (int)must(onefd_dispatch(loop, -1));

			ck_assert_int_le(r, 64);
			ran += r;
		}
		drain_jobs(loop, jobs, COUNT);
		free_jobs(jobs, COUNT);
	}
	close(fd);
}
END_TEST

/* The counter still says 32 when all were reaped: a loop that waited for as
 * many events as it says would hang here. */
START_TEST(stale_counter_is_never_waited_on)
{
	struct reads reads;

	reads_submit(&reads, _i);
	ck_assert_int_eq(reads_finish(&reads, 0), 0);
	for (int i = 0; i < 100; i++)
		onefd_wake(loop);
	ck_assert_int_eq(onefd_dispatch(loop, 1000), 0);
	reads_submit(&reads, _i);
	onefd_wake(loop);
	ck_assert_int_eq(reads_finish(&reads, 0), 0);
}
END_TEST

/* ---- lengths ----------------------------------------------------------------- */

/* Reads of a file of @size bytes: the count is bytes, never an error. */
static void read_at_end(int index, int flags, size_t size)
{
	int fd = make_file(index, size, O_RDONLY | flags);
	struct onefd_file file;
	struct job job = { .buf = aligned(2 * BLOCK) };

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&job.req, &file, job.buf, 2 * BLOCK, 0);
	ck_assert_int_eq(job_run(loop, &job), (ssize_t)size);
	check_bytes(job.buf, size, 0);
	onefd_prep_pread(&job.req, &file, job.buf, 7, (off_t)size - 3);
	ck_assert_int_eq(job_run(loop, &job), 3);
	check_bytes(job.buf, 3, (off_t)size - 3);
	onefd_prep_pread(&job.req, &file, job.buf, BLOCK, (off_t)size);
	ck_assert_int_eq(job_run(loop, &job), 0);
	free(job.buf);
	close(fd);
}

START_TEST(short_read_at_the_end_is_bytes_and_no_error)
{
	static const size_t sizes[] = { 5, 22, 100, 511, 512, 4095, 4096, 4097, 5000 };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		read_at_end(_i, 0, sizes[i]);
		read_at_end(_i, direct_flag(_i), sizes[i]);
	}
}
END_TEST

START_TEST(unaligned_tail_is_written)
{
	static const size_t pieces[][3] = {
		{ 3 * BLOCK + 1000, 1, 511 }, { 1, 4095, 4097 }, { 4095, 2, 8191 },
	};

	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		int fd = make_file(_i, 0, O_RDWR | direct_flag(_i));
		struct job *jobs = make_jobs(3, 4 * BLOCK);
		struct onefd_file file;
		off_t at = 0;

		must(onefd_file_init(loop, &file, fd));
		for (int k = 0; k < 3; at += (off_t)pieces[i][k++]) {
			fill(jobs[k].buf, pieces[i][k], at);
			onefd_prep_pwrite(&jobs[k].req, &file, jobs[k].buf, pieces[i][k], at);
			ck_assert_int_eq(job_run(loop, &jobs[k]), (ssize_t)pieces[i][k]);
		}
		check_file(fd, (size_t)at);
		free_jobs(jobs, 3);
		close(fd);
	}
}
END_TEST

/* All at once: they share blocks, and the end of the file moves under them. */
START_TEST(unaligned_neighbours_do_not_overwrite_each_other)
{
	enum { COUNT = 64, PIECE = 1000 };
	int fd = make_file(_i, 0, O_RDWR | direct_flag(_i));
	struct job *jobs = make_jobs(COUNT, PIECE);
	struct onefd_file file;

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < COUNT; i++) {
		int k = i * 29 % COUNT;

		fill(jobs[k].buf, PIECE, k * PIECE);
		onefd_prep_pwrite(&jobs[k].req, &file, jobs[k].buf, PIECE, k * PIECE);
		job_submit(loop, &jobs[k]);
	}
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].res, PIECE);
	check_file(fd, COUNT * PIECE);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* The device moves half of what the loop asked. The library's own iocb stays as
 * it is; a batch too large to copy is submitted in part. */
static int submit_halves(io_context_t ctx, long count, struct iocb **batch)
{
	struct iocb copies[16], *halves[16];

	if (!pthread_equal(pthread_self(), loop_thread))
		return real.io_submit(ctx, count, batch);
	if (count > 16)
		count = 16;
	for (long i = 0; i < count; i++) {
		copies[i] = *batch[i];
		halves[i] = &copies[i];
		if (copies[i].aio_lio_opcode == IO_CMD_PREAD && copies[i].u.c.nbytes > BLOCK)
			copies[i].u.c.nbytes = (copies[i].u.c.nbytes / 2 + BLOCK - 1) &
					       ~(unsigned long)(BLOCK - 1);
	}
	return real.io_submit(ctx, count, halves);
}

static ssize_t read_halves(int fd, const struct iovec *iov, size_t count, off_t offset,
			   int flags)
{
	struct iovec half = iov[0];

	(void)count;
	if (half.iov_len > 1)
		half.iov_len /= 2;
	return real.preadv2(fd, &half, 1, offset, flags);
}

/* Short in the middle of the file: what is counted is there, and nothing else
 * is claimed. Odd offsets go by way of a bounce. */
START_TEST(short_read_in_mid_file_claims_what_came)
{
	int fd = make_file(_i, 16 * BLOCK, O_RDONLY | direct_flag(_i));
	struct job job = { .buf = aligned(5 * BLOCK) };
	struct onefd_file file;

	sys.io_submit = submit_halves;
	sys.preadv2 = read_halves;
	must(onefd_file_init(loop, &file, fd));
	for (off_t at = 0; at < BLOCK; at += 1021) {
		memset(job.buf, 0, 4 * BLOCK);
		onefd_prep_pread(&job.req, &file, job.buf, 4 * BLOCK, at);
		ck_assert_int_gt(job_run(loop, &job), 0);
		ck_assert_int_le(job.res, 4 * BLOCK);
		check_bytes(job.buf, (size_t)job.res, at);
	}
	free(job.buf);
	close(fd);
}
END_TEST

static ssize_t read_fails_once(int fd, const struct iovec *iov, size_t count, off_t offset,
			       int flags)
{
	return fails_now() ? fault : real.preadv2(fd, iov, count, offset, flags);
}

START_TEST(worker_error_is_of_one_request)
{
	struct reads reads;

	sys.preadv2 = read_fails_once;
	remake_loop((struct onefd_config){ .flags = ONEFD_NO_KAIO | ONEFD_NO_NOWAIT });
	fault = -EIO;
	countdown = READS / 2;
	reads_submit(&reads, _i);
	ck_assert_int_eq(reads_finish(&reads, -EIO), 1);
}
END_TEST

/* ---- what a loop is made of ------------------------------------------------- */

static void *alloc_fails_once(size_t size)
{
	return fails_now() ? NULL : real.alloc(size);
}

static void *aligned_fails_once(size_t align, size_t size)
{
	return fails_now() ? NULL : real.alloc_aligned(align, size);
}

static void *map_fails_once(void *address, size_t size)
{
	return fails_now() ? NULL : real.map(address, size);
}

/* Reads, a write over a block's edge, an fsync: right, or -ENOMEM. */
static void work_or_enomem(struct onefd *other, int fd)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(10, 2 * BLOCK);
	int r = onefd_file_init(other, &file, fd);

	ck_assert_msg(r == 0 || r == -ENOMEM, "file_init: %d", r);
	for (int i = 0; r == 0 && i < 10; i++) {
		struct job *job = &jobs[i];

		fill(job->buf, 1000, i * BLOCK + 3600);
		if (i < 8)
			onefd_prep_pread(&job->req, &file, job->buf, 1000, i * BLOCK + 3600);
		else if (i == 8)
			onefd_prep_pwrite(&job->req, &file, job->buf, 1000, i * BLOCK + 3600);
		else
			onefd_prep_fsync(&job->req, &file, 1);
		job_submit(other, job);
	}
	must(onefd_drain(other, -1));
	for (int i = 0; r == 0 && i < 10; i++) {
		ck_assert_int_eq(jobs[i].calls, 1);
		ck_assert_msg(jobs[i].res == -ENOMEM || jobs[i].res == (i < 9 ? 1000 : 0),
			      "request %d: %zd", i, jobs[i].res);
	}
	free_jobs(jobs, 10);
}

/* The n-th allocation of a loop's life fails, for every n there is. */
START_TEST(nth_allocation_fails)
{
	int fd = make_file(_i, 16 * BLOCK, O_RDWR | direct_flag(_i)), made;
	int before = count_fds();

	sys.alloc = alloc_fails_once;
	sys.alloc_aligned = aligned_fails_once;
	sys.map = map_fails_once;
	for (int n = 1; n < 1000; n++) {
		struct onefd *other = NULL;
		int r;

		countdown = n;
		faults = 0;
		r = onefd_new(&other, test_config());
		if (r == 0) {
			work_or_enomem(other, fd);
			must(onefd_free(other));
		} else {
			ck_assert_int_eq(r, -ENOMEM);
			ck_assert_ptr_null(other);
		}
		ck_assert_int_eq(count_fds(), before);
		made = n;
		if (!faults)
			break;
	}
	ck_assert_int_gt(made, 1);
	ck_assert_int_eq(faults, 0);
	check_file(fd, 16 * BLOCK);
	close(fd);
}
END_TEST

static int eventfd_fails_once(void)
{
	return fails_now() ? -EMFILE : real.eventfd();
}

static int epoll_create_fails_once(void)
{
	return fails_now() ? -EMFILE : real.epoll_create();
}

static int timerfd_fails_once(void)
{
	return fails_now() ? -EMFILE : real.timerfd_create();
}

static int epoll_ctl_fails_once(int epfd, int op, int fd, struct epoll_event *event)
{
	return fails_now() ? -ENOMEM : real.epoll_ctl(epfd, op, fd, event);
}

START_TEST(nth_descriptor_fails)
{
	int before = count_fds();

	sys.eventfd = eventfd_fails_once;
	sys.epoll_create = epoll_create_fails_once;
	sys.timerfd_create = timerfd_fails_once;
	sys.epoll_ctl = epoll_ctl_fails_once;
	for (int n = 1; n < 16; n++) {
		struct onefd *other = NULL;
		int r;

		countdown = n;
		faults = 0;
		r = onefd_new(&other, test_config());
		ck_assert_msg(r == 0 || r == -EMFILE || r == -ENOMEM, "%d", r);
		ck_assert(r == 0 || !other);
		must(onefd_free(other));
		ck_assert_int_eq(count_fds(), before);
		ck_assert(n > 1 || r < 0);
	}
}
END_TEST

static int pwait2_refused(int epfd, struct epoll_event *events, int count,
			  uint64_t timeout_ns)
{
	(void)epfd;
	(void)events;
	(void)count;
	(void)timeout_ns;
	faults++;
	return fault;
}

static void note(struct onefd_timer *timer)
{
	*(uint64_t *)timer->data = onefd_now(loop);
}

START_TEST(wait_without_epoll_pwait2)
{
	static const int answers[] = { -ENOSYS, -EPERM };

	sys.epoll_pwait2 = pwait2_refused;
	for (int i = 0; i < 2; i++) {
		struct onefd_timer timer;
		uint64_t ran = 0;

		fault = answers[i];
		faults = 0;
		remake_loop((struct onefd_config){ 0 });
		onefd_timer_init(&timer, note);
		timer.data = &ran;
		onefd_timer_start(loop, &timer, onefd_now(loop) + 3 * MILLISECOND);
		must(onefd_run(loop));
		ck_assert_uint_ge(ran, timer.deadline);
		onefd_timer_start(loop, &timer, onefd_now(loop) + 3 * MILLISECOND);
		must(onefd_run(loop));
		ck_assert_uint_ge(ran, timer.deadline);
		ck_assert_int_le(faults, 1);
	}
}
END_TEST

static int thread_fails_once(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	return fails_now() ? -EAGAIN : real.thread(ret, fn, arg);
}

START_TEST(nth_thread_fails)
{
	sys.thread = thread_fails_once;
	for (int n = 1; n <= 6; n++) {
		struct reads reads;

		remake_loop((struct onefd_config){ .flags = ONEFD_NO_KAIO });
		countdown = n;
		reads_submit(&reads, _i);
		ck_assert_int_eq(reads_finish(&reads, 0), 0);
	}
	countdown = 0;
}
END_TEST

/* ---- fork --------------------------------------------------------------------- */

/* A child that reaped would take the parent's events from the shared ring. */
START_TEST(forked_child_does_not_steal_events)
{
	struct reads reads;
	struct onefd_req req = { 0 };
	int status;
	pid_t pid;

	reads_submit(&reads, _i);
	must(onefd_flush(loop));
	pid = (pid_t)must_libc(fork());
	if (pid == 0) {
		bool kept_out = onefd_dispatch(loop, 0) == -ECHILD &&
				onefd_drain(loop, 0) == -ECHILD &&
				onefd_flush(loop) == -ECHILD &&
				onefd_fd(loop) == -ECHILD &&
				onefd_submit(loop, &req, job_done) == -ECHILD &&
				onefd_cancel(&reads.jobs[0].req) == -ECHILD;

		_exit(kept_out ? 0 : 1);
	}
	must_libc(waitpid(pid, &status, 0));
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(reads_finish(&reads, 0), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("faults");
	TCase *submit = add_case(suite, "submit", set_up, tear_down);
	TCase *complete = add_case(suite, "complete", set_up, tear_down);
	TCase *lengths = add_case(suite, "lengths", set_up, tear_down);
	TCase *parts = add_case(suite, "parts", set_up, tear_down);
	TCase *forks = add_case(suite, "fork", set_up, tear_down);
	int places = place_count();

	tcase_add_loop_test(submit, submit_without_a_slot_loses_nothing, 0, places);
	tcase_add_loop_test(submit, submit_that_is_interrupted_loses_nothing, 0, places);
	tcase_add_loop_test(submit, short_submit_loses_nothing, 0, places);
	tcase_add_loop_test(submit, submit_error_is_of_one_request, 0, places);
	tcase_add_loop_test(submit, submit_that_never_finds_a_slot_ends, 0, places);
	tcase_add_loop_test(submit, slow_submission_is_blamed_once, 0, places);
	tcase_add_loop_test(submit, slow_submission_is_blamed_if_the_thread_slept, 0, places);
	tcase_add_loop_test(complete, getevents_that_are_interrupted_lose_nothing, 0, places);
	tcase_add_loop_test(complete, ring_of_256_with_budget_64_is_drained, 0, places);
	tcase_add_loop_test(complete, stale_counter_is_never_waited_on, 0, places);
	tcase_add_loop_test(lengths, short_read_at_the_end_is_bytes_and_no_error, 0, places);
	tcase_add_loop_test(lengths, unaligned_tail_is_written, 0, places);
	tcase_add_loop_test(lengths, unaligned_neighbours_do_not_overwrite_each_other, 0, places);
	tcase_add_loop_test(lengths, short_read_in_mid_file_claims_what_came, 0, places);
	tcase_add_loop_test(lengths, worker_error_is_of_one_request, 0, places);
	tcase_add_loop_test(parts, nth_allocation_fails, 0, places);
	tcase_add_test(parts, nth_descriptor_fails);
	tcase_add_test(parts, wait_without_epoll_pwait2);
	tcase_add_loop_test(parts, nth_thread_fails, 0, places);
	tcase_add_loop_test(forks, forked_child_does_not_steal_events, 0, places);
	tcase_set_tags(forks, "fork");
	return run_suite(suite);
}
