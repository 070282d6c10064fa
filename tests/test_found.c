/* test_found.c - what onefd-stress found, each in the fewest requests that show it. */
#include "files.h"
#include "reactor.h"

#include <sys/stat.h>

/* Direct and past the end, where a block padded and written would be a longer file. */
START_TEST(empty_unaligned_direct_write_leaves_the_size)
{
	struct onefd_file file;
	struct job job = { 0 };
	struct stat st;
	int fd;

	if (!has_direct(_i)) {
		skip("no O_DIRECT here");
		return;
	}
	fd = make_file(_i, 4096, O_RDWR | O_DIRECT);
	must(onefd_file_init(loop, &file, fd));
	onefd_prep_pwrite(&job.req, &file, &job, 0, 10001);
	ck_assert_int_eq(job_run(loop, &job), 0);
	must_libc(fstat(fd, &st));
	ck_assert_int_eq(st.st_size, 4096);
	close(fd);
}
END_TEST

static ssize_t answer_of(void *arg)
{
	return *(ssize_t *)arg;
}

/* -529 is what the kernel says among its own of a request that is in the ring. */
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

	tcase_add_loop_test(tcase, empty_unaligned_direct_write_leaves_the_size, 0, place_count());
	tcase_add_test(tcase, call_may_answer_any_number);
	return run_suite(suite);
}
