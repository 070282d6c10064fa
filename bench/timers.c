/*
 * timers.c - a million timers started, moved, cancelled, and run out.
 *
 * Deadlines are random. Timers are started in the order of memory, moved and
 * cancelled in a random one. The warm-up pass times each call by itself, for
 * the quantiles and the longest; the pass that counts looks at the clock twice.
 */
#include <errno.h>
#include <onefd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef HAVE_LIBEV
#include <ev.h>
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#include <event2/event_struct.h>
#endif
#ifdef HAVE_LIBUV
#include <uv.h>
#endif

#include "harness.h"

#define SECOND UINT64_C(1000000000)
#define FAR (3600 * SECOND)	/* nothing runs out while it is measured */

struct set;

/* A library's words for it. Deadlines are nanoseconds from set->base on. */
struct library {
	size_t timer_size;
	int (*open)(struct set *set);
	void (*start)(struct set *set, uint32_t i, uint64_t ns);
	void (*move)(struct set *set, uint32_t i, uint64_t ns);
	void (*cancel)(struct set *set, uint32_t i);
	void (*update)(struct set *set);	/* the loop's idea of now */
	void (*run)(struct set *set);		/* until none is left */
};

struct set {
	const struct library *library;
	struct bench_run *run;
	void *loop, *timer;
	uint32_t count;
	uint32_t *order;		/* a random one */
	uint64_t *when;			/* nanoseconds, random */
	uint64_t base;			/* CLOCK_MONOTONIC */
	uint64_t fired, last;
	struct bench_histogram each;	/* of the warm-up pass */
};

typedef void step_fn(struct set *set, uint32_t i);

static void fired(struct set *set)
{
	uint64_t now;

	set->fired++;
	if (!set->run->warmup)
		return;
	now = bench_now();
	bench_histogram_add(&set->each, now - set->last);
	set->last = now;
}

/* ---- onefd ---------------------------------------------------------------- */

static void on_timer(struct onefd_timer *timer)
{
	fired(timer->data);
}

static int onefd_open(struct set *set)
{
	struct onefd_timer *timer = set->timer;
	struct onefd *loop;
	int r = onefd_new(&loop, NULL);

	if (r < 0)
		return r;
	set->loop = loop;
	for (uint32_t i = 0; i < set->count; i++) {
		onefd_timer_init(&timer[i], on_timer);
		timer[i].data = set;
	}
	return 0;
}

static void onefd_start(struct set *set, uint32_t i, uint64_t ns)
{
	onefd_timer_start(set->loop, (struct onefd_timer *)set->timer + i, set->base + ns);
}

static void onefd_cancel_timer(struct set *set, uint32_t i)
{
	onefd_timer_stop((struct onefd_timer *)set->timer + i);
}

static void onefd_update(struct set *set)
{
	(void)set;	/* its deadlines are absolute */
}

static void onefd_go(struct set *set)
{
	set->run->failed += onefd_run(set->loop) < 0;
}

static const struct library onefd_library = {
	sizeof(struct onefd_timer), onefd_open, onefd_start, onefd_start, onefd_cancel_timer,
	onefd_update, onefd_go,
};

/* ---- libev ------------------------------------------------------------------ */

#ifdef HAVE_LIBEV
static void on_ev(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	fired(timer->data);
}

static int ev_open(struct set *set)
{
	ev_timer *timer = set->timer;

	set->loop = ev_loop_new(EVBACKEND_EPOLL);
	for (uint32_t i = 0; i < set->count; i++) {
		ev_timer_init(&timer[i], on_ev, 0, 0);
		timer[i].data = set;
	}
	return set->loop ? 0 : -ENOMEM;
}

static void ev_begin(struct set *set, uint32_t i, uint64_t ns)
{
	ev_timer *timer = (ev_timer *)set->timer + i;

	ev_timer_set(timer, (double)ns / 1e9, 0);
	ev_timer_start(set->loop, timer);
}

/* ev_timer_again() is its cheapest way to move a timer: it stays in the heap. */
static void ev_move(struct set *set, uint32_t i, uint64_t ns)
{
	ev_timer *timer = (ev_timer *)set->timer + i;

	timer->repeat = (double)ns / 1e9;
	ev_timer_again(set->loop, timer);
}

static void ev_cancel(struct set *set, uint32_t i)
{
	ev_timer_stop(set->loop, (ev_timer *)set->timer + i);
}

static void ev_update(struct set *set)
{
	ev_now_update(set->loop);
}

static void ev_go(struct set *set)
{
	ev_run(set->loop, 0);
}

static const struct library ev_library = {
	sizeof(ev_timer), ev_open, ev_begin, ev_move, ev_cancel, ev_update, ev_go,
};
#endif

/* ---- libevent ---------------------------------------------------------------- */

#ifdef HAVE_LIBEVENT
static void on_event(evutil_socket_t fd, short events, void *data)
{
	(void)fd;
	(void)events;
	fired(data);
}

static int event_open(struct set *set)
{
	struct event *timer = set->timer;

	set->loop = event_base_new();
	if (!set->loop)
		return -ENOMEM;
	for (uint32_t i = 0; i < set->count; i++)
		if (evtimer_assign(&timer[i], set->loop, on_event, set) < 0)
			return -EINVAL;
	return 0;
}

static void event_begin(struct set *set, uint32_t i, uint64_t ns)
{
	struct timeval tv = {
		.tv_sec = (time_t)(ns / SECOND),
		.tv_usec = (suseconds_t)(ns % SECOND / 1000),
	};

	event_add((struct event *)set->timer + i, &tv);
}

static void event_cancel(struct set *set, uint32_t i)
{
	event_del((struct event *)set->timer + i);
}

static void event_update(struct set *set)
{
	event_base_update_cache_time(set->loop);
}

static void event_go(struct set *set)
{
	event_base_dispatch(set->loop);
}

static const struct library event_library = {
	sizeof(struct event), event_open, event_begin, event_begin, event_cancel, event_update,
	event_go,
};
#endif

/* ---- libuv --------------------------------------------------------------------- */

#ifdef HAVE_LIBUV
static void on_uv(uv_timer_t *timer)
{
	fired(timer->data);
}

static int uv_open(struct set *set)
{
	uv_timer_t *timer = set->timer;
	uv_loop_t *loop = malloc(sizeof *loop);
	int r = loop ? uv_loop_init(loop) : -ENOMEM;

	set->loop = loop;
	for (uint32_t i = 0; r == 0 && i < set->count; i++) {
		r = uv_timer_init(loop, &timer[i]);
		timer[i].data = set;
	}
	return r;
}

static void uv_begin(struct set *set, uint32_t i, uint64_t ns)
{
	uv_timer_start((uv_timer_t *)set->timer + i, on_uv, ns / 1000000, 0);
}

static void uv_cancel_timer(struct set *set, uint32_t i)
{
	uv_timer_stop((uv_timer_t *)set->timer + i);
}

static void uv_update(struct set *set)
{
	uv_update_time(set->loop);
}

static void uv_go(struct set *set)
{
	uv_run(set->loop, UV_RUN_DEFAULT);
}

static const struct library uv_library = {
	sizeof(uv_timer_t), uv_open, uv_begin, uv_begin, uv_cancel_timer, uv_update, uv_go,
};
#endif

/* ---- the work -------------------------------------------------------------------- */

static void shuffle(struct set *set, uint64_t *seed)
{
	for (uint32_t i = 0; i < set->count; i++)
		set->order[i] = i;
	for (uint32_t i = set->count - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(bench_random(seed) % (i + 1)), other = set->order[j];

		set->order[j] = set->order[i];
		set->order[i] = other;
	}
}

static int open_with(struct bench_run *run, const struct library *library)
{
	struct set *set = calloc(1, sizeof *set);
	uint64_t seed = bench_seed(run);

	if (!set)
		return -ENOMEM;
	run->state = set;
	set->run = run;
	set->library = library;
	set->count = (uint32_t)run->work->size;
	set->order = calloc(set->count, sizeof *set->order);
	set->when = calloc(2 * (size_t)set->count, sizeof *set->when);
	set->timer = calloc(set->count, library->timer_size);
	if (!set->order || !set->when || !set->timer)
		return -ENOMEM;
	shuffle(set, &seed);
	for (size_t i = 0; i < 2 * (size_t)set->count; i++)
		set->when[i] = bench_random(&seed) % FAR;
	return library->open(set);
}

static void step_start(struct set *set, uint32_t i)
{
	set->library->start(set, i, FAR + set->when[i]);
}

static void step_move(struct set *set, uint32_t i)
{
	i = set->order[i];
	set->library->move(set, i, FAR + set->when[set->count + i]);
}

static void step_cancel(struct set *set, uint32_t i)
{
	set->library->cancel(set, set->order[i]);
}

/* Due within a second: libuv counts in milliseconds, and all must differ. */
static void step_soon(struct set *set, uint32_t i)
{
	set->library->start(set, i, set->when[i] % SECOND);
}

static void all(struct set *set, step_fn *step)
{
	for (uint32_t i = 0; i < set->count; i++)
		step(set, i);
}

static void each_timed(struct set *set, step_fn *step)
{
	uint64_t start;

	for (uint32_t i = 0; i < set->count; i++) {
		start = bench_now();
		step(set, i);
		bench_histogram_add(&set->each, bench_now() - start);
	}
}

static void measure(struct set *set, step_fn *step)
{
	bench_start(set->run);
	if (set->run->warmup)
		each_timed(set, step);
	else
		all(set, step);
	bench_stop(set->run);
}

static void run_out(struct set *set)
{
	uint64_t due = set->base + SECOND + SECOND / 100;
	struct timespec ts = {
		.tv_sec = (time_t)(due / SECOND),
		.tv_nsec = (long)(due % SECOND),
	};

	all(set, step_soon);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
		;
	set->fired = 0;
	bench_start(set->run);
	set->last = set->run->started;
	set->library->run(set);
	bench_stop(set->run);
	set->run->failed += set->fired != set->count;
}

enum step { START, MOVE, CANCEL, FIRE };

static int measure_step(struct bench_run *run)
{
	struct set *set = run->state;
	enum step step = *(const enum step *)run->work->data;

	set->base = bench_now();
	set->library->update(set);
	if (step == MOVE || step == CANCEL)
		all(set, step_start);
	if (step == START)
		measure(set, step_start);
	if (step == MOVE)
		measure(set, step_move);
	if (step == CANCEL)
		measure(set, step_cancel);
	else if (step == FIRE)
		run_out(set);
	else
		all(set, step_cancel);
	run->ops = set->count;
	run->latency = set->each;
	run->longest_ns = set->each.max;
	return 0;
}

/* ---- the program -------------------------------------------------------------------- */

static int onefd_setup(struct bench_run *run)
{
	return open_with(run, &onefd_library);
}

#ifdef HAVE_LIBEV
static int ev_setup(struct bench_run *run)
{
	return open_with(run, &ev_library);
}
#endif

#ifdef HAVE_LIBEVENT
static int event_setup(struct bench_run *run)
{
	return open_with(run, &event_library);
}
#endif

#ifdef HAVE_LIBUV
static int uv_setup(struct bench_run *run)
{
	return open_with(run, &uv_library);
}
#endif

static const struct bench_contender contenders[] = {
	{ "onefd", onefd_setup, measure_step, NULL },
#ifdef HAVE_LIBEV
	{ "libev", ev_setup, measure_step, NULL },
#endif
#ifdef HAVE_LIBEVENT
	{ "libevent", event_setup, measure_step, NULL },
#endif
#ifdef HAVE_LIBUV
	{ "libuv", uv_setup, measure_step, NULL },
#endif
};

static const struct bench_program program = {
	.name = "bench-timers",
	.peer = "libev",
	.help = "  --size A,B,...   timers (1000000)\n",
	.contenders = contenders,
	.count = sizeof contenders / sizeof *contenders,
};

int main(int argc, char **argv)
{
	static const char *const names[] = { "timers-start", "timers-move", "timers-cancel",
					     "timers-fire" };
	struct bench_options options = {
		.rounds = 5,
		.seconds = 1,
		.size = { { 1000000 }, 1 },
	};
	int failures = 0;

	bench_options(&options, &program, argc, argv);
	for (unsigned i = 0; i < options.size.count; i++)
		for (enum step step = START; step <= FIRE; step++) {
			struct bench_case work = {
				.work = names[step],
				.size = options.size.value[i],
				.counted = true,
				.data = &step,
			};

			failures += bench_case(&program, &options, &work);
		}
	return failures ? 1 : 0;
}
