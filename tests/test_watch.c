/* test_watch.c - descriptor readiness. */
#include "reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WATCHES 3
#define SCRIBBLE 0xA5

static struct onefd_watch *watches[WATCHES];	/* each its own allocation */
static int last_events;

static void count_call(struct onefd_watch *watch, uint32_t events)
{
	(void)watch;
	last_events = (int)events;
	calls++;
}

static void drop(struct onefd_watch *watch)
{
	for (int i = 0; i < WATCHES; i++)
		if (watches[i] == watch)
			watches[i] = NULL;
	onefd_watch_stop(watch);
	memset(watch, SCRIBBLE, sizeof *watch);
	free(watch);
}

static void drop_self(struct onefd_watch *watch, uint32_t events)
{
	count_call(watch, events);
	drop(watch);
}

static void drop_siblings(struct onefd_watch *watch, uint32_t events)
{
	count_call(watch, events);
	for (int i = 0; i < WATCHES; i++)
		if (watches[i] && watches[i] != watch)
			drop(watches[i]);
}

static void drop_all(struct onefd_watch *watch, uint32_t events)
{
	count_call(watch, events);
	for (int i = 0; i < WATCHES; i++)
		if (watches[i])
			drop(watches[i]);
}

static const struct {
	onefd_watch_fn *fn;
	int calls;
} drops[] = { { drop_self, WATCHES }, { drop_siblings, 1 }, { drop_all, 1 } };

START_TEST(stop_in_same_batch_suppresses_callback)
{
	int fds[WATCHES];

	for (int i = 0; i < WATCHES; i++) {
		fds[i] = (int)must_libc(eventfd(1, 0));
		watches[i] = malloc(sizeof *watches[i]);
		onefd_watch_init(watches[i], fds[i], drops[_i].fn);
		must(onefd_watch_start(loop, watches[i], EPOLLIN));
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), drops[_i].calls);
	ck_assert_int_eq(calls, drops[_i].calls);
	for (int i = 0; i < WATCHES; i++) {
		if (watches[i])
			drop(watches[i]);
		close(fds[i]);
	}
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
}
END_TEST

static void drop_first(struct onefd_timer *timer)
{
	(void)timer;
	drop(watches[0]);
}

START_TEST(stop_by_a_timer_suppresses_callback)
{
	int fd = (int)must_libc(eventfd(1, 0));
	struct onefd_timer timer;

	watches[0] = malloc(sizeof *watches[0]);
	onefd_watch_init(watches[0], fd, count_call);
	must(onefd_watch_start(loop, watches[0], EPOLLIN));
	onefd_timer_init(&timer, drop_first);
	onefd_timer_start(loop, &timer, 0);
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(calls, 0);
	close(fd);
}
END_TEST

START_TEST(closed_descriptor_is_harmless)
{
	int fd = (int)must_libc(eventfd(1, 0));
	struct onefd_watch watch;

	onefd_watch_init(&watch, fd, count_call);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	close(fd);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	ck_assert_int_eq(onefd_watch_update(&watch, EPOLLIN), -EBADF);
	onefd_watch_stop(&watch);
	onefd_watch_stop(&watch);
	ck_assert_int_eq(onefd_watch_start(loop, &watch, EPOLLIN), -EBADF);
	ck_assert_int_eq(onefd_watch_update(&watch, EPOLLIN), -EINVAL);
}
END_TEST

START_TEST(regular_file_as_watch_is_eperm)
{
	const char *paths[] = { "/proc/self/exe", "/" };
	struct onefd_watch watch;

	for (int i = 0; i < 2; i++) {
		int fd = (int)must_libc(open(paths[i], O_RDONLY));

		onefd_watch_init(&watch, fd, count_call);
		ck_assert_int_eq(onefd_watch_start(loop, &watch, EPOLLIN), -EPERM);
		close(fd);
	}
}
END_TEST

START_TEST(second_start_is_ebusy)
{
	int fd = (int)must_libc(eventfd(0, 0));
	struct onefd_watch watch, other;

	onefd_watch_init(&watch, fd, count_call);
	onefd_watch_init(&other, fd, count_call);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	ck_assert_int_eq(onefd_watch_start(loop, &watch, EPOLLIN), -EBUSY);
	ck_assert_int_eq(onefd_watch_start(loop, &other, EPOLLIN), -EEXIST);
	onefd_watch_stop(&watch);
	must(onefd_watch_start(loop, &other, EPOLLIN));
	onefd_watch_stop(&other);
	close(fd);
}
END_TEST

START_TEST(bad_arguments_are_einval)
{
	struct onefd_watch zeroed = { 0 }, watch;

	onefd_watch_init(NULL, 0, count_call);
	onefd_watch_stop(NULL);
	onefd_watch_stop(&zeroed);
	ck_assert_int_eq(onefd_watch_start(loop, &zeroed, EPOLLIN), -EINVAL);
	ck_assert_int_eq(onefd_watch_start(loop, NULL, EPOLLIN), -EINVAL);
	ck_assert_int_eq(onefd_watch_update(NULL, EPOLLIN), -EINVAL);
	onefd_watch_init(&watch, 0, count_call);
	ck_assert_int_eq(onefd_watch_start(NULL, &watch, EPOLLIN), -EINVAL);
	watch.fd = -1;
	ck_assert_int_eq(onefd_watch_start(loop, &watch, EPOLLIN), -EBADF);
}
END_TEST

static void ask_less(struct onefd_watch *watch, uint32_t events)
{
	count_call(watch, events);
	for (int i = 0; i < WATCHES; i++)
		if (watches[i] != watch)
			must(onefd_watch_update(watches[i], i == 1 ? 0 : EPOLLOUT));
}

/* Whichever runs first, one of the others is to run once, for output only. */
START_TEST(update_in_same_batch_takes_back_events)
{
	for (int i = 0; i < WATCHES; i++) {
		watches[i] = malloc(sizeof *watches[i]);
		onefd_watch_init(watches[i], (int)must_libc(eventfd(1, 0)),
				 i ? count_call : ask_less);
		must(onefd_watch_start(loop, watches[i], EPOLLIN | EPOLLOUT));
	}
	ck_assert_int_eq(onefd_dispatch(loop, -1), 2);
	ck_assert_int_eq(last_events, EPOLLOUT);
	for (int i = 0; i < WATCHES; i++) {
		int fd = watches[i]->fd;

		drop(watches[i]);
		close(fd);
	}
}
END_TEST

START_TEST(oneshot_is_rearmed_by_update)
{
	int fd = (int)must_libc(eventfd(1, 0));
	struct onefd_watch watch;

	onefd_watch_init(&watch, fd, count_call);
	must(onefd_watch_start(loop, &watch, EPOLLIN | EPOLLONESHOT));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	ck_assert_int_eq(onefd_dispatch(loop, 0), 0);
	must(onefd_watch_update(&watch, EPOLLIN | EPOLLONESHOT));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	onefd_watch_stop(&watch);
	close(fd);
}
END_TEST

START_TEST(free_leaves_watches_stopped)
{
	int fd = (int)must_libc(eventfd(1, 0));
	struct onefd_watch watch;

	onefd_watch_init(&watch, fd, count_call);
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	must(onefd_free(loop));
	onefd_watch_stop(&watch);
	ck_assert_int_eq(onefd_watch_update(&watch, EPOLLIN), -EINVAL);
	must(onefd_new(&loop, NULL));
	must(onefd_watch_start(loop, &watch, EPOLLIN));
	ck_assert_int_eq(onefd_dispatch(loop, -1), 1);
	onefd_watch_stop(&watch);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("watch");
	TCase *tcase = add_case(suite, "watch", make_loop, free_loop);

	tcase_add_loop_test(tcase, stop_in_same_batch_suppresses_callback, 0, 3);
	tcase_add_test(tcase, stop_by_a_timer_suppresses_callback);
	tcase_add_test(tcase, closed_descriptor_is_harmless);
	tcase_add_test(tcase, regular_file_as_watch_is_eperm);
	tcase_add_test(tcase, second_start_is_ebusy);
	tcase_add_test(tcase, bad_arguments_are_einval);
	tcase_add_test(tcase, update_in_same_batch_takes_back_events);
	tcase_add_test(tcase, oneshot_is_rearmed_by_update);
	tcase_add_test(tcase, free_leaves_watches_stopped);
	return run_suite(suite);
}
