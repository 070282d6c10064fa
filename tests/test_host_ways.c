/*
 * test_host_ways.c - what each host has a way of its own in: what keeps it alive,
 * priorities, who reaps children, and what it does with a guest when it ends.
 *
 * What all have in common is test_hosts.c and test_host_ends.c.
 */
#ifdef HAVE_LIBEV
#include <onefd/libev.h>
#endif
#ifdef HAVE_LIBUV
#include <onefd/libuv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <onefd/libevent.h>
#endif
#ifdef HAVE_LIBEVENT_PTHREADS
#include <event2/thread.h>
#include <pthread.h>
#endif
#ifdef HAVE_GLIB
#include <onefd/glib.h>
#endif
#ifdef HAVE_SD_EVENT
#include <onefd/sd-event.h>
#endif

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor.h"

static void count_task(struct onefd_task *task)
{
	(void)task;
	calls++;
}

static struct onefd_task posted;

static void post_one(void)
{
	onefd_task_init(&posted, count_task);
	must(onefd_post(loop, &posted));
}

#ifdef HAVE_LIBEV
/* ---- libev ------------------------------------------------------------------ */

static int code_seen;

static void ended(struct onefd_child *child, int code, int status)
{
	(void)child;
	(void)status;
	code_seen = code;
	calls++;
}

/* A zombie, of which the kernel has told everybody. */
static pid_t make_child(void)
{
	siginfo_t info;
	pid_t pid = (pid_t)must_libc(fork());

	if (pid == 0)
		_exit(7);
	must_libc(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	return pid;
}

static int code_of_a_child(struct ev_loop *host)
{
	struct onefd_libev adapter;
	struct onefd_child child;

	must(onefd_libev_attach(&adapter, host, loop));
	onefd_child_init(&child, make_child(), ended);
	must(onefd_child_start(loop, &child));
	while (!calls)
		ev_run(host, EVRUN_ONCE);
	onefd_libev_detach(&adapter);
	ev_loop_destroy(host);
	return code_seen;
}

START_TEST(default_loop_of_libev_reaps_all_children_itself)
{
	ck_assert_int_eq(code_of_a_child(ev_default_loop(0)), 0);
}
END_TEST

START_TEST(other_loops_of_libev_leave_children_alone)
{
	ck_assert_int_eq(code_of_a_child(ev_loop_new(0)), CLD_EXITED);
}
END_TEST

START_TEST(unreferenced_guest_does_not_keep_libev_alive)
{
	struct ev_loop *host = ev_loop_new(0);
	struct onefd_libev adapter;

	must(onefd_libev_attach(&adapter, host, loop));
	post_one();
	ck_assert(ev_run(host, EVRUN_ONCE));
	ck_assert_int_eq(calls, 1);
	ev_unref(host);
	ck_assert(!ev_run(host, 0));
	ev_ref(host);
	onefd_libev_detach(&adapter);
	ck_assert(!ev_run(host, 0));
	ev_loop_destroy(host);
}
END_TEST

START_TEST(libev_detaches_its_guest_when_it_ends)
{
	struct ev_loop *host = ev_loop_new(0);
	struct onefd_libev adapter;

	must(onefd_libev_attach(&adapter, host, loop));
	ev_loop_destroy(host);
	ck_assert_ptr_null(adapter.loop);
	ck_assert_int_eq(adapter.error, 0);
	must(onefd_attach(loop));
	onefd_detach(loop);
}
END_TEST

START_TEST(error_of_libev_stops_the_watch_and_is_told)
{
	struct ev_loop *host = ev_loop_new(0);
	struct onefd_libev adapter;

	must(onefd_libev_attach(&adapter, host, loop));
	ev_feed_event(host, &adapter.io, EV_ERROR | EV_READ);
	ck_assert(!ev_run(host, EVRUN_NOWAIT));
	ck_assert_ptr_null(adapter.loop);
	ck_assert_int_eq(adapter.error, -EIO);
	ev_loop_destroy(host);
}
END_TEST

static void add_libev(Suite *suite)
{
	TCase *tcase = add_case(suite, "libev", make_loop, free_loop);
	TCase *forks = add_case(suite, "libev", make_loop, free_loop);

	tcase_add_test(tcase, unreferenced_guest_does_not_keep_libev_alive);
	tcase_add_test(tcase, libev_detaches_its_guest_when_it_ends);
	tcase_add_test(tcase, error_of_libev_stops_the_watch_and_is_told);
	tcase_set_tags(forks, "fork");
	tcase_add_test(forks, default_loop_of_libev_reaps_all_children_itself);
	tcase_add_test(forks, other_loops_of_libev_leave_children_alone);
}
#endif

#ifdef HAVE_LIBUV
/* ---- libuv ------------------------------------------------------------------ */

static struct onefd_libuv uv_guest;
static uv_loop_t uv;

/* libuv opens a pipe once, for good. */
static void make_uv(void)
{
	ck_assert_int_eq(uv_loop_init(&uv), 0);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	make_loop();
	ck_assert_int_eq(uv_loop_init(&uv), 0);
	must(onefd_libuv_attach(&uv_guest, &uv, loop));
}

static void free_uv(void)
{
	onefd_libuv_detach(&uv_guest);
	memset(&uv_guest, 0, sizeof uv_guest);	/* or a leak would not show */
	ck_assert_int_eq(uv_run(&uv, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	free_loop();
}

START_TEST(unreferenced_guest_does_not_keep_libuv_alive)
{
	post_one();
	ck_assert(uv_run(&uv, UV_RUN_ONCE));
	ck_assert_int_eq(calls, 1);
	uv_unref((uv_handle_t *)uv_guest.poll);
	ck_assert(!uv_run(&uv, UV_RUN_DEFAULT));
}
END_TEST

START_TEST(libuv_is_busy_until_it_has_closed_the_handle)
{
	onefd_libuv_detach(&uv_guest);
	ck_assert_int_eq(uv_loop_close(&uv), UV_EBUSY);
	uv_run(&uv, UV_RUN_NOWAIT);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	uv_loop_init(&uv);
}
END_TEST

/* As libuv calls when epoll tells it of an error. */
START_TEST(error_of_libuv_stops_the_watch_and_is_told)
{
	onefd_libuv_ready(uv_guest.poll, UV_EBADF, 0);
	ck_assert_ptr_null(uv_guest.loop);
	ck_assert_int_eq(uv_guest.error, -EBADF);
	must(onefd_libuv_attach(&uv_guest, &uv, loop));
	ck_assert_int_eq(uv_guest.error, 0);
}
END_TEST

static int handles_closed;

static void count_closed(uv_handle_t *handle)
{
	(void)handle;
	handles_closed++;
}

static void close_handle(uv_handle_t *handle, void *data)
{
	(void)data;
	if (!uv_is_closing(handle))
		uv_close(handle, count_closed);
}

static void close_handle_silently(uv_handle_t *handle, void *data)
{
	(void)data;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

START_TEST(host_closes_all_handles_before_the_detach)
{
	handles_closed = 0;
	uv_walk(&uv, close_handle, NULL);
	uv_run(&uv, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	memset(&uv, 0xa5, sizeof uv);
	onefd_libuv_detach(&uv_guest);
	ck_assert_int_eq(handles_closed, 1);
	uv_loop_init(&uv);
}
END_TEST

START_TEST(host_closes_all_handles_around_the_detach)
{
	handles_closed = 0;
	uv_walk(&uv, close_handle, NULL);
	onefd_libuv_detach(&uv_guest);
	uv_run(&uv, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	ck_assert_int_eq(handles_closed, 1);
	uv_loop_init(&uv);
}
END_TEST

START_TEST(host_closes_all_handles_silently_around_the_detach)
{
	uv_walk(&uv, close_handle_silently, NULL);
	onefd_libuv_detach(&uv_guest);
	uv_run(&uv, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	uv_loop_init(&uv);
}
END_TEST

START_TEST(host_closes_all_handles_after_the_detach)
{
	handles_closed = 0;
	onefd_libuv_detach(&uv_guest);
	uv_walk(&uv, close_handle, NULL);
	uv_run(&uv, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&uv), 0);
	ck_assert_int_eq(handles_closed, 0);
	uv_loop_init(&uv);
}
END_TEST

static void close_all(struct onefd_task *task)
{
	(void)task;
	calls++;
	uv_walk(&uv, close_handle, NULL);
}

START_TEST(callback_of_the_guest_closes_all_handles)
{
	struct onefd_task task;

	onefd_task_init(&task, close_all);
	must(onefd_post(loop, &task));
	uv_run(&uv, UV_RUN_DEFAULT);
	ck_assert_int_eq(calls, 1);
}
END_TEST

static bool no_memory;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
	return no_memory ? NULL : __real_malloc(size);
}

START_TEST(attach_to_libuv_without_memory_is_enomem)
{
	struct onefd_libuv again = { .error = 42 };
	int r;

	onefd_libuv_detach(&uv_guest);
	no_memory = true;
	r = onefd_libuv_attach(&again, &uv, loop);
	no_memory = false;
	ck_assert_int_eq(r, -ENOMEM);
	ck_assert(!again.loop && again.error == 42 && !again.poll);
	must(onefd_libuv_attach(&uv_guest, &uv, loop));
}
END_TEST

static void add_libuv(Suite *suite)
{
	TCase *tcase = add_case(suite, "libuv", make_uv, free_uv);

	tcase_add_test(tcase, unreferenced_guest_does_not_keep_libuv_alive);
	tcase_add_test(tcase, libuv_is_busy_until_it_has_closed_the_handle);
	tcase_add_test(tcase, error_of_libuv_stops_the_watch_and_is_told);
	tcase_add_test(tcase, host_closes_all_handles_before_the_detach);
	tcase_add_test(tcase, host_closes_all_handles_around_the_detach);
	tcase_add_test(tcase, host_closes_all_handles_silently_around_the_detach);
	tcase_add_test(tcase, host_closes_all_handles_after_the_detach);
	tcase_add_test(tcase, callback_of_the_guest_closes_all_handles);
	tcase_add_test(tcase, attach_to_libuv_without_memory_is_enomem);
}
#endif

#ifdef HAVE_LIBEVENT
/* ---- libevent --------------------------------------------------------------- */

START_TEST(guest_alone_keeps_libevent_alive)
{
	struct event_base *host = event_base_new();
	struct onefd_libevent adapter;

	must(onefd_libevent_attach(&adapter, host, loop));
	post_one();
	ck_assert_int_eq(event_base_loop(host, EVLOOP_ONCE), 0);
	ck_assert_int_eq(calls, 1);
	onefd_libevent_detach(&adapter);
	ck_assert_int_eq(event_base_loop(host, 0), 1);
	event_base_free(host);
}
END_TEST

static void first(evutil_socket_t fd, short events, void *data)
{
	(void)fd;
	(void)events;
	*(int *)data = calls;
}

START_TEST(libevent_runs_what_has_priority_before_the_guest)
{
	struct event_base *host = event_base_new();
	struct onefd_libevent adapter;
	struct event *own;
	int calls_then = -1;

	event_base_priority_init(host, 4);	/* the guest's is 2, as all others' */
	must(onefd_libevent_attach(&adapter, host, loop));
	own = event_new(host, -1, EV_PERSIST, first, &calls_then);
	event_priority_set(own, 0);
	post_one();
	event_active(own, EV_TIMEOUT, 1);
	while (!calls)
		event_base_loop(host, EVLOOP_ONCE);
	ck_assert_int_eq(calls_then, 0);
	event_free(own);
	onefd_libevent_detach(&adapter);
	event_base_free(host);
}
END_TEST

/* In this mode libevent keeps account of all events, and aborts for what it takes
 * for a mistake: memory that is used again without a word. */
START_TEST(libevent_finds_nothing_wrong_in_its_debug_mode)
{
	struct onefd_libevent adapter;
	struct event_base *host;

	event_enable_debug_mode();
	host = event_base_new();
	for (int i = 0; i < 3; i++) {
		must(onefd_libevent_attach(&adapter, host, loop));
		post_one();
		event_base_loop(host, EVLOOP_ONCE);
		onefd_libevent_detach(&adapter);
		ck_assert(!event_initialized(&adapter.event));	/* the account is closed */
		memset(&adapter, 0, sizeof adapter);
	}
	must(onefd_libevent_attach(&adapter, host, loop));
	event_base_free(host);
	onefd_libevent_detach(&adapter);
	libevent_global_shutdown();
	ck_assert_int_eq(calls, 3);
}
END_TEST

#ifdef HAVE_LIBEVENT_PTHREADS
static void *post_from_outside(void *task)
{
	must(onefd_post(loop, task));
	return NULL;
}

static void detach_libevent(struct onefd_task *task)
{
	onefd_libevent_detach(task->data);
	calls++;
}

START_TEST(guest_parts_with_a_base_that_locks)
{
	struct onefd_libevent adapter;
	struct onefd_task task;
	struct event_base *host;
	pthread_t thread;

	ck_assert_int_eq(evthread_use_pthreads(), 0);
	host = event_base_new();
	must(onefd_libevent_attach(&adapter, host, loop));
	onefd_task_init(&task, detach_libevent);
	task.data = &adapter;
	pthread_create(&thread, NULL, post_from_outside, &task);
	ck_assert_int_eq(event_base_dispatch(host), 1);	/* nothing is left in it */
	pthread_join(thread, NULL);
	ck_assert_int_eq(calls, 1);
	must(onefd_libevent_attach(&adapter, host, loop));
	event_base_free(host);
	onefd_libevent_detach(&adapter);
	libevent_global_shutdown();
}
END_TEST
#endif

static void add_libevent(Suite *suite)
{
	TCase *tcase = add_case(suite, "libevent", make_loop, free_loop);
	TCase *forks = add_case(suite, "libevent", make_loop, free_loop);

	tcase_add_test(tcase, guest_alone_keeps_libevent_alive);
	tcase_add_test(tcase, libevent_runs_what_has_priority_before_the_guest);
	tcase_set_tags(forks, "fork");	/* modes that cannot be left again */
#ifdef HAVE_LIBEVENT_PTHREADS
	tcase_add_test(forks, guest_parts_with_a_base_that_locks);
#endif
	tcase_add_test(forks, libevent_finds_nothing_wrong_in_its_debug_mode);
}
#endif

#ifdef HAVE_GLIB
/* ---- GLib ------------------------------------------------------------------- */

START_TEST(no_context_is_the_default_one)
{
	struct onefd_glib adapter;

	must(onefd_glib_attach(&adapter, NULL, loop));
	ck_assert_ptr_eq(g_source_get_context(adapter.source), g_main_context_default());
	post_one();
	while (!calls)
		g_main_context_iteration(NULL, TRUE);
	onefd_glib_detach(&adapter);
}
END_TEST

static gboolean idle(gpointer data)
{
	*(int *)data = calls;
	return G_SOURCE_REMOVE;
}

START_TEST(guest_in_glib_has_the_priority_that_its_user_gives)
{
	GMainContext *host = g_main_context_new();
	GSource *own = g_idle_source_new();
	struct onefd_glib adapter;
	int calls_then = -1;

	must(onefd_glib_attach(&adapter, host, loop));
	ck_assert_int_eq(g_source_get_priority(adapter.source), G_PRIORITY_DEFAULT);
	ck_assert_str_eq(g_source_get_name(adapter.source), "onefd");
	g_source_set_priority(adapter.source, G_PRIORITY_LOW);
	g_source_set_callback(own, idle, &calls_then, NULL);
	g_source_attach(own, host);
	post_one();
	while (!calls)
		g_main_context_iteration(host, TRUE);
	ck_assert_int_eq(calls_then, 0);
	g_source_unref(own);
	onefd_glib_detach(&adapter);
	g_main_context_unref(host);
}
END_TEST

static void add_glib(Suite *suite)
{
	TCase *tcase = add_case(suite, "glib", make_loop, free_loop);
	TCase *unchecked = add_case(suite, "glib", make_loop, NULL);

	/* The default context keeps its descriptor, and the loop its own with it. */
	tcase_add_test(unchecked, no_context_is_the_default_one);
	tcase_add_test(tcase, guest_in_glib_has_the_priority_that_its_user_gives);
}
#endif

#ifdef HAVE_SD_EVENT
/* ---- sd-event --------------------------------------------------------------- */

START_TEST(guest_in_sd_event_has_the_priority_that_its_user_gives)
{
	struct onefd_sd_event adapter;
	const char *description;
	sd_event *host;

	must(sd_event_new(&host));
	must(onefd_sd_event_attach(&adapter, host, loop));
	must(sd_event_source_get_description(adapter.source, &description));
	ck_assert_str_eq(description, "onefd");
	must(sd_event_source_set_priority(adapter.source, SD_EVENT_PRIORITY_IDLE));
	post_one();
	while (!calls)
		must(sd_event_run(host, UINT64_MAX));
	onefd_sd_event_detach(&adapter);
	sd_event_unref(host);
}
END_TEST

START_TEST(sd_event_lives_until_its_guest_is_detached)
{
	struct onefd_sd_event adapter;
	sd_event *host;

	must(sd_event_new(&host));
	must(onefd_sd_event_attach(&adapter, host, loop));
	sd_event_unref(host);
	post_one();
	while (!calls)
		must(sd_event_run(sd_event_source_get_event(adapter.source), UINT64_MAX));
	onefd_sd_event_detach(&adapter);
}
END_TEST

static void detach_task(struct onefd_task *task)
{
	onefd_sd_event_detach(task->data);
	calls++;
}

START_TEST(guest_may_end_sd_event_in_its_callback)
{
	struct onefd_sd_event adapter;
	struct onefd_task task;
	sd_event *host;

	must(sd_event_new(&host));
	must(onefd_sd_event_attach(&adapter, host, loop));
	sd_event_unref(host);
	onefd_task_init(&task, detach_task);
	task.data = &adapter;
	must(onefd_post(loop, &task));
	must(sd_event_run(host, UINT64_MAX));
	ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(finished_sd_event_takes_no_guest)
{
	struct onefd_sd_event adapter;
	sd_event *host;

	must(sd_event_new(&host));
	must(sd_event_exit(host, 0));
	must(sd_event_loop(host));
	ck_assert_int_eq(onefd_sd_event_attach(&adapter, host, loop), -ESTALE);
	must(onefd_attach(loop));
	onefd_detach(loop);
	sd_event_unref(host);
}
END_TEST

static void add_sd_event(Suite *suite)
{
	TCase *tcase = add_case(suite, "sd-event", make_loop, free_loop);

	tcase_add_test(tcase, guest_in_sd_event_has_the_priority_that_its_user_gives);
	tcase_add_test(tcase, sd_event_lives_until_its_guest_is_detached);
	tcase_add_test(tcase, guest_may_end_sd_event_in_its_callback);
	tcase_add_test(tcase, finished_sd_event_takes_no_guest);
}
#endif

int main(void)
{
	Suite *suite = suite_create("host_ways");

#ifdef HAVE_LIBEV
	add_libev(suite);
#endif
#ifdef HAVE_LIBUV
	add_libuv(suite);
#endif
#ifdef HAVE_LIBEVENT
	add_libevent(suite);
#endif
#ifdef HAVE_GLIB
	add_glib(suite);
#endif
#ifdef HAVE_SD_EVENT
	add_sd_event(suite);
#endif
	return run_suite(suite);
}
