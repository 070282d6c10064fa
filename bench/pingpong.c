/*
 * pingpong.c - bytes that go to and fro over many socket pairs: what a loop
 * adds to each event, beside epoll by hand and three other libraries.
 *
 * Both ends of each pair are watched; whoever reads a byte answers with one.
 * --depth pairs are in play at once, spread evenly over all.
 */
#include <errno.h>
#include <onefd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef HAVE_LIBEV
#include <ev.h>
enum { LIBEV_READ = EV_READ };	/* libevent defines the word anew, as another bit */
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#include <event2/event_struct.h>
#endif
#ifdef HAVE_LIBUV
#include <uv.h>
#endif

#include "harness.h"

#define MAX_EVENTS 64	/* fetched at a time: onefd's own default, and libev's */
#define SPARE_FDS 32	/* for stdio, the loop, and what it inherited */

struct table {
	struct bench_run *run;
	void *loop;
	int *fd;		/* two to a pair */
	void *watch;		/* as many of the contender's own */
	uint64_t count;
	bool over;
};

/* The work itself: false once the time is over. A byte read is always
 * answered, so that the next run finds as many in play. */
static inline bool answer(struct bench_run *run, int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1)
		run->failed++;
	return bench_more(run);
}

static int make_pairs(struct table *table, uint64_t pairs)
{
	for (uint64_t i = 0; i < pairs; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
			       &table->fd[2 * i]) < 0)
			return -errno;
	return 0;
}

static int serve(struct table *table, uint64_t pairs, uint64_t active)
{
	for (uint64_t i = 0; i < active; i++)
		if (write(table->fd[2 * (i * pairs / active)], "x", 1) != 1)
			return -errno;
	return 0;
}

static int table_new(struct bench_run *run, size_t watch_size, struct table **ret)
{
	struct table *table = calloc(1, sizeof *table);
	uint64_t pairs = run->work->size;
	int r;

	if (!table)
		return -ENOMEM;
	run->state = table;
	table->run = run;
	table->count = 2 * pairs;
	table->fd = calloc(table->count, sizeof *table->fd);
	table->watch = calloc(table->count, watch_size);
	if (!table->fd || !table->watch)
		return -ENOMEM;
	r = make_pairs(table, pairs);
	if (r < 0)
		return r;
	*ret = table;
	return serve(table, pairs, run->work->depth);
}

/* ---- onefd ---------------------------------------------------------------- */

static void on_watch(struct onefd_watch *watch, uint32_t events)
{
	struct table *table = watch->data;

	(void)events;
	if (!answer(table->run, watch->fd))
		onefd_stop(table->loop);
}

static int onefd_setup(struct bench_run *run)
{
	struct onefd_config config = { .budget = MAX_EVENTS };
	struct onefd_watch *watch;
	struct table *table;
	struct onefd *loop;
	int r = table_new(run, sizeof *watch, &table);

	if (r < 0)
		return r;
	r = onefd_new(&loop, &config);
	table->loop = loop;
	watch = table->watch;
	for (uint64_t i = 0; r == 0 && i < table->count; i++) {
		onefd_watch_init(&watch[i], table->fd[i], on_watch);
		watch[i].data = table;
		r = onefd_watch_start(loop, &watch[i], EPOLLIN);
	}
	return r;
}

static int onefd_play(struct bench_run *run)
{
	struct table *table = run->state;

	return onefd_run(table->loop);
}

/* ---- epoll, by hand --------------------------------------------------------- */

static int epoll_setup(struct bench_run *run)
{
	struct table *table;
	int *epoll, r = table_new(run, 1, &table);

	if (r < 0)
		return r;
	epoll = table->loop = malloc(sizeof *epoll);
	*epoll = epoll_create1(EPOLL_CLOEXEC);
	if (*epoll < 0)
		return -errno;
	for (uint64_t i = 0; i < table->count; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &table->fd[i] };

		if (epoll_ctl(*epoll, EPOLL_CTL_ADD, table->fd[i], &event) < 0)
			return -errno;
	}
	return 0;
}

static int epoll_play(struct bench_run *run)
{
	struct table *table = run->state;
	struct epoll_event events[MAX_EVENTS];
	bool more = true;
	int n;

	while (more) {
		n = epoll_wait(*(int *)table->loop, events, MAX_EVENTS, -1);
		if (n < 0)
			return -errno;
		/* The whole batch, so that all bytes stay in play. */
		for (int i = 0; i < n; i++)
			more &= answer(run, *(int *)events[i].data.ptr);
	}
	return 0;
}

/* ---- libev -------------------------------------------------------------------- */

#ifdef HAVE_LIBEV
static void on_ev(struct ev_loop *loop, ev_io *watch, int events)
{
	struct table *table = watch->data;

	(void)events;
	if (!answer(table->run, watch->fd))
		ev_break(loop, EVBREAK_ONE);
}

static int ev_setup(struct bench_run *run)
{
	struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL);
	struct table *table;
	ev_io *watch;
	int r = table_new(run, sizeof *watch, &table);

	if (r < 0 || !loop)
		return r < 0 ? r : -ENOMEM;
	table->loop = loop;
	watch = table->watch;
	for (uint64_t i = 0; i < table->count; i++) {
		ev_io_init(&watch[i], on_ev, table->fd[i], LIBEV_READ);
		watch[i].data = table;
		ev_io_start(loop, &watch[i]);
	}
	return 0;
}

static int ev_play(struct bench_run *run)
{
	struct table *table = run->state;

	ev_run(table->loop, 0);
	return 0;
}
#endif

/* ---- libevent ------------------------------------------------------------------ */

#ifdef HAVE_LIBEVENT
static void on_event(evutil_socket_t fd, short events, void *data)
{
	struct table *table = data;

	(void)events;
	/* loopexit, not loopbreak: what was fetched is still answered, as in the others. */
	if (!answer(table->run, fd))
		event_base_loopexit(table->loop, NULL);
}

static int event_setup(struct bench_run *run)
{
	struct event_base *base = event_base_new();
	struct table *table;
	struct event *watch;
	int r = table_new(run, sizeof *watch, &table);

	if (r < 0 || !base)
		return r < 0 ? r : -ENOMEM;
	table->loop = base;
	watch = table->watch;
	for (uint64_t i = 0; i < table->count; i++)
		if (event_assign(&watch[i], base, table->fd[i], EV_READ | EV_PERSIST, on_event,
				 table) < 0 ||
		    event_add(&watch[i], NULL) < 0)
			return -EINVAL;
	return 0;
}

static int event_play(struct bench_run *run)
{
	struct table *table = run->state;

	return event_base_dispatch(table->loop) < 0 ? -EIO : 0;
}
#endif

/* ---- libuv ---------------------------------------------------------------------- */

#ifdef HAVE_LIBUV
static void on_uv(uv_poll_t *watch, int status, int events)
{
	struct table *table = watch->data;
	uint64_t i = (uint64_t)(watch - (uv_poll_t *)table->watch);

	(void)events;
	table->run->failed += status < 0;
	if (!answer(table->run, table->fd[i]))
		uv_stop(watch->loop);
}

static int uv_setup(struct bench_run *run)
{
	uv_loop_t *loop = malloc(sizeof *loop);
	struct table *table;
	uv_poll_t *watch;
	int r = table_new(run, sizeof *watch, &table);

	if (r < 0 || !loop)
		return r < 0 ? r : -ENOMEM;
	r = uv_loop_init(loop);
	table->loop = loop;
	watch = table->watch;
	for (uint64_t i = 0; r == 0 && i < table->count; i++) {
		r = uv_poll_init(loop, &watch[i], table->fd[i]);
		watch[i].data = table;
		if (r == 0)
			r = uv_poll_start(&watch[i], UV_READABLE, on_uv);
	}
	return r;	/* libuv's errors are -errno too */
}

static int uv_play(struct bench_run *run)
{
	struct table *table = run->state;

	uv_run(table->loop, UV_RUN_DEFAULT);
	return 0;
}
#endif

/* ---- the program ------------------------------------------------------------------ */

static const struct bench_contender contenders[] = {
	{ "onefd", onefd_setup, onefd_play, NULL },
	{ "epoll", epoll_setup, epoll_play, NULL },
#ifdef HAVE_LIBEV
	{ "libev", ev_setup, ev_play, NULL },
#endif
#ifdef HAVE_LIBEVENT
	{ "libevent", event_setup, event_play, NULL },
#endif
#ifdef HAVE_LIBUV
	{ "libuv", uv_setup, uv_play, NULL },
#endif
};

static const struct bench_program program = {
	.name = "bench-pingpong",
	.peer = "epoll",
	.help = "  --size A,B,...   socket pairs (100,1000,10000)\n"
		"  --depth A,B,...  bytes in play at once (100)\n",
	.contenders = contenders,
	.count = sizeof contenders / sizeof *contenders,
};

/* How many pairs the limit on descriptors has room for. */
static uint64_t most_pairs(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 100;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= SPARE_FDS)
		return 1;
	return (limit.rlim_cur - SPARE_FDS) / 2;
}

static int one_case(const struct bench_options *options, uint64_t pairs, uint64_t active,
		    uint64_t most)
{
	char note[80] = "";
	struct bench_case work = { .work = "pingpong", .size = pairs, .depth = active };

	if (pairs > most) {
		work.size = most;
		work.note = note;
		snprintf(note, sizeof note, "%llu pairs asked for, descriptors for %llu",
			 (unsigned long long)pairs, (unsigned long long)most);
	}
	if (active > work.size)
		work.depth = work.size;
	return bench_case(&program, options, &work);
}

int main(int argc, char **argv)
{
	struct bench_options options = {
		.rounds = 5,
		.seconds = 1,
		.size = { { 100, 1000, 10000 }, 3 },
		.depth = { { 100 }, 1 },
	};
	uint64_t most = most_pairs();
	int failures = 0;

	bench_options(&options, &program, argc, argv);
	for (unsigned i = 0; i < options.size.count; i++)
		for (unsigned j = 0; j < options.depth.count; j++)
			failures += one_case(&options, options.size.value[i],
					     options.depth.value[j], most);
	return failures ? 1 : 0;
}
