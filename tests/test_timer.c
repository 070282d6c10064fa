/* test_timer.c - deadlines. Most tests set the clock themselves. */
#include "reactor.h"

#include "../lib/sys.h"

#define TIMERS 256
#define OPS 100000

static uint64_t clock_ns;

static uint64_t set_clock(void)
{
	return clock_ns;
}

static void make_clock_loop(void)
{
	struct onefd_config config = *test_config();

	config.budget = 100000;
	sys_before = sys;
	clock_ns = 1000;
	sys.now = set_clock;
	make_loop_with(&config);
}

static void count_call(struct onefd_timer *timer)
{
	(void)timer;
	calls++;
}

/* ---- the model: started timers, sorted by deadline ---- */

static struct onefd_timer timers[TIMERS];
static struct onefd_timer *model[TIMERS];
static int started;

static void model_remove(struct onefd_timer *timer)
{
	for (int i = 0; i < started; i++) {
		if (model[i] != timer)
			continue;
		memmove(&model[i], &model[i + 1],
			(size_t)(--started - i) * sizeof model[0]);
		return;
	}
}

static void model_insert(struct onefd_timer *timer)
{
	int i = started++;

	for (; i > 0 && model[i - 1]->deadline > timer->deadline; i--)
		model[i] = model[i - 1];
	model[i] = timer;
}

/* Equal deadlines run in any order: the deadline is what must agree. */
static void expect_first(struct onefd_timer *timer)
{
	ck_assert_int_gt(started, 0);
	ck_assert_uint_eq(timer->deadline, model[0]->deadline);
	ck_assert_uint_le(timer->deadline, onefd_now(loop));
	model_remove(timer);
	calls++;
}

START_TEST(timer_model_random)
{
	int ran = 0;

	srand(3);
	for (int i = 0; i < TIMERS; i++)
		onefd_timer_init(&timers[i], expect_first);
	for (int op = 0; op < OPS; op++) {
		struct onefd_timer *timer = &timers[rand() % TIMERS];

		model_remove(timer);
		if (rand() % 3 == 0) {
			onefd_timer_stop(timer);
		} else {
			onefd_timer_start(loop, timer, clock_ns + (uint64_t)rand() % 1000);
			model_insert(timer);
		}
		if (rand() % 8)
			continue;
		clock_ns += (uint64_t)rand() % 50;
		ran += onefd_dispatch(loop, 0);
		ck_assert(started == 0 || model[0]->deadline > clock_ns);
	}
	ck_assert_int_eq(ran, calls);
	ck_assert_int_gt(ran, OPS / 100);
	for (int i = 0; i < TIMERS; i++)
		onefd_timer_stop(&timers[i]);
}
END_TEST

static void start_in_the_past(struct onefd_timer *timer)
{
	onefd_timer_start(loop, timer, 0);
}

START_TEST(past_deadline_does_not_starve)
{
	struct onefd_timer greedy[2 * SMALL_BUDGET], modest;
	int turns = 0;

	for (int i = 0; i < 2 * SMALL_BUDGET; i++) {
		onefd_timer_init(&greedy[i], start_in_the_past);
		onefd_timer_start(loop, &greedy[i], 0);
	}
	onefd_timer_init(&modest, count_call);
	onefd_timer_start(loop, &modest, onefd_now(loop));
	while (!calls && turns++ < 10)
		ck_assert_int_le(onefd_dispatch(loop, -1), SMALL_BUDGET);
	ck_assert_int_eq(calls, 1);
	for (int i = 0; i < 2 * SMALL_BUDGET; i++)
		onefd_timer_stop(&greedy[i]);
}
END_TEST

START_TEST(started_in_the_past_runs_once_a_turn)
{
	struct onefd_timer timer;

	onefd_timer_init(&timer, start_in_the_past);
	onefd_timer_start(loop, &timer, 0);
	for (int i = 0; i < 3; i++, clock_ns++)
		ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	onefd_timer_stop(&timer);
}
END_TEST

static void every_hundred(struct onefd_timer *timer)
{
	calls++;
	onefd_timer_start(loop, timer, timer->deadline + 100);
}

START_TEST(late_periodic_timer_does_not_drift)
{
	struct onefd_timer timer;

	onefd_timer_init(&timer, every_hundred);
	onefd_timer_start(loop, &timer, 1000);
	clock_ns = 1550;	/* five periods late */
	while (onefd_dispatch(loop, 0) > 0)
		clock_ns++;
	ck_assert_int_eq(calls, 6);
	ck_assert_uint_eq(timer.deadline, 1600);
	onefd_timer_stop(&timer);
}
END_TEST

START_TEST(start_moves_a_started_timer)
{
	struct onefd_timer timer;

	onefd_timer_init(&timer, count_call);
	onefd_timer_start(loop, &timer, 1010);
	onefd_timer_start(loop, &timer, 2000);
	clock_ns = 1500;
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	onefd_timer_start(loop, &timer, 1400);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
}
END_TEST

static void drop_both(struct onefd_timer *timer)
{
	struct onefd_timer *sibling = timer->data;

	calls++;
	onefd_timer_stop(sibling);
	memset(sibling, 0xA5, sizeof *sibling);
	free(sibling);
	onefd_timer_stop(timer);
	memset(timer, 0xA5, sizeof *timer);
	free(timer);
}

START_TEST(stop_in_callback_suppresses_due_sibling)
{
	struct onefd_timer *a = malloc(sizeof *a), *b = malloc(sizeof *b);

	onefd_timer_init(a, drop_both);
	onefd_timer_init(b, drop_both);
	a->data = b;
	b->data = a;
	onefd_timer_start(loop, a, 1);
	onefd_timer_start(loop, b, 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(bad_arguments_are_ignored)
{
	struct onefd_timer timer = { 0 };

	onefd_timer_init(NULL, count_call);
	onefd_timer_stop(NULL);
	onefd_timer_stop(&timer);
	onefd_timer_start(loop, &timer, 0);
	onefd_timer_start(loop, NULL, 0);
	onefd_timer_start(NULL, &timer, 0);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
}
END_TEST

START_TEST(free_leaves_timers_stopped)
{
	struct onefd_timer two[2];

	for (int i = 0; i < 2; i++) {
		onefd_timer_init(&two[i], count_call);
		onefd_timer_start(loop, &two[i], UINT64_MAX);
	}
	must(onefd_free(loop));
	onefd_timer_stop(&two[0]);
	must(onefd_new(&loop, NULL));
	onefd_timer_start(loop, &two[1], 0);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
}
END_TEST

static int fine_waits, coarse_ms;

static int no_pwait2(int epfd, struct epoll_event *events, int count, uint64_t timeout_ns)
{
	(void)epfd;
	(void)events;
	(void)count;
	(void)timeout_ns;
	fine_waits++;
	return -38;	/* ENOSYS */
}

static int note_wait(int epfd, struct epoll_event *events, int count, int timeout_ms)
{
	(void)epfd;
	(void)events;
	(void)count;
	coarse_ms = timeout_ms;
	clock_ns += 2 * MSEC;
	return 0;
}

START_TEST(without_pwait2_waits_are_rounded_up)
{
	struct onefd_timer timer;

	sys.epoll_pwait2 = no_pwait2;
	sys.epoll_wait = note_wait;
	for (int i = 0; i < 2; i++) {
		onefd_timer_init(&timer, count_call);
		onefd_timer_start(loop, &timer, clock_ns + MSEC + 1);
		ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
		ck_assert_int_eq(coarse_ms, 2);
	}
	ck_assert_int_eq(fine_waits, 1);
}
END_TEST

START_TEST(wait_ends_at_the_deadline)
{
	struct onefd_timer timer;
	uint64_t deadline = onefd_now(loop) + 2 * MSEC;

	onefd_timer_init(&timer, count_call);
	onefd_timer_start(loop, &timer, deadline);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_uint_ge(onefd_now(loop), deadline);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("timer");
	TCase *set = add_case(suite, "set clock", make_clock_loop, free_loop);
	TCase *real = add_case(suite, "real clock", make_small_loop, free_loop);

	tcase_add_test(set, timer_model_random);
	tcase_add_test(set, started_in_the_past_runs_once_a_turn);
	tcase_add_test(set, late_periodic_timer_does_not_drift);
	tcase_add_test(set, start_moves_a_started_timer);
	tcase_add_test(set, stop_in_callback_suppresses_due_sibling);
	tcase_add_test(set, bad_arguments_are_ignored);
	tcase_add_test(set, free_leaves_timers_stopped);
	tcase_add_test(set, without_pwait2_waits_are_rounded_up);
	tcase_add_test(real, past_deadline_does_not_starve);
	tcase_add_test(real, wait_ends_at_the_deadline);
	return run_suite(suite);
}
