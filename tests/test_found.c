/* test_found.c - what onefd-stress found, each in the fewest requests that show it. */
#include "files.h"
#include "reactor.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "../lib/sys.h"
#include "../lib/window.h"

/* Direct and past the end, where a block padded and written would be a longer file. */
START_TEST(empty_unaligned_direct_write_leaves_the_size)
{
	struct onefd_file file;
	struct job job = { 0 };
	struct stat st;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 4096, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pwrite(&job.req, &file, &job, 0, 10001);
	ck_assert_int_eq(job_run(loop, &job), 0);
	must_libc(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 4096);
	close(fd);
}
END_TEST

/* The file was cut behind the library's back: the first write, padded to a block,
 * cuts it again, and the second must not be in what is cut off. */
START_TEST(growing_write_survives_an_unaligned_one_before_it)
{
	struct onefd_file file;
	struct job *jobs;
	struct stat st;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 1 << 20, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(2, 4096);
	for (int i = 0; i < 200; i++) {
		must_libc(ftruncate(fd, 0));
		onefd_prep_pwrite(&jobs[0].req, &file, jobs[0].buf, 100, 7);
		onefd_prep_pwrite(&jobs[1].req, &file, jobs[1].buf, 4096, 8192);
		job_submit(loop, &jobs[0]);
		job_submit(loop, &jobs[1]);
		drain_jobs(loop, jobs, 2);
		must_libc(fstat(fd, &st));
		ck_assert_int_eq(st.st_size, 8192 + 4096);
	}
	free_jobs(jobs, 2);
	close(fd);
}
END_TEST

/* What was allocated must not be cut off, nor what was punched be put back. */
START_TEST(fallocate_and_unaligned_write_keep_clear_of_each_other)
{
	struct onefd_file file;
	struct job *jobs;
	struct stat st;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 0, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(2, 4096);
	for (int i = 0; i < 200; i++) {
		must_libc(ftruncate(fd, 0));
		onefd_prep_pwrite(&jobs[0].req, &file, jobs[0].buf, 100, 7);
		onefd_prep_fallocate(&jobs[1].req, &file, 0, 8192, 4096);
		job_submit(loop, &jobs[0]);
		job_submit(loop, &jobs[1]);
		drain_jobs(loop, jobs, 2);
		must_libc(fstat(fd, &st));
		ck_assert_int_eq(st.st_size, jobs[1].res == 0 ? 8192 + 4096 : 107);
	}
	free_jobs(jobs, 2);
	close(fd);
}
END_TEST

/* Where it begins is not in the request: an end of file of 100 fits no block. */
START_TEST(whole_blocks_are_appended_to_an_unaligned_end)
{
	const size_t sizes[] = { 100, 4096, 50, 4096, 8192 };
	struct onefd_file file;
	struct job *jobs;
	struct stat st;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 0, O_RDWR | O_DIRECT | O_APPEND);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(5, 8192);
	for (int together = 0; together < 2; together++) {
		must_libc(ftruncate(fd, 0));
		for (int i = 0; i < 5; i++) {
			onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, sizes[i], 0);
			job_submit(loop, &jobs[i]);
			if (!together)
				must(onefd_drain(loop, -1));
		}
		drain_jobs(loop, jobs, 5);
		for (int i = 0; i < 5; i++)
			ck_assert_int_eq(jobs[i].res, (ssize_t)sizes[i]);
		must_libc(fstat(fd, &st));
		ck_assert_int_eq(st.st_size, 100 + 4096 + 50 + 4096 + 8192);
	}
	free_jobs(jobs, 5);
	close(fd);
}
END_TEST

/* It cannot be read back, so what is unaligned goes through the page cache, and
 * a page holds blocks that are being written past it. */
START_TEST(write_only_file_keeps_direct_neighbours_of_unaligned_writes)
{
	struct onefd_file file;
	struct job *jobs;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 65536, O_WRONLY | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(32, 4096);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 32; i++) {
			off_t offset = (off_t)file.off_align * i + i % 2 * 7;
			size_t len = i % 2 ? 100 : file.off_align;

			fill(jobs[i].buf, len, offset);
			onefd_prep_pwrite(&jobs[i].req, &file, jobs[i].buf, len, offset);
			job_submit(loop, &jobs[i]);
		}
		drain_jobs(loop, jobs, 32);
		for (int i = 0; i < 32; i++)
			ck_assert_int_eq(jobs[i].res, i % 2 ? 100 : (ssize_t)file.off_align);
	}
	free_jobs(jobs, 32);
	close(fd);
}
END_TEST

static void *(*alloc_aligned)(size_t align, size_t size);
static size_t allocated;

static void *count_alloc_aligned(size_t align, size_t size)
{
	allocated++;
	return alloc_aligned(align, size);
}

/* 70 000 reads of 1 MiB took 72 GB of address space before the first was sent. */
START_TEST(unaligned_reads_wait_in_their_own_memory)
{
	const size_t count = 2000;
	struct onefd_file file;
	struct job *jobs;
	char byte;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 4096, O_RDONLY | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(count, 0);
	alloc_aligned = sys.alloc_aligned;
	sys.alloc_aligned = count_alloc_aligned;
	for (size_t i = 0; i < count; i++) {
		onefd_prep_pread(&jobs[i].req, &file, &byte, 1, 100);
		job_submit(loop, &jobs[i]);
	}
	must(onefd_flush(loop));
	ck_assert_uint_le(allocated, file.device->queue->most);
	drain_jobs(loop, jobs, count);
	ck_assert_uint_eq(allocated, count);
	ck_assert_int_eq(byte, (char)pattern(100));
	sys.alloc_aligned = alloc_aligned;
	free_jobs(jobs, 0);
	close(fd);
}
END_TEST

/* What this thread used, whoever else had the processor. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	must_libc(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts));
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Each was compared with all before it: 20 000 of them took 1.4 s of one turn. */
START_TEST(many_unaligned_writes_are_not_compared_with_one_another)
{
	const size_t count = 20000, stride = 8192;
	struct onefd_file file;
	struct job *jobs;
	char byte = 'x';
	uint64_t began;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 0, O_RDWR | O_DIRECT);
	must_libc(ftruncate(fd, (off_t)(count * stride)));
	must(onefd_file_init(loop, &file, fd));
	jobs = make_jobs(count, 0);
	for (size_t i = 0; i < count; i++) {
		onefd_prep_pwrite(&jobs[i].req, &file, &byte, 1, (off_t)(i * stride) + 5);
		job_submit(loop, &jobs[i]);
	}
	began = cpu_ns();
	must(onefd_flush(loop));
	ck_assert_uint_lt(cpu_ns() - began, 500 * MSEC);	/* 8 ms, or 1400 */
	for (size_t i = 0; i < count; i++)
		(void)job_cancel(&jobs[i]);
	drain_jobs(loop, jobs, count);
	free_jobs(jobs, 0);
	close(fd);
}
END_TEST

/* Its last block would end past the largest offset: widened, it would be anywhere. */
START_TEST(direct_request_in_the_last_block_is_einval)
{
	struct onefd_file file;
	struct job job = { 0 };
	char byte = 0;
	int fd;

	if (!has_direct(_i))
		skip("no O_DIRECT here");
	fd = make_file(_i, 0, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	for (int i = 0; i < 100; i++) {
		onefd_prep_pread(&job.req, &file, &byte, 1, INT64_MAX - 1 - i);
		ck_assert_int_eq(onefd_submit(loop, &job.req, job_done), -EINVAL);
		onefd_prep_pwrite(&job.req, &file, &byte, 1, INT64_MAX - 1 - i);
		ck_assert_int_eq(onefd_submit(loop, &job.req, job_done), -EINVAL);
	}
	onefd_prep_pread(&job.req, &file, &byte, 1, INT64_MAX / file.off_align * file.off_align - 1);
	(void)job_run(loop, &job);
	close(fd);
}
END_TEST

static ssize_t answer_of(void *arg)
{
	return *(ssize_t *)arg;
}

/* -529 is what the kernel says among its own of a request that is in the ring. */
/* With a depth of one, a poll that nothing ever answers must not take it. */
START_TEST(polls_leave_room_for_file_io)
{
	struct onefd_config config = { .depth = 1 };
	struct job poll = { 0 }, read = { 0 };
	struct onefd_file file;
	struct onefd *own;
	char byte;
	int fds[2], fd = make_file(_i, 4096, O_RDWR);

	must(onefd_new(&own, &config));
	must_libc(pipe(fds));
	must(onefd_file_init(own, &file, fd));
	onefd_prep_poll(&poll.req, fds[0], EPOLLIN);
	job_submit(own, &poll);
	must(onefd_flush(own));
	onefd_prep_fsync(&read.req, &file, 0);
	ck_assert_int_eq(job_run(own, &read), 0);
	onefd_prep_pread(&read.req, &file, &byte, 1, 0);
	ck_assert_int_eq(job_run(own, &read), 1);
	(void)onefd_cancel(&poll.req);
	close(fds[1]);
	must(onefd_drain(own, 5000));
	must(onefd_free(own));
	close(fds[0]);
	close(fd);
}
END_TEST

START_TEST(call_may_answer_any_number)
{
	struct job job = { 0 };

	for (ssize_t answer = -4096; answer <= 4096; answer++) {
		onefd_prep_call(&job.req, answer_of, &answer);
		ck_assert_int_eq(job_run(loop, &job), answer);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("found");
	TCase *tcase = add_case(suite, "found", make_loop, free_loop);

	tcase_add_loop_test(tcase, polls_leave_room_for_file_io, 0, place_count());
	tcase_add_loop_test(tcase, empty_unaligned_direct_write_leaves_the_size, 0, place_count());
	tcase_add_loop_test(tcase, growing_write_survives_an_unaligned_one_before_it, 0,
			    place_count());
	tcase_add_loop_test(tcase, fallocate_and_unaligned_write_keep_clear_of_each_other, 0,
			    place_count());
	tcase_add_loop_test(tcase, whole_blocks_are_appended_to_an_unaligned_end, 0, place_count());
	tcase_add_loop_test(tcase, write_only_file_keeps_direct_neighbours_of_unaligned_writes, 0,
			    place_count());
	tcase_add_loop_test(tcase, unaligned_reads_wait_in_their_own_memory, 0, place_count());
	tcase_add_loop_test(tcase, many_unaligned_writes_are_not_compared_with_one_another, 0,
			    place_count());
	tcase_add_loop_test(tcase, direct_request_in_the_last_block_is_einval, 0, place_count());
	tcase_add_test(tcase, call_may_answer_any_number);
	return run_suite(suite);
}
