/*
 * test_hosts.c - the same work in each real host: what a guest does there.
 *
 * How the two part is test_host_ends.c.
 */
#include "files.h"
#include "guest.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- files ------------------------------------------------------------------ */

#define JOBS 32
#define LEN 65536

static void run_jobs(struct job *jobs)
{
	for (int i = 0; i < JOBS; i++)
		job_submit(loop, &jobs[i]);
	run_until(!onefd_pending(loop));
	for (int i = 0; i < JOBS; i++)
		ck_assert(jobs[i].calls == 1 && jobs[i].res == LEN);
}

static void copy(int from, int to)
{
	struct job *jobs = make_jobs(JOBS, LEN);
	struct onefd_file source, target;

	must(onefd_file_init(loop, &source, from));
	must(onefd_file_init(loop, &target, to));
	for (int i = 0; i < JOBS; i++)
		onefd_prep_pread(&jobs[i].req, &source, jobs[i].buf, LEN, i * LEN);
	run_jobs(jobs);
	for (int i = 0; i < JOBS; i++) {
		check_bytes(jobs[i].buf, LEN, i * LEN);
		onefd_prep_pwrite(&jobs[i].req, &target, jobs[i].buf, LEN, i * LEN);
	}
	run_jobs(jobs);
	check_file(to, JOBS * LEN);
	free_jobs(jobs, JOBS);
}

static void transfer(int flags)
{
	int from = make_file_at(".", JOBS * LEN, O_RDONLY | flags);
	int to = make_file_at(".", 0, O_RDWR | flags);

	copy(from, to);
	close(from);
	close(to);
}

START_TEST(files_are_read_and_written)
{
	enter(_i);
	transfer(0);
	leave();
}
END_TEST

START_TEST(files_are_read_and_written_directly)
{
	if (!has_direct(0))
		skip("no O_DIRECT here");
	enter(_i);
	transfer(O_DIRECT);
	leave();
}
END_TEST

/* ---- one of each kind ------------------------------------------------------- */

static char order[8];

static void note(struct onefd_timer *timer)
{
	strcat(order, timer->data);
}

START_TEST(timers_move_and_are_cancelled)
{
	struct onefd_timer timers[3];
	uint64_t now;

	enter(_i);
	order[0] = '\0';
	for (int i = 0; i < 3; i++)
		onefd_timer_init(&timers[i], note);
	timers[0].data = "a";
	timers[1].data = "b";
	timers[2].data = "c";
	now = onefd_now(loop);
	onefd_timer_start(loop, &timers[0], now + 4 * MSEC);
	onefd_timer_start(loop, &timers[1], now + 3600000 * MSEC);
	onefd_timer_start(loop, &timers[2], now + MSEC);
	onefd_timer_start(loop, &timers[1], now + 2 * MSEC);
	onefd_timer_stop(&timers[2]);
	run_until(strlen(order) == 2);
	ck_assert_str_eq(order, "ba");
	ck_assert(onefd_now(loop) >= now + 4 * MSEC);
	leave();
}
END_TEST

static void arrived(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	calls += info->ssi_signo == SIGUSR1;
}

START_TEST(signals_arrive)
{
	struct onefd_signal signal;

	enter(_i);
	onefd_signal_init(&signal, SIGUSR1, arrived);
	must(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK));
	ops->turn(host, false);
	ck_assert_int_eq(calls, 0);
	kill(getpid(), SIGUSR1);
	run_until(calls);
	onefd_signal_stop(&signal);
	leave();
}
END_TEST

static void ended(struct onefd_child *child, int code, int status)
{
	(void)child;
	ck_assert_int_eq(code, CLD_EXITED);
	calls += status;
}

START_TEST(children_are_reaped)
{
	struct onefd_child child;
	pid_t pid;

	enter(_i);
	pid = (pid_t)must_libc(fork());
	if (pid == 0)
		_exit(7);
	onefd_child_init(&child, pid, ended);
	must(onefd_child_start(loop, &child));
	run_until(calls == 7);
	ck_assert_int_eq(waitpid(pid, NULL, 0), -1);
	leave();
}
END_TEST

#define TASKS 1000

static void *post_all(void *tasks)
{
	for (int i = 0; i < TASKS; i++)
		must(onefd_post(loop, (struct onefd_task *)tasks + i));
	return NULL;
}

static void in_order(struct onefd_task *task)
{
	ck_assert_ptr_eq(task, (struct onefd_task *)task->data + calls);
	calls++;
}

START_TEST(tasks_of_a_thread_run)
{
	struct onefd_task tasks[TASKS];
	pthread_t thread;

	enter(_i);
	for (int i = 0; i < TASKS; i++) {
		onefd_task_init(&tasks[i], in_order);
		tasks[i].data = tasks;
	}
	pthread_create(&thread, NULL, post_all, tasks);
	run_until(calls == TASKS);
	pthread_join(thread, NULL);
	leave();
}
END_TEST

/* ---- both have their turn --------------------------------------------------- */

#define MANY (5 * SMALL_BUDGET)
#define ROW_MOST 3	/* of the host's callbacks between two turns of the guest */

static int guest_row, guest_row_most, host_row, host_row_most, host_calls;

/* The host's own descriptor, always ready. */
static void host_is_busy(void *data)
{
	(void)data;
	host_calls++;
	guest_row = 0;
	if (calls && ++host_row > host_row_most)
		host_row_most = host_row;
}

static void guest_called(void)
{
	calls++;
	host_row = 0;
	if (++guest_row > guest_row_most)
		guest_row_most = guest_row;
}

/* MANY callbacks of one kind are due, and the host is busy all the time. */
static void run_beside_a_busy_host(void)
{
	int busy = (int)must_libc(eventfd(1, EFD_CLOEXEC));
	void *watch;

	calls = guest_row = guest_row_most = host_row = host_row_most = host_calls = 0;
	watch = ops->watch(host, busy, host_is_busy, NULL);
	run_until(calls == MANY);
	ops->unwatch(host, watch);
	close(busy);
	ck_assert_int_eq(guest_row_most, SMALL_BUDGET);
	ck_assert_int_ge(host_calls, MANY / SMALL_BUDGET - 1);
	ck_assert_int_le(host_row_most, ROW_MOST);
}

static void timer_called(struct onefd_timer *timer)
{
	(void)timer;
	guest_called();
}

START_TEST(budget_of_timers_leaves_the_host_its_turn)
{
	struct onefd_timer timers[MANY];

	enter(_i);
	for (int i = 0; i < MANY; i++) {
		onefd_timer_init(&timers[i], timer_called);
		onefd_timer_start(loop, &timers[i], 1);
	}
	run_beside_a_busy_host();
	leave();
}
END_TEST

static void task_called(struct onefd_task *task)
{
	(void)task;
	guest_called();
}

START_TEST(budget_of_tasks_leaves_the_host_its_turn)
{
	struct onefd_task tasks[MANY];

	enter(_i);
	for (int i = 0; i < MANY; i++) {
		onefd_task_init(&tasks[i], task_called);
		must(onefd_post(loop, &tasks[i]));
	}
	run_beside_a_busy_host();
	leave();
}
END_TEST

static void watch_called(struct onefd_watch *watch, uint32_t events)
{
	eventfd_t value;

	(void)events;
	must_libc(eventfd_read(watch->fd, &value));
	guest_called();
}

START_TEST(budget_of_watches_leaves_the_host_its_turn)
{
	struct onefd_watch watches[MANY];

	enter(_i);
	for (int i = 0; i < MANY; i++) {
		onefd_watch_init(&watches[i], (int)must_libc(eventfd(1, EFD_CLOEXEC)),
				 watch_called);
		must(onefd_watch_start(loop, &watches[i], EPOLLIN | (i % 2 ? EPOLLET : 0)));
	}
	run_beside_a_busy_host();
	for (int i = 0; i < MANY; i++) {
		onefd_watch_stop(&watches[i]);
		close(watches[i].fd);
	}
	leave();
}
END_TEST

static void signal_called(struct onefd_signal *signal, const struct signalfd_siginfo *info)
{
	(void)signal;
	(void)info;
	guest_called();
}

START_TEST(budget_of_signals_leaves_the_host_its_turn)
{
	struct onefd_signal signal;

	enter(_i);
	onefd_signal_init(&signal, SIGRTMIN, signal_called);
	must(onefd_signal_start(loop, &signal, ONEFD_SIGNAL_BLOCK));
	for (int i = 0; i < MANY; i++)
		must_libc(kill(getpid(), SIGRTMIN));
	run_beside_a_busy_host();
	onefd_signal_stop(&signal);
	leave();
}
END_TEST

static ssize_t answer(void *arg)
{
	(void)arg;
	return 42;
}

static void request_called(struct onefd_req *req)
{
	(void)req;
	guest_called();
}

START_TEST(budget_of_requests_leaves_the_host_its_turn)
{
	struct onefd_req reqs[MANY];

	enter(_i);
	for (int i = 0; i < MANY; i++) {
		onefd_prep_call(&reqs[i], answer, NULL);
		must(onefd_submit(loop, &reqs[i], request_called));
		must(onefd_cancel(&reqs[i]));
	}
	run_beside_a_busy_host();
	leave();
}
END_TEST

static bool over;

static void end(void *data)
{
	(void)data;
	over = true;
}

static void post_again(struct onefd_task *task)
{
	calls++;
	if (!over)
		must(onefd_post(loop, task));
}

START_TEST(busy_guest_leaves_the_host_its_timers)
{
	struct onefd_task task;

	enter(_i);
	over = false;
	onefd_task_init(&task, post_again);
	must(onefd_post(loop, &task));
	run_until(calls > 10);
	ops->timer(host, 5, end, NULL);
	run_until(over);
	must(onefd_drain(loop, -1));
	leave();
}
END_TEST

static void end_by_guest(struct onefd_timer *timer)
{
	(void)timer;
	over = true;
}

START_TEST(busy_host_leaves_the_guest_its_timers)
{
	struct onefd_timer timer;
	void *watch;
	int busy;

	enter(_i);
	over = false;
	host_calls = 0;
	busy = (int)must_libc(eventfd(1, EFD_CLOEXEC));
	watch = ops->watch(host, busy, host_is_busy, NULL);
	run_until(host_calls > 10);
	onefd_timer_init(&timer, end_by_guest);
	onefd_timer_start(loop, &timer, onefd_now(loop) + 5 * MSEC);
	run_until(over);
	ops->unwatch(host, watch);
	close(busy);
	leave();
}
END_TEST

#define ROUNDS 500

static int ends[2], host_rounds;

static void echo_by_host(void *data)
{
	char byte;

	(void)data;
	ck_assert_int_eq(read(ends[0], &byte, 1), 1);
	ck_assert_int_eq(write(ends[0], &byte, 1), 1);
	host_rounds++;
}

static void echo_by_guest(struct onefd_watch *watch, uint32_t events)
{
	char byte;

	(void)events;
	ck_assert_int_eq(read(watch->fd, &byte, 1), 1);
	if (++calls < ROUNDS)
		ck_assert_int_eq(write(watch->fd, &byte, 1), 1);
}

START_TEST(sockets_of_host_and_guest_talk)
{
	struct onefd_watch watch;
	void *own;

	enter(_i);
	must_libc(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	host_rounds = 0;
	own = ops->watch(host, ends[0], echo_by_host, NULL);
	onefd_watch_init(&watch, ends[1], echo_by_guest);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	ck_assert_int_eq(write(ends[1], "x", 1), 1);
	run_until(calls == ROUNDS);
	ck_assert_int_eq(host_rounds, ROUNDS);
	onefd_watch_stop(&watch);
	ops->unwatch(host, own);
	close(ends[0]);
	close(ends[1]);
	leave();
}
END_TEST

static void ignore(struct onefd_timer *timer)
{
	(void)timer;
}

START_TEST(host_sleeps_when_the_guest_has_nothing)
{
	struct onefd_timer past, future;
	struct onefd_watch watch;
	int turns = 0, quiet;

	enter(_i);
	over = false;
	quiet = (int)must_libc(eventfd(0, EFD_CLOEXEC));
	onefd_watch_init(&watch, quiet, watch_called);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	onefd_timer_init(&past, ignore);
	onefd_timer_init(&future, ignore);
	onefd_timer_start(loop, &past, 1);
	onefd_timer_start(loop, &future, onefd_now(loop) + 3600000 * MSEC);
	ops->timer(host, 30, end, NULL);
	for (; !over; turns++)
		ops->turn(host, true);
	/* One for the past; a host may round its timer down and sleep once more. */
	ck_assert_int_le(turns, 5);
	onefd_timer_stop(&future);
	onefd_watch_stop(&watch);
	close(quiet);
	leave();
}
END_TEST

/* ---- loops in loops --------------------------------------------------------- */

static void turn_inner(struct onefd_watch *watch, uint32_t events)
{
	(void)events;
	must(onefd_dispatch(watch->data, 0));
}

static void count_task(struct onefd_task *task)
{
	(void)task;
	calls++;
}

START_TEST(guest_may_have_a_guest_of_its_own)
{
	struct onefd *inner;
	struct onefd_watch watch;
	struct onefd_timer timer;
	struct onefd_task tasks[MANY];

	enter(_i);
	over = false;
	must(onefd_new(&inner, test_config()));
	onefd_watch_init(&watch, (int)must(onefd_attach(inner)), turn_inner);
	watch.data = inner;
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	for (int i = 0; i < MANY; i++) {
		onefd_task_init(&tasks[i], count_task);
		must(onefd_post(inner, &tasks[i]));
	}
	onefd_timer_init(&timer, end_by_guest);
	onefd_timer_start(inner, &timer, onefd_now(inner) + 2 * MSEC);
	run_until(over && calls == MANY);
	onefd_watch_stop(&watch);
	onefd_detach(inner);
	must(onefd_free(inner));
	leave();
}
END_TEST

static bool nested;

static void run_host(struct onefd_task *task)
{
	(void)task;
	calls++;
	nested = true;
	onefd_wake(loop);	/* or the host would see nothing of the guest */
	ops->timer(host, 2, end, NULL);
	run_until(over);
	nested = false;
}

static void not_nested(struct onefd_task *task)
{
	(void)task;
	ck_assert(!nested);
	calls++;
}

/* The guest waits for the end of its callback, the host goes on. */
START_TEST(host_may_be_run_in_a_callback_of_the_guest)
{
	struct onefd_task tasks[MANY];

	enter(_i);
	over = false;
	for (int i = 0; i < MANY; i++) {
		onefd_task_init(&tasks[i], i ? not_nested : run_host);
		must(onefd_post(loop, &tasks[i]));
	}
	run_until(calls == MANY);
	ck_assert(over);
	ck_assert_int_eq(((struct adapter *)adapter)->error, 0);
	leave();
}
END_TEST

static void add_rules(Suite *suite, int index)
{
	TCase *tcase = add_case(suite, hosts[index]->name, NULL, NULL);
	TCase *forks = add_case(suite, hosts[index]->name, NULL, NULL);

	add_rule(tcase, index, files_are_read_and_written);
	add_rule(tcase, index, files_are_read_and_written_directly);
	add_rule(tcase, index, timers_move_and_are_cancelled);
	add_rule(tcase, index, signals_arrive);
	add_rule(tcase, index, tasks_of_a_thread_run);
	add_rule(tcase, index, budget_of_timers_leaves_the_host_its_turn);
	add_rule(tcase, index, budget_of_tasks_leaves_the_host_its_turn);
	add_rule(tcase, index, budget_of_watches_leaves_the_host_its_turn);
	add_rule(tcase, index, budget_of_signals_leaves_the_host_its_turn);
	add_rule(tcase, index, budget_of_requests_leaves_the_host_its_turn);
	add_rule(tcase, index, busy_guest_leaves_the_host_its_timers);
	add_rule(tcase, index, busy_host_leaves_the_guest_its_timers);
	add_rule(tcase, index, sockets_of_host_and_guest_talk);
	add_rule(tcase, index, host_sleeps_when_the_guest_has_nothing);
	add_rule(tcase, index, guest_may_have_a_guest_of_its_own);
	if (hosts[index]->nests)
		add_rule(tcase, index, host_may_be_run_in_a_callback_of_the_guest);
	tcase_set_tags(forks, "fork");
	add_rule(forks, index, children_are_reaped);
}

int main(void)
{
	Suite *suite = suite_create("hosts");

	name_missing_hosts();
	for (int i = 0; i < HOSTS; i++)
		add_rules(suite, i);
	return run_suite(suite);
}
