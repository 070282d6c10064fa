/* test_embed.c - the one descriptor: readable if and only if there is work. */
#include "reactor.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/sys.h"

static int fd;

static void make_embedded_loop(void)
{
	make_small_loop();
	fd = (int)must(onefd_fd(loop));
	ck_assert(!readable(fd));
}

/* One turn that a host would make, for the descriptor was readable before. */
static void turn(int callbacks)
{
	wait_readable(fd);
	ck_assert_int_eq(onefd_dispatch(loop, 0), callbacks);
}

static void nothing(struct onefd_timer *timer)
{
	(void)timer;
}

static void timers_make_work(void)
{
	struct onefd_timer one, two;

	onefd_timer_init(&one, nothing);
	onefd_timer_init(&two, nothing);
	onefd_timer_start(loop, &one, UINT64_MAX);
	ck_assert(!readable(fd));
	onefd_timer_start(loop, &two, onefd_now(loop) + 2 * MSEC);
	turn(1);
	ck_assert(!readable(fd));
	onefd_timer_start(loop, &one, 0);	/* moved into the past */
	ck_assert(readable(fd));
	onefd_timer_stop(&one);			/* and thought better of */
	ck_assert(!readable(fd));
}

static void again_in_the_past(struct onefd_timer *timer)
{
	timer->fn = nothing;
	onefd_timer_start(loop, timer, 0);
}

static void timer_started_in_a_callback_makes_work(void)
{
	struct onefd_timer timer;

	onefd_timer_init(&timer, again_in_the_past);
	onefd_timer_start(loop, &timer, 0);
	turn(1);
	turn(1);
	ck_assert(!readable(fd));
}

static void done(struct onefd_task *task)
{
	(void)task;
}

static void again(struct onefd_task *task)
{
	task->fn = done;
	must(onefd_post(loop, task));
}

static void tasks_make_work(void)
{
	struct onefd_task task;

	onefd_task_init(&task, again);
	must(onefd_post(loop, &task));
	turn(1);
	turn(1);
	ck_assert(!readable(fd));
}

static void post_task(struct onefd_timer *timer)
{
	must(onefd_post(loop, timer->data));
}

/* It runs in the same turn, and leaves no wake behind. */
static void task_posted_by_a_timer_makes_no_further_work(void)
{
	struct onefd_timer timer;
	struct onefd_task task;

	onefd_task_init(&task, done);
	onefd_timer_init(&timer, post_task);
	timer.data = &task;
	onefd_timer_start(loop, &timer, 0);
	turn(2);
	ck_assert(!readable(fd));
}

static void take(struct onefd_watch *watch, uint32_t events)
{
	eventfd_t value;

	(void)events;
	must_libc(eventfd_read(watch->fd, &value));
}

static void watches_make_work(void)
{
	int event = (int)must_libc(eventfd(0, 0));
	struct onefd_watch watch;

	onefd_watch_init(&watch, event, take);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	ck_assert(!readable(fd));
	must_libc(eventfd_write(event, 1));
	turn(1);
	ck_assert(!readable(fd));
	must_libc(eventfd_write(event, 1));
	ck_assert(readable(fd));
	onefd_watch_stop(&watch);
	ck_assert(!readable(fd));
	close(event);
}

static void arrived(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
}

static void signals_make_work(void)
{
	struct onefd_signal signal;

	onefd_signal_init(&signal, SIGUSR1, arrived);
	must(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK));
	ck_assert(!readable(fd));
	raise(SIGUSR1);
	turn(1);
	ck_assert(!readable(fd));
	onefd_signal_stop(&signal);
	raise(SIGUSR1);		/* stays pending: no work of ours */
	ck_assert(!readable(fd));
}

static void ended(struct onefd_child *child, int code, int status)
{
	(void)child;
	(void)code;
	(void)status;
}

static void children_make_work(void)
{
	struct onefd_child child;
	pid_t pid = (pid_t)must_libc(fork());

	if (pid == 0)
		for (;;)
			pause();
	onefd_child_init(&child, pid, ended);
	must(onefd_child_start(loop, &child));
	ck_assert(!readable(fd));
	kill(pid, SIGKILL);
	turn(1);
	ck_assert(!readable(fd));
}

static void wakes_make_a_turn(void)
{
	onefd_wake(loop);
	turn(0);
	ck_assert(!readable(fd));
}

static ssize_t answer(void *arg)
{
	(void)arg;
	return 42;
}

static void answered(struct onefd_req *req)
{
	ck_assert_int_eq((int)req->res, 42);
}

static void requests_make_work(void)
{
	struct onefd_req req;

	onefd_prep_call(&req, answer, NULL);
	must(onefd_submit(loop, &req, answered));
	ck_assert(readable(fd));	/* it is yet to be sent */
	while (onefd_pending(loop)) {
		wait_readable(fd);
		must(onefd_dispatch(loop, 0));
	}
	/* The worker's last wake may come after its answer was taken. */
	while (readable(fd))
		ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
}

static void (*const kinds[])(void) = {
	timers_make_work, timer_started_in_a_callback_makes_work, tasks_make_work,
	task_posted_by_a_timer_makes_no_further_work, watches_make_work,
	signals_make_work, wakes_make_a_turn, requests_make_work,
};

START_TEST(fd_readable_iff_work)
{
	kinds[_i]();
}
END_TEST

START_TEST(fd_readable_iff_a_child_ended)
{
	children_make_work();
}
END_TEST

#define MANY (2 * SMALL_BUDGET + 1)

static void spend_budget_thrice(void)
{
	turn(SMALL_BUDGET);
	turn(SMALL_BUDGET);
	turn(1);
	ck_assert(!readable(fd));
}

static void too_many_timers(void)
{
	struct onefd_timer timers[MANY];

	for (int i = 0; i < MANY; i++) {
		onefd_timer_init(&timers[i], nothing);
		onefd_timer_start(loop, &timers[i], 1);
	}
	spend_budget_thrice();
}

static void too_many_tasks(void)
{
	struct onefd_task tasks[MANY];

	for (int i = 0; i < MANY; i++) {
		onefd_task_init(&tasks[i], done);
		must(onefd_post(loop, &tasks[i]));
	}
	spend_budget_thrice();
}

/* Edge-triggered inside: once fetched they are gone from the host's view, but only
 * what runs in this turn is fetched, and the rest stays in it. */
static void too_many_events(void)
{
	struct onefd_watch watches[MANY];

	for (int i = 0; i < MANY; i++) {
		onefd_watch_init(&watches[i], (int)must_libc(eventfd(1, 0)), take);
		must(onefd_watch_start(loop, &watches[i], EPOLLIN | EPOLLET));
	}
	spend_budget_thrice();
	for (int i = 0; i < MANY; i++) {
		onefd_watch_stop(&watches[i]);
		close(watches[i].fd);
	}
}

static void too_many_signals(void)
{
	struct onefd_signal signal;

	onefd_signal_init(&signal, SIGRTMIN, arrived);
	must(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK));
	for (int i = 0; i < MANY; i++)
		raise(SIGRTMIN);
	spend_budget_thrice();
	onefd_signal_stop(&signal);
}

static void cancelled(struct onefd_req *req)
{
	(void)req;
}

static void too_many_requests(void)
{
	struct onefd_req reqs[MANY];

	for (int i = 0; i < MANY; i++) {
		onefd_prep_call(&reqs[i], answer, NULL);
		must(onefd_submit(loop, &reqs[i], cancelled));
		must(onefd_cancel(&reqs[i]));
	}
	spend_budget_thrice();
}

/* A host that watches edge-triggered is told of work once; what the budget left is
 * no news to it. This is why adapters watch level-triggered. */
START_TEST(edge_triggered_host_sleeps_on_what_the_budget_left)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int host = (int)must_libc(epoll_create1(EPOLL_CLOEXEC));
	struct onefd_watch watches[MANY];

	must_libc(epoll_ctl(host, EPOLL_CTL_ADD, fd, &event));
	for (int i = 0; i < MANY; i++) {
		onefd_watch_init(&watches[i], (int)must_libc(eventfd(1, 0)), take);
		must(onefd_watch_start(loop, &watches[i], EPOLLIN));
	}
	ck_assert_int_eq(epoll_wait(host, &event, 1, CASE_TIMEOUT_S * 1000), 1);
	turn(SMALL_BUDGET);
	ck_assert(readable(fd));
	ck_assert_int_eq(epoll_wait(host, &event, 1, 0), 0);
	for (int i = 0; i < MANY; i++) {
		onefd_watch_stop(&watches[i]);
		close(watches[i].fd);
	}
	close(host);
}
END_TEST

/* Each answered on the spot: it is cancelled before it was sent. */
static void chain(struct onefd_req *req)
{
	int *left = req->data;

	if (--*left == 0)
		return;
	must(onefd_submit(loop, req, chain));
	must(onefd_cancel(req));
}

static void start_chain(struct onefd_req *req, int *left)
{
	onefd_prep_call(req, answer, NULL);
	req->data = left;
	must(onefd_submit(loop, req, chain));
	must(onefd_cancel(req));
}

static void too_long_a_chain(void)
{
	int left = MANY;
	struct onefd_req req;

	start_chain(&req, &left);
	spend_budget_thrice();
}

static void (*const excesses[])(void) = {
	too_many_timers, too_many_tasks, too_many_events, too_many_signals,
	too_many_requests, too_long_a_chain,
};

START_TEST(budget_stop_keeps_fd_readable)
{
	excesses[_i]();
}
END_TEST

START_TEST(work_from_before_is_announced_by_the_first_call)
{
	struct onefd_timer timer;
	struct onefd_task task;

	onefd_task_init(&task, again);
	must(onefd_post(loop, &task));
	ck_assert_int_eq(onefd_dispatch(loop, 0), 1);
	onefd_timer_init(&timer, nothing);
	onefd_timer_start(loop, &timer, 1);
	fd = (int)must(onefd_fd(loop));
	turn(2);
	ck_assert(!readable(fd));
	ck_assert_int_eq(onefd_fd(loop), fd);
}
END_TEST

static int armed;

static int count_arm(int timerfd, uint64_t deadline)
{
	(void)timerfd;
	(void)deadline;
	armed++;
	return 0;
}

START_TEST(native_loop_leaves_the_timerfd_alone)
{
	struct onefd_timer timer;

	sys.timerfd_arm = count_arm;
	onefd_timer_init(&timer, nothing);
	onefd_timer_start(loop, &timer, onefd_now(loop) + 1);
	must(onefd_run(loop));
	ck_assert_int_eq(armed, 0);
}
END_TEST

static int dispatched;

static void dispatch_inner(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	dispatched += (int)must(onefd_dispatch(loop, 0));
}

static void stop_host(struct onefd_timer *timer)
{
	onefd_watch_stop(timer->data);
}

START_TEST(a_loop_can_be_the_host_of_a_loop)
{
	struct onefd_timer inner, last;
	struct onefd_watch watch;
	struct onefd *host;

	must(onefd_new(&host, test_config()));
	onefd_watch_init(&watch, (int)must(onefd_fd(loop)), dispatch_inner);
	must(onefd_watch_start(host, &watch, EPOLLIN));
	onefd_timer_init(&inner, nothing);
	onefd_timer_start(loop, &inner, onefd_now(loop) + MSEC);
	onefd_timer_init(&last, stop_host);
	last.data = &watch;
	onefd_timer_start(loop, &last, onefd_now(loop) + 2 * MSEC);
	must(onefd_run(host));
	ck_assert_int_eq(dispatched, 2);
	must(onefd_free(host));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("embed");
	TCase *embedded = add_case(suite, "embedded", make_embedded_loop, free_loop);
	TCase *native = add_case(suite, "native", make_loop, free_loop);
	TCase *forks = add_case(suite, "fork", make_embedded_loop, free_loop);

	tcase_add_loop_test(embedded, fd_readable_iff_work, 0,
			    sizeof kinds / sizeof kinds[0]);
	tcase_add_loop_test(embedded, budget_stop_keeps_fd_readable, 0,
			    sizeof excesses / sizeof excesses[0]);
	tcase_add_test(embedded, edge_triggered_host_sleeps_on_what_the_budget_left);
	tcase_add_test(native, work_from_before_is_announced_by_the_first_call);
	tcase_add_test(native, native_loop_leaves_the_timerfd_alone);
	tcase_add_test(native, a_loop_can_be_the_host_of_a_loop);
	tcase_set_tags(forks, "fork");
	tcase_add_test(forks, fd_readable_iff_a_child_ended);
	return run_suite(suite);
}
