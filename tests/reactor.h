/* reactor.h - the loop that most tests use, made and freed around each. */
#ifndef ONEFD_TESTS_REACTOR_H
#define ONEFD_TESTS_REACTOR_H

#include <onefd.h>
#include <poll.h>
#include <stdbool.h>

#include "harness.h"

#define SMALL_BUDGET 4
#define MSEC UINT64_C(1000000)

static struct onefd *loop;
static int fds_before;

static inline void make_loop(void)
{
	fds_before = count_fds();
	must(onefd_new(&loop, test_config()));
}

static inline void make_small_loop(void)
{
	struct onefd_config config = *test_config();

	config.budget = SMALL_BUDGET;
	fds_before = count_fds();
	must(onefd_new(&loop, &config));
}

/* The loop must have nothing left, and the test have closed what it opened. */
static inline void free_loop(void)
{
	must(onefd_free(loop));
	ck_assert_int_eq(count_fds(), fds_before);
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
