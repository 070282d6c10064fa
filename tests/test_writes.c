/* test_writes.c - buffered writes that the page cache takes at once. */
#include "files.h"

#include <errno.h>
#include <linux/fs.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "../lib/file.h"
#include "../lib/sys.h"

#define BLOCK 4096
#define BLOCKS 64
#define THREADS 4	/* onefd_config.threads, by default */
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;
static int fd;
static atomic_int tries, plain;	/* pwritev2() with RWF_NOWAIT, and without */
static uint64_t tried_bytes;
static ssize_t nowait_answer;	/* what a try answers; 0: it writes */

static uint64_t hits(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats.hits;
}

/* A file system that takes RWF_NOWAIT, whichever is below. */
static ssize_t write_anywhere(int where, const struct iovec *iov, size_t count, off_t offset,
			      int flags)
{
	if (!(flags & RWF_NOWAIT)) {
		plain++;
		return real.pwritev2(where, iov, count, offset, flags);
	}
	tries++;
	if (nowait_answer)
		return nowait_answer;
	for (size_t i = 0; i < count; i++)
		tried_bytes += iov[i].iov_len;
	return real.pwritev2(where, iov, count, offset, flags & ~RWF_NOWAIT);
}

static int roomy(int where, struct statfs *buf)
{
	int r = real.statfs(where, buf);

	buf->f_bsize = 4096;
	buf->f_bavail = 1 << 20;
	return r;
}

static int no_inode_flags(int where, unsigned long request, void *arg)
{
	if (request != FS_IOC_GETFLAGS)
		return real.ioctl(where, request, arg);
	*(int *)arg = 0;
	return 0;
}

static void set_up(void)
{
	real = sys;
	tries = plain = 0;
	tried_bytes = 0;
	nowait_answer = 0;
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	/* What tests replace; a thread that destroys a context reads others. */
	sys.pwritev2 = real.pwritev2;
	sys.statfs = real.statfs;
	sys.ioctl = real.ioctl;
	sys.size_limit = real.size_limit;
}

static ssize_t write_flagged(void *buf, size_t len, off_t offset, int rw_flags)
{
	struct job job = { 0 };

	fill(buf, len, offset);
	onefd_prep_pwrite(&job.req, &file, buf, len, offset);
	job.req.rw_flags = rw_flags;
	return job_run(loop, &job);
}

static ssize_t write_block(int index)
{
	static char block[BLOCK];

	return write_flagged(block, BLOCK, (off_t)index * BLOCK, 0);
}

/* A file of xfs, as far as the library can tell. */
static void open_as_xfs(int flags)
{
	fd = make_file(0, BLOCKS * BLOCK, O_RDWR | flags);
	must(onefd_file_init(loop, &file, fd));
	file.device->trust = TRUST_NOWAIT;
	sys.pwritev2 = write_anywhere;
	sys.statfs = roomy;
	sys.ioctl = no_inode_flags;
}

/* ---- as it is -------------------------------------------------------------- */

/* Not at each tick of the clock, at which the time of change is written. */
START_TEST(written_pages_are_written_again_at_once)
{
	struct place place = place_of(_i);

	fd = make_file(_i, BLOCKS * BLOCK, O_RDWR);
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 20 * BLOCKS; i++)
		ck_assert_int_eq(write_block(i % BLOCKS), BLOCK);
	if (!strcmp(place.fs, "xfs"))
		ck_assert_uint_gt(hits(), 0);
	else if (strcmp(place.fs, "here"))
		ck_assert_uint_eq(hits(), 0);
	check_file(fd, BLOCKS * BLOCK);
	close(fd);
}
END_TEST

START_TEST(file_grows_as_it_is_written)
{
	fd = make_file(_i, 0, O_RDWR);
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < BLOCKS; i++) {
		ck_assert_int_eq(write_block(i), BLOCK);
		ck_assert_int_eq(lseek(fd, 0, SEEK_END), (i + 1) * BLOCK);
	}
	check_file(fd, BLOCKS * BLOCK);
	close(fd);
}
END_TEST

/* What the kernel says to a flag is the answer, and no verdict on RWF_NOWAIT. */
START_TEST(flags_are_answered_by_the_kernel)
{
	static const int flags[] = { RWF_DSYNC, RWF_SYNC, RWF_DONTCACHE, 0x40000000 };
	char block[BLOCK] = { 0 };
	struct job *job = make_jobs(1, BLOCK);

	fd = make_file(_i, BLOCKS * BLOCK, O_RDWR);
	must(onefd_file_init(loop, &file, fd));
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		struct iovec iov = { block, BLOCK };
		ssize_t expected = sys.pwritev2(fd, &iov, 1, 0, flags[i]);

		ck_assert_int_eq(write_flagged(job->buf, BLOCK, 0, flags[i]), expected);
		expected = sys.preadv2(fd, &iov, 1, 0, flags[i]);
		onefd_prep_pread(&job->req, &file, job->buf, BLOCK, 0);
		job->req.rw_flags = flags[i];
		ck_assert_int_eq(job_run(loop, job), expected);
		ck_assert_uint_eq(file.refused & 1u, 0);
	}
	ck_assert_int_eq(write_block(0), BLOCK);
	check_file(fd, BLOCKS * BLOCK);
	free_jobs(job, 1);
	close(fd);
}
END_TEST

/* ---- where a try is honest --------------------------------------------------- */

START_TEST(first_write_is_a_workers)
{
	open_as_xfs(0);
	ck_assert_int_eq(write_block(0), BLOCK);
	ck_assert_int_eq(tries, 0);
	ck_assert_int_eq(write_block(1), BLOCK);
	ck_assert_int_eq(tries, 1);
	ck_assert_int_eq(plain, 1);
	ck_assert_uint_eq(hits(), 1);
	check_file(fd, BLOCKS * BLOCK);
	close(fd);
}
END_TEST

static int sync_inode(int where, unsigned long request, void *arg)
{
	if (request != FS_IOC_GETFLAGS)
		return real.ioctl(where, request, arg);
	*(int *)arg = FS_SYNC_FL;
	return 0;
}

static uint64_t some_limit(void)
{
	return 1 << 30;
}

static int full(int where, struct statfs *buf)
{
	int r = roomy(where, buf);

	buf->f_bavail = 100;
	return r;
}

static int synchronous(int where, struct statfs *buf)
{
	int r = roomy(where, buf);

	buf->f_flags |= 0x10;	/* ST_SYNCHRONOUS */
	return r;
}

static const struct {
	const char *what;
	int open_flags, rw_flags;
	uint32_t config;
} never[] = {
	{ "O_APPEND", O_APPEND, 0, 0 },
	{ "O_DSYNC", O_DSYNC, 0, 0 },
	{ "O_SYNC", O_SYNC, 0, 0 },
	{ "RWF_APPEND", 0, RWF_APPEND, 0 },
	{ "RWF_DSYNC", 0, RWF_DSYNC, 0 },
	{ "RWF_SYNC", 0, RWF_SYNC, 0 },
	{ "RWF_DONTCACHE", 0, RWF_DONTCACHE, 0 },
	{ "chattr +S", 0, 0, 0 },
	{ "RLIMIT_FSIZE", 0, 0, 0 },
	{ "full", 0, 0, 0 },
	{ "mount -o sync", 0, 0, 0 },
	{ "another file system", 0, 0, 0 },
};

static bool is_case(int index, const char *what)
{
	return strcmp(never[index].what, what) == 0;
}

/* What would make the thread wait, or be wrong by half, is not tried. */
START_TEST(never_tried)
{
	char block[BLOCK];

	open_as_xfs(never[_i].open_flags);
	if (is_case(_i, "chattr +S"))
		sys.ioctl = sync_inode;
	if (is_case(_i, "RLIMIT_FSIZE"))
		sys.size_limit = some_limit;
	if (is_case(_i, "full"))
		sys.statfs = full;
	if (is_case(_i, "mount -o sync"))
		sys.statfs = synchronous;
	if (is_case(_i, "another file system"))
		file.device->trust = TRUST_WARM;
	for (int i = 0; i < 3; i++)
		(void)write_flagged(block, BLOCK, 0, never[_i].rw_flags);
	ck_assert_int_eq(tries, 0);
	ck_assert_int_eq(plain, 3);
	close(fd);
}
END_TEST

START_TEST(refusal_is_remembered)
{
	open_as_xfs(0);
	nowait_answer = -EOPNOTSUPP;
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(write_block(i), BLOCK);
	ck_assert_int_eq(tries, 1);
	check_file(fd, BLOCKS * BLOCK);
	close(fd);
}
END_TEST

/* One that would wait speaks for the others of its flush. */
START_TEST(flush_is_refused_once)
{
	enum { COUNT = 32 };
	struct job *jobs = make_jobs(COUNT, BLOCK);

	open_as_xfs(0);
	must(write_block(0));
	nowait_answer = -EAGAIN;
	for (int i = 0; i < COUNT; i++) {
		fill(jobs[i].buf, BLOCK, i * BLOCK);
		onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, BLOCK, i * BLOCK);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	ck_assert_int_eq(tries, 1);
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].res, BLOCK);
	check_file(fd, BLOCKS * BLOCK);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

static sem_t gate;

/* Half of it at once; workers wait until they are let through. */
static ssize_t write_half(int where, const struct iovec *iov, size_t count, off_t offset,
			  int flags)
{
	struct iovec half = { iov->iov_base, iov->iov_len / 2 };

	if (flags & RWF_NOWAIT) {
		tries++;
		return real.pwritev2(where, &half, 1, offset, 0);
	}
	while (sem_wait(&gate) < 0)
		;
	return real.pwritev2(where, iov, count, offset, flags);
}

/* All workers have work, so it could be taken back: but half is written. */
START_TEST(half_a_write_goes_on_from_there)
{
	struct job *jobs = make_jobs(THREADS + 1, 4 * BLOCK), *half = &jobs[THREADS];
	struct iovec iov[] = { { half->buf, 2 * BLOCK },
			       { (char *)half->buf + 2 * BLOCK, 2 * BLOCK } };

	open_as_xfs(0);
	must(write_block(0));
	sem_init(&gate, 0, 0);
	sys.pwritev2 = write_half;
	for (int i = 0; i < THREADS; i++) {
		fill(jobs[i].buf, BLOCK, 0);
		onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, BLOCK, 0);
		jobs[i].req.rw_flags = RWF_DSYNC;
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	fill(half->buf, 4 * BLOCK, BLOCK);
	onefd_prep_pwritev(&half->req, &file, iov, 2, BLOCK);
	job_submit(loop, half);
	must(onefd_flush(loop));
	ck_assert_int_eq(tries, 1);
	ck_assert_int_eq(job_cancel(half), -EBUSY);
	for (int i = 0; i <= THREADS; i++)
		sem_post(&gate);
	drain_jobs(loop, jobs, THREADS + 1);
	ck_assert_int_eq(half->res, 4 * BLOCK);
	check_file(fd, BLOCKS * BLOCK);
	free_jobs(jobs, THREADS + 1);
	close(fd);
}
END_TEST

/* By a try: from then on it is no more to be taken back than if a worker had it. */
START_TEST(half_a_write_that_was_tried_is_not_cancelled)
{
	struct job *half = make_jobs(1, 4 * BLOCK);

	open_as_xfs(0);
	must(write_block(0));
	sem_init(&gate, 0, 1);
	sys.pwritev2 = write_half;
	fill(half->buf, 4 * BLOCK, BLOCK);
	onefd_prep_pwrite(&half->req, &file, half->buf, 4 * BLOCK, BLOCK);
	ck_assert_int_eq(onefd_try(loop, &half->req), 0);
	ck_assert_int_eq(tries, 1);
	job_submit(loop, half);
	ck_assert_int_eq(job_cancel(half), -EBUSY);
	drain_jobs(loop, half, 1);
	ck_assert_int_eq(half->res, 4 * BLOCK);
	check_file(fd, BLOCKS * BLOCK);
	free_jobs(half, 1);
	close(fd);
}
END_TEST

/* A megabyte is copied in one flush, the rest is the workers'. */
START_TEST(flush_copies_no_more_than_its_share)
{
	enum { COUNT = 40, LEN = 64 * 1024 };
	struct job *jobs = make_jobs(COUNT, LEN);

	open_as_xfs(0);
	must(write_block(0));
	tried_bytes = 0;
	for (int i = 0; i < COUNT; i++) {
		fill(jobs[i].buf, LEN, i * LEN);
		onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, LEN, i * LEN);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	ck_assert_uint_eq(tried_bytes, 1 << 20);
	drain_jobs(loop, jobs, COUNT);
	check_file(fd, COUNT * LEN);
	free_jobs(jobs, COUNT);
	close(fd);
}
END_TEST

/* ---- by turns ------------------------------------------------------------------- */

static sem_t entered;
static atomic_int inside_fd;	/* writes to @fd */

static ssize_t write_at_gate(int where, const struct iovec *iov, size_t count, off_t offset,
			     int flags)
{
	ssize_t n;

	inside_fd += where == fd;
	sem_post(&entered);
	while (sem_wait(&gate) < 0)
		;
	n = real.pwritev2(where, iov, count, offset, flags);
	inside_fd -= where == fd;
	return n;
}

/* Files of ext4, as far as the library can tell, whose writes wait at the gate. */
static struct onefd_file *open_at_gate(int count, int flags)
{
	struct onefd_file *files = calloc((size_t)count, sizeof *files);

	ck_assert_ptr_nonnull(files);
	for (int i = 0; i < count; i++) {
		must(onefd_file_init(loop, &files[i], make_file(0, BLOCKS * BLOCK, O_RDWR | flags)));
		files[i].device->trust = TRUST_WARM;
	}
	sem_init(&gate, 0, 0);
	sem_init(&entered, 0, 0);
	inside_fd = 0;
	fd = files[0].fd;
	sys.pwritev2 = write_at_gate;
	return files;
}

static void close_files(struct onefd_file *files, int count)
{
	for (int i = 0; i < count; i++)
		close(files[i].fd);
	free(files);
}

static void send_write(struct job *job, struct onefd_file *to, int block, int rw_flags)
{
	fill(job->buf, BLOCK, block * BLOCK);
	onefd_prep_pwrite(&job->req, to, job->buf, BLOCK, block * BLOCK);
	job->req.rw_flags = rw_flags;
	job_submit(loop, job);
	must(onefd_flush(loop));
}

/* Until all are at the gate. */
static void await_workers(void)
{
	for (int i = 0; i < THREADS; i++)
		while (sem_wait(&entered) < 0)
			;
}

static void open_gate(int count)
{
	while (count--)
		sem_post(&gate);
}

/* And those of another file have the other workers, each as it comes. */
START_TEST(writes_of_a_file_keep_one_worker)
{
	enum { COUNT = 20 };
	struct job *jobs = make_jobs(COUNT + THREADS - 1, BLOCK);
	struct onefd_file *files = open_at_gate(THREADS, 0);

	for (int i = 0; i < COUNT; i++)
		send_write(&jobs[i], &files[0], i, 0);
	for (int i = 1; i < THREADS; i++)
		send_write(&jobs[COUNT + i - 1], &files[i], 0, 0);
	await_workers();
	ck_assert_int_eq(inside_fd, 1);
	open_gate(COUNT + THREADS - 1);
	drain_jobs(loop, jobs, COUNT + THREADS - 1);
	for (int i = 0; i < COUNT + THREADS - 1; i++)
		ck_assert_int_eq(jobs[i].res, BLOCK);
	check_file(fd, BLOCKS * BLOCK);
	close_files(files, THREADS);
	free_jobs(jobs, COUNT + THREADS - 1);
}
END_TEST

/* A sync after the write is done without the inode's lock, and may serve several. Of what
 * a server or a daemon does, nothing is known. */
START_TEST(others_take_no_turns)
{
	static const struct {
		int flags, rw_flags;
		enum trust trust;
	} cases[] = {
		{ 0, RWF_DSYNC, TRUST_WARM },
		{ O_DSYNC, 0, TRUST_WARM },
		{ 0, 0, TRUST_NEVER },
	};
	struct job *jobs = make_jobs(THREADS, BLOCK);
	struct onefd_file *one = open_at_gate(1, cases[_i].flags);

	one->device->trust = cases[_i].trust;
	for (int i = 0; i < THREADS; i++)
		send_write(&jobs[i], one, i, cases[_i].rw_flags);
	await_workers();
	open_gate(THREADS);
	drain_jobs(loop, jobs, THREADS);
	close_files(one, 1);
	free_jobs(jobs, THREADS);
}
END_TEST

/* All workers have work. Cancelled are the first, which no worker has, the one whose turn
 * that makes it, and the last; the other two follow each other. */
START_TEST(cancelled_write_gives_up_its_turn)
{
	enum { COUNT = 5 };
	static const bool stays[COUNT] = { false, false, true, true, false };
	struct job *stuck = make_jobs(THREADS, BLOCK), *jobs = make_jobs(COUNT, BLOCK);
	struct onefd_file *files = open_at_gate(THREADS + 1, 0);

	for (int i = 0; i < THREADS; i++)
		send_write(&stuck[i], &files[i], 0, 0);
	await_workers();
	for (int i = 0; i < COUNT; i++)
		send_write(&jobs[i], &files[THREADS], i, 0);
	ck_assert_int_eq(job_cancel(&stuck[0]), -EBUSY);
	for (int i = 0; i < COUNT; i++)
		if (!stays[i])
			must(job_cancel(&jobs[i]));
	ck_assert_int_eq(job_cancel(&jobs[0]), -EBUSY);
	open_gate(THREADS + COUNT);
	drain_jobs(loop, stuck, THREADS);
	drain_jobs(loop, jobs, COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(jobs[i].res, stays[i] ? BLOCK : -ECANCELED);
	close_files(files, THREADS + 1);
	free_jobs(stuck, THREADS);
	free_jobs(jobs, COUNT);
}
END_TEST

/* One worker: what is for another file comes before the second of this one. */
START_TEST(no_file_keeps_a_worker_for_itself)
{
	struct onefd_config config = *test_config();
	struct job *jobs = make_jobs(3, BLOCK);
	struct onefd_file *files;

	must(onefd_free(loop));
	config.threads = 1;
	must(onefd_new(&loop, &config));
	files = open_at_gate(2, 0);
	send_write(&jobs[0], &files[0], 0, 0);
	send_write(&jobs[1], &files[0], 1, 0);
	send_write(&jobs[2], &files[1], 0, 0);
	open_gate(2);
	while (!jobs[0].calls || !jobs[2].calls)
		must(onefd_dispatch(loop, -1));
	ck_assert_int_eq(jobs[1].calls, 0);
	open_gate(1);
	drain_jobs(loop, jobs, 3);
	close_files(files, 2);
	free_jobs(jobs, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("writes");
	TCase *tcase = add_case(suite, "writes", set_up, tear_down);
	int places = place_count();

	tcase_add_loop_test(tcase, written_pages_are_written_again_at_once, 0, places);
	tcase_add_loop_test(tcase, file_grows_as_it_is_written, 0, places);
	tcase_add_loop_test(tcase, flags_are_answered_by_the_kernel, 0, places);
	tcase_add_test(tcase, first_write_is_a_workers);
	tcase_add_loop_test(tcase, never_tried, 0, sizeof never / sizeof never[0]);
	tcase_add_test(tcase, refusal_is_remembered);
	tcase_add_test(tcase, flush_is_refused_once);
	tcase_add_test(tcase, half_a_write_goes_on_from_there);
	tcase_add_test(tcase, half_a_write_that_was_tried_is_not_cancelled);
	tcase_add_test(tcase, flush_copies_no_more_than_its_share);
	tcase_add_test(tcase, writes_of_a_file_keep_one_worker);
	tcase_add_loop_test(tcase, others_take_no_turns, 0, 3);
	tcase_add_test(tcase, cancelled_write_gives_up_its_turn);
	tcase_add_test(tcase, no_file_keeps_a_worker_for_itself);
	return run_suite(suite);
}
