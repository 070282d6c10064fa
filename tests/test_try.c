/* test_try.c - requests answered in the call that asks, and those that are left to submit. */
#include "files.h"

#include <errno.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../lib/sys.h"

#define SIZE (1 << 20)
#define PART 5000

static struct onefd *loop;
static struct sys_calls real;
static struct onefd_file file;
static struct job job;
static int fd;

static ssize_t preadv2_that_may_not_wait(int at, const struct iovec *iov, size_t count,
					 off_t offset, int flags)
{
	if (in_library && !(flags & RWF_NOWAIT))
		ck_abort_msg("a try reads without RWF_NOWAIT");
	return real.preadv2(at, iov, count, offset, flags);
}

static void set_up(void)
{
	real = sys;
	sys.preadv2 = preadv2_that_may_not_wait;
	memset(&job, 0, sizeof job);
	must(onefd_new(&loop, test_config()));
}

static void tear_down(void)
{
	must(onefd_free(loop));
	sys.preadv2 = real.preadv2;
	free(job.buf);
}

static void make(int index, int flags)
{
	fd = make_file(index, SIZE, O_RDWR | flags);
	must(onefd_file_init(loop, &file, fd));
	job.buf = aligned(SIZE);
}

static void read_into_memory(void)
{
	char *bytes = malloc(SIZE);

	ck_assert_int_eq(pread(fd, bytes, SIZE, 0), SIZE);
	free(bytes);
}

static void evict(void)
{
	must_libc(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
}

static int try_it(void)
{
	int r;

	in_library = true;
	r = onefd_try(loop, &job.req);
	in_library = false;
	return r;
}

/* By submit, whatever a try has done of it. */
static void finish(ssize_t res, off_t offset)
{
	ck_assert_int_eq(job_run(loop, &job), res);
	check_bytes(job.buf, (size_t)res, offset);
}

static struct onefd_stats stats_of_now(void)
{
	struct onefd_stats stats;

	must(onefd_stats(loop, &stats, sizeof stats));
	return stats;
}

/* Where even that may wait for the file system, 0 is as right. */
static bool may_be_tried(int index)
{
	struct place place = place_of(index);

	return !strcmp(place.fs, "ext4") || !strcmp(place.fs, "xfs");
}

START_TEST(cached_read_is_done_at_once)
{
	struct onefd_stats before;
	int r;

	make(_i, 0);
	read_into_memory();
	before = stats_of_now();
	onefd_prep_pread(&job.req, &file, job.buf, PART, 3);
	r = try_it();
	ck_assert(r == 1 || (r == 0 && !may_be_tried(_i)));
	if (r == 1) {
		ck_assert_int_eq(job.req.res, PART);
		check_bytes(job.buf, PART, 3);
		ck_assert_uint_eq(stats_of_now().submitted - before.submitted, 1);
		ck_assert_uint_eq(stats_of_now().completed - before.completed, 1);
		ck_assert_uint_eq(stats_of_now().reads - before.reads, 1);
	}
	ck_assert_uint_eq(onefd_pending(loop), 0);
	must(onefd_dispatch(loop, 0));
	ck_assert_int_eq(job.calls, 0);
	finish(PART, 3);
	close(fd);
}
END_TEST

START_TEST(read_of_the_disk_is_left_to_submit)
{
	struct onefd_stats before;

	make(_i, 0);
	evict();
	before = stats_of_now();
	onefd_prep_pread(&job.req, &file, job.buf, PART, SIZE - 2 * PART);
	/* tmpfs has no disk. */
	if (try_it() == 0)
		ck_assert_uint_eq(stats_of_now().submitted, before.submitted);
	ck_assert_uint_eq(onefd_pending(loop), 0);
	finish(PART, SIZE - 2 * PART);
	close(fd);
}
END_TEST

/* Of a file of which some is in memory, in any order of tries and submits. */
START_TEST(what_a_try_has_done_is_kept)
{
	make(_i, 0);
	for (int tries = 0; tries < 12; tries++) {
		evict();
		ck_assert_int_eq(pread(fd, job.buf, SIZE / 2, 0), SIZE / 2);
		memset(job.buf, 0, SIZE);
		onefd_prep_pread(&job.req, &file, job.buf, SIZE, 0);
		for (int i = 0; i < tries; i++) {
			if (try_it() == 0)
				continue;
			ck_assert_int_eq(job.req.res, SIZE);
			check_bytes(job.buf, SIZE, 0);
		}
		finish(SIZE, 0);
	}
	close(fd);
}
END_TEST

START_TEST(end_of_the_file_is_an_answer)
{
	int r;

	make(_i, 0);
	read_into_memory();
	onefd_prep_pread(&job.req, &file, job.buf, 100, SIZE - 7);
	r = try_it();
	ck_assert(r == 1 || !may_be_tried(_i));
	if (r == 1)
		ck_assert_int_eq(job.req.res, 7);
	onefd_prep_pread(&job.req, &file, job.buf, 100, SIZE);
	if (try_it() == 1)
		ck_assert_int_eq(job.req.res, 0);
	close(fd);
}
END_TEST

/* Where it ended when the loop looked is not where it ends. */
START_TEST(end_that_has_moved_is_none)
{
	make(_i, 0);
	must_libc(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	fill(job.buf, 8192, SIZE);
	ck_assert_int_eq(pwrite(fd, job.buf, 8192, SIZE), 8192);
	must_libc(fsync(fd));
	evict();
	read_into_memory();
	onefd_prep_pread(&job.req, &file, job.buf, 4096, SIZE - 100);
	if (try_it() == 1) {
		ck_assert_int_eq(job.req.res, 4096);
		check_bytes(job.buf, 4096, SIZE - 100);
	} else {
		finish(4096, SIZE - 100);
	}
	close(fd);
}
END_TEST

/* The caller's own RWF_NOWAIT makes of every cold read an answer. */
START_TEST(nowait_of_the_caller_is_answered)
{
	int r;

	make(_i, 0);
	evict();
	onefd_prep_pread(&job.req, &file, job.buf, PART, SIZE / 2);
	job.req.rw_flags = RWF_NOWAIT;
	r = try_it();
	if (r == 1)
		ck_assert(job.req.res == -EAGAIN || job.req.res > 0);
	else
		ck_assert_int_eq(r, 0);
	close(fd);
}
END_TEST

START_TEST(write_that_was_tried_is_written_once)
{
	char *bytes = malloc(PART);

	make(_i, 0);
	fill(bytes, PART, 77);
	/* The first teaches what the file takes. */
	for (int i = 0; i < 3; i++) {
		int r;

		onefd_prep_pwrite(&job.req, &file, bytes, PART, 77);
		r = try_it();
		ck_assert_int_ge(must(r), 0);
		ck_assert_int_eq(r ? job.req.res : job_run(loop, &job), PART);
	}
	check_file(fd, SIZE);
	free(bytes);
	close(fd);
}
END_TEST

/* These always may wait, or need the kernel's queue. */
START_TEST(others_are_left_to_submit)
{
	struct iovec iov = { NULL, 0 };

	make(_i, has_direct(_i) ? O_DIRECT : 0);
	if (has_direct(_i)) {
		onefd_prep_pread(&job.req, &file, job.buf, 4096, 0);
		ck_assert_int_eq(try_it(), 0);
		onefd_prep_prefetch(&job.req, &file, 0, 4096);
		ck_assert_int_eq(try_it(), 0);
	}
	onefd_prep_preadv(&job.req, &file, &iov, 1, 0);
	ck_assert_int_eq(try_it(), 0);
	onefd_prep_fsync(&job.req, &file, 0);
	ck_assert_int_eq(try_it(), 0);
	onefd_prep_poll(&job.req, fd, EPOLLIN);
	ck_assert_int_eq(try_it(), 0);
	onefd_prep_fallocate(&job.req, &file, 0, 0, 10);
	ck_assert_int_eq(try_it(), 0);
	ck_assert_uint_eq(onefd_pending(loop), 0);
	close(fd);
}
END_TEST

static void close_answer(ssize_t answer)
{
	must(answer);
	close((int)answer);
}

/* The loop knows the mount once a worker has opened a file there. */
START_TEST(known_name_is_opened_and_asked_at_once)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	struct place place = place_of(_i);
	char path[PATH_MAX];
	struct statx st;
	int r, before;

	snprintf(path, sizeof path, "%.4000s/onefd-try.%d", place.path, getpid());
	close((int)must_libc(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
	onefd_prep_openat(&job.req, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	before = count_fds();
	ck_assert_int_eq(try_it(), 0);
	ck_assert_int_eq(count_fds(), before);
	close_answer(job_run(loop, &job));
	if (!stats_of_now().names)
		close_answer(job_run(loop, &job));
	r = try_it();
	ck_assert(r == 1 || (r == 0 && !may_be_tried(_i)));
	if (r == 1)
		close_answer(job.req.res);
	onefd_prep_openat2(&job.req, AT_FDCWD, path, &how);
	if (try_it() == 1 && job.req.res != -ELOOP)
		close_answer(job.req.res);
	onefd_prep_statx(&job.req, AT_FDCWD, path, 0, STATX_BASIC_STATS, &st);
	ck_assert_int_eq(try_it(), r);
	must_libc(unlink(path));
	if (try_it() == 1)
		ck_assert_int_eq(job.req.res, -ENOENT);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(try_refuses_what_submit_refuses)
{
	struct onefd *other;
	pid_t child;
	int status;

	make(0, 0);
	onefd_prep_pread(&job.req, &file, job.buf, PART, 0);
	ck_assert_int_eq(onefd_try(NULL, &job.req), -EINVAL);
	ck_assert_int_eq(onefd_try(loop, NULL), -EINVAL);
	must(onefd_new(&other, test_config()));
	ck_assert_int_eq(onefd_try(other, &job.req), -EINVAL);
	must(onefd_free(other));
	onefd_prep_pread(&job.req, &file, job.buf, PART, -1);
	ck_assert_int_eq(try_it(), -EINVAL);
	onefd_prep_openat(&job.req, AT_FDCWD, NULL, O_RDONLY, 0);
	ck_assert_int_eq(try_it(), -EINVAL);
	onefd_prep_pread(&job.req, &file, job.buf, PART, 0);
	job_submit(loop, &job);
	ck_assert_int_eq(try_it(), -EBUSY);
	while (!job.calls)
		must(onefd_dispatch(loop, -1));
	child = (pid_t)must_libc(fork());
	if (child == 0)
		_exit(onefd_try(loop, &job.req) == -ECHILD ? 0 : 1);
	must_libc(waitpid(child, &status, 0));
	ck_assert_int_eq(status, 0);
	close(fd);
}
END_TEST

/* One that is done in a callback takes no part in what is being dispatched. */
static struct job second;
static int answered;

static void try_another(struct onefd_req *req)
{
	(void)req;
	onefd_prep_pread(&second.req, &file, second.buf, PART, PART);
	answered = onefd_try(loop, &second.req);
}

START_TEST(try_in_a_callback_is_done_when_it_returns)
{
	make(_i, 0);
	read_into_memory();
	second.buf = aligned(PART);
	onefd_prep_pread(&job.req, &file, job.buf, PART, 0);
	must(onefd_submit(loop, &job.req, try_another));
	must(onefd_drain(loop, -1));
	ck_assert(answered == 1 || !may_be_tried(_i));
	if (answered == 1)
		check_bytes(second.buf, PART, PART);
	ck_assert_int_eq(second.calls, 0);
	free(second.buf);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("try");
	TCase *tcase = add_case(suite, "try", set_up, tear_down);
	TCase *forks = add_case(suite, "fork", set_up, tear_down);
	int places = place_count();

	tcase_add_loop_test(tcase, cached_read_is_done_at_once, 0, places);
	tcase_add_loop_test(tcase, read_of_the_disk_is_left_to_submit, 0, places);
	tcase_add_loop_test(tcase, what_a_try_has_done_is_kept, 0, places);
	tcase_add_loop_test(tcase, end_of_the_file_is_an_answer, 0, places);
	tcase_add_loop_test(tcase, end_that_has_moved_is_none, 0, places);
	tcase_add_loop_test(tcase, nowait_of_the_caller_is_answered, 0, places);
	tcase_add_loop_test(tcase, write_that_was_tried_is_written_once, 0, places);
	tcase_add_loop_test(tcase, others_are_left_to_submit, 0, places);
	tcase_add_loop_test(tcase, known_name_is_opened_and_asked_at_once, 0, places);
	tcase_add_loop_test(tcase, try_in_a_callback_is_done_when_it_returns, 0, places);
	tcase_set_tags(forks, "fork");
	tcase_add_test(forks, try_refuses_what_submit_refuses);
	return run_suite(suite);
}
