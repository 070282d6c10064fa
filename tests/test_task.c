/* test_task.c - messages from any thread. */
#include "reactor.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "../lib/sys.h"

#define POSTERS 4
#define POSTS 20000

static void count_call(struct onefd_task *task)
{
	(void)task;
	calls++;
}

static void *post_one(void *arg)
{
	must(onefd_post(loop, arg));
	return NULL;
}

START_TEST(task_from_thread_wakes_wait)
{
	struct onefd_task task;
	pthread_t thread;

	onefd_task_init(&task, count_call);
	pthread_create(&thread, NULL, post_one, &task);
	/* The wake may be fetched in a turn after the one that ran the task. */
	while (!calls)
		must(onefd_dispatch(loop, -1));
	pthread_join(thread, NULL);
	ck_assert_int_eq(calls, 1);
}
END_TEST

struct poster {
	struct onefd_task tasks[POSTS];
	int next;	/* which of them is to run next */
};

static struct poster posters[POSTERS];

static void expect_order(struct onefd_task *task)
{
	struct poster *poster = task->data;

	ck_assert_ptr_eq(task, &poster->tasks[poster->next]);
	poster->next++;
	calls++;
}

static void *post_many(void *arg)
{
	struct poster *poster = arg;

	for (int i = 0; i < POSTS; i++) {
		onefd_task_init(&poster->tasks[i], expect_order);
		poster->tasks[i].data = poster;
		must(onefd_post(loop, &poster->tasks[i]));
	}
	return NULL;
}

START_TEST(many_posters_lose_nothing)
{
	pthread_t threads[POSTERS];

	for (int i = 0; i < POSTERS; i++)
		pthread_create(&threads[i], NULL, post_many, &posters[i]);
	while (calls < POSTERS * POSTS)
		must(onefd_dispatch(loop, -1));
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	for (int i = 0; i < POSTERS; i++)
		ck_assert_int_eq(posters[i].next, POSTS);
}
END_TEST

static int written, seen;

static void see(struct onefd_task *task)
{
	(void)task;
	seen = __atomic_load_n(&written, __ATOMIC_RELAXED);	/* the post orders it */
}

static void *write_and_post(void *arg)
{
	for (int i = 1; i <= POSTS; i++) {
		__atomic_store_n(&written, i, __ATOMIC_RELAXED);
		onefd_post(loop, arg);
	}
	return NULL;
}

/* The last post may answer -EALREADY; its write must be seen all the same. */
START_TEST(already_posted_task_sees_what_was_written)
{
	struct onefd_task task;
	pthread_t thread;

	onefd_task_init(&task, see);
	pthread_create(&thread, NULL, write_and_post, &task);
	while (seen < POSTS)
		must(onefd_dispatch(loop, -1));
	pthread_join(thread, NULL);
	must(onefd_drain(loop, -1));
}
END_TEST

START_TEST(second_post_is_ealready)
{
	struct onefd_task task;

	onefd_task_init(&task, count_call);
	must(onefd_post(loop, &task));
	ck_assert_int_eq(onefd_post(loop, &task), -EALREADY);
	ck_assert_int_eq(onefd_free(loop), -EBUSY);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	must(onefd_post(loop, &task));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
}
END_TEST

static void post_again(struct onefd_task *task)
{
	calls++;
	must(onefd_post(loop, task));
}

static void free_task(struct onefd_task *task)
{
	calls++;
	memset(task, 0xA5, sizeof *task);
	free(task);
}

START_TEST(task_may_post_itself_again_or_be_freed)
{
	struct onefd_task again, *freed = malloc(sizeof *freed);

	onefd_task_init(&again, post_again);
	onefd_task_init(freed, free_task);
	must(onefd_post(loop, &again));
	must(onefd_post(loop, freed));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	again.fn = count_call;
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
}
END_TEST

START_TEST(budget_leaves_the_rest_for_later_in_order)
{
	static struct poster few;

	for (int i = 0; i < SMALL_BUDGET + 2; i++) {
		onefd_task_init(&few.tasks[i], expect_order);
		few.tasks[i].data = &few;
		must(onefd_post(loop, &few.tasks[i]));
		if (i == SMALL_BUDGET)
			ck_assert_int_eq(onefd_dispatch(loop, -1), SMALL_BUDGET);
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	ck_assert_int_eq(few.next, SMALL_BUDGET + 2);
}
END_TEST

static int signalled;
static int (*real_signal)(int fd);

static int count_signal(int fd)
{
	signalled++;
	return real_signal(fd);
}

static void post_data(struct onefd_task *task)
{
	must(onefd_post(loop, task->data));
}

START_TEST(one_wake_serves_many_posts)
{
	struct onefd_task tasks[3], inner;

	real_signal = sys.eventfd_signal;
	sys.eventfd_signal = count_signal;
	onefd_task_init(&inner, count_call);
	onefd_task_init(&tasks[0], post_data);
	tasks[0].data = &inner;
	onefd_task_init(&tasks[1], count_call);
	onefd_task_init(&tasks[2], count_call);
	for (int i = 0; i < 3; i++)
		must(onefd_post(loop, &tasks[i]));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 3);
	/* Posted while the loop attends: no wake, and the next turn runs it. */
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(signalled, 1);
}
END_TEST

START_TEST(bad_arguments_are_einval)
{
	struct onefd_task task = { 0 };

	onefd_task_init(NULL, count_call);
	ck_assert_int_eq(onefd_post(loop, NULL), -EINVAL);
	ck_assert_int_eq(onefd_post(loop, &task), -EINVAL);
	onefd_task_init(&task, count_call);
	ck_assert_int_eq(onefd_post(NULL, &task), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("task");
	TCase *tcase = add_case(suite, "task", make_small_loop, free_loop);

	tcase_add_test(tcase, task_from_thread_wakes_wait);
	tcase_add_test(tcase, many_posters_lose_nothing);
	tcase_add_test(tcase, already_posted_task_sees_what_was_written);
	tcase_add_test(tcase, second_post_is_ealready);
	tcase_add_test(tcase, task_may_post_itself_again_or_be_freed);
	tcase_add_test(tcase, budget_leaves_the_rest_for_later_in_order);
	tcase_add_test(tcase, one_wake_serves_many_posts);
	tcase_add_test(tcase, bad_arguments_are_einval);
	return run_suite(suite);
}
