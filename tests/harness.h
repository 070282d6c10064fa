/*
 * harness.h - what every test program shares: Check's runner speaking TAP, and
 * few words for what tests say most.
 *
 *	int main(void)
 *	{
 *		Suite *suite = suite_create("timer");
 *		TCase *tcase = add_case(suite, "timer", make_loop, free_loop);
 *
 *		tcase_add_test(tcase, a_rule_that_holds);
 *		return run_suite(suite);
 *	}
 *
 * Fixtures are checked ones: they run in each test's own process, for a loop
 * does not survive Check's fork. A test that forks goes into a case with
 * tcase_set_tags(tcase, "fork"): CK_EXCLUDE_TAGS=fork leaves it out.
 *
 * To skip a whole program:	return skip_all("needs root");		in main()
 * To skip one test:		skip("needs root");			in the test
 * The first is how TAP says it, with status 0: meson takes a status of 77 beside
 * TAP for an error. The second is a comment line in the output, and the test
 * returns as passed: Check has no third answer.
 */
#ifndef ONEFD_TESTS_HARNESS_H
#define ONEFD_TESTS_HARNESS_H

#include <check.h>
#include <dirent.h>
#include <onefd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A deadline that bounds failure and measures nothing; sanitizers are slow. */
#define CASE_TIMEOUT_S 60

static inline TCase *add_case(Suite *suite, const char *name, SFun setup,
			      SFun teardown)
{
	TCase *tcase = tcase_create(name);

	if (setup || teardown)
		tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, CASE_TIMEOUT_S);
	suite_add_tcase(suite, tcase);
	return tcase;
}

/* Runs @suite and frees it; the exit status of main(). */
static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	return EXIT_SUCCESS;
}

#define skip(why)							\
	do {								\
		printf("# SKIP %s: %s\n", __func__, why);		\
		fflush(stdout);						\
		return;							\
	} while (0)

/* The value of an expression that answers >= 0, or -errno and the test fails.
 * An assertion of Check's that holds still allocates and writes to a pipe; this
 * does neither. */
#define must(expression)						\
	__extension__({							\
		long long must_value = (long long)(expression);		\
		if (must_value < 0)					\
			ck_abort_msg("%s: %s", #expression,		\
				     strerror((int)-must_value));	\
		must_value;						\
	})

/* The same for calls that answer -1 and set errno. */
#define must_libc(expression)						\
	__extension__({							\
		long long must_value = (long long)(expression);		\
		if (must_value < 0)					\
			ck_abort_msg("%s: %m", #expression);		\
		must_value;						\
	})

/* What every loop of a test starts from. ONEFD_TEST_FLAGS=no-ring is for
 * valgrind, which does not see the kernel write to the ring. */
static inline const struct onefd_config *test_config(void)
{
	static struct onefd_config config;
	const char *flags = getenv("ONEFD_TEST_FLAGS");

	if (flags && strstr(flags, "no-ring"))
		config.flags |= ONEFD_NO_RING;
	return &config;
}

/* Descriptors this process has open. */
static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = -1;		/* the directory's own */

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2;	/* . and .. */
}

static inline bool readable(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	return must_libc(poll(&one, 1, 0)) == 1;
}

static inline void wait_readable(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(poll(&one, 1, CASE_TIMEOUT_S * 1000), 1);
}

#endif
