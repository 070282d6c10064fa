/* test_sys.c - the table of system calls: every answer is >= 0 or -errno. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../lib/sys.h"

START_TEST(failures_answer_minus_errno)
{
	char text[8];

	ck_assert_int_eq(sys.close(-1), -EBADF);
	ck_assert_int_eq(sys.read_text("/nowhere", text, sizeof text), -ENOENT);
	ck_assert_int_eq(sys.pidfd_open(0), -EINVAL);
}
END_TEST

START_TEST(signal_leaves_errno_alone)
{
	int fd = (int)must(sys.eventfd());

	errno = ENOTTY;
	ck_assert_int_eq(sys.eventfd_signal(-1), -EBADF);
	ck_assert_int_eq(errno, ENOTTY);
	must(sys.eventfd_signal(fd));
	must(sys.close(fd));
}
END_TEST

START_TEST(calls_leave_no_descriptor)
{
	int before = count_fds();
	char text[64];

	must(sys.read_text("/proc/sys/kernel/ostype", text, sizeof text));
	ck_assert_str_eq(text, "Linux\n");
	ck_assert_int_eq(count_fds(), before);
	must_libc(access("/proc/self/fd", R_OK));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sys");
	TCase *tcase = add_case(suite, "sys", NULL, NULL);

	tcase_add_test(tcase, failures_answer_minus_errno);
	tcase_add_test(tcase, signal_leaves_errno_alone);
	tcase_add_test(tcase, calls_leave_no_descriptor);
	return run_suite(suite);
}
