/* reactor.h - the loop that most tests use, made and freed around each. */
#ifndef ONEFD_TESTS_REACTOR_H
#define ONEFD_TESTS_REACTOR_H

#include <onefd.h>
#include <signal.h>
#include <stdbool.h>

#include "../lib/sys.h"
#include "harness.h"

#define SMALL_BUDGET 4
#define MSEC UINT64_C(1000000)

static struct onefd *loop;
static int fds_before;
static int calls;	/* of callbacks, where a test counts them */

static struct sys_calls sys_before;
static sigset_t mask_before;

/* With CK_FORK=no one process runs all tests: each leaves it as it was. */
static inline void make_loop_with(const struct onefd_config *config)
{
	calls = 0;
	fds_before = count_fds();
	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	must(onefd_new(&loop, config));
}

static inline void make_loop(void)
{
	sys_before = sys;
	make_loop_with(test_config());
}

static inline void make_small_loop(void)
{
	struct onefd_config config = *test_config();

	sys_before = sys;
	config.budget = SMALL_BUDGET;
	make_loop_with(&config);
}

/* The loop must have nothing left, and the test have closed what it opened. */
static inline void free_loop(void)
{
	struct timespec now = { 0, 0 };
	sigset_t all;

	must(onefd_free(loop));
	ck_assert_int_eq(count_fds(), fds_before);
	sigfillset(&all);
	while (sigtimedwait(&all, NULL, &now) > 0)
		;
	pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
	/* What tests replace; a thread that destroys a context reads others. */
	sys.now = sys_before.now;
	sys.epoll_wait = sys_before.epoll_wait;
	sys.epoll_pwait2 = sys_before.epoll_pwait2;
	sys.eventfd_signal = sys_before.eventfd_signal;
	sys.timerfd_arm = sys_before.timerfd_arm;
	sys.madvise = sys_before.madvise;
}

#endif
