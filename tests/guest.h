/* guest.h - a loop hung in a host, for tests that are run in each. */
#ifndef ONEFD_TESTS_GUEST_H
#define ONEFD_TESTS_GUEST_H

#include "host.h"
#include "reactor.h"

static const struct host_ops *ops;
static void *host, *adapter;

/* What a host opens once for good it opens before anything is counted. */
static inline void enter(int index)
{
	ops = hosts[index];
	ck_assert_int_eq(ops->close(ops->open()), 0);
	make_small_loop();
	host = ops->open();
	ck_assert_ptr_nonnull(host);
	adapter = calloc(1, ops->adapter_size);
	must(ops->attach(adapter, host, loop));
}

static inline void leave(void)
{
	ops->detach(adapter);
	free(adapter);
	ck_assert_int_eq(ops->close(host), 0);
	free_loop();
}

#define run_until(condition)				\
	do						\
		ops->turn(host, true);			\
	while (!(condition))

/* A rule that is tried in the host of that number alone, whose name its case has. */
#define add_rule(tcase, index, rule) tcase_add_loop_test(tcase, rule, index, (index) + 1)

#endif
