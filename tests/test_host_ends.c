/*
 * test_host_ends.c - how a guest and its host come together and part, in every
 * order, in each real host.
 *
 * What they do in between is test_hosts.c.
 */
#include "guest.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void count_task(struct onefd_task *task)
{
	(void)task;
	calls++;
}

static void post(struct onefd_task *tasks, int count, onefd_task_fn *fn)
{
	for (int i = 0; i < count; i++) {
		onefd_task_init(&tasks[i], fn);
		must(onefd_post(loop, &tasks[i]));
	}
}

#define TASKS_MOST (3 * SMALL_BUDGET)

/* The guest works: what is posted runs in turns of the host. */
static void run_tasks(int count)
{
	struct onefd_task tasks[TASKS_MOST];

	calls = 0;
	post(tasks, count, count_task);
	run_until(calls == count);
}

/* ---- again, and elsewhere --------------------------------------------------- */

START_TEST(detached_guest_runs_no_more_and_reattached_goes_on)
{
	struct onefd_task task;

	enter(_i);
	run_tasks(1);
	for (int i = 0; i < 3; i++) {
		calls = 0;
		post(&task, 1, count_task);
		ops->detach(adapter);
		ops->detach(adapter);
		ops->turn(host, false);
		ck_assert_int_eq(calls, 0);
		/* At once: libuv has not closed the handle from before. */
		must(ops->attach(adapter, host, loop));
		run_until(calls);
	}
	leave();
}
END_TEST

static void visit(int index)
{
	const struct host_ops *home = ops;
	void *home_host = host, *home_adapter = adapter;

	ops = hosts[index];
	host = ops->open();
	adapter = calloc(1, ops->adapter_size);
	must(ops->attach(adapter, host, loop));
	run_tasks(TASKS_MOST);
	ops->detach(adapter);
	free(adapter);
	ck_assert_int_eq(ops->close(host), 0);
	ops = home;
	host = home_host;
	adapter = home_adapter;
}

START_TEST(guest_moves_to_hosts_of_another_kind_and_back)
{
	for (int i = 0; i < HOSTS; i++)
		ck_assert_int_eq(hosts[i]->close(hosts[i]->open()), 0);
	enter(_i);
	for (int i = 0; i < HOSTS; i++) {
		run_tasks(SMALL_BUDGET);
		ops->detach(adapter);
		visit(i);
		must(ops->attach(adapter, host, loop));
	}
	run_tasks(SMALL_BUDGET);
	leave();
}
END_TEST

/* ---- from inside callbacks -------------------------------------------------- */

static void detach_task(struct onefd_task *task)
{
	(void)task;
	if (!calls++)
		ops->detach(adapter);
}

START_TEST(detach_in_a_callback_of_the_guest_ends_its_turns)
{
	struct onefd_task tasks[TASKS_MOST];

	enter(_i);
	post(tasks, TASKS_MOST, detach_task);
	run_until(calls);
	ops->turn(host, false);
	ck_assert_int_eq(calls, SMALL_BUDGET);
	must(ops->attach(adapter, host, loop));
	run_until(calls == TASKS_MOST);
	leave();
}
END_TEST

static void reattach_task(struct onefd_task *task)
{
	(void)task;
	calls++;
	ops->detach(adapter);
	must(ops->attach(adapter, host, loop));
}

START_TEST(guest_detaches_and_attaches_in_each_of_its_callbacks)
{
	struct onefd_task tasks[TASKS_MOST];

	enter(_i);
	post(tasks, TASKS_MOST, reattach_task);
	run_until(calls == TASKS_MOST);
	leave();
}
END_TEST

static void free_adapter(struct onefd_task *task)
{
	(void)task;
	ops->detach(adapter);
	memset(adapter, 0xa5, ops->adapter_size);
	free(adapter);
	adapter = NULL;
	calls++;
}

START_TEST(callback_may_free_the_adapter)
{
	struct onefd_task task;

	enter(_i);
	post(&task, 1, free_adapter);
	run_until(calls);
	ops->turn(host, false);
	leave();
}
END_TEST

static int own_calls, guest_calls_then;
static bool attach_again;
static struct onefd_task fetched;

/* The first of the host's own to run parts with the guest. */
static void detach_by_host(void *data)
{
	(void)data;
	if (own_calls++)
		return;
	guest_calls_then = calls;
	ops->detach(adapter);
	memset(adapter, 0xa5, ops->adapter_size);
	memset(adapter, 0, ops->adapter_size);
	if (attach_again)
		must(ops->attach(adapter, host, loop));
}

/*
 * The guest's event stands between two of the host's own in one batch, so that one
 * of these runs first, whether the host takes them as they came, the last first, or
 * in the order in which they were made known to it.
 */
static void detach_in_the_batch(int index)
{
	void *watches[2];
	int own[2];

	enter(index);
	ops->detach(adapter);
	own_calls = 0;
	for (int i = 0; i < 2; i++) {
		own[i] = (int)must_libc(eventfd(0, EFD_CLOEXEC));
		watches[i] = ops->watch(host, own[i], detach_by_host, NULL);
		if (i == 0)
			must(ops->attach(adapter, host, loop));
	}
	ops->turn(host, false);
	must_libc(eventfd_write(own[0], 1));
	post(&fetched, 1, count_task);
	must_libc(eventfd_write(own[1], 1));
	run_until(own_calls >= 2);
	for (int i = 0; i < 2; i++) {
		ops->unwatch(host, watches[i]);
		close(own[i]);
	}
	ck_assert_int_eq(guest_calls_then, 0);
}

START_TEST(detach_in_the_batch_that_has_the_guests_event)
{
	attach_again = false;
	detach_in_the_batch(_i);
	ops->turn(host, false);
	ck_assert_int_eq(calls, 0);
	must(ops->attach(adapter, host, loop));
	run_until(calls);
	leave();
}
END_TEST

START_TEST(detach_and_attach_in_the_batch_that_has_the_guests_event)
{
	attach_again = true;
	detach_in_the_batch(_i);
	if (!calls)
		run_until(calls);
	leave();
}
END_TEST

/* ---- freed in every order --------------------------------------------------- */

enum step { DETACH, FREE_GUEST, CLOSE_HOST, STEPS };

static const enum step orders[][STEPS] = {
	{ DETACH, FREE_GUEST, CLOSE_HOST }, { DETACH, CLOSE_HOST, FREE_GUEST },
	{ FREE_GUEST, DETACH, CLOSE_HOST }, { FREE_GUEST, CLOSE_HOST, DETACH },
	{ CLOSE_HOST, DETACH, FREE_GUEST }, { CLOSE_HOST, FREE_GUEST, DETACH },
};

static bool guest_is_free, host_is_closed;

/* libev tells its guests that it goes, and is detached from then. */
static bool attached(void)
{
	return ((struct adapter *)adapter)->loop;
}

static void free_guest(void)
{
	int r = onefd_free(loop);

	ck_assert_int_eq(r, (attached() ? -EBUSY : 0));
	guest_is_free = !r;
	if (r && !host_is_closed)
		run_tasks(TASKS_MOST);	/* refused, and nothing is lost */
}

/* libuv alone refuses; the guest goes on in it then. */
static void close_host(void)
{
	int r = ops->close(host);

	if (r)
		ck_assert(attached() && ops->refuses_to_close);
	host_is_closed = !r;
	if (r && !guest_is_free)
		run_tasks(TASKS_MOST);
}

static void take(enum step step)
{
	switch (step) {
	case DETACH:
		ops->detach(adapter);
		break;
	case FREE_GUEST:
		free_guest();
		break;
	default:
		close_host();
	}
}

static void part(int index, const enum step *order)
{
	int fds;

	enter(index);
	run_tasks(1);
	fds = fds_before;
	guest_is_free = host_is_closed = false;
	for (int i = 0; i < STEPS; i++)
		take(order[i]);
	if (!guest_is_free)
		free_guest();
	if (!host_is_closed)
		close_host();
	ops->detach(adapter);
	free(adapter);
	ck_assert(guest_is_free && host_is_closed);
	ck_assert_int_eq(count_fds(), fds);
}

START_TEST(guest_and_host_are_freed_in_every_order)
{
	for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++)
		part(_i, orders[i]);
}
END_TEST

/* ---- attach refused --------------------------------------------------------- */

/* attach answers @error, and leaves all as it was. */
static void refuses(void *to, struct onefd *guest, int error)
{
	unsigned char *memory = malloc(ops->adapter_size);
	struct adapter *fresh = (struct adapter *)memory;

	memset(memory, 0xa5, ops->adapter_size);
	ck_assert_int_eq(ops->attach(memory, to, guest), error);
	for (size_t i = 0; i < sizeof fresh->loop + sizeof fresh->error; i++)
		ck_assert_int_eq(memory[i], 0xa5);
	free(memory);
}

START_TEST(attach_of_nothing_is_einval)
{
	enter(_i);
	ops->detach(adapter);
	ck_assert_int_eq(ops->attach(NULL, host, loop), -EINVAL);
	refuses(host, NULL, -EINVAL);
	if (strcmp(ops->name, "glib"))		/* whose NULL is the default */
		refuses(NULL, loop, -EINVAL);
	ops->detach(NULL);
	must(ops->attach(adapter, host, loop));
	run_tasks(1);
	leave();
}
END_TEST

START_TEST(attach_of_an_attached_guest_is_ebusy)
{
	void *other;

	enter(_i);
	other = ops->open();
	refuses(host, loop, -EBUSY);
	refuses(other, loop, -EBUSY);
	ck_assert_int_eq(ops->attach(adapter, host, loop), -EBUSY);
	run_tasks(TASKS_MOST);
	ck_assert_int_eq(ops->close(other), 0);
	leave();
}
END_TEST

START_TEST(attach_needs_no_descriptor)
{
	struct rlimit limit, none;

	enter(_i);
	ops->detach(adapter);
	must_libc(getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = 0;
	must_libc(setrlimit(RLIMIT_NOFILE, &none));
	must(ops->attach(adapter, host, loop));
	must_libc(setrlimit(RLIMIT_NOFILE, &limit));
	run_tasks(1);
	leave();
}
END_TEST

#define NEST_MOST 3

static void nest(int fd, int levels, int *outer)
{
	for (int i = 0; i < levels; i++) {
		struct epoll_event event = { .events = EPOLLIN };

		outer[i] = (int)must_libc(epoll_create1(EPOLL_CLOEXEC));
		must_libc(epoll_ctl(outer[i], EPOLL_CTL_ADD, fd, &event));
		fd = outer[i];
	}
}

static void unexpected(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	ck_abort_msg("nothing is ready");
}

/* An epoll may have four others under it: three under the guest are the most that a
 * host on epoll can take. */
static void attach_above(int index, int levels)
{
	int quiet, inner[NEST_MOST + 1];
	struct onefd_watch watch;
	bool deep = levels > NEST_MOST;

	enter(index);
	ops->detach(adapter);
	quiet = (int)must_libc(eventfd(0, EFD_CLOEXEC));
	nest(quiet, levels, inner);
	onefd_watch_init(&watch, inner[levels - 1], unexpected);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	if (deep && ops->too_deep) {
		refuses(host, loop, ops->too_deep);
	} else {
		must(ops->attach(adapter, host, loop));
		run_tasks(SMALL_BUDGET);
	}
	onefd_watch_stop(&watch);
	for (int i = 0; i < levels; i++)
		close(inner[i]);
	close(quiet);
	leave();
}

START_TEST(three_epolls_may_nest_under_the_guest)
{
	attach_above(_i, NEST_MOST);
}
END_TEST

START_TEST(host_refuses_what_nests_too_deep)
{
	attach_above(_i, NEST_MOST + 1);
}
END_TEST

/* ---- a turn that fails ------------------------------------------------------ */

static int no_memory(int epfd, struct epoll_event *events, int count, int timeout_ms)
{
	(void)epfd;
	(void)events;
	(void)count;
	(void)timeout_ms;
	return -ENOMEM;
}

START_TEST(turn_that_fails_stops_the_watch_and_is_told)
{
	struct adapter *mine;
	struct onefd_task task;

	enter(_i);
	mine = adapter;
	post(&task, 1, count_task);
	sys.epoll_wait = no_memory;
	run_until(!mine->loop);
	sys.epoll_wait = sys_before.epoll_wait;
	ck_assert_int_eq(mine->error, -ENOMEM);
	must(ops->attach(adapter, host, loop));
	ck_assert_int_eq(mine->error, 0);
	run_until(calls);
	leave();
}
END_TEST

/* ---- forked ----------------------------------------------------------------- */

/* Runs @fn in a child, and is what it returned. */
static int in_a_child(int (*fn)(void))
{
	int status;
	pid_t pid = (pid_t)must_libc(fork());

	if (pid == 0)
		_exit(fn());
	ck_assert_int_eq((int)must_libc(waitpid(pid, &status, 0)), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int attach_in_child(void)
{
	ops->forked(host);
	return -ops->attach(adapter, host, loop);
}

START_TEST(attach_in_a_forked_child_is_echild)
{
	enter(_i);
	ops->detach(adapter);
	ck_assert_int_eq(in_a_child(attach_in_child), ECHILD);
	must(ops->attach(adapter, host, loop));
	run_tasks(1);
	leave();
}
END_TEST

static bool over;

static void end(void *data)
{
	(void)data;
	over = true;
}

#define TURNS_MOST 5

/* The guest's descriptor is readable in the child too, which cannot help it. */
static int go_on_in_child(void)
{
	struct adapter *mine = adapter;
	int turns = 0;

	ops->forked(host);
	ops->timer(host, 20, end, NULL);
	for (over = false; !over; turns++)
		ops->turn(host, true);
	if (turns > TURNS_MOST)
		return 1;
	if (mine->loop || mine->error != -ECHILD || calls)
		return 2;
	ops->detach(adapter);
	return 0;
}

START_TEST(forked_host_goes_on_without_the_guest)
{
	struct onefd_task task;

	enter(_i);
	run_tasks(1);
	calls = 0;
	post(&task, 1, count_task);
	ck_assert_int_eq(in_a_child(go_on_in_child), 0);
	run_until(calls);
	run_tasks(TASKS_MOST);
	leave();
}
END_TEST

static int detach_in_child(void)
{
	ops->forked(host);
	ops->detach(adapter);
	ops->detach(adapter);
	return ops->forks ? -ops->close(host) : 0;
}

START_TEST(detach_in_a_forked_child_leaves_the_parent_alone)
{
	enter(_i);
	run_tasks(1);
	ck_assert_int_eq(in_a_child(detach_in_child), 0);
	run_tasks(TASKS_MOST);
	leave();
}
END_TEST

static void add_rules(Suite *suite, int index)
{
	TCase *tcase = add_case(suite, hosts[index]->name, NULL, NULL);
	TCase *forks = add_case(suite, hosts[index]->name, NULL, NULL);

	add_rule(tcase, index, detached_guest_runs_no_more_and_reattached_goes_on);
	add_rule(tcase, index, guest_moves_to_hosts_of_another_kind_and_back);
	add_rule(tcase, index, detach_in_a_callback_of_the_guest_ends_its_turns);
	add_rule(tcase, index, guest_detaches_and_attaches_in_each_of_its_callbacks);
	add_rule(tcase, index, callback_may_free_the_adapter);
	add_rule(tcase, index, detach_in_the_batch_that_has_the_guests_event);
	add_rule(tcase, index, detach_and_attach_in_the_batch_that_has_the_guests_event);
	add_rule(tcase, index, guest_and_host_are_freed_in_every_order);
	add_rule(tcase, index, attach_of_nothing_is_einval);
	add_rule(tcase, index, attach_of_an_attached_guest_is_ebusy);
	add_rule(tcase, index, attach_needs_no_descriptor);
	add_rule(tcase, index, three_epolls_may_nest_under_the_guest);
	add_rule(tcase, index, host_refuses_what_nests_too_deep);
	add_rule(tcase, index, turn_that_fails_stops_the_watch_and_is_told);
	tcase_set_tags(forks, "fork");
	add_rule(forks, index, attach_in_a_forked_child_is_echild);
	if (hosts[index]->forks)
		add_rule(forks, index, forked_host_goes_on_without_the_guest);
	add_rule(forks, index, detach_in_a_forked_child_leaves_the_parent_alone);
}

int main(void)
{
	Suite *suite = suite_create("host_ends");

	name_missing_hosts();
	for (int i = 0; i < HOSTS; i++)
		add_rules(suite, i);
	return run_suite(suite);
}
