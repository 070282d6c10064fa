/* test_signal.c - signals. */
#include "reactor.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#define WATCHERS 3

static struct onefd_signal *watchers[WATCHERS];

static void count_call(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	ck_assert_int_eq((int)info->ssi_signo, signal->signo);
	calls++;
}

static void start(struct onefd_signal *signal, int signo, onefd_signal_fn *fn)
{
	onefd_signal_init(signal, signo, fn);
	must(onefd_signal_start(loop, signal, ONEFD_SIGNAL_BLOCK));
}

START_TEST(signal_with_several_watchers)
{
	struct onefd_signal one, two, other;

	start(&one, SIGUSR1, count_call);
	start(&two, SIGUSR1, count_call);
	start(&other, SIGUSR2, count_call);
	raise(SIGUSR1);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	onefd_signal_stop(&one);
	raise(SIGUSR1);
	raise(SIGUSR2);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	ck_assert_int_eq(calls, 4);
	onefd_signal_stop(&two);
	onefd_signal_stop(&other);
	onefd_signal_stop(&other);
}
END_TEST

static void drop(struct onefd_signal *signal)
{
	for (int i = 0; i < WATCHERS; i++)
		if (watchers[i] == signal)
			watchers[i] = NULL;
	onefd_signal_stop(signal);
	memset(signal, 0xA5, sizeof *signal);
	free(signal);
}

static void drop_self(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	count_call(signal, info);
	drop(signal);
}

static void drop_siblings(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	count_call(signal, info);
	for (int i = 0; i < WATCHERS; i++)
		if (watchers[i] && watchers[i] != signal)
			drop(watchers[i]);
}

static void drop_all(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	drop_siblings(signal, info);
	drop(signal);
}

static const struct {
	onefd_signal_fn *fn;
	int calls;
} drops[] = { { drop_self, WATCHERS }, { drop_siblings, 1 }, { drop_all, 1 } };

START_TEST(stop_in_callback_suppresses_siblings)
{
	for (int i = 0; i < WATCHERS; i++) {
		watchers[i] = malloc(sizeof *watchers[i]);
		start(watchers[i], SIGUSR1, drops[_i].fn);
	}
	raise(SIGUSR1);
	ck_assert_int_eq(onefd_dispatch(loop, -1), drops[_i].calls);
	ck_assert_int_eq(calls, drops[_i].calls);
	for (int i = 0; i < WATCHERS; i++)
		if (watchers[i])
			drop(watchers[i]);
}
END_TEST

START_TEST(start_in_callback_waits_for_the_next_signal)
{
	static struct onefd_signal first, second;

	start(&first, SIGUSR1, count_call);
	raise(SIGUSR1);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	start(&second, SIGUSR1, count_call);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	raise(SIGUSR1);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	onefd_signal_stop(&first);
	onefd_signal_stop(&second);
}
END_TEST

START_TEST(late_arrival_stays_pending)
{
	struct onefd_signal signal;
	sigset_t pending;

	start(&signal, SIGRTMIN, drop_self);
	onefd_signal_stop(&signal);
	watchers[0] = malloc(sizeof *watchers[0]);
	start(watchers[0], SIGRTMIN, drop_self);
	raise(SIGRTMIN);
	raise(SIGRTMIN);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	sigpending(&pending);
	ck_assert_int_eq(sigismember(&pending, SIGRTMIN), 1);
}
END_TEST

START_TEST(queued_signals_are_bounded_by_budget)
{
	struct onefd_signal signal;

	start(&signal, SIGRTMIN, count_call);
	for (int i = 0; i < SMALL_BUDGET + 1; i++)
		raise(SIGRTMIN);
	ck_assert_int_eq(onefd_dispatch(loop, -1), SMALL_BUDGET);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	onefd_signal_stop(&signal);
}
END_TEST

START_TEST(unblocked_signal_is_einval)
{
	struct onefd_signal signal;
	sigset_t blocked;

	onefd_signal_init(&signal, SIGUSR1, count_call);
	ck_assert_int_eq(onefd_signal_start(loop, &signal, 0), -EINVAL);
	must(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK));
	ck_assert_int_eq(onefd_signal_start(loop, &signal, 0), -EBUSY);
	onefd_signal_stop(&signal);
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	ck_assert_int_eq(sigismember(&blocked, SIGUSR1), 1);
	must(onefd_signal_start(loop, &signal, 0));
	onefd_signal_stop(&signal);
}
END_TEST

START_TEST(bad_arguments_are_einval)
{
	static const int numbers[] = { -1, 0, 32, 65, 1 << 20, SIGKILL, SIGSTOP };
	struct onefd_signal signal = { 0 };

	onefd_signal_init(NULL, SIGUSR1, count_call);
	onefd_signal_stop(NULL);
	onefd_signal_stop(&signal);
	ck_assert_int_eq(onefd_signal_start(loop, &signal, 0), -EINVAL);
	ck_assert_int_eq(onefd_signal_start(loop, NULL, 0), -EINVAL);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		onefd_signal_init(&signal, numbers[i], count_call);
		ck_assert_int_eq(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK),
				 -EINVAL);
	}
	onefd_signal_init(&signal, SIGUSR1, count_call);
	for (int bit = 1; bit < 32; bit++)
		ck_assert_int_eq(onefd_signal_start(loop, &signal, 1u << bit), -EINVAL);
	ck_assert_int_eq(onefd_signal_start(NULL, &signal, 0), -EINVAL);
}
END_TEST

START_TEST(free_leaves_signals_stopped)
{
	struct onefd_signal signal;

	start(&signal, SIGUSR1, count_call);
	must(onefd_free(loop));
	onefd_signal_stop(&signal);
	must(onefd_new(&loop, NULL));
	must(onefd_signal_start(loop, &signal, 0));
	raise(SIGUSR1);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	onefd_signal_stop(&signal);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("signal");
	TCase *tcase = add_case(suite, "signal", make_small_loop, free_loop);

	tcase_add_test(tcase, signal_with_several_watchers);
	tcase_add_loop_test(tcase, stop_in_callback_suppresses_siblings, 0, 3);
	tcase_add_test(tcase, start_in_callback_waits_for_the_next_signal);
	tcase_add_test(tcase, late_arrival_stays_pending);
	tcase_add_test(tcase, queued_signals_are_bounded_by_budget);
	tcase_add_test(tcase, unblocked_signal_is_einval);
	tcase_add_test(tcase, bad_arguments_are_einval);
	tcase_add_test(tcase, free_leaves_signals_stopped);
	return run_suite(suite);
}
