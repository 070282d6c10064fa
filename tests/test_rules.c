/*
 * test_rules.c - the eight clauses of the law, each under its own name, in
 * every directory of ONEFD_TEST_DIRS. Rules of one room are in that room's tests.
 */
#include "files.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "../lib/sys.h"

#define BLOCK 4096
#define MILLISECOND UINT64_C(1000000)

static struct onefd *loop;
static struct sys_calls real;
static pthread_t loop_thread;

static void make_loop_with(struct onefd_config config)
{
	config.flags |= test_config()->flags;
	must(onefd_new(&loop, &config));
}

static void set_up(void)
{
	real = sys;
	loop_thread = pthread_self();
	make_loop_with((struct onefd_config){ 0 });
}

/* The table stays as the test left it: each test is a process of its own, and
 * threads that outlive the loop still read it. */
static void tear_down(void)
{
	must(onefd_free(loop));
}

static void remake_loop(struct onefd_config config)
{
	must(onefd_free(loop));
	make_loop_with(config);
}

static struct onefd_stats stats_now(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

/* O_DIRECT where that place has it: the rules hold either way. */
static int direct_flag(int index)
{
	return has_direct(index) ? O_DIRECT : 0;
}

/* ---- 1. never blocks ---------------------------------------------------- */

static atomic_int buffered_submits;

/* A buffered transfer without RWF_NOWAIT waits for the disk in io_submit(). */
static int submit_and_look(io_context_t ctx, long count, struct iocb **batch)
{
	for (long i = 0; pthread_equal(pthread_self(), loop_thread) && i < count; i++) {
		int op = batch[i]->aio_lio_opcode;
		bool moves = op == IO_CMD_PREAD || op == IO_CMD_PWRITE ||
			     op == IO_CMD_PREADV || op == IO_CMD_PWRITEV;

		if (moves && !(fcntl(batch[i]->aio_fildes, F_GETFL) & O_DIRECT) &&
		    !(batch[i]->aio_rw_flags & RWF_NOWAIT))
			buffered_submits++;
	}
	return real.io_submit(ctx, count, batch);
}

START_TEST(never_blocks_buffered_requests_are_not_submitted_plainly)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(64, BLOCK);
	int fd = make_file(_i, 64 * BLOCK, O_RDWR);

	sys.io_submit = submit_and_look;
	must(onefd_file_init(loop, &file, fd));
	must_libc(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	for (int i = 0; i < 64; i++) {
		if (i % 2)
			onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		else
			onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		fill(jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
	}
	drain_jobs(loop, jobs, 64);
	for (int i = 0; i < 64; i++)
		ck_assert_int_eq(jobs[i].res, BLOCK);
	ck_assert_int_eq(buffered_submits, 0);
	check_file(fd, 64 * BLOCK);
	free_jobs(jobs, 64);
	close(fd);
}
END_TEST

START_TEST(never_blocks_a_pipe_is_no_file)
{
	struct onefd_file file;
	int fds[2];

	must_libc(pipe(fds));
	ck_assert_int_eq(onefd_file_init(loop, &file, fds[0]), -ESPIPE);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

static sem_t gate;

static ssize_t wait_at_gate(void *arg)
{
	(void)arg;
	while (sem_wait(&gate) < 0)
		;
	return 7;
}

static void open_gate(struct onefd_timer *timer)
{
	(void)timer;
	sem_post(&gate);
}

/* The loop that ran the call itself would never come to the timer. */
START_TEST(never_blocks_a_call_that_waits_for_the_loop)
{
	struct onefd_timer timer;
	struct job job = { 0 };

	sem_init(&gate, 0, 0);
	onefd_timer_init(&timer, open_gate);
	onefd_timer_start(loop, &timer, onefd_now(loop) + MILLISECOND);
	onefd_prep_call(&job.req, wait_at_gate, NULL);
	ck_assert_int_eq(job_run(loop, &job), 7);
}
END_TEST

struct opener {
	struct onefd_timer timer;
	const char *path;
	int fd;
};

/* ENXIO until the worker is inside its open(). */
static void open_other_end(struct onefd_timer *timer)
{
	struct opener *opener = onefd_container(timer, struct opener, timer);

	opener->fd = open(opener->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (opener->fd < 0)
		onefd_timer_start(loop, timer, timer->deadline + MILLISECOND);
}

START_TEST(never_blocks_an_open_that_waits_for_the_loop)
{
	struct place place = place_of(_i);
	char path[PATH_MAX + 32];
	struct opener opener = { .path = path, .fd = -1 };
	struct job job = { 0 };

	snprintf(path, sizeof path, "%s/fifo.%d", place.path, (int)getpid());
	must_libc(mkfifo(path, 0600));
	onefd_timer_init(&opener.timer, open_other_end);
	onefd_timer_start(loop, &opener.timer, onefd_now(loop));
	onefd_prep_openat(&job.req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	must(job_run(loop, &job));
	must_libc(close((int)job.res));
	onefd_timer_stop(&opener.timer);
	close(opener.fd);
	must_libc(unlink(path));
}
END_TEST

static int slow_submit(io_context_t ctx, long count, struct iocb **batch)
{
	usleep(20 * 1000);
	return real.io_submit(ctx, count, batch);
}

/* What cannot be foreseen is seen: the histogram says so. */
START_TEST(never_blocks_a_slow_submission_is_measured)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(1, BLOCK);
	int fd = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&jobs[0].req, &file, jobs[0].buf, BLOCK, 0);
	sys.io_submit = slow_submit;
	ck_assert_int_eq(job_run(loop, &jobs[0]), BLOCK);
	if (stats_now().submit_calls > 0)
		ck_assert_uint_ge(stats_now().submit_ns.max, 20 * MILLISECOND);
	ck_assert_uint_eq(stats_now().submit_ns.count, stats_now().submit_calls);
	ck_assert_uint_gt(stats_now().turn_ns.count, 0);
	free_jobs(jobs, 1);
	close(fd);
}
END_TEST

static atomic_int destroyed_here, destroyed_elsewhere;

static int destroy_and_look(io_context_t ctx)
{
	if (pthread_equal(pthread_self(), loop_thread))
		destroyed_here++;
	else
		destroyed_elsewhere++;
	return real.io_destroy(ctx);
}

START_TEST(never_blocks_a_context_is_destroyed_elsewhere)
{
	sys.io_destroy = destroy_and_look;
	remake_loop((struct onefd_config){ 0 });
	/* A check of the clock, for the thread announces itself to nobody. */
	for (int i = 0; i < 10000 && !destroyed_elsewhere; i++)
		usleep(1000);
	ck_assert_int_eq(destroyed_here, 0);
	ck_assert_int_eq(destroyed_elsewhere, 1);
}
END_TEST

/* ---- 2. exactly once ---------------------------------------------------- */

static int results[3];	/* cancelled, too late, not out */

/* Cancels every fourth of @jobs from @first and remembers what was promised. */
static void cancel_some(struct job *jobs, int *promised, int first, int count)
{
	for (int i = first; i < count; i += 4) {
		promised[i] = job_cancel(&jobs[i]);
		results[promised[i] == 0 ? 0 : promised[i] == -EBUSY ? 1 : 2]++;
		ck_assert_int_eq(jobs[i].calls, 0);
	}
}

/* A quarter is cancelled while queued. Then, at depth 4, some are out, some
 * done, the rest queued or held; how many of each is the device's affair. */
START_TEST(exactly_once_cancelled_wherever_they_stand)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(64, BLOCK);
	int promised[64] = { 0 };
	int fd = make_file(_i, 64 * BLOCK, O_RDONLY | direct_flag(_i));

	remake_loop((struct onefd_config){ .depth = 4, .threads = 1 });
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 64; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
	}
	cancel_some(jobs, promised, 0, 64);
	ck_assert_int_eq(results[0], 16);
	must(onefd_flush(loop));
	cancel_some(jobs, promised, 2, 64);
	drain_jobs(loop, jobs, 64);
	for (int i = 0; i < 64; i++) {
		bool taken_back = i % 2 == 0 && promised[i] == 0;

		ck_assert_int_eq(jobs[i].res, taken_back ? -ECANCELED : BLOCK);
		if (!taken_back)
			check_bytes(jobs[i].buf, BLOCK, i * BLOCK);
	}
	ck_assert_int_eq(results[2], 0);
	ck_assert_uint_eq(stats_now().cancelled, results[0]);
	free_jobs(jobs, 64);
	close(fd);
}
END_TEST

/* One worker is in a call, the rest waits behind it. */
START_TEST(exactly_once_cancelled_on_the_way_to_a_worker)
{
	struct job *jobs = make_jobs(8, 0);
	int promised[8] = { 0 };

	remake_loop((struct onefd_config){ .threads = 1 });
	sem_init(&gate, 0, 0);
	for (int i = 0; i < 8; i++) {
		onefd_prep_call(&jobs[i].req, wait_at_gate, NULL);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	cancel_some(jobs, promised, 0, 8);
	cancel_some(jobs, promised, 2, 8);
	ck_assert_int_ge(results[0], 3);
	for (int i = 0; i < 8; i++)
		sem_post(&gate);
	drain_jobs(loop, jobs, 8);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(jobs[i].res, i % 2 == 0 && promised[i] == 0 ? -ECANCELED : 7);
	free_jobs(jobs, 8);
}
END_TEST

START_TEST(exactly_once_cancelled_twice_and_after)
{
	struct job *jobs = make_jobs(1, 0);

	onefd_prep_call(&jobs[0].req, wait_at_gate, NULL);
	ck_assert_int_eq(job_cancel(&jobs[0]), -EINVAL);
	job_submit(loop, &jobs[0]);
	ck_assert_int_eq(onefd_submit(loop, &jobs[0].req, job_done), -EBUSY);
	ck_assert_int_eq(job_cancel(&jobs[0]), 0);
	ck_assert_int_ne(job_cancel(&jobs[0]), 0);
	drain_jobs(loop, jobs, 1);
	ck_assert_int_eq(jobs[0].res, -ECANCELED);
	ck_assert_int_eq(job_cancel(&jobs[0]), -EINVAL);
	free_jobs(jobs, 1);
}
END_TEST

START_TEST(exactly_once_a_poll_is_cancelled_in_the_kernel)
{
	struct job *jobs = make_jobs(2, 0);
	int fds[2];

	must_libc(pipe(fds));
	onefd_prep_poll(&jobs[0].req, fds[0], EPOLLIN);
	onefd_prep_poll(&jobs[1].req, fds[1], EPOLLOUT);
	ck_assert_int_eq(job_run(loop, &jobs[1]), EPOLLOUT);
	job_submit(loop, &jobs[0]);
	must(onefd_flush(loop));
	ck_assert_int_eq(job_cancel(&jobs[0]), 0);
	drain_jobs(loop, jobs, 2);
	ck_assert_int_eq(jobs[0].res, -ECANCELED);
	close(fds[0]);
	close(fds[1]);
	free_jobs(jobs, 2);
}
END_TEST

START_TEST(exactly_once_a_loop_with_requests_out_is_not_freed)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(16, BLOCK);
	int fd = make_file(_i, 16 * BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 16; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
		ck_assert_int_eq(onefd_free(loop), -EBUSY);
		ck_assert_uint_eq(onefd_pending(loop), i + 1);
		if (i == 8)
			must(onefd_flush(loop));
	}
	must(job_cancel(&jobs[15]));
	ck_assert_int_eq(onefd_free(loop), -EBUSY);
	drain_jobs(loop, jobs, 16);
	free_jobs(jobs, 16);
	close(fd);
}
END_TEST

/* ---- 3. yours, then ours, then yours ------------------------------------- */

struct lent {
	struct onefd_req req;
	int *remaining;
	char *bytes;
};

/* From here on it is ours: scribbled over, then gone. */
static void check_and_free(struct onefd_req *req)
{
	struct lent *lent = onefd_container(req, struct lent, req);

	ck_assert_int_eq(req->res, BLOCK);
	check_bytes(req->iov[0].iov_base, BLOCK, req->offset);
	--*lent->remaining;
	memset(lent->bytes, 0xa5, 2 * BLOCK);
	free(lent->bytes);
	memset(lent, 0xa5, sizeof *lent);
	free(lent);
}

/* Every second one is unaligned, so that a bounce goes with it. */
START_TEST(memory_returns_when_the_callback_starts)
{
	struct onefd_file file;
	int remaining = 64;
	int fd = make_file(_i, 64 * BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 64; i++) {
		struct lent *lent = malloc(sizeof *lent);

		lent->remaining = &remaining;
		lent->bytes = aligned(2 * BLOCK);
		onefd_prep_pread(&lent->req, &file, lent->bytes + i % 2, BLOCK, i * BLOCK);
		must(onefd_submit(loop, &lent->req, check_and_free));
	}
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(remaining, 0);
	close(fd);
}
END_TEST

static void submit_again(struct onefd_req *req)
{
	int *left = req->data;

	if (--*left > 0)
		must(onefd_submit(loop, req, submit_again));
}

START_TEST(memory_goes_out_again_from_its_own_callback)
{
	struct onefd_file file;
	struct onefd_req req = { 0 };
	void *buf = aligned(BLOCK);
	int left = 100, fd = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&req, &file, buf, BLOCK, 0);
	req.data = &left;
	must(onefd_submit(loop, &req, submit_again));
	must(onefd_drain(loop, -1));
	ck_assert_int_eq(left, 0);
	check_bytes(buf, BLOCK, 0);
	free(buf);
	close(fd);
}
END_TEST

static void scribble(struct onefd_req *req)
{
	memset(req->iov[0].iov_base, 0x5a, BLOCK);
	job_done(req);
}

/* Whoever cancels gets the buffer with the callback, and keeps what he puts in. */
START_TEST(memory_goes_out_again_and_is_read_into_again)
{
	struct onefd_file file;
	struct job *job = make_jobs(1, BLOCK);
	int fd = make_file(_i, BLOCK, O_RDWR);

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&job->req, &file, job->buf, BLOCK, 0);
	for (int round = 0; round < 3; round++) {
		memset(job->buf, 0, BLOCK);
		ck_assert_int_eq(job_run(loop, job), BLOCK);
		check_bytes(job->buf, BLOCK, 0);
	}
	free_jobs(job, 1);
	close(fd);
}
END_TEST

START_TEST(memory_of_the_cancelled_is_not_written_after_the_callback)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(64, BLOCK);
	int fd = make_file(_i, 64 * BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 64; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		must(onefd_submit(loop, &jobs[i].req, scribble));
		if (i == 32)
			must(onefd_flush(loop));
	}
	for (int i = 0; i < 64; i++)
		(void)job_cancel(&jobs[i]);
	drain_jobs(loop, jobs, 64);
	for (int i = 0; i < 64 * BLOCK; i++)
		if (((unsigned char *)jobs[i / BLOCK].buf)[i % BLOCK] != 0x5a)
			ck_abort_msg("byte %d was written after the callback", i);
	free_jobs(jobs, 64);
	close(fd);
}
END_TEST

/* ---- 4. stop means stop -------------------------------------------------- */

static struct onefd_watch *pair[2];
static struct onefd_timer *twins[2];
static int ran;

static void stop_other_watch(struct onefd_watch *watch, uint32_t events)
{
	struct onefd_watch *other = pair[watch == pair[0]];

	(void)events;
	ran++;
	onefd_watch_stop(watch);
	onefd_watch_stop(other);
	memset(other, 0xa5, sizeof *other);
	free(other);
}

/* Both are fetched in one batch; the second must not run. */
START_TEST(stop_means_stop_for_a_watch_in_the_same_batch)
{
	for (int i = 0; i < 2; i++) {
		pair[i] = malloc(sizeof *pair[i]);
		onefd_watch_init(pair[i], (int)must(sys.eventfd()), stop_other_watch);
		must(onefd_watch_start(loop, pair[i], EPOLLIN));
		must(sys.eventfd_signal(pair[i]->fd));
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	ck_assert_int_eq(ran, 1);
}
END_TEST

static void stop_other_timer(struct onefd_timer *timer)
{
	struct onefd_timer *other = twins[timer == twins[0]];

	ran++;
	onefd_timer_stop(other);
	memset(other, 0xa5, sizeof *other);
	free(other);
}

START_TEST(stop_means_stop_for_a_timer_that_is_due)
{
	uint64_t deadline = onefd_now(loop);

	for (int i = 0; i < 2; i++) {
		twins[i] = malloc(sizeof *twins[i]);
		onefd_timer_init(twins[i], stop_other_timer);
		onefd_timer_start(loop, twins[i], deadline);
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	ck_assert_int_eq(ran, 1);
}
END_TEST

/* ---- 5. one fd, readable if and only if there is work --------------------- */

static bool readable_within(int timeout_ms)
{
	struct pollfd pollfd = { .fd = onefd_fd(loop), .events = POLLIN };

	return must_libc(poll(&pollfd, 1, timeout_ms)) == 1;
}

/*
 * Silent once there is no work. The kernel shows a completion in the ring first
 * and signals it after, so each one reaped may still wake the loop once more,
 * for nothing; more than that would be a host that spins.
 */
static bool falls_silent(int completions)
{
	for (; readable_within(0); completions--) {
		if (completions == 0)
			return false;
		ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	}
	return true;
}

/* Dispatches as a host would, only when the descriptor says so. */
static void host_until_done(const struct job *jobs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		while (!jobs[i].calls) {
			ck_assert(readable_within(10 * 1000));
			must(onefd_dispatch(loop, 0));
		}
}

START_TEST(one_fd_says_that_requests_are_unsent)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(8, BLOCK);
	int fd = make_file(_i, 8 * BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	ck_assert(!readable_within(0));
	for (int i = 0; i < 8; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
		ck_assert(readable_within(0));
	}
	host_until_done(jobs, 8);
	ck_assert(falls_silent(8));
	job_submit(loop, &jobs[0]);
	must(onefd_flush(loop));
	host_until_done(jobs, 1);
	ck_assert(falls_silent(1));
	free_jobs(jobs, 8);
	close(fd);
}
END_TEST

START_TEST(one_fd_is_silent_while_a_worker_is_at_it)
{
	struct job *jobs = make_jobs(1, 0);

	sem_init(&gate, 0, 0);
	ck_assert(!readable_within(0));
	onefd_prep_call(&jobs[0].req, wait_at_gate, NULL);
	job_submit(loop, &jobs[0]);
	must(onefd_dispatch(loop, 0));
	must(onefd_dispatch(loop, 0));
	ck_assert(!readable_within(0));
	sem_post(&gate);
	host_until_done(jobs, 1);
	ck_assert(falls_silent(1));
	free_jobs(jobs, 1);
}
END_TEST

/* One callback a turn: the rest keeps it readable. */
START_TEST(one_fd_says_what_the_budget_left)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(8, BLOCK);
	int fd = make_file(_i, 8 * BLOCK, O_RDONLY | direct_flag(_i));

	remake_loop((struct onefd_config){ .budget = 1 });
	must(onefd_file_init(loop, &file, fd));
	ck_assert(!readable_within(0));
	for (int i = 0; i < 8; i++) {
		onefd_prep_pread(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
		ck_assert_int_eq(job_cancel(&jobs[i]), 0);
	}
	for (int i = 0; i < 8; i++) {
		ck_assert(readable_within(0));
		ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	}
	ck_assert(!readable_within(0));
	ck_assert_uint_eq(onefd_pending(loop), 0);
	free_jobs(jobs, 8);
	close(fd);
}
END_TEST

static void note(struct onefd_timer *timer)
{
	(void)timer;
	ran++;
}

START_TEST(one_fd_says_that_a_timer_is_due)
{
	struct onefd_timer timer;

	onefd_timer_init(&timer, note);
	ck_assert(!readable_within(0));
	onefd_timer_start(loop, &timer, onefd_now(loop) + 3600 * 1000 * MILLISECOND);
	ck_assert(!readable_within(0));
	onefd_timer_start(loop, &timer, onefd_now(loop) + MILLISECOND);
	ck_assert(readable_within(10 * 1000));
	ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	ck_assert(!readable_within(0));
}
END_TEST

/* ---- 6. nothing is full --------------------------------------------------- */

START_TEST(nothing_is_full_ten_thousand_at_depth_one)
{
	enum { COUNT = 10000 };
	struct onefd_file file;
	struct job *jobs = make_jobs(COUNT, 0);
	void *bufs = aligned(64 * BLOCK);
	int fd = make_file(_i, 64 * BLOCK, O_RDONLY | direct_flag(_i));

	remake_loop((struct onefd_config){ .depth = 1, .threads = 1 });
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < COUNT; i++) {
		off_t at = i % 64 * BLOCK;

		onefd_prep_pread(&jobs[i].req, &file, (char *)bufs + at, BLOCK, at);
		job_submit(loop, &jobs[i]);
	}
	ck_assert_uint_eq(onefd_pending(loop), COUNT);
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		if (jobs[i].res != BLOCK)
			ck_abort_msg("request %d: %zd", i, jobs[i].res);
	check_bytes(bufs, 64 * BLOCK, 0);
	ck_assert_uint_le(stats_now().in_flight_most, 1);
	ck_assert_uint_eq(stats_now().completed, COUNT);
	free_jobs(jobs, COUNT);
	free(bufs);
	close(fd);
}
END_TEST

/* ---- 7. degrade, never die ------------------------------------------------ */

static void put_and_get(struct onefd_file *file, size_t size, size_t piece)
{
	size_t count = size / piece;
	struct job *jobs = make_jobs(count, piece);

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < count; i++) {
			off_t at = (off_t)(i * piece);

			if (pass == 0) {
				fill(jobs[i].buf, piece, at);
				onefd_prep_pwrite(&jobs[i].req, file, jobs[i].buf, piece, at);
			} else {
				memset(jobs[i].buf, 0, piece);
				onefd_prep_pread(&jobs[i].req, file, jobs[i].buf, piece, at);
			}
			job_submit(loop, &jobs[i]);
		}
		drain_jobs(loop, jobs, count);
		for (size_t i = 0; i < count; i++)
			ck_assert_int_eq(jobs[i].res, (ssize_t)piece);
	}
	for (size_t i = 0; i < count; i++)
		check_bytes(jobs[i].buf, piece, (off_t)(i * piece));
	free_jobs(jobs, count);
}

/* The same small job whatever the machine has: buffered and direct, aligned
 * and not, extending, synced, past the end. */
static void same_results(int index)
{
	int flags[2] = { O_RDWR, O_RDWR | direct_flag(index) };

	for (int i = 0; i < 2; i++) {
		int fd = make_file(index, 0, flags[i]);
		struct onefd_file file;
		struct job job = { .buf = aligned(BLOCK) };
		int fds[2];

		must(onefd_file_init(loop, &file, fd));
		put_and_get(&file, 16 * BLOCK, BLOCK);
		put_and_get(&file, 3000, 1000);
		check_file(fd, 16 * BLOCK);
		onefd_prep_fsync(&job.req, &file, 0);
		ck_assert_int_eq(job_run(loop, &job), 0);
		onefd_prep_pread(&job.req, &file, job.buf, BLOCK, 16 * BLOCK - 10);
		ck_assert_int_eq(job_run(loop, &job), 10);
		onefd_prep_pread(&job.req, &file, job.buf, BLOCK, 64 * BLOCK);
		ck_assert_int_eq(job_run(loop, &job), 0);
		must_libc(pipe(fds));
		onefd_prep_poll(&job.req, fds[1], EPOLLOUT);
		if (job_run(loop, &job) != -EOPNOTSUPP)
			ck_assert_int_eq(job.res, EPOLLOUT);
		close(fds[0]);
		close(fds[1]);
		close(fd);
		free(job.buf);
	}
}

static void ck_describes(const char *word)
{
	char *text = describe(loop);

	ck_assert_msg(strstr(text, word), "no \"%s\" in:\n%s", word, text);
	free(text);
}

START_TEST(degrade_without_each_and_all)
{
	for (uint32_t flags = 0; flags < 1u << 5; flags++) {
		remake_loop((struct onefd_config){ .flags = flags });
		same_results(_i);
		if (flags & ONEFD_NO_KAIO)
			ck_assert_uint_eq(stats_now().kaio, 0);
	}
}
END_TEST

static int setup_answer;

static int refuse_setup(int depth, io_context_t *ctx)
{
	(void)depth;
	(void)ctx;
	return setup_answer;
}

START_TEST(degrade_without_kernel_aio)
{
	static const int answers[] = { -ENOSYS, -EPERM, -ENOMEM, -EAGAIN };

	sys.io_setup = refuse_setup;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		setup_answer = answers[i];
		remake_loop((struct onefd_config){ 0 });
		same_results(_i);
		ck_assert_uint_eq(stats_now().kaio, 0);
		ck_describes(answers[i] == -EAGAIN ? "fs.aio-max-nr is" :
						     strerror(-answers[i]));
	}
}
END_TEST

static int setup_up_to(int depth, io_context_t *ctx)
{
	return depth > 16 ? -EAGAIN : real.io_setup(depth, ctx);
}

START_TEST(degrade_to_the_depth_that_is_granted)
{
	sys.io_setup = setup_up_to;
	remake_loop((struct onefd_config){ .depth = 100 });
	same_results(_i);
	ck_assert_uint_le(stats_now().in_flight_most, 16);
	ck_describes("fs.aio-max-nr");
}
END_TEST

static int contexts;

static int setup_once(int depth, io_context_t *ctx)
{
	return contexts++ ? -EAGAIN : real.io_setup(depth, ctx);
}

static _Atomic uint64_t lost_ns;

static int submit_slowly(io_context_t ctx, long count, struct iocb **batch)
{
	lost_ns += 10000000;
	return real.io_submit(ctx, count, batch);
}

static uint64_t now_and_lost(void)
{
	return real.now() + lost_ns;
}

/* More than one io_submit() takes, and no time in the turn for two: what is left
 * is sent in the next, though nothing else makes one. */
START_TEST(degrade_to_one_context_for_polls_and_files)
{
	enum { COUNT = 100 };
	struct job *jobs = make_jobs(COUNT, 1);
	int quiet[2], ready[2];

	must(pipe(quiet));
	must(pipe(ready));
	contexts = 0;
	sys.io_setup = setup_once;
	sys.io_submit = submit_slowly;
	sys.now = now_and_lost;
	remake_loop((struct onefd_config){ 0 });
	for (int i = 0; i < COUNT; i++) {
		bool last = i == COUNT - 1;

		onefd_prep_poll(&jobs[i].req, last ? ready[1] : quiet[0],
				last ? EPOLLOUT : EPOLLIN);
		job_submit(loop, &jobs[i]);
	}
	while (!jobs[COUNT - 1].calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq((int)write(quiet[1], "", 1), 1);
	drain_jobs(loop, jobs, COUNT);
	free_jobs(jobs, COUNT);
	for (int i = 0; i < 2; i++) {
		close(quiet[i]);
		close(ready[i]);
	}
}
END_TEST

static int refuse_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	(void)ret;
	(void)fn;
	(void)arg;
	return -EAGAIN;
}

START_TEST(degrade_without_threads)
{
	sys.thread = refuse_thread;
	remake_loop((struct onefd_config){ 0 });
	same_results(_i);
	ck_describes("threads could not be made");
}
END_TEST

START_TEST(degrade_with_the_ring_where_it_was_wanted)
{
	size_t room = 1 << 20;
	void *address = sys.map(NULL, room);

	ck_assert_ptr_nonnull(address);
	/* Taken first, then free: the first is no failure, only described. */
	remake_loop((struct onefd_config){ .ring_address = address });
	same_results(_i);
	sys.unmap(address, room);
	remake_loop((struct onefd_config){ .ring_address = address });
	same_results(_i);
}
END_TEST

/* ---- 8. one error channel -------------------------------------------------- */

/* The first of a batch, the middle, the last: io_submit() names only the first. */
START_TEST(one_error_channel_for_a_closed_descriptor)
{
	struct onefd_file good, bad;
	struct job *jobs = make_jobs(8, BLOCK);
	int fd = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));
	int gone = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &good, fd));
	must(onefd_file_init(loop, &bad, gone));
	close(gone);
	for (int i = 0; i < 8; i++) {
		onefd_prep_pread(&jobs[i].req, i % 3 == 0 || i == 7 ? &bad : &good,
				 jobs[i].buf, BLOCK, 0);
		job_submit(loop, &jobs[i]);
	}
	drain_jobs(loop, jobs, 8);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(jobs[i].res, i % 3 == 0 || i == 7 ? -EBADF : BLOCK);
	free_jobs(jobs, 8);
	close(fd);
}
END_TEST

START_TEST(one_error_channel_for_what_is_not_allowed)
{
	struct onefd_file file;
	struct job *jobs = make_jobs(2, BLOCK);
	int fd = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pwrite(&jobs[0].req, &file, jobs[0].buf, BLOCK, 0);
	onefd_prep_openat(&jobs[1].req, AT_FDCWD, "/nowhere/at/all", O_RDONLY, 0);
	for (int i = 0; i < 2; i++)
		job_submit(loop, &jobs[i]);
	drain_jobs(loop, jobs, 2);
	ck_assert_int_eq(jobs[0].res, -EBADF);
	ck_assert_int_eq(jobs[1].res, -ENOENT);
	free_jobs(jobs, 2);
	close(fd);
}
END_TEST

START_TEST(one_error_channel_for_a_bad_address)
{
	struct onefd_file file;
	struct job job = { 0 };
	int fd = make_file(_i, BLOCK, O_RDONLY | direct_flag(_i));

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&job.req, &file, (void *)BLOCK, BLOCK, 0);
	ck_assert_int_eq(job_run(loop, &job), -EFAULT);
	close(fd);
}
END_TEST

/* The caller's own RWF_NOWAIT: then -EAGAIN is an answer, and in res. */
START_TEST(one_error_channel_for_flags_of_the_callers)
{
	struct onefd_file file;
	struct job job = { .buf = aligned(BLOCK) };
	int fd = make_file(_i, BLOCK, O_RDONLY);

	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pread(&job.req, &file, job.buf, BLOCK, 0);
	job.req.rw_flags = 1 << 30;
	ck_assert_int_eq(job_run(loop, &job), -EOPNOTSUPP);
	onefd_prep_pread(&job.req, &file, job.buf, BLOCK, 0);
	job.req.rw_flags = RWF_NOWAIT;
	(void)job_run(loop, &job);
	ck_assert(job.res == BLOCK || job.res == -EAGAIN || job.res == -EOPNOTSUPP);
	free(job.buf);
	close(fd);
}
END_TEST

/* ---- all of them ------------------------------------------------------------ */

struct rule {
	const char *clause;
	const TTest *test;
	bool once;		/* no file in it */
};

int main(void)
{
	const struct rule rules[] = {
		{ "never_blocks", never_blocks_buffered_requests_are_not_submitted_plainly, false },
		{ "never_blocks", never_blocks_a_pipe_is_no_file, true },
		{ "never_blocks", never_blocks_a_call_that_waits_for_the_loop, true },
		{ "never_blocks", never_blocks_an_open_that_waits_for_the_loop, false },
		{ "never_blocks", never_blocks_a_slow_submission_is_measured, false },
		{ "never_blocks", never_blocks_a_context_is_destroyed_elsewhere, true },
		{ "exactly_once", exactly_once_cancelled_wherever_they_stand, false },
		{ "exactly_once", exactly_once_cancelled_on_the_way_to_a_worker, true },
		{ "exactly_once", exactly_once_cancelled_twice_and_after, true },
		{ "exactly_once", exactly_once_a_poll_is_cancelled_in_the_kernel, true },
		{ "exactly_once", exactly_once_a_loop_with_requests_out_is_not_freed, false },
		{ "memory", memory_returns_when_the_callback_starts, false },
		{ "memory", memory_goes_out_again_from_its_own_callback, false },
		{ "memory", memory_goes_out_again_and_is_read_into_again, false },
		{ "memory", memory_of_the_cancelled_is_not_written_after_the_callback, false },
		{ "stop_means_stop", stop_means_stop_for_a_watch_in_the_same_batch, true },
		{ "stop_means_stop", stop_means_stop_for_a_timer_that_is_due, true },
		{ "one_fd", one_fd_says_that_requests_are_unsent, false },
		{ "one_fd", one_fd_is_silent_while_a_worker_is_at_it, true },
		{ "one_fd", one_fd_says_what_the_budget_left, false },
		{ "one_fd", one_fd_says_that_a_timer_is_due, true },
		{ "nothing_is_full", nothing_is_full_ten_thousand_at_depth_one, false },
		{ "degrade_never_die", degrade_without_each_and_all, false },
		{ "degrade_never_die", degrade_without_kernel_aio, false },
		{ "degrade_never_die", degrade_to_the_depth_that_is_granted, false },
		{ "degrade_never_die", degrade_to_one_context_for_polls_and_files, true },
		{ "degrade_never_die", degrade_without_threads, false },
		{ "degrade_never_die", degrade_with_the_ring_where_it_was_wanted, false },
		{ "one_error_channel", one_error_channel_for_a_closed_descriptor, false },
		{ "one_error_channel", one_error_channel_for_what_is_not_allowed, false },
		{ "one_error_channel", one_error_channel_for_flags_of_the_callers, false },
	};
	Suite *suite = suite_create("rules");
	TCase *tcase = NULL;
	const char *clause = "";

	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
		if (strcmp(clause, rules[i].clause))
			tcase = add_case(suite, rules[i].clause, set_up, tear_down);
		clause = rules[i].clause;
		tcase_add_loop_test(tcase, rules[i].test, 0, rules[i].once ? 1 : place_count());
	}
	/* A case of its own: valgrind has a word to say, and leaves it out. */
	tcase = add_case(suite, "bad_address", set_up, tear_down);
	tcase_add_loop_test(tcase, one_error_channel_for_a_bad_address, 0, place_count());
	tcase_set_tags(tcase, "bad-address");
	return run_suite(suite);
}
